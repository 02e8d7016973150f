from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differences import assert_close, slope
from faltung.elements.edges import Crop, Pad
from faltung.elements.element import example
from faltung.errors import SettingError, ShapeError
from faltung.geometry import Window
from faltung.receptive import Field


def integers(seed, shape, dtype=np.float64):
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


def fields(element, seen, shapes):
    seen_by_y = element.receptive(seen, shapes)
    assert not isinstance(seen_by_y, str)
    return seen_by_y


axis = st.tuples(st.integers(1, 5), st.integers(0, 6), st.integers(0, 6))  # size, before, after
axes = st.lists(axis, min_size=1, max_size=3)
dtypes = st.sampled_from([np.float32, np.float64])


def source(mode, t, size):
    """The entry that stands at t, by the definition of each mode; None is a constant."""
    if 0 <= t < size:
        return t
    if mode == "constant":
        return None
    if mode == "edge":
        return 0 if t < 0 else size - 1
    return -t if t < 0 else 2 * (size - 1) - t


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@given(axes=axes, batch=st.integers(0, 2), dtype=dtypes, seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_pad_places_every_entry_and_its_error_is_the_adjoint(mode, axes, batch, dtype, seed):
    if mode == "reflect":
        axes = [(size, min(before, size - 1), min(after, size - 1)) for size, before, after in axes]
    sizes, pairs = tuple(size for size, _, _ in axes), tuple((before, after) for _, before, after in axes)
    x = integers(seed, (batch, *sizes, 2), dtype)
    pad = Pad(pairs, mode=mode)
    y, kept = pad.forward({}, x)
    assert pad.linear
    assert y.shape[1:] == pad.output(x.shape[1:])
    expected = x
    for place, (size, before, after) in enumerate(axes, start=1):
        read = [source(mode, t, size) for t in range(-before, size + after)]
        rows = [np.zeros_like(expected.take(0, place)) if s is None else expected.take(s, place) for s in read]
        expected = np.stack(rows, place)
    assert np.array_equal(y, expected)
    dy = integers(seed + 1, y.shape, dtype)
    dx = pad.error({}, kept, dy)
    assert y.dtype == dx.dtype == dtype
    assert dx.shape == x.shape
    assert np.sum(dy * y) == np.sum(dx * x)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad_error_is_that_of_central_differences(mode):
    x, pad = integers(0, (2, 3, 4, 1)), Pad(((2, 1), (0, 3)), mode=mode)
    y, kept = pad.forward({}, x)
    dy = np.random.default_rng(1).normal(size=y.shape)
    before = dy.copy()
    assert_close(pad.error({}, kept, dy), slope(lambda x: pad.forward({}, x)[0], x, dy))
    assert np.array_equal(dy, before)


@given(axes=axes, batch=st.integers(0, 2), dtype=dtypes, seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_crop_takes_back_a_pad_and_each_is_the_error_of_the_other(axes, batch, dtype, seed):
    sizes, pairs = tuple(size for size, _, _ in axes), tuple((before, after) for _, before, after in axes)
    crop, pad = Crop(pairs), Pad(pairs)
    small = integers(seed, (batch, *sizes, 2), dtype)
    large, kept_pad = pad.forward({}, small)
    again, kept_crop = crop.forward({}, large)
    assert np.array_equal(again, small)
    x = integers(seed + 1, large.shape, dtype)
    dx = crop.error({}, kept_crop, small)
    assert again.dtype == dx.dtype == dtype
    assert np.array_equal(dx, large)
    assert np.array_equal(pad.error({}, kept_pad, x), crop.forward({}, x)[0])
    assert crop.output(large.shape[1:]) == small.shape[1:]


def test_amounts_in_their_three_forms():
    x = integers(0, (1, 5, 6, 2))
    assert np.array_equal(Crop(1).forward({}, x)[0], x[:, 1:4, 1:5])
    assert np.array_equal(Crop((0, 2)).forward({}, x)[0], x[:, :3, :4])
    assert np.array_equal(Crop(((1, 2), (0, 0))).forward({}, x)[0], x[:, 1:3])
    assert Pad(1).output((5, 6, 2)) == (7, 8, 2)
    assert Pad((0, 2)).output((5, None, 2)) == (7, None, 2)
    assert Pad(((1, 2), (0, 0))).output((5, 6, 2)) == (8, 6, 2)
    assert Crop(2).output((None, 6, None)) == (None, 2, None)


@pytest.mark.parametrize(
    ("size", "left", "align", "start"), [(5, 2, "centre", 1), (6, 2, "centre", 2), (5, 2, "start", 0)]
)
def test_crop_to_a_size(size, left, align, start):
    x = integers(0, (2, size, 3))
    expected = x[:, start : start + left]
    crop = Crop(size=left, align=align)
    assert np.array_equal(crop.forward({}, x)[0], expected)
    like = Crop(size="like", align=align)
    assert (crop.arity, like.arity) == (1, 2)
    y, kept = like.forward({}, (x, np.zeros((2, left, 7))))
    assert np.array_equal(y, expected)
    dx, none = like.error({}, kept, y)
    assert none is None
    assert np.array_equal(dx[:, start : start + left], y)
    assert np.sum(dx * x) == np.sum(y * y)
    assert np.array_equal(like.error({}, example(kept, 1), y[1:])[0], dx[1:])


def test_sizes_of_crops_whose_axes_are_open():
    assert Crop(size=(2, 3)).output((None, 4, 8)) == (2, 3, 8)
    assert Crop(size="like").output((None, 6, 8), (None, 4, 1)) == (None, 4, 8)
    assert Crop(size="like").output((None, 8), (5, 1)) == (5, 8)


def test_pad_with_a_constant():
    pad = Pad((1, 2), value=0.1)
    assert not pad.linear
    for dtype in (np.float32, np.float64):
        y, _ = pad.forward({}, np.ones((1, 1, 1), dtype))
        assert y.dtype == dtype
        assert np.array_equal(y.ravel(), np.array([0.1, 1, 0.1, 0.1], dtype))


def test_fields_are_shifted():
    seen = [(Field().through(Window(kernel=3, stride=2)), Field())]
    field, other = fields(Crop(((2, 1), (0, 0))), seen, [(9, 9, 1)])
    assert field.of(0) == seen[0][0].of(2)
    assert field.of(3) == seen[0][0].of(5)
    assert other == Field()
    field, _ = fields(Pad(((2, 1), (0, 0))), seen, [(9, 9, 1)])
    assert field.of(2) == seen[0][0].of(0)
    assert Crop(1).receptive(["varies"], [(9, 9, 1)]) == "varies"
    assert Pad(1).receptive(["all"], [(9, 9, 1)]) == "all"


def test_fields_of_upsampled_units_turn_with_the_shift():
    doubled = Field().through_transposed(Window(kernel=3, stride=2))
    (field,) = fields(Crop((1, 0)), [(doubled,)], [(9, 1)])
    assert [field.of(unit) for unit in range(4)] == [doubled.of(unit + 1) for unit in range(4)]
    assert field.jump == doubled.jump


def test_fields_of_a_centred_crop_know_their_start_once_the_sizes_are_known():
    (known,) = fields(Crop(size=2), [(Field(),)], [(7, 1)])
    assert known.start == 2
    (adrift,) = fields(Crop(size=2), [(Field(),)], [(None, 1)])
    assert (adrift.start, adrift.size) == (None, 1)
    (start,) = fields(Crop(size="like", align="start"), [(Field(),), None], [(None, 1), (None, 1)])
    assert start.start == 0


@pytest.mark.parametrize("element", [Crop(1), Crop(size=1), Pad(1)])
def test_an_input_without_axes_is_refused(element):
    with pytest.raises(
        ShapeError, match=r"got an input of \(8,\), expected \(\*axes, channels\); put it before Flatten"
    ):
        element.output((8,))


def test_crops_that_leave_nothing_are_refused():
    with pytest.raises(
        ShapeError, match=r"Crop\(\(2, 3\)\): got size 5 on axis 1, of which 0 would be left, expected 1"
    ):
        Crop((2, 3)).output((9, 5, 1))
    with pytest.raises(ShapeError, match=r"got size 5 on axis 0, of which 6 would be left, expected 1 to 5; crop less"):
        Crop(None, size=6).output((5, 1))
    with pytest.raises(ShapeError, match=r"got size 4 on axis 0, of which 5 would be left"):
        Crop(size="like").output((4, 1), (5, 1))
    with pytest.raises(ShapeError, match=r"got inputs of \(4, 1\), \(4, 4, 1\), expected as many axes; take a second"):
        Crop(size="like").output((4, 1), (4, 4, 1))
    with pytest.raises(ShapeError, match=r"Crop\(\(\(1, 1\), \(0, 0\)\)\): .*amount"):
        Crop(((1, 1), (0, 0))).output((4, 1))
    with pytest.raises(ShapeError, match=r"size"):
        Crop(size=(2, 2)).output((4, 1))


def test_pads_that_do_not_fit_are_refused():
    message = (
        r"Pad\(3, mode='reflect'\): got size 3 on axis 0, of which 3 would be reflected, expected more than 3; pad"
    )
    with pytest.raises(ShapeError, match=message):
        Pad(3, mode="reflect").output((3, 1))
    with pytest.raises(ShapeError, match=r"Pad\(1\): got an axis of size 0 on axis 0, expected at least 1"):
        Pad(1).output((0, 1))


@pytest.mark.parametrize("amount", [-1, 1.0, "same", True, (1,), (1, -1), ((1, 2), 3), ((1, 2, 3),), (), [1, 2]])
def test_bad_amounts_are_refused(amount):
    message = r"got amount=.*, expected a whole number from 0, a pair \(before, after\) of them, or a pair an axis"
    for element in (Crop, Pad):
        with pytest.raises(SettingError, match=message):
            element(amount)


def test_bad_settings_are_refused():
    bad: tuple[Any, ...] = (None, 0, "other", 1.5, (2, 0), ())
    for size in bad:
        with pytest.raises(SettingError, match=r'got size=.*, expected a size, one an axis, or "like"'):
            Crop(size=size)
    with pytest.raises(SettingError, match=r"got amount=1, expected None where size or align is given"):
        Crop(1, size=2)
    with pytest.raises(SettingError, match=r"got amount=1, expected None where size or align is given"):
        Crop(1, align="start")
    with pytest.raises(SettingError, match=r"got align='end', expected one of 'centre', 'start'"):
        Crop(size=1, align="end")
    with pytest.raises(SettingError, match=r"got mode='wrap', expected one of 'constant', 'reflect', 'edge'"):
        Pad(1, mode="wrap")
    with pytest.raises(SettingError, match=r"got value=2, expected 0 where the mode is not constant"):
        Pad(1, mode="edge", value=2)
    with pytest.raises(SettingError, match=r"got value=inf, expected a finite number; choose another value of value"):
        Pad(1, value=float("inf"))


@pytest.mark.parametrize(
    "element", [Crop(1), Crop(((1, 2), (0, 0))), Crop(size="like", align="start"), Pad((1, 2), value=1.5)]
)
def test_repr_is_the_call(element):
    assert eval(repr(element)) == element
