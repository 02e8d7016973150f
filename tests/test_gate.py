"""The gate of WaveNet and the offset of an example: law against formula, checks, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differences import assert_close, slope
from faltung.check import adjoint_check, element_check
from faltung.elements.element import example
from faltung.elements.gate import Gate, Offset
from faltung.errors import ShapeError
from faltung.geometry import Window
from faltung.network import Graph, Node
from faltung.receptive import Field

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
dtypes = st.sampled_from([np.float32, np.float64])


@given(shape=shapes, channels=st.integers(1, 4), dtype=dtypes, seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_a_gate_is_its_formula(shape, channels, dtype, seed):
    random = np.random.default_rng(seed)
    x = (3 * random.normal(size=(*shape, 2 * channels))).astype(dtype)
    y, kept = Gate().forward({}, x)
    dy = random.normal(size=y.shape).astype(dtype)
    dx = Gate().error({}, kept, dy)
    wide = x.astype(np.float64)
    first, second = wide[..., :channels], wide[..., channels:]
    assert y.dtype == dx.dtype == dtype
    assert y.shape[1:] == Gate().output(x.shape[1:])
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    assert_close(y.astype(np.float64), np.tanh(first) / (1 + np.exp(-second)), tolerance)
    share = 1 / (1 + np.exp(-second))
    by_first, by_second = share / np.cosh(first) ** 2, np.tanh(first) * share * (1 - share)
    expected = np.concatenate((dy * by_first, dy * by_second), -1)
    assert_close(dx.astype(np.float64), expected, tolerance)


def test_the_error_of_a_gate_is_its_slope():
    random = np.random.default_rng(0)
    x, dy = random.normal(size=(2, 3, 4)), random.normal(size=(2, 3, 2))
    _, kept = Gate().forward({}, x)
    assert_close(Gate().error({}, kept, dy), slope(lambda x: Gate().forward({}, x)[0], x, dy))
    assert element_check(Gate(), (5, 6)).passed()


def test_a_gate_is_not_broken_by_large_numbers():
    y, kept = Gate().forward({}, np.array([[1e4, -1e4, 1e4, 1e4, 1e4, -1e4]]))
    assert y.tolist() == [[1.0, -1.0, 0.0]]
    assert Gate().error({}, kept, np.ones((1, 3))).tolist() == [[0.0] * 6]


@given(shape=shapes, channels=st.integers(1, 4), batch=st.integers(1, 3), dtype=dtypes, seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_an_offset_is_added_at_every_position_and_its_errors_are_exact(shape, channels, batch, dtype, seed):
    random = np.random.default_rng(seed)
    x, h, dy = (
        random.integers(-9, 10, size).astype(dtype)
        for size in ((batch, *shape, channels), (batch, channels), (batch, *shape, channels))
    )
    y, kept = Offset().forward({}, (x, h))
    dx, dh = Offset().error({}, kept, dy)
    assert {array.dtype for array in (y, dx, dh)} == {np.dtype(dtype)}
    assert all(np.array_equal(y[place], x[place] + h[place[0]]) for place in np.ndindex(batch, *shape))
    assert np.array_equal(dx, dy)
    assert np.array_equal(dh, dy.reshape(batch, -1, channels).sum(1))
    assert np.sum(dy * y) == np.sum(dx * x) + np.sum(dh * h)


def test_an_offset_is_linear_in_both():
    assert adjoint_check(Offset(), (5, 3, 4), (4,)).passed()


def test_what_is_kept_can_be_cut_to_one_example():
    random = np.random.default_rng(0)
    x, h, dy = random.normal(size=(3, 5, 4)), random.normal(size=(3, 4)), random.normal(size=(3, 5, 4))
    _, kept = Gate().forward({}, x)
    one = Gate().error({}, example(kept, 1), dy[1:2, :, :2])
    assert np.array_equal(one, Gate().error({}, kept, dy[..., :2])[1:2])
    _, kept = Offset().forward({}, (x, h))
    for one, whole in zip(Offset().error({}, example(kept, 1), dy[1:2]), Offset().error({}, kept, dy), strict=True):
        assert np.array_equal(one, whole[1:2])


def test_shapes_and_receptive_fields():
    assert Gate().output((None, 6)) == (None, 3)
    assert Gate().output((8,)) == (4,)
    assert Offset().output((None, None, 6), (6,)) == (None, None, 6)
    seen = (Field().through(Window(3)),)
    assert Gate().receptive([seen], [(9, 4)]) == seen
    assert Offset().receptive([seen, ()], [(9, 4), (4,)]) == seen
    assert Offset().receptive([seen, "all"], [(9, 4), (4,)]) == "all"
    assert [repr(element) for element in (Gate(), Offset())] == ["Gate()", "Offset()"]


def test_both_run_on_either_executor():
    random = np.random.default_rng(0)
    net = Graph(y=Node(Offset(), "x", "h"), z=Node(Gate(), "y")).on(x=(None, 4), h=(4,))
    inputs = {"x": random.normal(size=(2, 7, 4)), "h": random.normal(size=(2, 4))}
    native, law = (net.on_executor(name).predict({}, inputs) for name in ("native", "reference"))
    assert_close(native, law, 1e-12)


@pytest.mark.parametrize("shape", [(5, 3), (3,), (5, None), ()])
def test_a_gate_needs_an_even_number_of_channels(shape):
    with pytest.raises(ShapeError, match=r"Gate\(\): got an input of .*, expected an even number of channels; give it"):
        Gate().output(shape)


@pytest.mark.parametrize("shapes", [((5, 4), (3,)), ((5, 4), (5, 4)), ((4,), (4,)), ((5, 4), ())])
def test_an_offset_needs_a_vector_of_as_many_channels(shapes):
    with pytest.raises(
        ShapeError, match=r"Offset\(\): got inputs of .*, expected \(\*axes, channels\) and a vector of"
    ):
        Offset().output(*shapes)


def test_an_offset_is_not_repeated_over_examples():
    with pytest.raises(ShapeError, match="got batches of 3 and 1, expected one vector an example; give as many"):
        Offset().forward({}, (np.ones((3, 5, 2)), np.ones((1, 2))))
