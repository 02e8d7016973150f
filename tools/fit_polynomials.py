"""Find the polynomials of ``faltung.engine.kernels.mathematics``, and write them down.

    python tools/fit_polynomials.py src/faltung/engine/kernels/coefficients.py

A polynomial (or a quotient of two) interpolates its function at the Chebyshev nodes of an interval, which comes within
a small factor of the best possible one. Its degree is the smallest whose error, coefficients rounded to float32 or
float64, leaves at most a quarter of a unit in the last place in the result that it is used for (a quotient: half of
one). All in 60 digits, by mpmath, which comes with SymPy.
"""

import sys
from collections.abc import Callable
from inspect import cleandoc
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np

BITS = {"f32": 24, "f64": 53}
DTYPES = {"f32": np.float32, "f64": np.float64}
mp.mp.dps = 60

Function = Callable[[Any], Any]
Problem = tuple[Function, Any, Any, Function]
"""A function, its interval, and the share of an error of the polynomial in the result."""

TARGET = Path(__file__).resolve().parent.parent / "src/faltung/engine/kernels/coefficients.py"
HEADER = '"""Coefficients of the polynomials of ``mathematics``, constant first; by ``tools/fit_polynomials.py``."""\n'


def exp() -> Problem:
    """(exp(r) - 1 - r - r^2 / 2) / r^3, where abs(r) is at most log(2) / 2."""
    _, _, most, _ = expm1()
    wide = most * mp.mpf("1.04")  # the nodes reach beyond, since errors count most at the ends
    g = smooth(lambda r: (mp.expm1(r) - r - r**2 / 2) / r**3, mp.mpf(1) / 6)
    return g, -wide, wide, lambda r: r**3 / mp.exp(r) if abs(r) < most else mp.mpf(0)


def expm1() -> Problem:
    """(exp(r) - 1 - r) / r^2, for exp(r) - 1 = r + r^2 P(r)."""
    most = mp.log(2) / 2 * mp.mpf("1.001")
    return smooth(lambda r: (mp.expm1(r) - r) / r**2, 0.5), -most, most, lambda r: r


def log() -> Problem:
    """(2 arctanh(s) / s - 2) / z with z = s^2, s = (m - 1) / (m + 1), m from sqrt(1/2) to sqrt(2)."""
    most = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * mp.mpf("1.001")
    return odd(lambda s: 2 * mp.atanh(s), 1), mp.mpf(0), most, lambda z: z / 2


def log_rest() -> Problem:
    """What ``log`` leaves after its constant 2/3, divided by z: for x^y, whose y log(x), at most 745, adds 10 bits."""
    _, low, high, _ = log()
    return odd(lambda s: 2 * mp.atanh(s), 2), low, high, lambda z: z**2 / 2 * 2**10


def erf() -> Problem:
    """erf(x) / x - 1 with z = x^2 from 0 to 1."""
    g = smooth(lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, 2 / mp.sqrt(mp.pi) - 1)
    return g, mp.mpf(0), mp.mpf(1), lambda z: mp.mpf(1)


def arctan() -> Problem:
    """(arctan(x) / x - 1) / z with z = x^2, abs(x) at most tan(pi / 8)."""
    return odd(mp.atan, 1), mp.mpf(0), mp.tan(mp.pi / 8) ** 2 * mp.mpf("1.001"), lambda z: z


def sin() -> Problem:
    """(sin(r) / r - 1) / z with z = r^2, abs(r) at most pi / 4."""
    return odd(mp.sin, 1), mp.mpf(0), (mp.pi / 4) ** 2 * mp.mpf("1.001"), lambda z: z


def cos() -> Problem:
    """(cos(r) - 1 + z / 2) / z^2 with z = r^2, abs(r) at most pi / 4."""
    g = smooth(lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2, mp.mpf(1) / 24)
    return g, mp.mpf(0), (mp.pi / 4) ** 2 * mp.mpf("1.001"), lambda z: z**2 * mp.mpf("1.5")


def digits(number: Any, bits: int, count: int, scale: int = 0) -> list[float]:
    """The first digits of a number, so many bits in each, times 2^scale."""
    parts = []
    for n in range(1, count + 1):
        digit = mp.floor(mp.ldexp(number, bits * n))
        number -= mp.ldexp(digit, -bits * n)
        parts.append(float(mp.ldexp(digit, scale - bits * n)))
    return [*parts, float(mp.ldexp(number, scale))]


def listed(name: str, numbers: list[float], meaning: str) -> str:
    """A tuple as Python writes it, and what it is."""
    return "\n".join(
        [f"{name} = (", *(f"    {number},".replace("e+", "e") for number in numbers), ")", f'"""{meaning}"""', ""]
    )


