"""Compiled crop and pad against their NumPy definitions: always the same bits."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import Crop, Pad
from faltung.elements.element import example
from faltung.engine.host.compile import counters
from faltung.engine.kernels import margins
from faltung.engine.lower import edges
from faltung.errors import ShapeError
from guard import copied
from lowered import FLOATS

CHANNELS = [1, 2, 3, 5, 15, 16, 17, 33, 128, 150]


@pytest.fixture(autouse=True)
def new_plans():
    for cached in (edges._cut, edges._padded, edges._surrounded, edges._summed):
        cached.cache_clear()


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_same(element: Any, x: Any, *, like: Any = None, end: bool = True) -> None:
    """The same bits as the definition in the same dtype."""
    forward, error, gradient = edges.LOWERINGS[type(element)]
    y, kept = element.forward({}, x if like is None else (x, like))
    dy, given = normal(*y.shape, dtype=x.dtype, seed=1), copied(x, end)
    fast, fast_kept = forward(element, {}, given if like is None else (given, like))
    dx, fast_dx = element.error({}, kept, dy), error(element, {}, fast_kept, copied(dy, end))
    if like is not None:
        assert fast_dx[1] is None
        dx, fast_dx = dx[0], fast_dx[0]
    assert fast.dtype == fast_dx.dtype == x.dtype
    np.testing.assert_array_equal(fast, y)
    np.testing.assert_array_equal(fast_dx, dx)
    assert gradient(element, {}, fast_kept, dy) == {}


ENDS = st.tuples(st.integers(0, 4), st.integers(0, 4))
AXES = st.lists(st.tuples(st.integers(1, 9), ENDS), min_size=1, max_size=3)
VARIANTS = {
    "channels": st.sampled_from(CHANNELS),
    "dtype": st.sampled_from(FLOATS),
    "block": st.sampled_from([1, 90, 16384]),
}


@given(axes=AXES, mode=st.sampled_from(["constant", "reflect", "edge"]), **VARIANTS)
@settings(max_examples=60, deadline=None)
def test_padding_has_the_bits_of_the_definition(axes, mode, channels, dtype, block):
    sizes, amount = zip(*axes, strict=True)
    if mode == "reflect":
        sizes = tuple(max(size, 1 + max(pair)) for size, pair in axes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(margins, "BLOCK", block)
        edges._surrounded.cache_clear()
        edges._padded.cache_clear()
        x = normal(2, *sizes, channels, dtype=dtype)
        assert_same(Pad(amount, mode=mode, value=-1.7 if mode == "constant" and block == 90 else 0.0), x)


@given(axes=AXES, **VARIANTS)
@settings(max_examples=40, deadline=None)
def test_cropping_has_the_bits_of_the_definition(axes, channels, dtype, block):
    sizes, amount = [size + sum(pair) for size, pair in axes], tuple(pair for _, pair in axes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(margins, "BLOCK", block)
        edges._surrounded.cache_clear()
        edges._cut.cache_clear()
        x = normal(2, *sizes, channels, dtype=dtype)
        assert_same(Crop(amount), x)
        assert_same(Crop(size="like"), x, like=normal(2, *(size for size, _ in axes), 1))


ELEMENTS = [
    Pad(1),
    Pad((3, 0), value=2.5),
    Pad((2, 3), mode="reflect"),
    Pad((0, 2), mode="edge"),
    Crop(1),
    Crop((0, 2)),
]


def test_every_machine_keeps_inside_its_buffers(machine, end):
    for element in ELEMENTS:
        for channels, dtype in ((1, np.float32), (3, np.float64), (17, np.float32)):
            for sizes in ((37,), (5, 40), (4, 4, 6)):
                assert_same(element, normal(2, *sizes, channels, dtype=dtype), end=end)


@pytest.mark.parametrize("channels", CHANNELS)
def test_rows_around_whole_vectors(channels, end):
    for size in (4, 5, 15, 16, 17, 32, 33):
        for element in (Pad(2), Pad(2, mode="edge"), Crop(1)):
            assert_same(element, normal(1, 4, size, channels), end=end)


def test_infinities_and_nan_are_moved_like_numbers():
    x = np.random.default_rng(0).choice(np.array([0.0, -np.inf, np.inf, np.nan], np.float32), (2, 7, 9, 3))
    for element in ELEMENTS:
        assert_same(element, x)


def test_what_lies_side_by_side_is_a_view_and_all_else_a_copy():
    for examples in (1, 2):
        x, dy = normal(examples, 5, 3), normal(examples, 7, 3)
        y, dx = edges.crop_forward(Crop(1), {}, x)[0], edges.pad_error(Pad(1), {}, (5,), dy)
        assert y.flags.c_contiguous
        assert dx.flags.c_contiguous
        assert np.shares_memory(y, x) == np.shares_memory(dx, dy) == (examples == 1)


def test_nothing_is_compiled_for_another_size():
    def run(element: Any, *sizes: int) -> None:
        forward, error, _ = edges.LOWERINGS[type(element)]
        for channels in (3, 20):
            y, kept = forward(element, {}, normal(*sizes, channels))
            error(element, {}, kept, y)

    for element in ELEMENTS:
        run(element, 1, 8, 9)
    before = counters.compiled + counters.loaded
    for size in range(50):
        for element in ELEMENTS:
            run(element, 1 + size % 4, 4 + size, 70 - size)
    assert counters.compiled + counters.loaded == before


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_any_number_of_threads_gives_the_same_bits(element, monkeypatch):
    forward, error, _ = edges.LOWERINGS[type(element)]
    x = normal(3, 60, 40, 20)
    results = []
    for threads in (1, 2, 3, 8):
        monkeypatch.setenv("FALTUNG_THREADS", str(threads))
        y, kept = forward(element, {}, x)
        results.append((y, error(element, {}, kept, normal(*y.shape, seed=2))))
    for y, dx in results[1:]:
        np.testing.assert_array_equal(y, results[0][0])
        np.testing.assert_array_equal(dx, results[0][1])


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_batches_may_be_cut_or_empty_or_strided(element):
    forward, error, _ = edges.LOWERINGS[type(element)]
    x = normal(6, 11, 12, 5)[::2, ::-1]
    x.flags.writeable = False
    y, kept = forward(element, {}, x)
    dy = np.flip(normal(*y.shape, seed=1), axis=1)
    dx = error(element, {}, kept, dy)
    np.testing.assert_array_equal(forward(element, {}, x[1:2])[0], y[1:2])
    np.testing.assert_array_equal(error(element, {}, example(kept, 1), dy[1:2]), dx[1:2])
    y, kept = forward(element, {}, x[:0])
    assert y.shape == (0, *element.output(x.shape[1:]))
    assert error(element, {}, kept, y).shape == (0, *x.shape[1:])


def test_inputs_that_do_not_fit_are_refused_as_by_the_element():
    with pytest.raises(ShapeError, match="got size 3 on axis 0, of which 3 would be reflected, expected more than 3"):
        edges.pad_forward(Pad(3, mode="reflect"), {}, normal(1, 3, 1))
    with pytest.raises(ShapeError, match="got size 3 on axis 0, of which -1 would be left, expected 1 to 3"):
        edges.crop_forward(Crop(2), {}, normal(1, 3, 1))
