"""Compiled resizing against its NumPy definition: forward with the same bits, and so the error where its sums are."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import Resize
from faltung.elements.element import example
from faltung.elements.resize import ALIGNMENTS
from faltung.engine.host.compile import counters
from faltung.engine.host.machine import host
from faltung.engine.kernels import interpolate
from faltung.engine.lower import resize
from faltung.errors import ShapeError
from guard import copied, guarded
from lowered import FLOATS

CHANNELS = [1, 2, 3, 5, 8, 9, 15, 16, 17, 33, 64, 67, 80]


@pytest.fixture(autouse=True)
def new_jobs():
    resize._both.cache_clear()


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def integers(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


def assert_same(element: Any, x: Any, *, like: Any = None, whole: bool = False, end: bool = True) -> None:
    """The same bits as the definition in the same dtype; with ``whole``, of an error signal of whole numbers."""
    forward, error, gradient = resize.LOWERINGS[Resize]
    y, kept = element.forward({}, x if like is None else (x, like))
    dy = (integers if whole else normal)(*y.shape, dtype=x.dtype, seed=1)
    given = copied(x, end)
    fast, fast_kept = forward(element, {}, given if like is None else (given, like))
    dx, fast_dx = element.error({}, kept, dy), error(element, {}, fast_kept, copied(dy, end))
    if like is not None:
        assert fast_dx[1] is None
        dx, fast_dx = dx[0], fast_dx[0]
    assert fast.dtype == fast_dx.dtype == x.dtype
    np.testing.assert_array_equal(fast, y)
    np.testing.assert_array_equal(fast_dx, dx)
    assert gradient(element, {}, fast_kept, dy) == {}


RESIZES = st.sampled_from(
    [(method, alignment) for method, alignments in ALIGNMENTS.items() for alignment in alignments]
)
AXES = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=3)


@given(
    RESIZES,
    AXES,
    st.sampled_from(CHANNELS),
    st.sampled_from(FLOATS),
    st.sampled_from([1, 200, 16384]),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_resizing_to_a_size_has_the_bits_of_the_definition(kind, axes, channels, dtype, block, seed):
    sizes, outputs = zip(*axes, strict=True)
    method, alignment = kind
    x = normal(2, *sizes, channels, dtype=dtype, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpolate, "BLOCK", block)
        resize._both.cache_clear()
        assert_same(Resize(size=outputs, method=method, alignment=alignment), x)
        like = normal(2, *outputs, 1)
        assert_same(Resize(size="like", method=method, alignment=alignment), x, like=like)


@given(RESIZES, AXES, st.sampled_from([1, 3, 20]), st.sampled_from([0.5, 0.7, 1.0, 1.5, 2.0, 3, (2, 3), (1, 4)]))
@settings(max_examples=60, deadline=None)
def test_resizing_by_a_scale_agrees(kind, axes, channels, scale):
    method, alignment = kind
    sizes = [size + 1 for size, _ in axes][: len(scale) if isinstance(scale, tuple) else 3]
    scale = scale[: len(sizes)] if isinstance(scale, tuple) else scale
    x = normal(2, *sizes, channels)
    assert_same(Resize(scale, method=method, alignment=alignment), x, whole=method == "nearest")


@pytest.mark.parametrize("method", ["nearest", "linear"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_machine_keeps_inside_its_buffers(method, dtype, machine, end):
    for channels in (1, 3, 17):
        for scale in (0.6, 2):
            for sizes in ((37,), (5, 40)):
                assert_same(Resize(scale, method=method), normal(2, *sizes, channels, dtype=dtype), whole=True, end=end)


def test_the_scratch_is_as_long_as_a_row_of_x(end):
    x = copied(normal(2, 5, 37, 3), end)
    for job in resize._both(Resize(1.5, method="linear"), (x.shape[1:],), x.dtype, host()):
        assert isinstance(job, resize.Interpolated)
        y, scratch = guarded((2, *job._shape), np.float32, end), guarded(job._scratch, np.uint8, end)
        arrays = (array.ctypes.data for array in (job._numbers, job._weights, x, y, scratch))
        job._kernel(*arrays, 0, 2 * job._bands)
        np.testing.assert_array_equal(y, job(x))
        x = copied(y, end)


@pytest.mark.parametrize("channels", CHANNELS)
def test_whole_scales_around_the_vectors_of_neighbours(channels, end):
    for size in (1, 2, 7, 8, 15, 16, 17, 33):
        assert_same(Resize(2), integers(1, 3, size, channels), whole=True, end=end)


def test_infinities_and_nan_are_as_in_the_definition():
    special = np.array([0.0, 1.0, -np.inf, np.inf, np.nan], np.float32)
    x = np.random.default_rng(0).choice(special, (2, 7, 9, 3))
    with np.errstate(all="ignore"):
        for resizing in (Resize(2), Resize(1.5), Resize(2, method="linear"), Resize(0.4, method="linear")):
            assert_same(resizing, x, whole=True)


ELEMENTS = [Resize(2), Resize(1.3), Resize(2, method="linear"), Resize(0.4, method="linear", alignment="corners")]


def test_nothing_is_compiled_for_another_size():
    def run(element: Any, *sizes: int) -> None:
        for channels in (3, 20):
            y, kept = resize.forward(element, {}, normal(*sizes, channels))
            resize.error(element, {}, kept, y)

    for element in ELEMENTS:
        run(element, 1, 8, 9)
    before = counters.compiled + counters.loaded
    for size in range(50):
        for element in ELEMENTS:
            run(element, 1 + size % 4, 4 + size, 70 - size)
    assert counters.compiled + counters.loaded == before


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_any_number_of_threads_gives_the_same_bits(element, monkeypatch):
    x = normal(3, 60, 40, 20)
    results = []
    for threads in (1, 2, 3, 8):
        monkeypatch.setenv("FALTUNG_THREADS", str(threads))
        y, kept = resize.forward(element, {}, x)
        results.append((y, resize.error(element, {}, kept, normal(*y.shape, seed=2))))
    for y, dx in results[1:]:
        np.testing.assert_array_equal(y, results[0][0])
        np.testing.assert_array_equal(dx, results[0][1])


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_batches_may_be_cut_or_empty_or_strided(element):
    x = normal(6, 11, 12, 5)[::2, ::-1]
    x.flags.writeable = False
    y, kept = resize.forward(element, {}, x)
    dy = np.flip(normal(*y.shape, seed=1), axis=1)
    dx = resize.error(element, {}, kept, dy)
    np.testing.assert_array_equal(resize.forward(element, {}, x[1:2])[0], y[1:2])
    np.testing.assert_array_equal(resize.error(element, {}, example(kept, 1), dy[1:2]), dx[1:2])
    y, kept = resize.forward(element, {}, x[:0])
    assert y.shape == (0, *element.output(x.shape[1:]))
    assert resize.error(element, {}, kept, y).shape == (0, *x.shape[1:])


def test_inputs_that_do_not_fit_are_refused_as_by_the_element():
    with pytest.raises(ShapeError, match="got an output of size 0 from an input of 3 on axis 0, expected at least 1"):
        resize.forward(Resize(0.3), {}, normal(1, 3, 1))
