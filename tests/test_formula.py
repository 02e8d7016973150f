"""Formulas: the grammar against Python's, values against NumPy, derivatives against central differences."""

import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from faltung.errors import FormulaError, MissingExtraError
from faltung.formula import Formula, Kind, derivative
from faltung.formula.evaluate import evaluate
from faltung.formula.functions import FUNCTIONS, OPERATORS, PER_ENTRY, REDUCTIONS
from faltung.formula.parse import HEIGHT, LENGTH, NESTING, parse
from faltung.formula.tree import Apply, Name, Number, Reduce, write

x64 = np.random.default_rng(0).uniform(0.2, 2.5, 40) * np.tile([1.0, -1.0], 20)

# ---- grammar -------------------------------------------------------------------------------------------------------


@st.composite
def arithmetic(draw, depth=3):
    """Plain arithmetic as somebody might type it, with signs, spaces and needless parentheses."""
    space, sign = draw(st.sampled_from(["", " "])), draw(st.sampled_from(["", "", "-", "+", "- -"]))
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return sign + draw(st.sampled_from(["x", "2.0", ".5", "3.", "1.5e0", "25E-1"]))
    operator = draw(st.sampled_from(["+", "-", "*", "/", "**"]))
    text = draw(arithmetic(depth - 1)) + space + operator + space + draw(arithmetic(depth - 1))
    return f"{sign}({text})" if draw(st.booleans()) else sign + text


@settings(max_examples=60, deadline=None)
@given(arithmetic(), st.sampled_from([1.25, -0.75, 3.0]))
def test_arithmetic_means_what_it_means_in_python(text, x):
    try:
        expected = eval(text, {"x": x})
    except (ZeroDivisionError, OverflowError):
        assume(False)
    assume(isinstance(expected, float) and abs(expected) < 1e100)
    assert float(Formula(text)(x)) == pytest.approx(expected, rel=1e-10, abs=1e-300)


@pytest.mark.parametrize(
    ("text", "value"),
    [("-2**2", -4), ("2**3**2", 512), ("2**-1", 0.5), ("8/4/2", 1), ("8-4-2", 2), ("2*-3", -6), ("-2*-3", 6)],
)
def test_precedence(text, value):
    assert float(Formula(text)(0.0)) == value


def nodes(kind):
    """Trees of any shape that the grammar can say."""
    numbers = st.floats(0, 1e300, allow_subnormal=True) | st.integers(0, 10**6).map(float)
    leaves = numbers.map(Number) | st.sampled_from(["x", "pi", "e"]).map(Name)

    def grow(node):
        binary = [name for name in OPERATORS if name != "neg"]
        by_arity = {n: [f for f in FUNCTIONS if len(FUNCTIONS[f].derivatives) == n] for n in (1, 2)}
        one = st.builds(lambda f, a: Apply(f, (a,)), st.sampled_from(["neg", *by_arity[1]]), node)
        two = st.builds(lambda f, a, b: Apply(f, (a, b)), st.sampled_from([*binary, *by_arity[2]]), node, node)
        window = st.builds(Reduce, st.sampled_from(sorted(REDUCTIONS)), node)
        return one | two if kind == "pointwise" else one | two | window

    return st.recursive(leaves, grow, max_leaves=12)


@settings(max_examples=60, deadline=None)
@given(nodes("entries"))
def test_the_text_of_a_tree_reads_as_the_same_tree(tree):
    text = write(tree)
    assert parse(text, "entries") == tree
    assert Formula(text, "entries").text == text


def test_the_canonical_text_has_no_needless_parentheses():
    assert Formula(" ((x)) - ((2.50*(x)) ) ").text == "x - 2.5 * x"
    assert Formula("x-(x-1)").text == "x - (x - 1)"
    assert Formula("(-x)**2 + -(x**2) + 2**(-x)").text == "(-x)**2 + -x**2 + 2**-x"
    assert Formula("(x**2)**3 + x**(2**3)").text == "(x**2)**3 + x**2**3"
    assert Formula("1e3 + 1e16 + 1e-7").text == "1000 + 1e+16 + 1e-07"


