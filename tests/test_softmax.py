import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differences import assert_close, slope
from faltung.elements.softmax import LogSoftmax, Softmax
from faltung.errors import ShapeError

BOTH = [Softmax(), LogSoftmax()]
shapes = st.lists(st.integers(1, 3), min_size=1, max_size=3).flatmap(
    lambda axes: st.integers(1, 5).map(lambda channels: (*axes, channels))
)


@pytest.mark.parametrize("element", BOTH)
@given(shape=shapes, seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_error_is_that_of_central_differences(element, shape, seed):
    random = np.random.default_rng(seed)
    x, dy = random.normal(size=shape), random.normal(size=shape)
    y, kept = element.forward({}, x)
    assert y.shape == shape
    assert_close(element.error({}, kept, dy), slope(lambda x: element.forward({}, x)[0], x, dy))


def test_softmax_is_its_formula_and_log_softmax_its_logarithm():
    x = np.random.default_rng(0).normal(size=(4, 3, 6))
    y, _ = Softmax().forward({}, x)
    assert_close(y, np.exp(x) / np.exp(x).sum(-1, keepdims=True), 1e-15)
    assert_close(LogSoftmax().forward({}, x)[0], np.log(y), 1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("element", BOTH)
def test_large_inputs_neither_overflow_nor_change_the_dtype(element, dtype):
    x = np.array([[3e4, -3e4, 3e4 - 1], [-3e4, -3e4, -3e4]], dtype)
    y, kept = element.forward({}, x)
    dx = element.error({}, kept, np.array([[1, 2, 3], [3, 2, 1]], dtype))
    assert y.dtype == dx.dtype == dtype
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert_close((y if isinstance(element, Softmax) else np.exp(y)).sum(-1), np.ones(2), 1e-6)
    assert_close(dx.sum(-1), np.zeros(2), 1e-6)


@pytest.mark.parametrize("element", BOTH)
def test_minus_infinity_has_probability_0(element):
    y, _ = element.forward({}, np.array([[0.0, -np.inf]]))
    assert y.tolist() == ([[1.0, 0.0]] if isinstance(element, Softmax) else [[0.0, -np.inf]])


@pytest.mark.parametrize("element", BOTH)
def test_shapes(element):
    assert element.output((None, None, 3)) == (None, None, 3)
    assert element.forward({}, np.ones((0, 2, 3)))[0].shape == (0, 2, 3)
    for shape in ((), (4, 0)):
        with pytest.raises(ShapeError, match=r"oftmax\(\): got an input of .*, expected channels on its last axis"):
            element.output(shape)