def tail(kind: str) -> list[list[Any]]:
    """Q of exp(z^2 / 2) (1 - normal(z)) = Q(z) / (k z Q(z) + P(z)), z from 0 to where z (1 - normal(z)) is subnormal.

    P is a degree lower. All coefficients are positive: nothing cancels; and what rounding does to Q does little to the
    quotient, the less the larger z is. That tends to 1 / (sqrt(2 pi) z), so k is close to sqrt(2 pi). The nodes are
    those of t from -1 on, z = c (1 + t) / (1 - t). A common factor is free: the last coefficient of Q is 1.
    """
    most, center = {"f32": (mp.mpf("13.2"), 2), "f64": (mp.mpf("37.7"), 3)}[kind]
    root = DTYPES[kind](mp.nstr(mp.sqrt(2 * mp.pi), 30))
    slopes = [root + i * np.spacing(root) for i in range(48)]

    def g(z: Any) -> Any:
        return mp.exp(z * z / 2) * mp.erfc(z / mp.sqrt(2)) / 2

    exact = [(most * i / 50, g(most * i / 50)) for i in range(51)]

    def worst(parts: list[list[Any]]) -> Any:
        over, rest, [slope] = parts
        quotients = ((value(over, z), value(rest, z), z, true) for z, true in exact)
        return max(abs(q / (mp.mpf(float(slope)) * z * q + p) / true - 1) for q, p, z, true in quotients)

    def solved(degree: int, slope: Any) -> list[list[Any]]:
        high = (most - center) / (most + center)
        zs = [center * (1 + t) / (1 - t) for t in nodes(mp.mpf(-1), high, 2 * degree)]
        known = [(z, g(z), 1 - mp.mpf(float(slope)) * z * g(z)) for z in zs]
        rows = [[one * z**k for k in range(degree)] + [-true * z**k for k in range(degree)] for z, true, one in known]
        solution = list(mp.lu_solve(mp.matrix(rows), mp.matrix([-one * z**degree for z, _, one in known])))
        return [[*solution[:degree], mp.mpf(1)], solution[degree:], [slope]]

    for degree in range(2, 20):
        found = [solved(degree, slope) for slope in slopes]
        if min(map(worst, found)) < mp.mpf(2) ** -(BITS[kind] + 1):
            return min(([rounded(over, kind), rounded(rest, kind), slope] for over, rest, slope in found), key=worst)
    raise ValueError("no quotient is good enough for the tail")


def smooth(g: Function, at_zero: Any) -> Function:
    """The function g with its limit at 0, around which it loses all digits."""
    return lambda x: g(x) if abs(x) > mp.mpf(10) ** -15 else mp.mpf(at_zero)


def odd(f: Function, terms: int) -> Function:
    """What is left of the odd function f as a series in z = x^2, when x and the first terms are divided off."""
    series = mp.taylor(f, 0, 2 * terms + 1)[1::2]

    def rest(z: Any) -> Any:
        x = mp.sqrt(z)
        return (f(x) / x - mp.polyval(series[terms - 1 :: -1], z)) / z**terms

    return smooth(rest, series[terms])


def nodes(low: Any, high: Any, count: int) -> list[Any]:
    """The Chebyshev nodes of an interval."""
    return [(low + high + (high - low) * mp.cos(mp.pi * (2 * i + 1) / (2 * count))) / 2 for i in range(count)]


def rounded(numbers: list[Any], kind: str) -> list[Any]:
    """The coefficients as numbers of this kind."""
    return [DTYPES[kind](mp.nstr(number, 30)) for number in numbers]


def value(coefficients: list[Any], x: Any) -> Any:
    """The value of a polynomial, constant first."""
    return mp.polyval([mp.mpf(float(c)) if isinstance(c, np.floating) else c for c in reversed(coefficients)], x)


def fit(problem: Problem, kind: str) -> list[Any]:
    """The coefficients of the shortest polynomial that is good enough."""
    g, low, high, share = problem
    points = [low + (high - low) * i / 300 for i in range(301)]
    for degree in range(1, 40):
        xs = nodes(low, high, degree + 1)
        powers = mp.matrix([[x**k for k in range(degree + 1)] for x in xs])
        coefficients = rounded(list(mp.lu_solve(powers, mp.matrix([g(x) for x in xs]))), kind)
        if all(abs((value(coefficients, x) - g(x)) * share(x)) < mp.mpf(2) ** -(BITS[kind] + 2) for x in points):
            return coefficients
    raise ValueError("no polynomial of degree below 40 is good enough")


def table(name: str, lists: dict[str, list[Any]], meaning: str | None) -> str:
    """A dictionary of tuples as Python writes it, and what they are."""
    lines = [f"{name} = {{"]
    for key, numbers in lists.items():
        lines += [f'    "{key}": (', *(f"        {number}," for number in numbers), "    ),"]
    return "\n".join([*lines, "}", f'"""{cleandoc(meaning or "")}"""', ""])


def main(target: Path) -> None:
    """Write the module."""
    parts = [HEADER]
    for problem in (exp, expm1, log, log_rest, erf, arctan, sin, cos):
        kinds = ["f64"] if problem is log_rest else BITS
        parts.append(table(problem.__name__.upper(), {kind: fit(problem(), kind) for kind in kinds}, problem.__doc__))
    tails = {kind: tail(kind) for kind in BITS}
    parts.append(table("TAIL", {kind: over for kind, (over, _, _) in tails.items()}, tail.__doc__))
    parts.append(table("TAIL_REST", {kind: rest for kind, (_, rest, _) in tails.items()}, "The P of ``TAIL``."))
    slopes = ", ".join(f'"{kind}": {slope}' for kind, (_, _, [slope]) in tails.items())
    parts.append(f'TAIL_SLOPE = {{{slopes}}}\n"""The k of ``TAIL``."""\n')
    with mp.workdps(600):
        half = digits(mp.pi / 2, 33, 3)
        parts.append(listed("HALF_PI", half, "pi / 2 as a sum: 33 bits each, and what is left."))
        turns = digits(2 / mp.pi, 26, 44, scale=512)[:-1]
        parts.append(listed("TWO_OVER_PI", turns, "2 / pi times 2^512, 26 bits each, so that none is subnormal."))
    target.write_text("\n".join(parts))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else TARGET)