def test_formulas_with_the_same_canonical_text_are_equal():
    assert Formula("x+1") == Formula("(x + 1.0)")
    assert Formula("m", "entries") != Formula("m", "aggregate")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "exec(x)",
        "eval(x)",
        "x.__class__",
        "x.real",
        "x[0]",
        "lambda: x",
        "(x for x in x)",
        "x if x else x",
        "x or x",
        "x; x",
        "x == x",
        "x := 1",
        "'x'",
        "{x}",
        "@x",
        "`x`",
        "#",
        "True",
        "nan",
        "inf",
        "1j",
        "0x10",
        "1_000",
        "x^2",
        "x//2",
        "x²",
        "π",
        "١",
        "x\x00",
        "sqrt(*x)",
        "sqrt(x=x)",
    ],
)
def test_nothing_else_can_be_said(text):
    for kind in ("pointwise", "aggregate", "entries"):
        with pytest.raises(FormulaError):
            Formula(text, kind)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("x + y", "pointwise", "unknown name 'y' at position 4 of 'x + y'; the names are x, pi, e"),
        ("x + y", "entries", "unknown name 'y' at position 4 of 'x + y'; the names are x, m, pi, e"),
        ("m * x", "pointwise", "unknown name 'm' at position 0 of 'm * x'; the names are x, pi, e"),
        ("1 + foo(x)", "pointwise", "unknown function 'foo' at position 4 of '1 + foo(x)'; the functions are abs, arc"),
        ("x $ 2", "pointwise", "unexpected '$' at position 2 of 'x $ 2'; only numbers, names, + - * / ** ( ) and ,"),
        ("2 x", "pointwise", "expected an operator, got 'x' at position 2 of '2 x'"),
        ("x)", "pointwise", "expected an operator, got ')' at position 1 of 'x)'"),
        ("x +", "pointwise", "expected a number, a name or '(', got the end at position 3 of 'x +'"),
        ("", "pointwise", "expected a number, a name or '(', got the end at position 0 of ''"),
        ("sin(x", "pointwise", "expected ')', got the end at position 5 of 'sin(x'"),
        ("sin()", "pointwise", "expected a number, a name or '(', got ')' at position 4 of 'sin()'"),
        ("2 * sin", "pointwise", "the function 'sin' without an argument at position 4 of '2 * sin'; write sin(...)"),
        ("sin(x, 1)", "pointwise", "'sin' takes 1 argument(s), got 2 at position 0 of 'sin(x, 1)'"),
        ("max(x, 1, 2)", "pointwise", "'max' takes 2 argument(s), got 3 at position 0 of 'max(x, 1, 2)'"),
        ("sum(x, 1)", "aggregate", "'sum' takes 1 argument(s), got 2 at position 0 of 'sum(x, 1)'"),
        ("1e999", "pointwise", "the number '1e999' is too large at position 0 of '1e999'"),
        (
            "1 + max(x)",
            "pointwise",
            "the aggregate 'max' in a pointwise formula at position 4 of '1 + max(x)'; it needs",
        ),
        ("x + sum(x)", "aggregate", "'x' is outside every aggregate at position 0 of 'x + sum(x)'; put it under sum"),
        ("sum(x) * x", "aggregate", "'x' is outside every aggregate at position 9 of 'sum(x) * x'; put it under sum"),
        ("first_max(x)", "aggregate", "'first_max' is outside every aggregate at position 0 of 'first_max(x)'; put"),
        ("(" * 5000 + "x" + ")" * 4999, "pointwise", f"more than {NESTING} levels of nesting at position {NESTING} of"),
        ("-" * 5000 + "x", "pointwise", f"more than {NESTING} levels of nesting at position {NESTING} of '...---"),
        ("x**" * 3000 + "x", "pointwise", f"more than {NESTING} levels of nesting at position {3 * NESTING} of"),
        ("x+" * 4000 + "x", "pointwise", f"more than {HEIGHT} operations inside each other at position 399 of '...+x+"),
        ("(" * 20000, "pointwise", f"got a formula, or a derivative, of 20000 characters, expected at most {LENGTH}"),
        (3, "pointwise", "got 3, expected the text of a formula"),
        ("x", "scalar", "got the kind 'scalar', expected one of pointwise, aggregate, entries; choose"),
    ],
)
def test_messages(text, kind, message):
    with pytest.raises(FormulaError, match=re.escape(message)):
        Formula(text, kind)


def test_a_long_formula_is_quoted_around_the_error():
    with pytest.raises(FormulaError, match=re.escape("'...1 + 1 + 1 + 1 + 1 + y + 1 + 1 + 1 + 1 + 1 + 1 + 1 ...'")):
        Formula(" + ".join(["1"] * 30 + ["y"] + ["1"] * 30))


# ---- values --------------------------------------------------------------------------------------------------------


