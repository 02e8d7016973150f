"""Compiled sums, products and concatenations: bit for bit what the definitions give."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import Concat, Product, Sum
from faltung.engine.kernels.elementwise import BLOCK
from faltung.engine.lower.joins import LOWERINGS, MOST
from faltung.errors import ShapeError
from lowered import FLOATS, compare


def inputs(*shapes: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> tuple[Any, ...]:
    """Small whole numbers, so that products are exact in float32."""
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(-2, 3, shape).astype(dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("element", [Sum(), Product(), Concat()], ids=repr)
def test_agrees_on_every_machine_between_guards(element, dtype, machine, end):
    for channels in (1, 5, 16, 33):
        compare(element, {}, inputs(*[(3, 2, channels)] * 3, dtype=dtype), end=end)


@pytest.mark.parametrize("element", [Sum(), Product()], ids=repr)
@pytest.mark.parametrize("count", [2, 3, MOST - 1, MOST, MOST + 1, 2 * MOST, 20])
def test_any_number_of_inputs_in_the_order_of_the_definition(element, count):
    rng = np.random.default_rng(count)
    x = tuple(rng.normal(size=(2, 7, 5)).astype(np.float32) for _ in range(count))
    dy = rng.normal(size=(2, 7, 5)).astype(np.float32)
    forward, error, _ = LOWERINGS[type(element)]
    y, kept = forward(element, {}, x)
    expected, law_kept = element.forward({}, x)
    np.testing.assert_array_equal(y, expected)
    for one, other in zip(error(element, {}, kept, dy), element.error({}, law_kept, dy), strict=True):
        np.testing.assert_array_equal(one, other)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=3), st.lists(st.integers(1, 20), min_size=2, max_size=5),
    st.sampled_from([-1, 0, 1, 2]), st.sampled_from(FLOATS), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_concatenation_along_any_axis(shape, sizes, axis, dtype, seed):
    axis = axis if axis < len(shape) else -1
    shapes = []
    for size in sizes:
        changed = list(shape)
        changed[axis] = size
        shapes.append((2, *changed))
    compare(Concat(axis=axis), {}, inputs(*shapes, dtype=dtype, seed=seed), seed=seed)


@pytest.mark.parametrize("element", [Sum(), Product(), Concat()], ids=repr)
@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK + 1, 3 * BLOCK + 7])
def test_several_blocks(element, count):
    compare(element, {}, inputs((2, count), (2, count), dtype=np.float32))


def test_many_rows():
    compare(Concat(), {}, inputs((BLOCK, 3), (BLOCK, 1), (BLOCK, 20), dtype=np.float32))


def test_inputs_that_do_not_lie_side_by_side():
    x = tuple(array.transpose(0, 2, 1) for array in inputs((2, 3, 4), (2, 3, 4)))
    for element in (Sum(), Product(), Concat()):
        forward, error, _ = LOWERINGS[type(element)]
        y, kept = forward(element, {}, x)
        np.testing.assert_array_equal(y, element.forward({}, x)[0])
        dy = np.arange(y.size, dtype=float).reshape(y.shape[::-1]).T
        for one, other in zip(error(element, {}, kept, dy), element.error({}, kept, dy), strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.flags.c_contiguous or one is dy


@pytest.mark.parametrize("element", [Sum(), Product(), Concat(axis=0)], ids=repr)
def test_batches_of_different_size_are_refused(element):
    with pytest.raises(ShapeError, match="expected equal batches"):
        LOWERINGS[type(element)][0](element, {}, inputs((2, 3), (1, 3)))
