"""Exponentials and their kin in the loop language against exact values, over all of float32 and float64."""

import re
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np
import pytest

from elf import library_calls
from faltung import special
from faltung.engine.host.compile import compile
from faltung.engine.host.machine import host
from faltung.engine.kernels import coefficients, mathematics, trigonometry
from faltung.engine.loops.interpreter import run
from faltung.engine.loops.language import F32, F64, INDEX, Function, Type, Value, pointer
from lowered import machines

mp.mp.dps = 40
Array = Any
KINDS = {np.float32: F32, np.float64: F64}
FUNCTION = {**vars(mathematics), **vars(trigonometry)}

# The worst errors that the module's docstring tells, in units in the last place: (float32, float64).
WORST = {
    "exp": (1.0, 1.0), "expm1": (1.5, 2.0), "log": (0.9, 0.9), "log1p": (1.5, 1.5), "tanh": (2.4, 2.6),
    "sinh": (2.6, 2.6), "cosh": (2.6, 2.6), "sigmoid": (2.3, 2.3), "softplus": (2.4, 2.4), "erf": (1.3, 1.2),
    "normal": (4.0, 3.1), "gelu": (4.0, 3.4), "arctan": (2.6, 2.2), "power": (0.5, 1.5),
    "sin": (0.7, 0.9), "cos": (0.7, 0.9), "tan": (0.7, 2.5),
}  # fmt: skip

# By NumPy in float64, exact enough for float32; and by mpmath.
EXACT: dict[str, tuple[Callable[[Array], Array], Callable[[Any], Any]]] = {
    "exp": (np.exp, mp.exp),
    "expm1": (np.expm1, mp.expm1),
    "log": (np.log, mp.log),
    "log1p": (np.log1p, mp.log1p),
    "tanh": (np.tanh, mp.tanh),
    "sinh": (np.sinh, mp.sinh),
    "cosh": (np.cosh, mp.cosh),
    "sigmoid": (special.sigmoid, lambda x: 1 / (1 + mp.exp(-x))),
    "softplus": (special.softplus, lambda x: mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))),
    "erf": (special.erf, mp.erf),
    "normal": (lambda x: special.erfc(-x / np.sqrt(2)) / 2, mp.ncdf),
    "gelu": (lambda x: x * special.erfc(-x / np.sqrt(2)) / 2, lambda x: x * mp.ncdf(x)),
    "arctan": (np.arctan, mp.atan),
    "sin": (np.sin, mp.sin),
    "cos": (np.cos, mp.cos),
    "tan": (np.tan, mp.tan),
}

# Through exp, these give 0 instead of a subnormal number.
FLUSHED = {"exp", "sigmoid", "softplus", "normal", "gelu", "power"}

# Where each function does something else than being 0, 1, linear or infinite.
INTERESTING = {
    "exp": (-104, 89), "expm1": (-18, 89), "log": (0.3, 3), "log1p": (-1, 3), "tanh": (-10, 10), "sinh": (-90, 90),
    "cosh": (-90, 90), "sigmoid": (-104, 18), "softplus": (-104, 18), "erf": (-4, 4), "normal": (-14.5, 6),
    "gelu": (-14.5, 6),    "arctan": (-10, 10), "sin": (-100, 100), "cos": (-100, 100), "tan": (-100, 100),
}  # fmt: skip


def function(name: str, kind: Type, lanes: int, arguments: int = 1) -> Function:
    """y[i] = f(x0[i], ...) for i below count, a multiple of the lanes."""
    f = Function(name, **{f"x{n}": pointer(kind) for n in range(arguments)}, y=pointer(kind), count=INDEX)
    *xs, y, count = f.arguments
    with f.loop("i", count, step=lanes) as i:
        result = FUNCTION[name](*(f.load(x, i, lanes) for x in xs))
        f.store(result if isinstance(result, Value) else result[0], y, i)
    return f