def test_the_docstring_names_every_function():
    words = set(re.findall(r"\w+", Formula.__doc__ or ""))
    assert {*FUNCTIONS, *REDUCTIONS} <= words


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_no_function_changes_the_dtype(name, dtype):
    arguments = ["x", "0.3"][: len(FUNCTIONS[name].derivatives)]
    x = np.linspace(0.1, 0.9, 5, dtype=dtype)
    for text in (f"{name}({', '.join(arguments)})", f"{name}({', '.join(['0.3'] * len(arguments))}) * x"):
        y = evaluate(parse(text), x, True)
        assert (y.dtype, y.shape) == (x.dtype, x.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_operators_and_reductions_keep_the_dtype(dtype):
    x = np.linspace(0.1, 0.9, 5, dtype=dtype)
    for text in ["x + 1e300 / 3 * pi - e", "-x**3", "x**2.5", "x**-2", "x**x", "m", *(f"{r}(x)" for r in REDUCTIONS)]:
        with np.errstate(over="ignore"):
            assert evaluate(parse(text, "entries"), x, True).dtype == x.dtype


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3)])
@pytest.mark.parametrize("text", ["x", "3", "x**2", "-x"])
def test_a_pointwise_formula_keeps_the_shape_and_shares_no_memory(text, shape):
    x = np.ones(shape, np.float32)
    y = Formula(text)(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert not np.shares_memory(x, y)


@pytest.mark.parametrize("n", [-3, -2, -1, 0, 1, 2, 3, 4, 7, 10])
def test_whole_powers(n):
    assert np.allclose(Formula(f"x**{n}")(x64), [float(v) ** n for v in x64], rtol=1e-14, atol=0)


def test_values_that_are_not_defined_are_nan_and_nothing_warns():
    f = Formula("log(x) + sqrt(x) + 1 / x + exp(1000 * x)")
    assert np.isnan(f(np.array([-1.0, 0.0]))).all()
    assert f(np.array([1e300])).tolist() == [np.inf]


AGGREGATES = {
    "sum(x)": lambda v: v.sum(),
    "mean(x)": lambda v: v.mean(),
    "max(x) - min(x)": lambda v: v.max() - v.min(),
    "sum(abs(x)**3)**(1/3)": lambda v: (np.abs(v) ** 3).sum() ** (1 / 3),
    "log(mean(exp(x)))": lambda v: np.log(np.exp(v).mean()),
    "max(x) + log(mean(exp(x - max(x))))": lambda v: np.log(np.exp(v).mean()),
    "sum(x*exp(x)) / sum(exp(x))": lambda v: (v * np.exp(v)).sum() / np.exp(v).sum(),
    "sqrt(mean((x - mean(x))**2))": lambda v: v.std(),
    "mean((x - mean(x))**3) / mean((x - mean(x))**2)**1.5": lambda v: ((v - v.mean()) ** 3).mean() / v.std() ** 3,
    "max(abs(x - mean(x)))": lambda v: np.abs(v - v.mean()).max(),
    "min(exp(x) * max(x))": lambda v: (np.exp(v) * v.max()).min(),
    "sum(first_max(abs(x)) * x)": lambda v: v[np.abs(v).argmax()],
    "max(mean(x), 0.1) * m": lambda v: max(v.mean(), 0.1) * len(v),
    "max(2*x - mean(x))": lambda v: (2 * v - v.mean()).max(),
    "mean(sum(x) * first_min(x))": lambda v: v.mean(),
    "sum(max(x, mean(x)))": lambda v: np.maximum(v, v.mean()).sum(),
    "mean(abs(x - mean(x * sum(x))))": lambda v: np.abs(v - (v * v.sum()).mean()).mean(),
    "sum(2) + 1": lambda v: 2 * len(v) + 1,
}


@cache
def with_derivative(text):
    g = Formula(text, "aggregate")
    return g, g.derivative()


@pytest.mark.parametrize("text", AGGREGATES)
def test_aggregates(text):
    x = np.random.default_rng(1).normal(size=(3, 2, 5))
    y = Formula(text, "aggregate")(x)
    expected = [[AGGREGATES[text](window) for window in row] for row in x]
    assert y.shape == (3, 2)
    assert np.allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize("garbage", [0.0, np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("text", AGGREGATES)
def test_excluded_entries_change_nothing(text, garbage):
    random = np.random.default_rng(2)
    x = random.normal(size=(20, 6))
    where = random.random((20, 6)) < 0.6
    where[0] = True
    where[:, 3] = True
    g, dg = with_derivative(text)
    masked = np.where(where, x, garbage)
    y, slope = g(masked, where=where), dg(masked, where=where)
    for n in range(20):
        assert y[n] == pytest.approx(float(g(x[n, where[n]])), rel=1e-12)
        assert np.allclose(slope[n, where[n]], dg(x[n, where[n]]), rtol=1e-12)
        assert not slope[n, ~where[n]].any()


@pytest.mark.parametrize("text", AGGREGATES)
def test_a_window_without_entries_has_the_value_zero(text):
    g, dg = with_derivative(text)
    x, where = np.array([[np.nan, 1.0], [2.0, 3.0]]), np.array([[False], [True]])
    assert g(x, where=where)[0] == 0
    assert np.isfinite(g(x, where=where)[1])
    assert dg(x, where=where)[0].tolist() == [0.0, 0.0]


def test_excluded_entries_of_a_pointwise_formula_are_zero():
    assert Formula("1 / x")(np.array([0.0, 4.0]), where=np.array([False, True])).tolist() == [0.0, 0.25]


# ---- derivatives ---------------------------------------------------------------------------------------------------


def difference(f, x, h=2e-4):
    """Central differences of the fourth order."""
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)


def along(g, x, k):
    """G as a function of a step of x_k."""
    return lambda step: g(x + step * np.eye(x.shape[-1])[k])


def assert_close(got, expected, tolerance=1e-8):
    error = np.abs(got - expected) / (1 + np.abs(expected))
    assert error.max() <= tolerance  # fails on nan


POINTWISE = [
    "x * sigmoid(1.702 * x)",
    "x / (1 + exp(-x))",
    "x / (1 + exp(-x))**2",
    "2 / (3 * (1 + exp(x)))",
    "x * tanh(log(1 + exp(x)))",
    "x * tanh(log1p(exp(x)))",
    "x * tanh(x)",
    "sqrt(abs(x))",
    "x**3 - 2*x**2 + x - 7",
    "abs(x)**2.5",
    "abs(x)**-1.5",
    "(x**2)**1.5",
    "(x * tanh(x))**1.5",
    "exp(-x**2)",
    "exp(-exp(-x))",
    "x / (1 + abs(x))",
    "x / sqrt(1 + x**2)",
    "0.5 * x * (1 + tanh(0.7978845608 * (x + 0.044715 * x**3)))",
    "0.5 * x * (1 + erf(x / sqrt(2)))",
    "max(x, 0) + expm1(min(x, 0))",
    "x * min(max(x + 3, 0), 6) / 6",
    "max(x, 0.01 * x) - min(x * x, 3 * x)",
    "2**x + e**x + pi**-x",
    "abs(x)**x",
    "x**-3 + 1 / x + 1 / (2 * x)**2",
    "(x - 1) * (x - 2) * (x - 3)",
    "ratio(sin(x), x)",
    "log(cosh(x)) / log(2)",
    "sin(x) * cos(x) / (2 + sin(x * cos(x)))",
    "relu(x)**2 * step(x) * sign(x)",
    "0.2 * (x - 1e-3) * (x + 1e2) / 7",
    "exp(x)**3 / exp(2 * x)",
    "arctan(sinh(x)) + cosh(x / 2) - tan(x / 2)",
]


@pytest.mark.parametrize("text", POINTWISE)
def test_the_derivative_of_a_pointwise_formula(text):
    f = Formula(text)
    assert_close(f.derivative()(x64), difference(f, x64))


@pytest.mark.parametrize("text", POINTWISE)
def test_the_second_derivative(text):
    slope = Formula(text).derivative()
    assert_close(slope.derivative()(x64), difference(slope, x64), 1e-7)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_the_derivative_of_each_function(name):
    arguments = ["1.1 + 0.7 * sin(x)", "0.9 + x**2 / 8"][: len(FUNCTIONS[name].derivatives)]
    for order in (arguments, arguments[::-1]):
        f = Formula(f"{name}({', '.join(order)})")
        assert_close(f.derivative()(x64), difference(f, x64))


@pytest.mark.parametrize("text", AGGREGATES)
def test_the_derivative_of_an_aggregate(text):
    x = np.random.default_rng(3).normal(size=(6, 5))
    g, dg = with_derivative(text)
    assert dg.kind == "entries"
    expected = np.empty_like(x)
    for k in range(5):
        expected[:, k] = difference(along(g, x, k), 0.0)
    assert_close(dg(x), expected)


SMOOTH = ["sin", "cos", "tanh", "sigmoid", "softplus", "arctan", "erf"]


def smooth(leaves):
    """Texts of smooth, tame formulas."""

    def grow(inner):
        return (
            st.builds("{}({})".format, st.sampled_from(SMOOTH), inner)
            | st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner)
            | st.builds("({} / (2 + ({})**2))".format, inner, inner)
            | st.builds("(1 + ({})**2)**{}".format, inner, st.sampled_from([0.5, -0.5, 1.5, -1, 2]))
        )

    return st.recursive(st.sampled_from(leaves), grow, max_leaves=6)


@settings(max_examples=60, deadline=None)
@given(smooth(["x", "0.5", "2", "pi"]))
def test_the_derivative_of_any_smooth_formula(text):
    f = Formula(text)
    x = np.linspace(-1, 1, 9)
    expected, coarse = difference(f, x), difference(f, x, 4e-4)
    assume(np.all(np.abs(expected - coarse) <= 1e-8 * (1 + np.abs(expected))))
    assert_close(f.derivative()(x), expected, 1e-7)


@settings(max_examples=40, deadline=None)
@given(smooth(["x", "0.5", "m", "mean(x)", "sum(x * tanh(x))", "max(x)", "min(sin(x - mean(x)))", "max(x * mean(x))"]))
def test_the_derivative_of_any_smooth_aggregate(body):
    g = Formula(f"mean({body}) + sum(sin({body}))", "aggregate")
    dg = g.derivative()
    x = np.array([0.3, -0.8, 0.9, 0.1])
    for k in range(4):
        expected, coarse = (difference(along(g, x, k), 0.0, h) for h in (2e-4, 4e-4))
        assume(abs(expected - coarse) <= 1e-8 * (1 + abs(expected)))
        assert_close(dg(x)[k], expected, 1e-7)


@settings(max_examples=40, deadline=None)
@given(smooth(["x", "0.5", "mean(x)", "max(x)"]))
def test_the_text_of_a_derivative_gives_the_same_derivative(body):
    dg = Formula(f"sum({body})", "aggregate").derivative()
    assert Formula(dg.text, "entries") == dg
    assert Formula(dg.text, "entries").tree == dg.tree


@pytest.mark.parametrize(
    ("text", "x", "slope"),
    [
        ("abs(x)", 0.0, 0.0),
        ("sign(x)", 0.0, 0.0),
        ("step(x)", 0.0, 0.0),
        ("relu(x)", 0.0, 0.0),
        ("max(x, 0)", 0.0, 1.0),
        ("max(0, x)", 0.0, 0.0),
        ("min(x, 0)", 0.0, 1.0),
        ("min(0, x)", 0.0, 0.0),
        ("max(3 * x, x)", 0.0, 3.0),
        ("sqrt(x)", 0.0, 0.0),
        ("sqrt(abs(x))", 0.0, 0.0),
        ("sqrt(x**2)", 0.0, 0.0),
        ("x**(1/3)", 0.0, 0.0),
        ("ratio(x, abs(x))", 0.0, 0.0),
        ("abs(x)**2.5", 0.0, 0.0),
        ("(x**2)**1.5", 0.0, 0.0),
        ("(x * tanh(x))**1.5", 0.0, 0.0),
        ("x * abs(x)", 0.0, 0.0),
        ("x / (1 + abs(x))", 0.0, 1.0),
        ("x / sqrt(1 + x**2)", 0.0, 1.0),
        ("x**3 / x", 0.0, 0.0),
        ("1 / x", 0.0, -np.inf),
        ("log(x)", 0.0, np.inf),
    ],
)
def test_conventions_at_kinks_and_derivatives_beside_them(text, x, slope):
    assert float(Formula(text).derivative()(x)) == slope


def test_the_derivative_of_an_aggregate_at_ties_and_tips():
    def at(text, x):
        return Formula(text, "aggregate").derivative()(np.array(x)).tolist()

    assert at("max(x)", [1.0, 7.0, 7.0]) == [0.0, 1.0, 0.0]
    assert at("min(x)", [7.0, 1.0, 1.0]) == [0.0, 1.0, 0.0]
    assert at("max(abs(x))", [2.0, -7.0, 7.0]) == [0.0, -1.0, 0.0]
    assert at("sum(abs(x)**3)**(1/3)", [0.0, 0.0]) == [0.0, 0.0]
    assert at("sqrt(mean((x - mean(x))**2))", [5.0, 5.0]) == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "text",
    [
        "x / (1 + exp(-x))",
        "x * sigmoid(1.702 * x)",
        "x * tanh(log(1 + exp(x)))",
        "x * tanh(log1p(exp(x)))",
        "x * tanh(softplus(x))",
        "exp(-exp(-x))",
        "exp(-x**2)",
        "x * tanh(x)",
        "x / (1 + abs(x))",
        "max(x, 0) + expm1(min(x, 0))",
        "0.5 * x * (1 + erf(x / sqrt(2)))",
    ],
)
def test_a_derivative_is_finite_where_something_inside_overflows(text, dtype):
    big = np.array([90.0, 800.0, 1e5], dtype)
    x = np.concatenate([-big[::-1], big])
    slope = Formula(text).derivative()(x)
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() <= 1.01


