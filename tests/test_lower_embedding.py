"""Compiled embedding: bit for bit what the NumPy definition gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import Embedding
from faltung.engine.lower.embedding import LOWERINGS, RANGES
from faltung.errors import DataError
from lowered import FLOATS, compare

forward, error, gradient = LOWERINGS[Embedding]


def weights(element, dtype=np.float64):
    return {"w": np.random.default_rng(0).integers(-9, 10, (element.count, element.channels)).astype(dtype)}


@pytest.mark.parametrize("dtype", FLOATS)
def test_agrees_on_every_machine_between_guards(dtype, machine, end):
    for channels in (1, 3, 16, 17):
        element = Embedding(20, channels)
        x = np.random.default_rng(1).integers(0, 20, (3, 11))
        compare(element, weights(element, dtype), x, end=end)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=3), st.integers(1, 3 * RANGES), st.integers(1, 40),
    st.sampled_from([np.int64, np.int32, np.uint8, np.uint64]), st.sampled_from(FLOATS),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_any_shape_and_kind_of_indices(shape, count, channels, kind, dtype):
    element = Embedding(count, channels)
    x = np.random.default_rng(1).integers(0, count, shape).astype(kind)
    compare(element, weights(element, dtype), x)


def test_the_gradient_is_summed_in_the_order_of_the_definition():
    rng, element = np.random.default_rng(0), Embedding(5, 7)
    x, dy = rng.integers(0, 5, (4, 300)), rng.normal(size=(4, 300, 7)).astype(np.float32)
    np.testing.assert_array_equal(gradient(element, {}, x, dy)["w"], element.gradient({}, x, dy)["w"])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[0, 3]], r"got index 3 at \(0, 1\), expected 0 to 2"),
        ([[-1, 0]], r"got index -1 at \(0, 0\), expected 0 to 2"),
        ([[0.0]], "got indices of float64, expected integers"),
    ],
)
def test_wrong_indices_are_refused_as_by_the_definition(x, message):
    element = Embedding(3, 2)
    with pytest.raises(DataError, match=message):
        forward(element, weights(element), np.array(x))
