"""sin, cos and tan in the loop language, over all of float32 and float64; the worst errors found, rounded up, in units
in the last place:

                f32   f64
    sin         0.7   0.9
    cos         0.7   0.9
    tan         0.7   2.5

An argument is n pi / 2 + r with abs(r) <= pi / 4; n mod 4 says which of sin(r) and cos(r) it is, and with which sign.
Everything is done in f64. Below 2^20, n times each part of pi / 2 is exact. Vectors with a larger number take another
way: x times each digit of 2 / pi is exact too, and what is a multiple of four quarters of a turn is left out. Source:
M. H. Payne & R. N. Hanek, Radian reduction for trigonometric functions, SIGNUM Newsletter 18 (1983), 19-24.

>>> import numpy as np
>>> from faltung.engine.loops.interpreter import run
>>> from faltung.engine.loops.language import Function, pointer
>>> f = Function("f", x=pointer(F64), y=pointer(F64))
>>> x, y = f.arguments
>>> f.store(sin(f.load(x, lanes=4)), y)
>>> numbers, results = np.array([0.0, 1.0, -100.0, 1e22]), np.empty(4)
>>> run(f, numbers, results)
>>> results.tolist()
[0.0, 0.8414709848078965, 0.5063656411097588, -0.8522008497671888]
"""

import math

from faltung.engine.kernels import coefficients
from faltung.engine.kernels.floats import FORMATS, exact_sum, halves, ordered_sum, product
from faltung.engine.kernels.mathematics import polynomial
from faltung.engine.loops.language import F64, I64, Type, Value

LARGE = 2.0**20
"""From here on digits of 2 / pi are needed."""
SCALE = 2.0**-512
"""The digits are so much too large."""
HALF_PI_REST = 6.123233995736766e-17
"""pi / 2 less its float64."""
DIGITS = {"f32": 8, "f64": 44}
"""So many are needed: the last one times the largest number is beyond what the result shows."""


def sin(x: Value) -> Value:
    """The sine."""
    return _rounded(_quarter(x, 0), x)


def cos(x: Value) -> Value:
    """The cosine: the sine, a quarter of a turn on."""
    return _rounded(_quarter(x, 1), x)


def tan(x: Value) -> Value:
    """The tangent."""
    n, high, low = _reduced(x)
    f, odd = x.function, _odd(n)
    s, c = _sin(high, low, x.type.kind), _cos(high, low, x.type.kind)
    return _rounded(f.select(odd, -c, s) / f.select(odd, s, c), x)


def _quarter(x: Value, start: int) -> Value:
    """The sine of x + start pi / 2."""
    f = x.function
    n, high, low = _reduced(x)
    n = n + start
    y = f.select(_odd(n), _cos(high, low, x.type.kind), _sin(high, low, x.type.kind))
    sign = (n & 2) << 62
    return f.convert("bits", f.convert("bits", y, I64) ^ sign, F64)


def _reduced(x: Value) -> tuple[Value, Value, Value]:
    """A whole n and r = high + low with x = n pi / 2 + r, abs(r) <= pi / 4; n is right in its last bits."""
    f, single = x.function, x.type.kind == "f32"
    wide = f.convert("widen", x, F64) if single else x
    kind = wide.type
    shifter = FORMATS["f64"].shifter
    turned = f.fma(wide, 2 / math.pi, shifter)
    q = turned - shifter
    high, low = wide, f.constant(0.0, kind)
    if single:
        first, *rest = coefficients.HALF_PI
        high = f.fma(q, -sum(rest), f.fma(q, -first, wide))
    else:
        for part in coefficients.HALF_PI:
            high, lost = exact_sum(high, -part * q)
            low = low + lost
        high, low = ordered_sum(high, low)
    results = [f.variable(name, start) for name, start in (("n", turned), ("high", high), ("low", low))]
    near = f.op("abs", x) < LARGE
    with f.where(f.max_lanes(f.select(near, f.constant(0.0, x.type), 1.0)) > 0):
        for variable, value in zip(results, _of_digits(wide, single), strict=True):
            variable.set(f.select(near, variable.value, value))
    n, high, low = (variable.value for variable in results)
    return f.convert("bits", n, I64), high, low


def _of_digits(x: Value, single: bool) -> tuple[Value, Value, Value]:
    """n (added to the shifter), high and low, for any finite x."""
    f = x.function
    x = x * SCALE
    s = q = low = f.constant(0.0, x.type)
    for digit in coefficients.TWO_OVER_PI[: DIGITS["f32" if single else "f64"]]:
        for part in (x,) if single else halves(x):
            t = part * digit
            t = t - 4 * f.op("round", 0.25 * t)
            s, lost = exact_sum(s, t)
            low = low + lost
            n = f.op("round", s)
            q, s = q + n, s - n
    s, low = ordered_sum(s, low)
    high, lost = product(s, f.constant(math.pi / 2, x.type))
    low = f.fma(low, math.pi / 2, f.fma(s, HALF_PI_REST, lost))
    return q + FORMATS["f64"].shifter, high, low


def _sin(high: Value, low: Value, kind: str) -> Value:
    f, z = high.function, high * high
    return high + f.fma(z * high, polynomial(z, coefficients.SIN[kind]), low)


def _cos(high: Value, low: Value, kind: str) -> Value:
    f, z = high.function, high * high
    half = 0.5 * z
    one = 1 - half
    return one + (((1 - one) - half) + f.fma(z * z, polynomial(z, coefficients.COS[kind]), -(high * low)))


def _odd(n: Value) -> Value:
    return (n & 1).equal(1)


def _rounded(y: Value, x: Value) -> Value:
    """y, of the type of x."""
    return y.function.convert("narrow", y, Type("f32")) if x.type.kind == "f32" else y