def test_derivatives_are_legible():
    def slope(text, kind: Kind = "pointwise"):
        return Formula(text, kind).derivative().text

    assert slope("3") == "0"
    assert slope("x") == "1"
    assert slope("x - 2*(3 - x)*2") == "5"
    assert slope("x**3 / 3") == "x**2"
    assert slope("x**2 / 3") == "2 * x / 3"
    assert slope("x / (1 + exp(-x))") == "sigmoid(x) + x * sigmoid(x) * sigmoid(-x)"
    assert slope("log(1 + exp(x))") == "sigmoid(x)"
    assert slope("0.05 * (x - 3)**2") == "0.1 * (x - 3)"
    assert slope("exp(x)**3") == "3 * exp(3 * x)"
    assert slope("max(2*x - mean(x))", "aggregate") == "2 * first_max(2 * x - mean(x)) - 1 / m"
    assert slope("sqrt(mean((x - mean(x))**2))", "aggregate") == (
        "ratio(x - mean(x), m * sqrt(mean((x - mean(x))**2)))"
    )
    assert slope("mean(x)", "aggregate") == "1 / m"
    assert slope("max(x) - min(x)", "aggregate") == "first_max(x) - first_min(x)"
    assert slope("sqrt(sum(x**2))", "aggregate") == "ratio(x, sqrt(sum(x**2)))"
    assert slope("log(mean(exp(x)))", "aggregate") == "exp(x) / (m * mean(exp(x)))"
    assert slope("max(x) + log(mean(exp(x - max(x))))", "aggregate") == (
        "exp(x - max(x)) / (m * mean(exp(x - max(x))))"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x / (pi - pi)", "a formula that divides by zero; mend the denominator"),
        ("9**9**9 * x", "numbers too large for the exact arithmetic of a derivative; use whole powers up to 1000"),
        ("((2*x)**1000)**1000", "numbers too large for the exact arithmetic of a derivative"),
        ("x**1001", "numbers too large for the exact arithmetic of a derivative"),
        ("1e200 * 1e200 * x", "numbers too large for the exact arithmetic of a derivative"),
        ("*".join(f"sin({k} * x)" for k in range(1, 40)), "got a formula, or a derivative, of 20966 characters"),
    ],
)
def test_what_cannot_be_differentiated(text, message):
    f = Formula(text)
    with pytest.raises(FormulaError, match=re.escape(message)):
        f.derivative()


