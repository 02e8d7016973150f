"""Compiled activations and formulas against their NumPy definitions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import ELU, GELU, LeakyReLU, Pointwise, ReLU, Sigmoid, SiLU, Softplus, Tanh
from faltung.engine.host.compile import counters
from faltung.engine.kernels.elementwise import BLOCK
from faltung.engine.loops.language import F32, F64, Constant, Function, Value, pointer
from faltung.engine.loops.statements import Let
from faltung.engine.lower.formula import FUNCTIONS, translate
from faltung.engine.lower.pointwise import LOWERINGS, error, forward
from faltung.formula import Formula
from faltung.formula.functions import FUNCTIONS as KNOWN
from faltung.formula.tree import Name, Node
from lowered import FLOATS, compare

ACTIVATIONS = [
    Sigmoid(), Tanh(), ReLU(), LeakyReLU(), LeakyReLU(0.3), ELU(), ELU(0.5), Softplus(), GELU(), SiLU(),
    Pointwise("x * sigmoid(1.702 * x)"), Pointwise("abs(x)**1.5", derivative="1.5 * sign(x) * sqrt(abs(x))"),
]  # fmt: skip


def numbers(count: int, dtype: Any, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(scale=3, size=count).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("element", ACTIVATIONS, ids=repr)
def test_activations_agree_on_every_machine_between_guards(element, dtype, machine, end):
    for count in (1, 3, 16, 65):
        compare(element, {}, numbers(count, dtype).reshape(1, count), end=end, tolerance=8)


@pytest.mark.parametrize("element", ACTIVATIONS, ids=repr)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.sampled_from(FLOATS), st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_any_shape(element, shape, dtype, seed):
    compare(element, {}, numbers(int(np.prod(shape)), dtype, seed).reshape(shape), tolerance=8, seed=seed)


@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17])
def test_sizes_around_the_blocks(count):
    compare(Tanh(), {}, numbers(count, np.float32), tolerance=8)
    compare(ReLU(), {}, np.rint(numbers(count, np.float32)))


@pytest.mark.parametrize("element", [ReLU(), LeakyReLU(0.5), Pointwise("max(x, -2) * min(3, x) + relu(x) - 4 / x")])
@pytest.mark.parametrize("dtype", FLOATS)
def test_without_rounded_functions_all_bits_agree(element, dtype):
    x = np.append(numbers(100, dtype), np.array([0, -0.0, np.inf, -np.inf, np.nan], dtype))
    dy = numbers(105, dtype, seed=1)
    with np.errstate(all="ignore"):
        y, kept = element.forward({}, x)
        dx = element.error({}, kept, dy)
    fast, fast_kept = forward(element, {}, x)
    np.testing.assert_array_equal(fast, y)
    np.testing.assert_array_equal(error(element, {}, fast_kept, dy), dx)


@pytest.mark.parametrize("element", ACTIVATIONS, ids=repr)
def test_infinite_numbers_and_nan_are_as_in_the_definition(element):
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0])
    with np.errstate(all="ignore"):
        y, kept = element.forward({}, x)
        slopes = element.slope(kept)
    fast, fast_kept = forward(element, {}, x)
    np.testing.assert_allclose(fast, y, rtol=1e-15)
    told = np.isfinite(slopes)  # where the definition gives inf * 0, the kernel may do better
    np.testing.assert_allclose(error(element, {}, fast_kept, np.ones(5))[told], slopes[told], rtol=1e-15)


def test_the_tail_of_gelu_keeps_its_digits():
    """Relative to each number; the smallest is 1e-19. In float64 the definition is exact enough for float32."""
    x = np.linspace(-9, -1, 1000, dtype=np.float32)
    exact, _ = GELU().forward({}, x.astype(np.float64))
    np.testing.assert_allclose(forward(GELU(), {}, x)[0], exact, rtol=4 * 2**-23)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "text",
    [
        "arctan(x) * cosh(x / 4) * sinh(x / 3) * erf(x)", "log(abs(x)) * expm1(x / 9)", "softplus(x) * log1p(abs(x))",
        "x**2 + x**4 / 7", "ratio(x, relu(x)) + ratio(x, 0)", "(1 + x**2)**(1/3)", "abs(x)**abs(x)**0.5",
        "x**-3", "sign(x) * step(x - 1) * sqrt(abs(x))", "2**x", "pi * e - 1", "abs(x)**0", "(-x)**5", "x**(1/3)",
    ],
)  # fmt: skip
def test_formulas(text, dtype, machine):
    element = Pointwise(text)
    x = np.concatenate([numbers(200, dtype), np.arange(-4, 5).astype(dtype)])
    double = x.astype(np.float64)
    with np.errstate(all="ignore"):
        y = forward(element, {}, x)[0]
        exact = Formula(text)(double)
    constants = 3 if "1/3" in text or "0.5" in text else 1  # they are rounded to float32, and multiply a logarithm
    np.testing.assert_allclose(y, exact, rtol=10 * constants * float(np.finfo(dtype).eps), atol=1e-30)
    assert y.dtype == dtype


def test_a_part_that_comes_twice_is_computed_once():
    f = Function("f", x=pointer(F64), y=pointer(F64))
    x, y = f.arguments
    known: dict[Node, Value] = {Name("x"): f.load(x, lanes=4)}
    f.store(translate(f, F64.times(4), Formula("(x + 1) * (x + 1)").tree, known), y)
    assert [statement.op for statement in f.body if isinstance(statement, Let)] == ["add", "mul"]


def test_constants_are_rounded_as_in_the_definition():
    f = Function("f", x=pointer(F32))
    kind = F32.times(4)
    third = translate(f, kind, Formula("1 / 3").tree, {})
    assert isinstance(third, Constant)
    assert third.number == float(np.float32(1) / np.float32(3))


def test_every_function_of_a_formula_has_a_kernel():
    assert set(FUNCTIONS) >= set(KNOWN)
    element, x = Pointwise("sin(x) - cos(2 * x)"), numbers(50, np.float32)
    y, kept = forward(element, {}, x)
    np.testing.assert_allclose(y, np.sin(x) - np.cos(2 * x), atol=1e-6)
    np.testing.assert_allclose(error(element, {}, kept, x), x * (np.cos(x) + 2 * np.sin(2 * x)), atol=1e-5)


def test_numbers_that_do_not_lie_side_by_side():
    x = numbers(60, np.float64).reshape(5, 12)[:, ::2]
    y, kept = forward(Sigmoid(), {}, x)
    expected, _ = Sigmoid().forward({}, x)
    np.testing.assert_allclose(y, expected, rtol=1e-15)
    np.testing.assert_allclose(error(Sigmoid(), {}, kept.T, x.T), x.T * (y * (1 - y)).T, rtol=1e-15)


def test_nothing_is_compiled_again_for_another_size():
    for _ in range(2):  # the second call is recorded
        forward(Softplus(), {}, numbers(10, np.float32))
    before = counters.compiled + counters.loaded
    for count in range(1, 50):
        forward(Softplus(), {}, numbers(count, np.float32))
    assert counters.compiled + counters.loaded == before


def test_the_number_of_threads_does_not_change_a_bit(monkeypatch):
    x, results = numbers(40 * BLOCK + 5, np.float32), []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("FALTUNG_THREADS", threads)
        results.append(forward(GELU(), {}, x)[0])
    assert all(np.array_equal(result, results[0]) for result in results)


def test_every_activation_but_the_identity_is_lowered():
    assert set(LOWERINGS) == {type(element) for element in ACTIVATIONS}
