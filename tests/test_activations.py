"""The pointwise functions against their definitions, slopes, the ends of their range, and exact tails."""

import math
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from faltung import elements
from faltung.check import adjoint_check, element_check
from faltung.elements import ELU, GELU, Identity, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from faltung.errors import SettingError

DEFINITIONS = {
    Identity(): lambda x: x,
    Sigmoid(): lambda x: 1 / (1 + math.exp(-x)),
    Tanh(): math.tanh,
    ReLU(): lambda x: max(x, 0.0),
    LeakyReLU(): lambda x: x if x > 0 else 0.01 * x,
    LeakyReLU(0.25): lambda x: x if x > 0 else 0.25 * x,
    ELU(): lambda x: x if x > 0 else math.expm1(x),
    ELU(0.5): lambda x: x if x > 0 else 0.5 * math.expm1(x),
    Softplus(): lambda x: math.log1p(math.exp(x)),
    GELU(): lambda x: x * math.erfc(-x / math.sqrt(2)) / 2,
    SiLU(): lambda x: x / (1 + math.exp(-x)),
}
ALL = list(DEFINITIONS)
EXTREMES = np.array([[-1e4, -750.0, -100.0, -0.0, 0.0, 100.0, 750.0, 1e4]])


@pytest.mark.parametrize("f", ALL, ids=repr)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 4e-7), (np.float64, 1e-15)])
def test_values(f, dtype, tolerance):
    x = np.random.default_rng(0).uniform(-20, 20, (3, 40, 5)).astype(dtype)
    y, _ = f.forward({}, x)
    expected = np.array([DEFINITIONS[f](float(v)) for v in x.ravel()]).reshape(x.shape)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert f.output(x.shape[1:]) == x.shape[1:]
    np.testing.assert_allclose(y, expected, rtol=tolerance * 100, atol=tolerance)


@pytest.mark.parametrize("f", ALL, ids=repr)
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_slopes_by_central_differences(f, scale):
    x = np.random.default_rng(1).normal(size=(2, 30, 2)) * scale
    check = element_check(f, x, epsilon=3e-5)
    assert check.passed(1e-8), check
    assert check.entries == {"x": 120}


@pytest.mark.parametrize("f", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_errors_keep_the_dtype_and_multiply_dy(f, dtype):
    random = np.random.default_rng(2)
    x, dy = random.normal(size=(2, 7)).astype(dtype), random.normal(size=(2, 7)).astype(dtype)
    _, kept = f.forward({}, x)
    dx = f.error({}, kept, dy)
    assert (dx.shape, dx.dtype, f.slope(kept).dtype) == (x.shape, x.dtype, x.dtype)
    assert np.array_equal(dx, dy * f.slope(kept))
    for batch in (0, 1):
        y, kept = f.forward({}, x[:batch])
        assert f.error({}, kept, dy[:batch]).shape == y.shape == (batch, 7)


@pytest.mark.parametrize("f", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_ends_of_the_range_overflow_nowhere(f, dtype):
    """Warnings are errors here, so an overflow inside would show."""
    x = EXTREMES.astype(dtype)
    y, kept = f.forward({}, x)
    slope = f.slope(kept)
    assert np.isfinite(y).all()
    assert np.isfinite(slope).all()
    leaky = {LeakyReLU(): 0.01, LeakyReLU(0.25): 0.25, Identity(): 1.0}.get(f, 0.0)
    bounded = {Sigmoid(): 0.0, Tanh(): 0.0}.get(f, 1.0)
    assert slope[0, 0] == dtype(leaky)
    assert slope[0, -1] == bounded


@pytest.mark.parametrize("f", ALL, ids=repr)
def test_nan_passes_through(f):
    y, _ = f.forward({}, np.array([[np.nan, 1.0]]))
    assert np.isnan(y[0, 0])
    assert np.isfinite(y[0, 1])


def test_slopes_at_the_kinks():
    zero = np.zeros((1, 1))
    for f, slope in [(ReLU(), 0.0), (LeakyReLU(0.25), 0.25), (ELU(), 1.0), (ELU(0.5), 0.5)]:
        _, kept = f.forward({}, zero)
        assert f.slope(kept).item() == slope


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-7), (np.float64, 1e-15)])
def test_the_left_tail_of_gelu_keeps_its_digits(dtype, tolerance):
    """Where P(x) is small, (1 + erf(x / sqrt 2)) / 2 would lose all of it. The condition of P itself is x^2."""
    x = np.linspace(-12, -1, 200).astype(dtype).reshape(1, -1)
    y, _ = GELU().forward({}, x)
    expected = np.array([float(v) * math.erfc(-float(v) / math.sqrt(2)) / 2 for v in x[0]])
    assert (abs(y[0] - expected) <= tolerance * (3 + x[0] ** 2) * abs(expected)).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-7), (np.float64, 1e-15)])
def test_small_numbers_keep_their_digits(dtype, tolerance):
    x = (10.0 ** -np.arange(1, 30)).astype(dtype).reshape(1, -1)
    for f in (Tanh(), ELU(), ReLU()):
        y, _ = f.forward({}, -x)
        expected = [DEFINITIONS[f](-float(v)) for v in x[0]]
        np.testing.assert_allclose(y[0], expected, rtol=tolerance)
    np.testing.assert_allclose(Sigmoid().forward({}, np.log(x))[0], x / (1 + x), rtol=100 * tolerance)
    np.testing.assert_allclose(Softplus().forward({}, np.log(x))[0], np.log1p(x), rtol=100 * tolerance)


def test_identity_is_linear_and_the_others_are_not():
    assert [f for f in ALL if f.linear] == [Identity()]
    assert adjoint_check(Identity(), (3, 2)).passed()


@pytest.mark.parametrize("f", ALL, ids=repr)
def test_repr_is_the_call_and_nothing_can_be_assigned(f):
    assert eval(repr(f), dict(vars(elements))) == f
    assert pickle.loads(pickle.dumps(f)) == f
    with pytest.raises(FrozenInstanceError):
        f.alpha = 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeakyReLU(-0.1), r"^LeakyReLU\(-0.1\): got negative_slope=-0.1, expected a number of at least 0;"),
        (lambda: LeakyReLU(math.inf), "got negative_slope=inf, expected a number of at least 0"),
        (lambda: ELU(math.nan), "got alpha=nan, expected a number of at least 0"),
        (lambda: ELU("1"), "got alpha='1', expected a number of at least 0"),  # pyright: ignore[reportArgumentType] -- on purpose
        (lambda: ELU(True), "got alpha=True, expected a number of at least 0"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()
