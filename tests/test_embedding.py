import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differences import slope
from faltung.elements.element import Parameter, example
from faltung.elements.embedding import Embedding
from faltung.errors import DataError, SettingError, ShapeError


@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple),
    count=st.integers(1, 5),
    channels=st.integers(1, 3),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=50)
def test_it_is_the_product_of_one_hot_vectors_with_w_and_its_gradient_the_adjoint(shape, count, channels, dtype, seed):
    random = np.random.default_rng(seed)
    x = random.integers(0, count, shape, np.int32)
    w = random.integers(-9, 10, (count, channels)).astype(dtype)
    dy = random.integers(-9, 10, (*shape, channels)).astype(dtype)
    element = Embedding(count, channels)
    y, kept = element.forward({"w": w}, x)
    dw = element.gradient({"w": w}, kept, dy)["w"]
    assert y.dtype == dw.dtype == dtype
    one_hot = np.eye(count, dtype=dtype)[x]
    assert np.array_equal(y, one_hot @ w)
    assert np.array_equal(dw, one_hot.reshape(-1, count).T @ dy.reshape(-1, channels))
    assert np.sum(dy * y) == np.sum(dw * w)
    assert element.error({"w": w}, kept, dy) is None


def test_gradient_is_that_of_central_differences():
    random = np.random.default_rng(0)
    x, w, dy = np.array([[1, 3, 1], [0, 1, 3]]), random.normal(size=(4, 2)), random.normal(size=(2, 3, 2))
    element = Embedding(4, 2)
    _, kept = element.forward({"w": w}, x)
    numeric = slope(lambda w: element.forward({"w": w}, x)[0], w, dy)
    assert np.allclose(element.gradient({"w": w}, kept, dy)["w"], numeric, rtol=0, atol=1e-9)


def test_shares_of_the_examples_add_up_to_the_gradient():
    random = np.random.default_rng(0)
    x, dy = random.integers(0, 3, (4, 5)), random.integers(-9, 10, (4, 5, 2)).astype(np.float64)
    params = {"w": np.zeros((3, 2))}
    _, kept = Embedding(3, 2).forward(params, x)
    shares = [Embedding(3, 2).gradient(params, example(kept, n), dy[n : n + 1])["w"] for n in range(4)]
    assert np.array_equal(sum(shares), Embedding(3, 2).gradient(params, kept, dy)["w"])


def test_shapes_and_parameters():
    element = Embedding(256, 32)
    assert element.takes_indices
    assert element.output((None,)) == (None, 32)
    assert element.output(()) == (32,)
    assert element.parameters((None,)) == {"w": Parameter((256, 32), "normal")}
    assert element.multiplications((100,)) == 0
    assert repr(element) == "Embedding(256, 32)"


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, np.int64])
def test_any_integers_are_indices(dtype):
    y, _ = Embedding(200, 1).forward({"w": np.arange(200.0)[:, None]}, np.array([[0, 100]], dtype))
    assert y.ravel().tolist() == [0.0, 100.0]


@pytest.mark.parametrize(("x", "value", "at"), [([[0, 2], [3, -1]], "3", r"\(1, 0\)"), ([[-1]], "-1", r"\(0, 0\)")])
def test_an_index_out_of_range_is_named_with_its_position(x, value, at):
    message = rf"Embedding\(3, 1\): got index {value} at {at}, expected 0 to 2; count from 0, or make count larger"
    with pytest.raises(DataError, match=message):
        Embedding(3, 1).forward({"w": np.zeros((3, 1))}, np.array(x))


@pytest.mark.parametrize("x", [np.zeros((1, 2)), np.zeros((1, 2), np.float32), np.zeros((1, 2), bool)])
def test_what_are_no_integers_is_refused(x):
    with pytest.raises(DataError, match=r"got indices of (float64|float32|bool), expected integers; convert them"):
        Embedding(3, 1).forward({"w": np.zeros((3, 1))}, x)


def test_bad_settings_and_parameters_are_refused():
    with pytest.raises(SettingError, match=r"got count=0, expected a whole number of at least 1; choose another value"):
        Embedding(0, 1)
    with pytest.raises(SettingError, match=r"got channels=1.5, expected a whole number of at least 1"):
        Embedding(1, 1.5)  # pyright: ignore[reportArgumentType] -- that is the test
    with pytest.raises(ShapeError, match=r"got w of shape \(2, 1\), expected \(3, 1\)"):
        Embedding(3, 1).forward({"w": np.zeros((2, 1))}, np.array([[0]]))