@cache
def compiled(name: str, dtype: Any, machine: str | None, lanes: int, arguments: int) -> Callable[..., None]:
    return compile([function(name, KINDS[dtype], lanes, arguments)], {name}, host(machine)).functions[name]


def evaluated(name: str, *x: Array, machine: str | None = None, lanes: int = 16) -> Array:
    """The function's values at all x."""
    count = len(x[0])
    padded = [np.append(a, np.ones(-count % lanes, a.dtype)) for a in x]
    y = np.full_like(padded[0], np.nan)
    call = compiled(name, x[0].dtype.type, machine, lanes, len(x))
    call(*(a.ctypes.data for a in padded), y.ctypes.data, len(y))
    return y[:count]


def assert_within(ulps: float, got: Array, exact: Array, flushed: bool = False) -> None:
    """``exact`` has more digits than ``got``; what it is when rounded must be equal where it is not finite."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        if flushed:
            small = np.abs(rounded) < np.finfo(got.dtype).tiny
            got, exact, rounded = (np.where(small & (got == 0), 0, array) for array in (got, exact, rounded))
        finite = np.isfinite(rounded)
        errors = np.abs(got - exact)[finite] / np.spacing(np.abs(rounded[finite])).astype(np.float64)
    np.testing.assert_array_equal(got[~finite], rounded[~finite])
    assert np.isfinite(got[finite]).all()
    assert np.max(errors, initial=0) <= ulps, float(np.max(errors))


def ulps_from_exact(got: Array, exact: list[Any], flushed: bool = False) -> float:
    """The largest error of float64 numbers, in units in the last place."""
    worst = 0.0
    for number, true in zip(got.tolist(), exact, strict=True):
        if abs(true) > 1.7976931348623158e308:
            assert number == float("inf") * (1 if true > 0 else -1)
        elif not (flushed and number == 0 and abs(true) < np.finfo(np.float64).tiny):
            worst = max(worst, float(abs(number - true) / mp.mpf(float(np.spacing(abs(float(true)))))))
    return worst


@pytest.mark.parametrize("name", EXACT)
def test_float32_everywhere(name):
    """Two million of the four thousand million numbers, all exponents and signs, and a dense sample."""
    f, _ = EXACT[name]
    everywhere = np.arange(0, 2**32, 2039, dtype=np.uint32).view(np.float32)
    edges = (np.arange(512, dtype=np.uint32)[:, None] << 23 | np.array([0, 1, 2**23 - 1], np.uint32)).ravel()
    low, high = INTERESTING[name]
    dense = np.linspace(low, high, 500_000)
    x = np.concatenate([everywhere, edges.view(np.float32), dense.astype(np.float32)])
    with np.errstate(all="ignore"):
        exact = f(x.astype(np.float64))
    assert_within(WORST[name][0], evaluated(name, x), exact, name in FLUSHED)


@pytest.mark.parametrize("name", EXACT)
def test_float64(name):
    _, f = EXACT[name]
    rng = np.random.default_rng(0)
    low, high = INTERESTING[name]
    wide = 8 if abs(low) > 80 or high > 80 else 3 if name in ("normal", "gelu") else 1  # exp ends at 710, not at 89
    x = np.concatenate([rng.uniform(wide * low, wide * high, 400), rng.uniform(-1, 1, 200)])
    x = np.append(x, rng.choice([-1, 1], 300) * np.exp2(rng.uniform(-1074, 20, 300)))
    x = x[(x > 0) if name == "log" else (x > -1) if name == "log1p" else np.abs(x) < 1e5]
    assert (
        ulps_from_exact(evaluated(name, x), [f(mp.mpf(number)) for number in x.tolist()], name in FLUSHED)
        <= WORST[name][1]
    )


@pytest.mark.parametrize("machine", machines())
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_angles_of_any_size(name, machine):
    """All exponents, both sides of where digits of 2 / pi are needed, and what is closest to a multiple of pi / 2."""
    rng, bound = np.random.default_rng(6), trigonometry.LARGE
    x = rng.choice([-1, 1], 150) * np.exp2(np.append(rng.uniform(-30, 1024, 100), rng.uniform(18, 22, 50)))
    x = np.concatenate([x, [bound, -bound, np.nextafter(bound, 0), np.ldexp(6381956970095103, 797), 1e22]])
    x = np.append(x, np.rint(rng.uniform(0, 1e6, 50)) * (np.pi / 2))
    with mp.workdps(400):
        exact = [EXACT[name][1](mp.mpf(number)) for number in x.tolist()]
        assert ulps_from_exact(evaluated(name, x, machine=machine), exact) <= WORST[name][1]


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_bits_do_not_depend_on_large_neighbours(name, dtype):
    x = np.random.default_rng(7).uniform(-100, 100, 16).astype(dtype)
    alone = evaluated(name, x)
    x[5], x[9] = 1e30, np.nan
    rest = np.delete(np.arange(16), [5, 9])
    np.testing.assert_array_equal(evaluated(name, x)[rest], alone[rest])


@pytest.mark.parametrize("machine", machines())
@pytest.mark.parametrize("name", EXACT)
def test_every_machine(name, machine):
    f, exact = EXACT[name]
    rng = np.random.default_rng(1)
    low, high = INTERESTING[name]
    x = rng.uniform(low, high, 40_000).astype(np.float32)
    assert_within(WORST[name][0], evaluated(name, x, machine=machine), f(x.astype(np.float64)), name in FLUSHED)
    x = rng.uniform(low, high, 100)
    values = [exact(mp.mpf(number)) for number in x.tolist()]
    assert ulps_from_exact(evaluated(name, x, machine=machine), values, name in FLUSHED) <= WORST[name][1]
    for kind in (F32, F64):
        assert library_calls([function(name, kind, 16)], {name}, host(machine)) == set()


LIMITS = {
    "exp": [0, np.inf, 1, 1], "expm1": [-1, np.inf, 0, 0], "log": [np.nan, np.inf, -np.inf, -np.inf],
    "log1p": [np.nan, np.inf, 0, 0], "tanh": [-1, 1, 0, 0], "sinh": [-np.inf, np.inf, 0, 0],
    "cosh": [np.inf, np.inf, 1, 1], "sigmoid": [0, 1, 0.5, 0.5], "erf": [-1, 1, 0, 0], "normal": [0, 1, 0.5, 0.5],
    "gelu": [np.nan, np.inf, 0, 0], "softplus": [0, np.inf, np.log(2), np.log(2)],
    "arctan": [-np.pi / 2, np.pi / 2, 0, 0],
    "sin": [np.nan, np.nan, 0, 0], "cos": [np.nan, np.nan, 1, 1], "tan": [np.nan, np.nan, 0, 0],
}  # fmt: skip


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", EXACT)
def test_limits_zeros_and_nan(name, dtype):
    values = evaluated(name, np.array([-np.inf, np.inf, 0.0, -0.0, np.nan], dtype))
    np.testing.assert_array_equal(values, np.array([*LIMITS[name], np.nan], dtype))


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", ["expm1", "log1p", "tanh", "sinh", "erf", "arctan"])
def test_subnormal_numbers_keep_their_digits(name, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([tiny, -tiny, 5 * tiny, 12345 * tiny])
    expected = x if name != "erf" else x.astype(np.float64) * (2 / np.sqrt(np.pi))
    np.testing.assert_array_equal(evaluated(name, x), expected.astype(dtype))


@pytest.mark.parametrize("dtype", KINDS)
def test_logarithms_of_subnormal_numbers(dtype):
    powers = np.arange(-(149 if dtype is np.float32 else 1074), 10)
    x = np.ldexp(np.ones(len(powers)), powers).astype(dtype)
    np.testing.assert_allclose(evaluated("log", x), powers * np.log(2), rtol=2 * float(np.finfo(dtype).eps))


def test_the_bell_beside_the_normal_distribution():
    f = Function("bell", x=pointer(F64), y=pointer(F64))
    x, y = f.arguments
    f.store(mathematics.normal(f.load(x, lanes=4))[1], y)
    numbers, values = np.array([0.0, 1.0, -2.5, 30.0]), np.empty(4)
    run(f, numbers, values)
    np.testing.assert_allclose(values, np.exp(-numbers * numbers / 2), rtol=1e-14)


@pytest.mark.parametrize("lanes", [1, 2, 8, 32])
@pytest.mark.parametrize("dtype", KINDS)
def test_the_bits_do_not_depend_on_the_number_of_lanes(dtype, lanes):
    x = np.random.default_rng(2).uniform(-5, 5, 64).astype(dtype)
    for name in EXACT:
        np.testing.assert_array_equal(evaluated(name, x, lanes=lanes), evaluated(name, x))


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", EXACT)
def test_interpreted_and_compiled_agree_bit_for_bit(name, dtype):
    x = np.random.default_rng(3).uniform(-9, 9, 32).astype(dtype)
    y = np.empty_like(x)
    with np.errstate(all="ignore"):
        run(function(name, KINDS[dtype], 16), x, y, 32, fused=host().fused)
    np.testing.assert_array_equal(evaluated(name, x), y)


def exponents(x: Array, rng: np.random.Generator) -> Array:
    """Such y that x^y goes through all that can be told."""
    with np.errstate(all="ignore"):
        y = rng.uniform(-1074, 1024, len(x)) / np.log2(x)
    return np.where(np.isfinite(y), y, 1)


@pytest.mark.parametrize("machine", machines())
def test_powers_of_float32(machine):
    rng = np.random.default_rng(4)
    x = np.exp2(rng.uniform(-149, 128, 200_000)).astype(np.float32)
    y = np.append(rng.normal(size=100_000), exponents(x[100_000:].astype(np.float64), rng) / 8).astype(np.float32)
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
    assert_within(WORST["power"][0] + 1e-6, evaluated("power", x, y, machine=machine), exact)


@pytest.mark.parametrize("machine", machines())
def test_powers_of_float64(machine):
    rng = np.random.default_rng(5)
    x = np.exp2(np.append(rng.uniform(-1074, 1024, 400), rng.uniform(-1, 1, 400)))
    y = exponents(x, rng)
    y[::3] = rng.normal(size=len(y[::3]))
    exact = [mp.power(mp.mpf(a), mp.mpf(b)) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert ulps_from_exact(evaluated("power", x, y, machine=machine), exact, flushed=True) <= WORST["power"][1]


@pytest.mark.parametrize("dtype", KINDS)
def test_powers_of_special_numbers(dtype):
    """Zeros with their signs, infinities, NaN, negative numbers with whole, odd, even, huge and fractional powers."""
    special = [0.0, 1.0, 2.0, 3.0, 0.5, 0.1, 7.5, np.inf, 2.0**23 + 1, 2.0**24, 2.0**53 - 1, 2.0**60]
    special = np.array([*special, *(-number for number in special), np.nan]).astype(dtype)
    x, y = (a.ravel() for a in np.meshgrid(special, special))
    with np.errstate(all="ignore"):
        expected = np.power(x, y)
    got = evaluated("power", x, y)
    np.testing.assert_allclose(got, expected, rtol=2 * float(np.finfo(dtype).eps))
    told = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[told]), np.signbit(expected[told]))


def test_the_docstring_tells_the_bounds():
    told = f"{mathematics.__doc__}{trigonometry.__doc__}"
    for name, (float32, float64) in WORST.items():
        assert re.search(rf"\b{name}\b[^.]* {float32}   {float64}", told), name


def test_the_coefficients_are_what_the_tool_finds(tmp_path):
    tool = Path(__file__).parents[1] / "tools/fit_polynomials.py"
    found = tmp_path / "coefficients.py"
    runpy.run_path(str(tool))["main"](found)
    assert found.read_text() == Path(coefficients.__file__).read_text()
