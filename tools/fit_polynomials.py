"""Find the polynomials of ``faltung.engine.mathematics``, and write them down.

    python tools/fit_polynomials.py src/faltung/engine/coefficients.py

A polynomial interpolates its function at the Chebyshev nodes of an interval, which comes within a small factor of the
best possible one. Its degree is the smallest whose error, coefficients rounded to float32 or float64, leaves at most a
quarter of a unit in the last place in the result that it is used for. All in 60 digits, by mpmath, which comes with
SymPy.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np

BITS = {"f32": 24, "f64": 53}
DTYPES = {"f32": np.float32, "f64": np.float64}
mp.mp.dps = 60

Function = Callable[[Any], Any]
TARGET = Path(__file__).resolve().parent.parent / "src/faltung/engine/coefficients.py"
HEADER = '"""Coefficients of the polynomials of ``mathematics``, constant first; by ``tools/fit_polynomials.py``."""\n'


def exp(kind: str) -> tuple[Function, Any, Any, Function]:
    """(exp(r) - 1 - r) / r^2, where abs(r) is at most log(2) / 2; for expm1(r) = r + r^2 P(r)."""
    most = mp.log(2) / 2 * mp.mpf("1.001")
    return smooth(lambda r: (mp.expm1(r) - r) / r**2, 0.5), -most, most, lambda r: r


def log(kind: str) -> tuple[Function, Any, Any, Function]:
    """(2 arctanh(s) / s - 2) / z with z = s^2, s = (m - 1) / (m + 1), m from sqrt(1/2) to sqrt(2)."""
    most = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * mp.mpf("1.001")
    return odd(lambda s: 2 * mp.atanh(s), 1), mp.mpf(0), most, lambda z: z / 2


def log_rest(kind: str) -> tuple[Function, Any, Any, Function]:
    """What ``log`` leaves after its constant 2/3, divided by z: for x^y, whose y log(x), at most 745, adds 10 bits."""
    _, low, high, _ = log(kind)
    return odd(lambda s: 2 * mp.atanh(s), 2), low, high, lambda z: z**2 / 2 * 2**10


def erf(kind: str) -> tuple[Function, Any, Any, Function]:
    """erf(x) / x - 1 with z = x^2 from 0 to 1."""
    return smooth(lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, 2 / mp.sqrt(mp.pi) - 1), mp.mpf(0), mp.mpf(1), one


def arctan(kind: str) -> tuple[Function, Any, Any, Function]:
    """(arctan(x) / x - 1) / z with z = x^2, abs(x) at most tan(pi / 8)."""
    return odd(mp.atan, 1), mp.mpf(0), mp.tan(mp.pi / 8) ** 2 * mp.mpf("1.001"), lambda z: z


POLYNOMIALS = [exp, log, log_rest, erf, arctan]
"""Each gives the function, its interval, and the share of an error of the polynomial in the result."""


def one(x: Any) -> Any:
    """The whole error goes into the result."""
    return mp.mpf(1)


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


def interpolate(g: Function, low: Any, high: Any, degree: int) -> list[Any]:
    """The coefficients, constant first, of the polynomial that equals g at the Chebyshev nodes of low .. high."""
    angles = [mp.pi * (2 * i + 1) / (2 * degree + 2) for i in range(degree + 1)]
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(angle) for angle in angles]
    powers = mp.matrix([[node**k for k in range(degree + 1)] for node in nodes])
    return list(mp.lu_solve(powers, mp.matrix([g(node) for node in nodes])))


def fit(polynomial: Callable[[str], tuple[Function, Any, Any, Function]], kind: str) -> list[Any]:
    """The coefficients of the shortest polynomial that is good enough, rounded."""
    g, low, high, share = polynomial(kind)
    points = [low + (high - low) * i / 300 for i in range(301)]
    for degree in range(1, 40):
        coefficients = [DTYPES[kind](mp.nstr(c, 30)) for c in interpolate(g, low, high, degree)]
        exact = [mp.mpf(float(c)) for c in reversed(coefficients)]
        if all(abs((mp.polyval(exact, x) - g(x)) * share(x)) < mp.mpf(2) ** -(BITS[kind] + 2) for x in points):
            return coefficients
    raise ValueError(f"no polynomial of degree below 40 is good enough for {polynomial.__name__}")


def erfc(kind: str) -> tuple[list[Any], list[Any]]:
    """exp(z^2) erfc(z) for z >= 0, until erfc(z) is 0: a polynomial over one of a degree more, all coefficients positive.

    So nothing cancels, and hardly a digit is lost. They interpolate at z = 2 (1 + t) / (1 - t), t the Chebyshev nodes.
    """
    most = {"f32": 10.1, "f64": 27.3}[kind]
    points = [mp.mpf(most) * i / 300 for i in range(301)]
    for degree in range(1, 20):
        count = 2 * degree + 2
        nodes = [(mp.cos(mp.pi * (2 * i + 1) / (2 * count)) + 1) / 2 * (most - 2) / (most + 2) for i in range(count)]
    return nodes, points


def main(target: Path) -> None:
    """Write the module."""
    parts = [HEADER]
    for polynomial in POLYNOMIALS:
        parts.append(f"{polynomial.__name__.upper()} = {{")
        for kind in ["f64"] if polynomial is log_rest else BITS:
            numbers = ",\n        ".join(str(c) for c in fit(polynomial, kind))
            parts.append(f'    "{kind}": (\n        {numbers},\n    ),')
        parts.append(f'}}\n"""{polynomial.__doc__}"""\n')
    centers = ", ".join(f'"{kind}": {float(center)}' for kind, center in ERFC_CENTER.items())
    parts.append(f"ERFC_CENTER = {{{centers}}}")
    target.write_text("\n".join(parts) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else TARGET)
