"""Pool by formulas and by functions in Python: against the named pools, loops and central differences."""

import dataclasses
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differences import assert_close, slope
from faltung.elements.pool import Pool
from faltung.elements.pooling import LpPool, MaxPool, MeanPool, Pooling
from faltung.errors import FormulaError, MissingExtraError, SettingError, ShapeError

Array = np.ndarray[Any, Any]

TEXTS = {
    "log(mean(exp(x)))": lambda v: math.log(sum(map(math.exp, v)) / len(v)),
    "sum(x * exp(x)) / sum(exp(x))": lambda v: sum(a * math.exp(a) for a in v) / sum(map(math.exp, v)),
    "sqrt(mean((x - mean(x))**2) + 0.1)": lambda v: math.sqrt(
        sum((a - sum(v) / len(v)) ** 2 for a in v) / len(v) + 0.1
    ),
    "max(x) - min(x)": lambda v: max(v) - min(v),
    "sum(x) / m**2": lambda v: sum(v) / len(v) ** 2,
    "sum(abs(x)**3)**(1/3)": lambda v: sum(abs(a) ** 3 for a in v) ** (1 / 3),
}
"""Formulas, and the same in plain Python for the list of the entries of a window."""

texts = pytest.mark.parametrize(("text", "g"), TEXTS.items(), ids=list(TEXTS))


def spread(x: Array) -> Array:
    return x.max(axis=-1) - x.min(axis=-1)


def spread_slopes(x: Array) -> Array:
    at = np.arange(x.shape[-1])
    return 1.0 * (at == x.argmax(axis=-1)[..., None]) - (at == x.argmin(axis=-1)[..., None])


@texts
@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(1, 7),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    before=st.integers(0, 2),
    after=st.integers(0, 2),
    seed=st.integers(0, 2**32),
)
def test_a_formula_sees_the_true_entries_of_each_window(text, g, size, kernel, stride, before, after, seed):
    starts = range(-before, size + after - kernel + 1, stride)
    windows = [[i for i in range(at, at + kernel) if 0 <= i < size] for at in starts]
    pool = Pool(kernel, text, stride=stride, padding=(before, after))
    x = np.random.default_rng(seed).standard_normal((2, size, 2))
    if not windows or not all(windows):
        with pytest.raises(ShapeError):
            pool.forward({}, x)
        return
    y, _ = pool.forward({}, x)
    for n, c in np.ndindex(2, 2):
        expected = [g([x[n, i, c] for i in entries]) for entries in windows]
        np.testing.assert_allclose(y[n, :, c], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("sizes", [(7,), (5, 4), (4, 3, 3)])
@texts
def test_error_signals_are_those_of_central_differences(text, g, sizes):
    rng = np.random.default_rng(5)
    x = rng.permutation(np.linspace(-2, 2, 2 * math.prod(sizes))).reshape(1, *sizes, 2)  # no ties
    for pool in (Pool(2, text), Pool(3, text, stride=2, padding="same"), Pool(2, text, stride=1, padding="full")):

        def value(x: Array, pool: Pool = pool) -> Array:
            return pool.forward({}, x)[0]

        y, kept = pool.forward({}, x)
        dy = rng.standard_normal(y.shape)
        assert_close(pool.error({}, kept, dy), slope(value, x, dy))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("max(x)", lambda *size, **settings: MaxPool(*size, **settings)),
        ("mean(x)", lambda *size, **settings: MeanPool(*size, **settings)),
        ("sum(abs(x)**2.5)**(1/2.5)", lambda *size, **settings: LpPool(*size, **settings, p=2.5)),
    ],
)
def test_a_formula_is_the_named_pool_ties_and_padding_included(text: str, named: Callable[..., Pooling]):
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (2, 7, 6, 3)).astype(float)
    options: dict[str, Any]
    for options in ({}, {"stride": 1}, {"padding": "same"}, {"stride": 2, "dilation": 2, "padding": (1, 2)}):
        pool, other = Pool(3, text, **options), named(3, **options)
        y, kept = pool.forward({}, x)
        dy = rng.standard_normal(y.shape)
        np.testing.assert_allclose(y, other.forward({}, x)[0], rtol=1e-13)
        np.testing.assert_allclose(pool.error({}, kept, dy), other.error({}, x, dy), rtol=1e-12, atol=1e-13)


