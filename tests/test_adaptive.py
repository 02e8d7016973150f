"""AdaptivePool and GlobalPool against loops written from their formulas, and against the fixed pools they equal."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differences import assert_close, slope
from faltung.elements.adaptive import AdaptivePool, GlobalPool
from faltung.elements.pooling import MaxPool, MeanPool
from faltung.errors import SettingError, ShapeError
from faltung.receptive import Field

Array = np.ndarray[Any, Any]

few = settings(max_examples=50, deadline=None)
cases = given(
    axes=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 5)), min_size=1, max_size=3), seed=st.integers(0, 2**32)
)
"""(inputs, outputs) of each axis."""


def integers(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.integers(-3, 4, shape).astype(float)


def places(i: int, o: int, j: int) -> list[int]:
    """The entries of region j: those whose unit interval overlaps [j i/o, (j+1) i/o)."""
    return [entry for entry in range(i) if (entry + 1) * o > j * i and entry * o < (j + 1) * i]


def entries(axes: list[tuple[int, int]]) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """Each position of y, with the positions of x in its region, in row-major order."""
    for at in np.ndindex(*(o for _, o in axes)):
        yield at, list(itertools.product(*(places(i, o, j) for (i, o), j in zip(axes, at, strict=True))))


@few
@cases
def test_adaptive_mean_is_its_formula(axes, seed):
    rng = np.random.default_rng(seed)
    x = integers(rng, (2, *(i for i, _ in axes), 3))
    pool = AdaptivePool(tuple(o for _, o in axes), "mean")
    y, kept = pool.forward({}, x)
    dy = integers(rng, y.shape)
    dx = np.zeros_like(x)
    for at, region in entries(axes):
        total = sum(x[(slice(None), *entry)] for entry in region)
        assert np.array_equal(y[(slice(None), *at)], total / len(region))
        for entry in region:
            dx[(slice(None), *entry)] += dy[(slice(None), *at)] / len(region)
    np.testing.assert_allclose(pool.error({}, kept, dy), dx, rtol=1e-15, atol=1e-14)


@few
@cases
def test_adaptive_max_is_its_formula_and_the_first_maximum_takes_all(axes, seed):
    rng = np.random.default_rng(seed)
    x = integers(rng, (2, *(i for i, _ in axes), 3))
    pool = AdaptivePool(tuple(o for _, o in axes), "max")
    y, kept = pool.forward({}, x)
    dy = integers(rng, y.shape)
    dx = np.zeros_like(x)
    for n, c in np.ndindex(2, 3):
        for at, region in entries(axes):
            values = [x[(n, *entry, c)] for entry in region]
            assert y[(n, *at, c)] == max(values)
            dx[(n, *region[values.index(max(values))], c)] += dy[(n, *at, c)]
    assert np.array_equal(pool.error({}, kept, dy), dx)


@few
@given(
    powers=st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.integers(1, 4)), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_adaptive_mean_passes_the_adjoint_identity_exactly_where_the_division_is_exact(powers, seed):
    rng = np.random.default_rng(seed)
    x = integers(rng, (2, *(region * count for region, count in powers), 3))
    pool = AdaptivePool(tuple(count for _, count in powers), "mean")
    y, kept = pool.forward({}, x)
    dy = integers(rng, y.shape)
    assert (dy * y).sum() == (pool.error({}, kept, dy) * x).sum()


@pytest.mark.parametrize(("kind", "fixed"), [("mean", MeanPool), ("max", MaxPool)])
def test_where_the_size_divides_the_input_it_is_a_fixed_pool(kind, fixed):
    x = np.random.default_rng(0).standard_normal((2, 6, 8, 3))
    dy = np.random.default_rng(1).standard_normal((2, 3, 2, 3))
    y, kept = AdaptivePool((3, 2), kind).forward({}, x)
    assert np.array_equal(y, fixed((2, 4)).forward({}, x)[0])
    assert np.array_equal(AdaptivePool((3, 2), kind).error({}, kept, dy), fixed((2, 4)).error({}, x, dy))


@pytest.mark.parametrize("sizes", [(1,), (7,), (5, 6), (2, 3, 4)])
@pytest.mark.parametrize(("kind", "fixed"), [("mean", MeanPool), ("max", MaxPool)])
def test_global_pool_is_adaptive_pool_to_one_is_one_window_over_all(kind, fixed, sizes):
    x = integers(np.random.default_rng(0), (2, *sizes, 3))
    dy = np.random.default_rng(1).standard_normal((2, 3))
    y, kept = GlobalPool(kind).forward({}, x)
    dx = GlobalPool(kind).error({}, kept, dy)
    ones = dy.reshape(2, *(1 for _ in sizes), 3)
    for other in (AdaptivePool(1, kind), fixed(sizes)):
        y_other, kept = other.forward({}, x)
        assert np.array_equal(y, y_other.reshape(2, 3))
        assert np.array_equal(dx, other.error({}, kept, ones))


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_a_pool_to_the_size_of_the_input_changes_nothing(kind):
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3))
    assert np.array_equal(AdaptivePool((5, 4), kind).forward({}, x)[0], x)


@pytest.mark.parametrize(
    "pool", [AdaptivePool(2, "mean"), AdaptivePool((3, 2), "max"), GlobalPool("mean"), GlobalPool("max")], ids=repr
)
def test_error_signals_are_those_of_central_differences(pool):
    rng = np.random.default_rng(0)
    x = rng.permutation(np.arange(40.0)).reshape(1, 5, 4, 2)
    y, kept = pool.forward({}, x)
    dy = rng.standard_normal(y.shape)
    assert_close(pool.error({}, kept, dy), slope(lambda x: pool.forward({}, x)[0], x, dy))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["mean", "max"])
def test_the_dtype_stays_and_batches_may_be_empty(kind, dtype):
    for batch in (0, 1, 3):
        x = np.random.default_rng(0).standard_normal((batch, 5, 4, 2)).astype(dtype)
        for pool, shape in ((AdaptivePool(3, kind), (batch, 3, 3, 2)), (GlobalPool(kind), (batch, 2))):
            y, kept = pool.forward({}, x)
            dx = pool.error({}, kept, np.ones_like(y))
            assert y.dtype == dx.dtype == dtype
            assert (y.shape, dx.shape) == (shape, x.shape)


def test_the_size_of_the_output_is_known_even_where_the_axes_are_open():
    assert AdaptivePool(7, "max").output((None, None, None)) == (7, 7, None)
    assert AdaptivePool((2, 3), "mean").output((None, 1, 5)) == (2, 3, 5)
    assert GlobalPool("mean").output((None, 9, 64)) == (64,)


@few
@given(size=st.integers(1, 40), count=st.integers(1, 40))
def test_regions_cover_the_axis_in_order_and_are_nearly_equal(size, count):
    regions = [places(size, count, j) for j in range(count)]
    assert sorted(set(itertools.chain(*regions))) == list(range(size))
    assert {len(region) for region in regions} <= {math.ceil(size / count), math.ceil(size / count) + 1}
    if count <= size:
        assert all(a[-1] <= b[0] for a, b in itertools.pairwise(regions))


def test_disjoint_regions_have_an_exact_field_others_vary():
    start = (Field(), Field())
    pool = AdaptivePool(3, "max")
    seen = pool.receptive([start], [(6, 12, 1)])
    assert not isinstance(seen, str)
    assert [(field.start, field.size, field.jump) for field in seen] == [(0, 2, 2), (0, 4, 4)]
    assert pool.receptive([start], [(6, 11, 1)]) == "varies"
    assert pool.receptive([start], [(6, None, 1)]) == "varies"
    assert pool.receptive(["all"], [(6, 11, 1)]) == pool.receptive(["all"], [(6, 12, 1)]) == "all"
    assert GlobalPool("max").receptive([start], [(6, 12, 1)]) == "all"


def test_repr_gives_back_the_call():
    assert repr(AdaptivePool((2, 3), "max")) == "AdaptivePool((2, 3), 'max')"
    assert repr(GlobalPool("mean")) == "GlobalPool('mean')"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptivePool(0, "max"), r"AdaptivePool\(0, 'max'\): got size=0, expected a whole number"),
        (lambda: AdaptivePool((), "max"), r"got size=\(\), expected a whole number of at least 1, or one an axis"),
        (
            lambda: AdaptivePool((2, False), "max"),
            r"got size=\(2, False\), expected a whole number of at least 1, or one an axis",
        ),
        (lambda: AdaptivePool(2, "sum"), "got kind='sum', expected one of 'mean', 'max'"),
        (lambda: GlobalPool("median"), "got kind='median', expected one of 'mean', 'max'"),
    ],
)
def test_settings_that_fit_no_input_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize(
    ("pool", "shape", "message"),
    [
        (AdaptivePool((2, 2), "max"), (5, 1), r"AdaptivePool\(\(2, 2\), 'max'\): got size=\(2, 2\) for 2 axes"),
        (AdaptivePool(2, "max"), (4, 0, 1), "got an axis of size 0 on axis 1"),
        (AdaptivePool(2, "max"), (4,), r"got an input of \(4,\), expected \(\*axes, channels\)"),
        (GlobalPool("mean"), (0, 1), "got an axis of size 0 on axis 0"),
        (GlobalPool("mean"), (4,), r"GlobalPool\('mean'\): got an input of \(4,\), expected \(\*axes, channels\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(pool, shape, message):
    with pytest.raises(ShapeError, match=message):
        pool.output(shape)
    with pytest.raises(ShapeError, match=message):
        pool.forward({}, np.zeros((1, *shape)))
