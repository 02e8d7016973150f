"""Pointwise functions given as text: against the built-in ones and central differences."""

import dataclasses
import sys

import numpy as np
import pytest

from differences import assert_close, slope
from faltung.elements.activations import Activation, ReLU, Sigmoid, SiLU, Softplus, Tanh
from faltung.elements.pointwise import Pointwise
from faltung.errors import FormulaError, MissingExtraError

TEXTS = ["x * tanh(x)", "exp(-x**2)", "x / (1 + abs(x))", "x**3 - 2*x", "log1p(x**2)", "sqrt(1 + x**2)", "sin(3*x) * e"]


@pytest.mark.parametrize("text", TEXTS)
def test_error_signals_are_those_of_central_differences(text):
    rng = np.random.default_rng(0)
    f, x, dy = Pointwise(text), rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))
    _, kept = f.forward({}, x)
    assert_close(f.error({}, kept, dy), slope(lambda x: f.forward({}, x)[0], x, dy))


def test_the_value_is_that_of_the_formula():
    x = np.random.default_rng(0).standard_normal((2, 3))
    assert np.array_equal(Pointwise("x / (1 + abs(x))").forward({}, x)[0], x / (1 + abs(x)))


@pytest.mark.parametrize(
    ("text", "built_in"),
    [
        ("1 / (1 + exp(-x))", Sigmoid()),
        ("tanh(x)", Tanh()),
        ("relu(x)", ReLU()),
        ("max(x, 0)", ReLU()),
        ("x * sigmoid(x)", SiLU()),
        ("log(1 + exp(x))", Softplus()),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_formula_is_the_built_in_function(text: str, built_in: Activation, dtype):
    x = np.random.default_rng(0).standard_normal((2, 30, 3)).astype(dtype)
    dy = np.random.default_rng(1).standard_normal((2, 30, 3)).astype(dtype)
    f, tolerance = Pointwise(text), 8 * np.finfo(dtype).eps
    y, kept = f.forward({}, x)
    y_expected, kept_expected = built_in.forward({}, x)
    np.testing.assert_allclose(y, y_expected, rtol=tolerance, atol=tolerance)
    dx = f.error({}, kept, dy)
    np.testing.assert_allclose(dx, built_in.error({}, kept_expected, dy), rtol=tolerance, atol=2 * tolerance)
    assert y.dtype == dx.dtype == dtype


def test_shapes_stay_open_and_empty_as_they_are():
    f = Pointwise("x**2")
    assert f.output((None, 3)) == (None, 3)
    assert f.forward({}, np.zeros((0, 3)))[0].shape == (0, 3)


def test_a_derivative_that_is_given_needs_no_sympy(monkeypatch):
    for name in [name for name in sys.modules if name == "faltung.formula.derivative" or name.split(".")[0] == "sympy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sympy", None)
    f = Pointwise("x**2", derivative="2 * x")
    assert f.error({}, np.array([[3.0, -1.0]]), np.array([[0.5, 2.0]])).tolist() == [[3.0, -4.0]]
    with pytest.raises(MissingExtraError, match=r"Pointwise\('x\*\*2'\): SymPy .*pip install 'faltung\[formula\]'"):
        Pointwise("x**2")


def test_a_derivative_given_by_hand_decides_at_a_kink():
    at_zero = np.zeros((1, 1)), np.ones((1, 1))
    assert Pointwise("abs(x)").error({}, *at_zero).item() == 0.0
    assert Pointwise("abs(x)", derivative="1 - 2 * step(-x)").error({}, *at_zero).item() == 1.0


def test_repr_gives_back_the_call_without_the_derivative_that_was_found():
    found = Pointwise("x**2")
    assert found.derivative == "2 * x"
    assert repr(found) == "Pointwise('x**2')"
    assert repr(Pointwise("x**2", derivative="x * 2")) == "Pointwise('x**2', derivative='x * 2')"
    assert found == Pointwise("x**2", derivative="2 * x")


def test_another_formula_gets_another_derivative():
    assert dataclasses.replace(Pointwise("x**2"), formula="x**3").derivative == Pointwise("x**3").derivative
    assert dataclasses.replace(Pointwise("x**2", derivative="x * 2")).derivative == "x * 2"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pointwise("x +"), r"Pointwise\('x \+'\): "),
        (lambda: Pointwise("y"), r"Pointwise\('y'\): .*'y'"),
        (lambda: Pointwise("sum(x)"), r"Pointwise\('sum\(x\)'\): "),
        (lambda: Pointwise("x.__class__"), r"Pointwise\('x.__class__'\): "),
        (lambda: Pointwise("x**2", derivative="2 *"), r"Pointwise\('x\*\*2', derivative='2 \*'\): "),
    ],
)
def test_what_is_no_formula_is_refused(make, message):
    with pytest.raises(FormulaError, match=message):
        make()
