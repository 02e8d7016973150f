"""Compiled pooling against its NumPy definition: the same bits wherever sums have the same order, else to tolerance."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from faltung.elements import AdaptivePool, GlobalPool, LpPool, MaxPool, MeanPool, Pool
from faltung.elements.element import example
from faltung.engine.host.compile import counters
from faltung.engine.host.machine import AVX512
from faltung.engine.kernels import bands
from faltung.engine.kernels import pool as kernels
from faltung.engine.kernels.aggregates import Max
from faltung.engine.kernels.gather import gather
from faltung.engine.kernels.regions import Axis, Regions
from faltung.engine.loops.interpreter import run as interpret
from faltung.engine.loops.language import F32, I8
from faltung.engine.lower import pooling
from faltung.engine.lower.pooling import LOWERINGS
from faltung.errors import ShapeError
from faltung.geometry import Window
from guard import copied
from lowered import FLOATS, compare

LANES = AVX512.lanes(4)
CHANNELS = [1, 2, 3, 5, 6, 8, 9, LANES - 1, LANES, LANES + 1, 20, 4 * LANES, 4 * LANES + 3, 5 * LANES, 9 * LANES]
"""Around the lanes, their halves and the blocks of 4 vectors."""


@pytest.fixture(autouse=True)
def new_jobs():
    pooling._job.cache_clear()


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def integers(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


def assert_same(element: Any, x: Any, dy: Any = None, *, end: bool = True) -> None:
    """The same bits as the definition in the same dtype, but for the signs of zeros, and NaN where it has NaN."""
    forward, error, gradient = LOWERINGS[type(element)]
    with np.errstate(all="ignore"):
        y, kept = element.forward({}, x)
        dy = normal(*y.shape, dtype=x.dtype, seed=1) if dy is None else dy
        dx = element.error({}, kept, dy)
    fast, fast_kept = forward(element, {}, copied(x, end))
    fast_dx = error(element, {}, fast_kept, copied(dy, end))
    assert fast.dtype == fast_dx.dtype == x.dtype
    np.testing.assert_array_equal(fast, y)
    np.testing.assert_array_equal(fast_dx, dx)
    assert gradient(element, {}, fast_kept, dy) == {}


@st.composite
def poolings(draw: st.DrawFn, largest: int = 9) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Settings of windows, and the sizes of axes on which each window holds an entry."""
    rank = draw(st.integers(1, 3))
    windows = []
    for _ in range(rank):
        kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        stride = draw(st.one_of(st.just(kernel), st.integers(1, 4)))
        padding = draw(st.sampled_from(["valid", "valid", "same", "full", "causal", (1, 0), (0, 2)]))
        window = Window(kernel, stride, 1 if stride == kernel else dilation, padding)
        windows.append((window, draw(st.integers(1, largest)) + window.span))
    for window, size in windows:
        assume((bands.Places.windows(window, size).count > 0).all())
    settings = ("kernel", "stride", "dilation", "padding")
    values = {name: tuple(getattr(window, name) for window, _ in windows) for name in settings}
    values["padding"] = tuple((p, p) if isinstance(p, int) else p for p in values["padding"])
    return values, tuple(size for _, size in windows)


@given(
    poolings(), st.sampled_from(CHANNELS), st.sampled_from(FLOATS), st.sampled_from([1, 40, 16384]), st.integers(0, 99)
)
@settings(max_examples=25, deadline=None)
def test_maxima_and_means_have_the_bits_of_the_definition(pool, channels, dtype, task, seed):
    values, sizes = pool
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "BLOCK", task)
        pooling._job.cache_clear()
        x = integers(2, *sizes, channels, dtype=dtype, seed=seed)
        assert_same(MaxPool(**values), x)
        assert_same(MeanPool(**values, count_padding=bool(seed % 2)), x)