def test_python_running_out_of_stack_is_said_in_our_words(monkeypatch):
    def deep(tree):
        raise RecursionError

    monkeypatch.setattr(derivative, "to_sympy", deep)
    with pytest.raises(FormulaError, match="a formula nested too deeply to be differentiated; write it flatter"):
        Formula("x").derivative()


def test_a_formula_of_entries_has_no_derivative():
    with pytest.raises(
        FormulaError, match="the derivative of 'x - mean\\(x\\)', which has a value for each entry of a"
    ):
        Formula("x - mean(x)", "entries").derivative()


def test_without_sympy_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sympy", None)
    monkeypatch.delitem(sys.modules, "faltung.formula.derivative", raising=False)
    f = Formula("x**2")
    assert float(f(3.0)) == 9
    with pytest.raises(MissingExtraError, match=re.escape("SymPy is not installed, and differentiates formulas")):
        f.derivative()
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'faltung[formula]'")):
        f.derivative()


def test_reading_and_evaluating_never_import_sympy():
    program = (
        "import sys; from faltung.formula import Formula;"
        "Formula('sum(x)', 'aggregate')([1.0, 2.0]); Formula('x', 'entries')([1.0]);"
        "sys.exit('sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_only_the_first_entries_are_not_under_an_aggregate():
    assert {name for name in REDUCTIONS if name.startswith("first_")} == PER_ENTRY
