"""The special functions against the C library, against exact arithmetic, and at the ends of their range."""

import math
from fractions import Fraction

import numpy as np
import pytest

from faltung.special import erf, erfc, sigmoid, softplus

EXTREMES = np.array([-np.inf, -1e300, -750.0, -40.0, -0.0, 0.0, 40.0, 750.0, 1e300, np.inf])


def ulps(y, reference):
    return np.abs(y - reference) / np.spacing(np.abs(reference))


def points(seed):
    random = np.random.default_rng(seed)
    near_the_seam = random.uniform(0.9, 1.1, 5000)
    tiny = 10.0 ** random.uniform(-300, 0, 2000)
    return np.concatenate([random.uniform(-7, 7, 20000), near_the_seam, tiny, -tiny])


def test_erf_is_within_3_ulp_of_the_c_library():
    x = points(0)
    assert ulps(erf(x), np.array([math.erf(v) for v in x])).max() <= 3  # 2 of ours, 1 of theirs


def test_erf_is_within_2_ulp_of_its_series_in_exact_arithmetic():
    for v in [0.25, 0.75, 0.999, 1.0, 1.001, 1.5, 2.0, 3.0]:
        x, term, series = Fraction(v), Fraction(v), Fraction(0)
        for n in range(80):
            series += term / (2 * n + 1)
            term *= -x * x / (n + 1)
        reference = float(2 * series / Fraction("1.77245385090551602729816748334"))  # sqrt(pi)
        assert ulps(erf(v), reference) <= 2, v


def test_erf_is_odd_and_ends_at_one():
    x = points(1)
    assert np.array_equal(erf(-x), -erf(x))
    assert erf([-np.inf, -6.0, 6.0, 1e300, np.inf]).tolist() == [-1.0, -1.0, 1.0, 1.0, 1.0]
    assert math.copysign(1, float(erf(-0.0))) == -1
    assert np.isnan(erf(np.nan))


def test_erf_in_float32_is_the_rounded_value():
    x = np.random.default_rng(2).normal(size=5000).astype(np.float32)
    assert np.array_equal(erf(x), np.array([math.erf(v) for v in x]).astype(np.float32))


def test_erfc_keeps_its_digits_where_it_is_small():
    x = np.concatenate([points(5), np.random.default_rng(5).uniform(0, 26, 20000)])
    assert ulps(erfc(x), np.array([math.erfc(v) for v in x])).max() <= 12  # 8 of ours, the rest theirs
    assert erfc([-np.inf, -6.0, 0.0, 28.0, np.inf]).tolist() == [2.0, 2.0, 1.0, 0.0, 0.0]
    assert np.isnan(erfc(np.nan))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_and_softplus_are_accurate(dtype):
    x = np.random.default_rng(3).uniform(-80, 80, 2000).astype(dtype)
    wide = x.astype(np.longdouble)
    assert ulps(sigmoid(x), (1 / (1 + np.exp(-wide))).astype(dtype)).max() <= 4
    assert ulps(softplus(x), np.log1p(np.exp(wide)).astype(dtype)).max() <= 4


def test_nothing_overflows():
    assert sigmoid(EXTREMES).tolist()[:3] == [0.0, 0.0, 0.0]
    assert sigmoid(EXTREMES).tolist()[-3:] == [1.0, 1.0, 1.0]
    assert softplus(EXTREMES).tolist()[:3] == [0.0, 0.0, 0.0]
    assert softplus(EXTREMES).tolist()[-3:] == [750.0, 1e300, np.inf]
    assert np.isnan(sigmoid(np.nan))
    assert np.isnan(softplus(np.nan))


@pytest.mark.parametrize("function", [erf, erfc, sigmoid, softplus])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3, 4)])
def test_shape_and_dtype_are_those_of_x(function, dtype, shape):
    x = np.random.default_rng(4).normal(size=shape).astype(dtype)
    y = function(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("function", [erf, erfc, sigmoid, softplus])
def test_integers_become_float64(function):
    assert np.array_equal(function([-1, 0, 1]), function([-1.0, 0.0, 1.0]))