@given(poolings(largest=5), st.sampled_from([1, 3, 9, 20]), st.sampled_from(FLOATS), st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_norms_and_formulas_agree(pool, channels, dtype, seed):
    values, sizes = pool
    x = normal(2, *sizes, channels, dtype=dtype, seed=seed)
    kernel = values.pop("kernel")
    compare(LpPool(kernel, **values), {}, x, tolerance=40)
    compare(Pool(kernel, "log(mean(exp(x)))", **values), {}, x, tolerance=40)


POOLS = [
    MaxPool(2),
    MaxPool(3, stride=2, padding="same"),
    MaxPool(2, stride=1, dilation=2),
    MeanPool(2),
    MeanPool(3, stride=1, padding="full"),
    MeanPool(3, stride=2, padding=(2, 1), count_padding=True),
    MeanPool(2, stride=3),
    AdaptivePool(3, "max"),
    AdaptivePool(4, "mean"),
    GlobalPool("max"),
    GlobalPool("mean"),
]
SMOOTH = [LpPool(2), LpPool(3, stride=2, p=1.5, padding=1), Pool(2, "sqrt(mean(x**2))")]


def test_every_machine_keeps_inside_its_buffers(machine, end):
    for channels, dtype in ((1, np.float32), (3, np.float64), (17, np.float32)):
        x = integers(2, 5, 40, channels, dtype=dtype)
        for pool in (POOLS[1], *POOLS[4:8], GlobalPool("mean")):
            assert_same(pool, x, integers(*pool.forward({}, x)[0].shape, dtype=dtype), end=end)
        for pool in (LpPool(2), SMOOTH[2]):
            compare(pool, {}, x, end=end, tolerance=40)


@pytest.mark.parametrize("channels", [1, 3, 5, 8, 20])
@pytest.mark.parametrize("pool", [MaxPool(2), MaxPool(3, stride=2, padding=1)], ids=repr)
def test_sizes_around_the_vectors_of_neighbours(pool, channels, end):
    for size in (*range(3, 8), *range(2 * LANES - 2, 2 * LANES + 4), 4 * LANES + 1):
        assert_same(pool, normal(1, 4, size, channels), end=end)


@pytest.mark.parametrize(
    "pool", [MaxPool(2), MeanPool(2), MeanPool(4, stride=2), MaxPool(3, stride=1, padding=1)], ids=repr
)
def test_random_numbers_in_many_bands_have_the_bits_of_the_definition(pool):
    assert_same(pool, normal(1, 300, 20, 20))
    assert_same(pool, normal(1, 5001, 20))


def test_large_windows_are_loops():
    x = normal(2, 40, 36, 5)
    for pool in (
        MaxPool(12),
        MaxPool((1, 30), stride=3),
        MaxPool(17, stride=5, padding="same"),
        MaxPool((3, 1), stride=7),
    ):
        assert_same(pool, x)
    assert_same(MeanPool(20, stride=4), integers(2, 40, 36, 5))


@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=3),
    st.sampled_from(CHANNELS),
    st.sampled_from(["max", "mean"]),
)
@settings(max_examples=20, deadline=None)
def test_divided_axes(axes, channels, kind):
    counts, sizes = zip(*axes, strict=True)
    x = integers(2, *sizes, channels)
    compare(AdaptivePool(counts, kind), {}, x, tolerance=8)  # shares are added in another order
    assert_same(GlobalPool(kind), x)


def test_of_tied_maxima_the_first_takes_the_whole_error():
    x = np.zeros((1, 6, 7, 20), np.float32)
    assert_same(MaxPool(2), x)
    assert_same(MaxPool(3, stride=1, padding=1), x)
    assert_same(GlobalPool("max"), x)


