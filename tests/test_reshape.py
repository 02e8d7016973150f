import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements.element import Element, example
from faltung.elements.reshape import Flatten, Reshape
from faltung.errors import SettingError, ShapeError
from faltung.receptive import Field


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    batch=st.integers(0, 3),
    dtype=st.sampled_from([np.float32, np.float64]),
    data=st.data(),
)
@settings(max_examples=60)
def test_entries_keep_their_row_major_order_both_ways(shape, batch, dtype, data):
    sizes = data.draw(st.permutations(shape).map(tuple))
    place = data.draw(st.integers(-1, len(sizes) - 1))
    asked = tuple(-1 if axis == place else size for axis, size in enumerate(sizes))
    random = np.random.default_rng(0)
    x = random.integers(-9, 10, (batch, *shape)).astype(dtype)
    cases: list[tuple[Element, Any]] = [(Flatten(), (math.prod(shape),)), (Reshape(asked), sizes)]
    for element, expected in cases:
        assert element.output(shape) == expected
        y, kept = element.forward({}, x)
        assert y.shape == (batch, *expected)
        assert y.ravel().tolist() == x.ravel().tolist()
        dy = random.integers(-9, 10, y.shape).astype(dtype)
        dx = element.error({}, kept, dy)
        assert dx.shape == x.shape
        assert y.dtype == dx.dtype == dtype
        assert dx.ravel().tolist() == dy.ravel().tolist()
        assert np.sum(dy * y) == np.sum(dx * x)


def test_what_is_kept_serves_one_example_too():
    _, kept = Flatten().forward({}, np.zeros((3, 2, 4)))
    assert Flatten().error({}, example(kept, 1), np.zeros((1, 8))).shape == (1, 2, 4)


def test_no_axis_is_left_that_has_a_field():
    assert Flatten().receptive([(Field(),)], [(4, 1)]) == "varies"
    assert Reshape((2, 2)).receptive([(Field(),)], [(4, 1)]) == "varies"


@pytest.mark.parametrize("element", [Flatten(), Reshape((4, -1))])
def test_open_axes_are_refused_with_the_way_out(element):
    message = r"got an input of \(None, 3\), expected axes of known size; put GlobalPool\(\.\.\.\) or AdaptivePool"
    with pytest.raises(ShapeError, match=message):
        element.output((None, 3))


def test_numbers_of_entries_that_differ_are_refused():
    with pytest.raises(ShapeError, match=r"Reshape\(\(2, 2\)\): got 6 entries in \(2, 3\), expected 4; choose sizes"):
        Reshape((2, 2)).output((2, 3))
    with pytest.raises(ShapeError, match=r"got 8 entries in \(8,\), expected 4"):
        Reshape((2, 2)).output((8,))
    with pytest.raises(ShapeError, match=r"got 6 entries in \(2, 3\), expected a multiple of 4"):
        Reshape((4, -1)).output((2, 3))
    with pytest.raises(ShapeError, match=r"got 0 entries in \(0, 3\), expected a multiple of 4"):
        Reshape((4, -1)).output((0, 3))


@pytest.mark.parametrize("sizes", [(), 4, (0, 2), (-1, -1), (2.0,), (True,), [4, 4], (-2,)])
def test_bad_sizes_are_refused(sizes):
    with pytest.raises(SettingError, match=r"got sizes=.*, expected a tuple of whole numbers of at least 1, one of"):
        Reshape(sizes)


def test_repr_is_the_call():
    assert repr(Flatten()) == "Flatten()"
    assert repr(Reshape((4, 4, -1))) == "Reshape((4, 4, -1))"
