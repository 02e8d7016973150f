"""Compiled softmax and its logarithm against their NumPy definitions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import LogSoftmax, Softmax
from faltung.engine.host.machine import host
from faltung.engine.kernels.elementwise import BLOCK
from faltung.engine.lower.softmax import FEW, LOWERINGS
from faltung.errors import ShapeError
from lowered import FLOATS, compare

ELEMENTS = (Softmax(), LogSoftmax())


def logits(*shape: int, dtype: Any = np.float64, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(scale=4, size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_agrees_on_every_machine_between_guards(element, dtype, machine, end):
    for channels in (1, 3, 16, 17, 40):
        compare(element, {}, logits(5, channels, dtype=dtype), end=end, tolerance=8)


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
@given(
    st.lists(st.integers(0, 5), max_size=3), st.integers(1, 70), st.sampled_from(FLOATS), st.integers(0, 99)
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_any_shape(element, axes, channels, dtype, seed):
    compare(element, {}, logits(2, *axes, channels, dtype=dtype, seed=seed), tolerance=12, seed=seed)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_rows_whose_length_is_compiled_in_and_longer_ones(element, dtype, end):
    most = FEW * host().lanes(np.dtype(dtype).itemsize)
    for channels in (most - 1, most, most + 1):
        compare(element, {}, logits(5, channels, dtype=dtype), end=end, tolerance=16)


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
@pytest.mark.parametrize("channels", [BLOCK - 1, BLOCK + 1, 3 * BLOCK + 5])
def test_long_rows(element, channels):
    compare(element, {}, logits(2, channels, dtype=np.float32), tolerance=100)  # the error of LogSoftmax sums dy


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_many_rows_make_several_tasks(element):
    compare(element, {}, logits(3 * BLOCK // 5, 5, dtype=np.float32), tolerance=8)


@pytest.mark.parametrize("dtype", FLOATS)
def test_large_logits_do_not_overflow(dtype):
    x = np.array([[1e4, 0, 1e4], [-3e4, -3e4 - 1, 0]], dtype)
    assert LOWERINGS[Softmax][0](Softmax(), {}, x)[0].tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]]
    y, _ = LOWERINGS[LogSoftmax][0](LogSoftmax(), {}, x)
    np.testing.assert_allclose(y, LogSoftmax().forward({}, x)[0], rtol=1e-6)


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_infinite_logits_and_nan_are_as_in_the_definition(element):
    nan, inf = np.nan, np.inf
    x = np.array([[nan, 1, 2], [1, 2, nan], [0, 1, -inf], [-inf, 0, -inf], [inf, 0, 1], [-inf, -inf, -inf]])
    with np.errstate(all="ignore"):
        expected, _ = element.forward({}, x)
    y, _ = LOWERINGS[type(element)][0](element, {}, x)
    np.testing.assert_allclose(y, expected, rtol=1e-15)


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_no_channels(element):
    with pytest.raises(ShapeError, match="expected channels on its last axis"):
        LOWERINGS[type(element)][0](element, {}, np.zeros((3, 0)))


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_a_row_has_the_same_bits_wherever_it_stands(element):
    x = logits(9, 37, dtype=np.float32)
    y, _ = LOWERINGS[type(element)][0](element, {}, x)
    for n in range(9):
        alone, _ = LOWERINGS[type(element)][0](element, {}, x[n : n + 1])
        np.testing.assert_array_equal(alone[0], y[n])