@pytest.mark.parametrize("channels", [1, 3, 17])
@pytest.mark.parametrize(
    "pool",
    [
        MaxPool(2),
        MaxPool(3, stride=1, padding=1),
        MeanPool(2),
        AdaptivePool(4, "max"),
        GlobalPool("mean"),
        GlobalPool("max"),
    ],
    ids=repr,
)
def test_infinities_and_nan_are_as_in_the_definition(pool, channels):
    rng = np.random.default_rng(0)
    special = np.array([0.0, -0.0, 1.0, -np.inf, -np.inf, -np.inf, np.inf, np.nan], np.float32)
    for seed in range(5):
        x = rng.choice(special[: 4 + seed], (2, 9, 37, channels))
        assert_same(pool, x, integers(2, *pool.output(x.shape[1:])))
        assert_same(MaxPool(2), x, rng.choice(special, (2, 4, 18, channels)))  # error signals may be so, too


def test_nan_has_no_slope_of_a_norm_but_nan():
    x = np.array([np.nan, 1.0, np.inf, 1.0, 0.0, 0.0, -2.0, 1.0], np.float32).reshape(1, 8, 1)
    for p in (1, 1.5, 2.0, 3.0):
        with np.errstate(all="ignore"):
            y, kept = LpPool(2, p=p).forward({}, x)
            dx = LpPool(2, p=p).error({}, kept, np.ones_like(y))
        fast, kept = pooling.forward(LpPool(2, p=p), {}, x)
        np.testing.assert_allclose(fast, y, rtol=1e-6)
        np.testing.assert_allclose(pooling.error(LpPool(2, p=p), {}, kept, np.ones_like(y)), dx, rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 40.0])
def test_norms_neither_overflow_nor_lose_digits(p, dtype):
    for size in (1e30, 1.0, 1e-30):
        compare(LpPool(3, stride=2, p=p), {}, size * normal(2, 31, 5, dtype=dtype), tolerance=30 + 4 * p)


FORMULAS = [
    "max(x) - min(x)",
    "sum(x * x) / m",
    "sqrt(mean((x - mean(x))**2))",
    "log(sum(exp(x - max(x)))) + max(x)",
    "max(abs(x - mean(x))) + min(x * x)",
    "mean(relu(x)) * sigmoid(sum(x)) + 2",
    "sum(abs(x)**2.5)**(1/2.5)",
]


@pytest.mark.parametrize("text", FORMULAS)
@pytest.mark.parametrize("channels", [3, 20])
def test_formulas_agree(text, channels):
    for pool in (Pool(2, text), Pool((2, 3), text, stride=1, padding="same")):
        compare(pool, {}, normal(2, 7, 39, channels), tolerance=200)


def test_formulas_are_infinite_and_nan_where_the_definition_is():
    x = np.array([-1.0, 1.0, 0.0, 0.0, np.nan, 1.0, -np.inf, 3.0], np.float32).reshape(1, 8, 1)
    for text in ("log(mean(x))", "max(x) / sum(x)", "min(x) + 1", "sqrt(sum(x))"):
        y, _ = Pool(2, text).forward({}, x)
        np.testing.assert_allclose(pooling.forward(Pool(2, text), {}, x)[0], y, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 21])
def test_the_interpreter_agrees_and_sees_nothing_reach_outside(channels):
    windows, x = (Window(3, 2, 1, "same"), Window(2, 2)), normal(2, 5, 11, channels)
    axes = tuple(Axis(w.kernel, w.stride, w.dilation, cut=w.padding != "valid") for w in windows)
    regions = Regions(channels, axes)
    places = [bands.Places.windows(*axis) for axis in zip(windows, x.shape[1:-1], strict=True)]
    element = MaxPool((3, 2), stride=2, padding=("same", "valid"))
    y, kept = element.forward({}, x)
    dy = normal(*y.shape, seed=1)
    for masks in (True, False):
        settings = F32.times(4), regions, Max(I8), masks
        flat, taps, dx = (np.full(a.size, -9, kind) for a, kind in ((y, "f4"), (y, "i1"), (x, "f4")))
        table, count = bands.numbers(places, regions, error=False)
        interpret(kernels.forward(*settings), table, x.ravel(), flat, taps, np.zeros(1, np.int64), 0, 2 * count)
        np.testing.assert_array_equal(flat, y.ravel())
        table, count = bands.numbers(places, regions, error=True)
        interpret(gather(*settings), table, dy.ravel(), taps, dx, np.zeros(1, np.int64), 0, 2 * count)
        np.testing.assert_array_equal(dx, element.error({}, kept, dy).ravel())