def test_functions_in_python_see_all_windows_at_once():
    x = np.random.default_rng(0).integers(-3, 4, (2, 6, 4, 3)).astype(float)
    by_python, by_formula = Pool((2, 3), spread, spread_slopes, stride=1), Pool((2, 3), "max(x) - min(x)", stride=1)
    y, kept = by_python.forward({}, x)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    assert np.array_equal(y, by_formula.forward({}, x)[0])
    assert np.array_equal(by_python.error({}, kept, dy), by_formula.error({}, x, dy))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_stays_and_batches_may_be_empty(dtype):
    wide = Pool(2, lambda x: spread(x).astype(np.float64), lambda x: spread_slopes(x).astype(np.float64))
    for pool in (Pool(2, "log(mean(exp(x)))"), Pool(2, "sqrt(mean(x**2))", padding=(1, 0)), wide):
        for batch in (0, 1, 3):
            x = np.random.default_rng(0).standard_normal((batch, 4, 4, 2)).astype(dtype)
            y, kept = pool.forward({}, x)
            dx = pool.error({}, kept, np.ones_like(y))
            assert y.dtype == dx.dtype == dtype
            assert (y.shape, dx.shape) == ((batch, 2, 2, 2), x.shape)


def test_a_derivative_that_is_given_needs_no_sympy(monkeypatch):
    found = Pool(2, "log(mean(exp(x)))").derivative
    for name in [name for name in sys.modules if name == "faltung.formula.derivative" or name.split(".")[0] == "sympy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sympy", None)
    pool = Pool(2, "log(mean(exp(x)))", str(found))
    x = np.log(np.array([1.0, 3.0])).reshape(1, 2, 1)
    y, kept = pool.forward({}, x)
    assert y.item() == pytest.approx(math.log(2), rel=1e-15)
    np.testing.assert_allclose(pool.error({}, kept, np.full((1, 1, 1), 8.0)).ravel(), [2.0, 6.0], rtol=1e-14)
    with pytest.raises(MissingExtraError, match=r"Pool\(2, 'sum\(x\)'\): SymPy .*pip install 'faltung\[formula\]'"):
        Pool(2, "sum(x)")


def test_repr_gives_back_the_call_without_the_derivative_that_was_found():
    found = Pool(2, "sum(x**2)", stride=1)
    assert repr(found) == "Pool(2, 'sum(x**2)', stride=1)"
    assert (
        repr(Pool((2, 3), "sum(x**2)", "2 * x", padding="same")) == "Pool((2, 3), 'sum(x**2)', '2 * x', padding='same')"
    )
    assert repr(Pool(2, spread, spread_slopes)) == "Pool(2, spread, spread_slopes)"
    assert found == Pool(2, "sum(x**2)", str(found.derivative), stride=1)
    assert hash(found) == hash(Pool(2, "sum(x**2)", stride=1))


def test_another_formula_gets_another_derivative():
    changed = dataclasses.replace(Pool(2, "sum(x**2)"), g="sum(x**3)")
    assert changed == Pool(2, "sum(x**3)")
    given_by_hand = dataclasses.replace(Pool(2, "sum(abs(x))", "sign(x) + 0"), stride=1)
    assert given_by_hand.derivative == "sign(x) + 0"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Pool(2, "sum(y)"), FormulaError, r"Pool\(2, 'sum\(y\)'\): .*'y'"),
        (lambda: Pool(2, "x**2"), FormulaError, r"Pool\(2, 'x\*\*2'\): .*"),
        (lambda: Pool(2, "__import__('os')"), FormulaError, r"Pool\(2, .*"),
        (lambda: Pool(2, "sum(x)", "1 +"), FormulaError, r"Pool\(2, 'sum\(x\)', '1 \+'\): "),
        (
            lambda: Pool(2, spread),
            SettingError,
            r"Pool\(2, spread\): got derivative=None, expected g and its derivative",
        ),
        (lambda: Pool(2, "sum(x)", spread_slopes), SettingError, "both as text or both as functions"),
        (lambda: Pool(2, spread, "1"), SettingError, "got derivative='1', expected g and its derivative both as text"),
        (
            lambda: Pool(2, spread, spread_slopes, padding="same"),
            SettingError,
            r"Pool\(2, spread, spread_slopes, padding='same'\): got padding='same', expected 'valid', as functions in",
        ),
        (lambda: Pool(0, "sum(x)"), SettingError, "got kernel=0, expected"),
    ],
)
def test_settings_that_fit_no_input_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_functions_that_return_another_shape_are_refused():
    x = np.zeros((1, 4, 2))
    with pytest.raises(ShapeError, match=r"got \(\) from sum for windows \(1, 2, 2, 2\), expected \(1, 2, 2\); reduce"):
        Pool(2, np.sum, spread_slopes).forward({}, x)
    with pytest.raises(ShapeError, match=r"got \(1, 2, 2\) from spread for windows .*, expected \(1, 2, 2, 2\)"):
        Pool(2, spread, spread).error({}, x, np.ones((1, 2, 2)))
