"""MaxPool, MeanPool and LpPool against loops written straight from their formulas."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from differences import assert_close, slope
from faltung.elements.pooling import LpPool, MaxPool, MeanPool, Pooling
from faltung.errors import SettingError, ShapeError
from faltung.receptive import Field

Array = np.ndarray[Any, Any]
Vector = list[float]

AXIS = st.tuples(*(st.integers(1, most) for most in (6, 3, 3, 2)), st.tuples(st.integers(0, 2), st.integers(0, 2)))
"""(size, kernel, stride, dilation, (before, after)) of one axis."""


def places(size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int]) -> list[list[int]]:
    """The true entries of each window on one axis, in order."""
    starts = range(-pads[0], size + pads[1] - (kernel - 1) * dilation, stride)
    return [[i for i in range(at, at + kernel * dilation, dilation) if 0 <= i < size] for at in starts]


def window_entries(x: Array, axes: tuple[Any, ...]) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """The index of each entry of y, with the indices of the entries of x that it summarises, in row-major order."""
    by_axis = [list(enumerate(places(size, *rest))) for size, *rest in axes]
    for n, c in np.ndindex(x.shape[0], x.shape[-1]):
        for window in itertools.product(*by_axis):
            seen = itertools.product(*(entries for _, entries in window))
            yield (n, *(t for t, _ in window), c), [(n, *entry, c) for entry in seen]


def pooled(x: Array, axes: tuple[Any, ...], g: Callable[[Vector], float]) -> Array:
    values = {at: g([x[entry] for entry in entries]) for at, entries in window_entries(x, axes)}
    y = np.empty([last + 1 for last in max(values)])
    for at, value in values.items():
        y[at] = value
    return y


def spread(x: Array, axes: tuple[Any, ...], dg: Callable[[Vector], Vector], dy: Array) -> Array:
    dx = np.zeros_like(x)
    for at, entries in window_entries(x, axes):
        for entry, share in zip(entries, dg([x[entry] for entry in entries]), strict=True):
            dx[entry] += dy[at] * share
    return dx


def options(axes: tuple[Any, ...]) -> dict[str, Any]:
    _, kernel, stride, dilation, padding = zip(*axes, strict=True)
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}


def integers(rng: np.random.Generator, shape: tuple[int, ...], most: int = 3) -> Array:
    return rng.integers(-most, most + 1, shape).astype(float)


def drawn(axes: list[tuple[Any, ...]], seed: int, batch: int = 2) -> tuple[Array, tuple[Any, ...], np.random.Generator]:
    """A small integer input for axes on which every window holds an entry, or none of this example."""
    assume(all(windows and all(windows) for windows in (places(*axis) for axis in axes)))
    rng = np.random.default_rng(seed)
    return integers(rng, (batch, *(axis[0] for axis in axes), 2)), tuple(axes), rng


cases = given(axes=st.lists(AXIS, min_size=1, max_size=3), seed=st.integers(0, 2**32))
few = settings(max_examples=50, deadline=None)


def first_maximum(v: Vector) -> Vector:
    return [float(k == v.index(max(v))) for k in range(len(v))]


@few
@cases
def test_max_pool_is_its_formula_and_its_first_maximum_takes_all(axes, seed):
    x, axes, rng = drawn(axes, seed)
    pool = MaxPool(**options(axes))
    y, kept = pool.forward({}, x)
    assert np.array_equal(y, pooled(x, axes, max))
    dy = integers(rng, y.shape)
    assert np.array_equal(pool.error({}, kept, dy), spread(x, axes, first_maximum, dy))


@few
@cases
def test_mean_pool_is_its_formula(axes, seed):
    x, axes, rng = drawn(axes, seed)
    for counting in (False, True):
        taps = np.prod(options(axes)["kernel"])
        count = (lambda v, taps=taps: taps) if counting else len
        pool = MeanPool(**options(axes), count_padding=counting)
        y, kept = pool.forward({}, x)
        assert np.array_equal(y, pooled(x, axes, lambda v, count=count: sum(v) / count(v)))
        dy = integers(rng, y.shape)
        slopes = spread(x, axes, lambda v, count=count: [1 / count(v)] * len(v), dy)
        np.testing.assert_allclose(pool.error({}, kept, dy), slopes, rtol=1e-15, atol=1e-14)


@few
@cases
def test_lp_pool_is_its_formula(axes, seed):
    x, axes, rng = drawn(axes, seed)
    for p in (1, 2.0, 2.5):

        def g(v: Vector, p: float = p) -> float:
            return sum(abs(a) ** p for a in v) ** (1 / p)

        def dg(v: Vector, p: float = p) -> Vector:
            return [0.0 if a == 0 else float(np.sign(a)) * (abs(a) / g(v, p)) ** (p - 1) for a in v]

        pool = LpPool(**options(axes), p=p)
        y, kept = pool.forward({}, x)
        np.testing.assert_allclose(y, pooled(x, axes, g), rtol=1e-14)
        dy = integers(rng, y.shape)
        np.testing.assert_allclose(pool.error({}, kept, dy), spread(x, axes, dg, dy), rtol=1e-13, atol=1e-13)


@few
@given(
    powers=st.lists(st.tuples(st.integers(1, 6), st.sampled_from([1, 2, 4])), min_size=1, max_size=3),
    stride=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_mean_pool_passes_the_adjoint_identity_exactly_where_the_division_is_exact(powers, stride, seed):
    rng = np.random.default_rng(seed)
    kernel = tuple(k for _, k in powers)
    x = integers(rng, (2, *(k + more for more, k in powers), 3))
    pool = MeanPool(kernel, stride=stride)
    y, kept = pool.forward({}, x)
    dy = integers(rng, y.shape)
    assert (dy * y).sum() == (pool.error({}, kept, dy) * x).sum()


POOLS: list[Pooling] = [
    MaxPool(2),
    MaxPool(3, stride=2, padding="same"),
    MaxPool(2, stride=1, dilation=2),
    MeanPool(2),
    MeanPool(3, stride=1, padding="full"),
    MeanPool(3, stride=2, padding=(2, 1), count_padding=True),
    LpPool(2, p=1.0),
    LpPool(2, p=1.5),
    LpPool(3, stride=2, padding="causal"),
    LpPool(3, stride=1, padding="same", p=7.3),
]


@pytest.mark.parametrize("sizes", [(7,), (5, 6), (5, 3, 4)])
@pytest.mark.parametrize("pool", POOLS, ids=repr)
def test_error_signals_are_those_of_central_differences(pool, sizes):
    rng = np.random.default_rng(3)
    count = 2 * int(np.prod(sizes))
    x = rng.permutation(np.arange(count) - count // 2 + 0.5).reshape(1, *sizes, 2)  # no ties, no zeros
    y, kept = pool.forward({}, x)
    dy = rng.standard_normal(y.shape)
    assert_close(pool.error({}, kept, dy), slope(lambda x: pool.forward({}, x)[0], x, dy))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pool", POOLS, ids=repr)
def test_the_dtype_stays_and_batches_may_be_empty(pool, dtype):
    for batch in (0, 1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, 5, 6, 2)).astype(dtype)
        y, kept = pool.forward({}, x)
        dx = pool.error({}, kept, np.ones_like(y))
        assert y.dtype == dx.dtype == dtype
        assert y.shape == (batch, *pool.output((5, 6, 2)))
        assert dx.shape == x.shape


@pytest.mark.parametrize("pool", POOLS, ids=repr)
def test_an_example_has_the_same_bits_alone_and_in_a_batch(pool):
    x = np.random.default_rng(0).standard_normal((3, 5, 6, 2)).astype(np.float32)
    y, _ = pool.forward({}, x)
    assert np.array_equal(y[1:2], pool.forward({}, x[1:2])[0])


def test_regions_are_disjoint_by_default_and_the_rest_is_left_out():
    x = np.arange(7.0).reshape(1, 7, 1)
    y, kept = MaxPool(3).forward({}, x)
    assert y.ravel().tolist() == [2.0, 5.0]
    assert MaxPool(3).error({}, kept, np.array([[[4.0], [5.0]]])).ravel().tolist() == [0, 0, 4.0, 0, 0, 5.0, 0]


def test_overlapping_windows_add_their_errors():
    x = np.array([1.0, 5.0, 2.0, 3.0]).reshape(1, 4, 1)
    pool = MaxPool(2, stride=1)
    assert pool.error({}, x, np.array([[[1.0], [10.0], [100.0]]])).ravel().tolist() == [0.0, 11.0, 0.0, 100.0]


def test_of_tied_maxima_the_first_in_row_major_order_takes_the_whole_error():
    x = np.array([[0.0, 7.0], [7.0, 7.0]]).reshape(1, 2, 2, 1)
    dx = MaxPool(2).error({}, x, np.array(-2.5).reshape(1, 1, 1, 1))
    assert dx[0, :, :, 0].tolist() == [[0.0, -2.5], [0.0, 0.0]]


def test_padding_never_is_the_maximum():
    x = np.array([-3.0, -np.inf, -np.inf]).reshape(1, 3, 1)
    pool = MaxPool(2, stride=3, padding=1)
    y, kept = pool.forward({}, x)
    assert y.ravel().tolist() == [-3.0, -np.inf]
    assert pool.error({}, kept, np.array([[[2.0], [5.0]]])).ravel().tolist() == [2.0, 0.0, 5.0]


@pytest.mark.parametrize("pool", [MaxPool(2), MeanPool(2), LpPool(2), LpPool(2, p=1.0)], ids=repr)
def test_nan_passes_through_without_a_warning(pool):
    y, kept = pool.forward({}, np.array([np.nan, 1.0, 1.0, np.nan, 1.0, 2.0]).reshape(1, 6, 1))
    assert np.isnan(y).ravel().tolist() == [True, True, False]
    assert np.isfinite(pool.error({}, kept, np.ones((1, 3, 1)))[0, 4:]).all()


def test_a_nan_takes_the_error_of_its_window():
    x = np.array([1.0, np.nan, 2.0, np.nan]).reshape(1, 4, 1)
    assert MaxPool(4).error({}, x, np.array([[[3.0]]])).ravel().tolist() == [0.0, 3.0, 0.0, 0.0]


@pytest.mark.parametrize(("p", "norm"), [(1, 10.0), (2, 5.4772), (3, 4.6416), (1.5, 6.6179)])
def test_lp_pool_takes_absolute_values_where_a_peer_gives_nan(p, norm):
    x = np.array([1.0, -2.0, 3.0, -4.0]).reshape(1, 4, 1)
    pool = LpPool(4, p=p)
    y, kept = pool.forward({}, x)
    assert y.item() == pytest.approx(norm, abs=5e-5)
    expected = np.sign(x) * (np.abs(x) / y) ** (p - 1)
    np.testing.assert_allclose(pool.error({}, kept, np.full((1, 1, 1), -3.0)), -3 * expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("dtype", "sizes"), [(np.float64, (1e300, 1e-300, 5e-324)), (np.float32, (1e30, 1e-30, 1e-45))]
)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 40.0])
def test_lp_pool_neither_overflows_nor_underflows(dtype, sizes, p):
    pool = LpPool(4, p=p)
    for size in sizes:
        x = (np.array([3.0, -1.0, 0.0, 2.0]) * dtype(size)).astype(dtype).reshape(1, 4, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            y, kept = pool.forward({}, x)
            dx = pool.error({}, kept, np.ones((1, 1, 1), dtype))
        unit, small = pool.forward({}, x / x.max())
        limits = np.finfo(dtype)
        assert abs(y.item() - float(x.max()) * unit.item()) <= 4 * limits.eps * y.item() + limits.smallest_subnormal
        assert np.array_equal(dx, pool.error({}, small, np.ones((1, 1, 1), dtype)))


def test_lp_pool_of_zeros_is_zero_and_so_is_its_slope():
    for p in (1.0, 1.5, 2.0):
        y, kept = LpPool(2, p=p).forward({}, np.zeros((1, 2, 1)))
        assert y.item() == 0.0
        assert LpPool(2, p=p).error({}, kept, np.ones((1, 1, 1))).ravel().tolist() == [0.0, 0.0]


def test_lp_pool_of_infinity_is_infinite():
    y, _ = LpPool(2).forward({}, np.array([-np.inf, 1.0]).reshape(1, 2, 1))
    assert y.item() == np.inf


def test_lp_pool_approaches_max_pool_as_p_grows():
    x = np.random.default_rng(0).standard_normal((2, 8, 3))
    np.testing.assert_allclose(LpPool(4, p=2000.0).forward({}, x)[0], MaxPool(4).forward({}, abs(x))[0], rtol=1e-3)


def test_shapes_are_known_as_far_as_the_axes_are():
    assert MaxPool(2).output((None, 9, None)) == (None, 4, None)
    assert MeanPool((2, 3), stride=1).output((4, 4, 5)) == (3, 2, 5)
    assert MaxPool(3, padding="same").output((7, 1)) == (3, 1)


def test_a_pooled_unit_sees_its_window():
    fields = MaxPool(3, stride=2, padding=1).receptive([(Field(),)], [(9, 1)])
    assert not isinstance(fields, str)
    (seen,) = fields
    assert (seen.start, seen.size, seen.jump) == (-1, 3, 2)
    assert MaxPool(3).receptive(["all"], [(9, 1)]) == "all"


def test_repr_gives_back_the_call():
    for text in ("MaxPool(2)", "MaxPool((2, 3), stride=1, padding='same')", "MeanPool(2, count_padding=True)"):
        assert repr(eval(text)) == text
    assert repr(LpPool(2, p=3.0)) == "LpPool(2, p=3.0)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxPool(0), r"MaxPool\(0\): got kernel=0, expected"),
        (lambda: MaxPool(2, stride=0), "got stride=0, expected"),
        (lambda: MeanPool(2, padding="some"), "got padding='some', expected"),
        (lambda: MaxPool((2, 2), stride=(1, 1, 1)), "expected one entry an axis"),
        (lambda: LpPool(2, p=0.5), r"LpPool\(2, p=0.5\): got p=0.5, expected a number of at least 1"),
        (lambda: LpPool(2, p=float("nan")), "got p=nan, expected"),
        (lambda: LpPool(2, p=float("inf")), r"got p=inf, expected a finite number; use MaxPool of \|x\|"),
    ],
)
def test_settings_that_fit_no_input_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize(
    ("pool", "shape", "message"),
    [
        (MaxPool(3), (2, 5, 1), r"MaxPool\(3\): the kernel spans 3, the padded input only 2 .* on axis 0; use padding"),
        (MaxPool(1), (5, 0, 1), "got an axis of size 0 on axis 1"),
        (MaxPool((2, 2)), (5, 1), "expected one entry for each of 1"),
        (MaxPool(2), (5,), r"got an input of \(5,\), expected \(\*axes, channels\); give the input as"),
        (
            MeanPool(2, padding=(0, 2)),
            (4, 1),
            r"got padding \(0, 2\) for an input of 4 on axis 0, expected every window to hold an entry of the input; "
            "use less padding",
        ),
        (MaxPool(2, dilation=2, padding=1), (9, 1, 1), r"got padding \(1, 1\) for an input of 1 on axis 1"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(pool, shape, message):
    with pytest.raises(ShapeError, match=message):
        pool.output(shape)
    with pytest.raises(ShapeError, match=message):
        pool.forward({}, np.zeros((1, *shape)))