def test_what_has_no_kernel_runs_by_its_definition():
    before = counters.compiled + counters.loaded
    x = normal(2, 9, 4)
    spread = Pool(3, lambda u: u[..., 2] - u[..., 0], lambda u: np.broadcast_to([-1.0, 0.0, 1.0], u.shape))
    assert_same(spread, x)
    assert counters.compiled + counters.loaded == before


def test_nothing_is_compiled_for_another_size():
    def run(pool: Any, *sizes: int) -> None:
        y, kept = pooling.forward(pool, {}, normal(*sizes, 3))
        pooling.error(pool, {}, kept, y)

    pools = [*POOLS, *SMOOTH]
    for pool in pools:
        run(pool, 1, 8, 9)
    before = counters.compiled + counters.loaded
    for size in range(50):
        for pool in pools:
            run(pool, 1 + size % 4, 4 + size, 70 - size)
    assert counters.compiled + counters.loaded == before


@pytest.mark.parametrize("pool", [*POOLS, *SMOOTH], ids=repr)
def test_any_number_of_threads_gives_the_same_bits(pool, monkeypatch):
    x = normal(3, 130, 40, 20)
    results = []
    for threads in (1, 2, 3, 8):
        monkeypatch.setenv("FALTUNG_THREADS", str(threads))
        y, kept = pooling.forward(pool, {}, x)
        results.append((y, pooling.error(pool, {}, kept, normal(*y.shape, seed=2))))
    for y, dx in results[1:]:
        np.testing.assert_array_equal(y, results[0][0])
        np.testing.assert_array_equal(dx, results[0][1])


@pytest.mark.parametrize("pool", [*POOLS, *SMOOTH], ids=repr)
def test_an_example_has_the_same_bits_alone_and_in_a_batch(pool):
    x = normal(3, 11, 12, 3)
    y, kept = pooling.forward(pool, {}, x)
    dy = normal(*y.shape, seed=1)
    dx = pooling.error(pool, {}, kept, dy)
    np.testing.assert_array_equal(pooling.forward(pool, {}, x[1:2])[0], y[1:2])
    np.testing.assert_array_equal(pooling.error(pool, {}, example(kept, 1), dy[1:2]), dx[1:2])


@pytest.mark.parametrize("pool", [*POOLS, *SMOOTH], ids=repr)
def test_inputs_may_be_empty_or_strided_or_for_reading_only(pool):
    empty = normal(0, 8, 8, 3)
    y, kept = pooling.forward(pool, {}, empty)
    assert y.shape == pool.forward({}, empty)[0].shape
    assert pooling.error(pool, {}, kept, y).shape == empty.shape
    x = normal(2, 20, 9, 8)[:, ::2, :, 1:4]
    x.flags.writeable = False
    y, kept = pooling.forward(pool, {}, x)
    same, same_kept = pooling.forward(pool, {}, x.copy())
    np.testing.assert_array_equal(y, same)
    dy = np.flip(normal(*y.shape, seed=1), axis=-1)
    dy.flags.writeable = False
    np.testing.assert_array_equal(pooling.error(pool, {}, kept, dy), pooling.error(pool, {}, same_kept, dy.copy()))


def test_inputs_that_do_not_fit_are_refused_as_by_the_element():
    for pool, shape in ((MaxPool(3), (1, 2, 5, 1)), (MeanPool((2, 2)), (1, 5, 1)), (GlobalPool("max"), (1, 5))):
        with pytest.raises(ShapeError) as expected:
            pool.forward({}, normal(*shape))
        with pytest.raises(ShapeError) as refused:
            pooling.forward(pool, {}, normal(*shape))
        assert str(refused.value) == str(expected.value)
