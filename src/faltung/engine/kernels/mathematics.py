"""Exponentials, logarithms and their kin in the loop language, for any number of lanes of f32 or f64.

Each brings its argument into a small interval by exact steps, and takes a polynomial there (``coefficients``). Nothing
is looked up in tables and nothing branches: where a function has two pieces, both are computed and one is selected. The
worst errors found, with fused multiply-add or without, in units in the last place, rounded up:

                f32   f64                     f32   f64                     f32   f64
    exp         1.0   1.0        tanh         2.4   2.6        erf          1.3   1.2
    expm1       1.5   2.0        sinh, cosh   2.6   2.6        normal       4.0   3.1
    log         0.9   0.9        sigmoid      2.3   2.3        arctan       2.6   2.2
    log1p       1.5   1.5        softplus     2.4   2.4        power        0.5   1.5
    gelu        4.0   3.4

Infinite arguments give limits, NaN gives NaN; results that are too large are infinite. Kernels run with subnormal
numbers flushed to zero, and exp gives 0 instead of one anyway; but where a processor does not flush them, subnormal
arguments are as good as others. Sources: W. J. Cody & W. Waite, Software Manual for
the Elementary Functions, 1980 (the steps of exp and log); T. J. Dekker, Numer. Math. 18 (1971), 224-242 (exact
products).

>>> import numpy as np
>>> from faltung.engine.loops.interpreter import run
>>> from faltung.engine.loops.language import F64, Function, pointer
>>> f = Function("f", x=pointer(F64), y=pointer(F64))
>>> x, y = f.arguments
>>> f.store(exp(f.load(x, lanes=4)), y)
>>> numbers, results = np.array([0.0, 1.0, -np.inf, 710.0]), np.empty(4)
>>> run(f, numbers, results)
>>> results.tolist()
[1.0, 2.7182818284590455, 0.0, inf]
"""

import math
from collections.abc import Sequence

from faltung.engine.kernels import coefficients
from faltung.engine.kernels.floats import FORMATS, ordered_sum, product
from faltung.engine.loops.language import F64, Type, Value


def polynomial(x: Value, numbers: Sequence[float]) -> Value:
    """numbers[0] + numbers[1] x + numbers[2] x^2 + ..., by Horner's rule."""
    *lower, number, last = numbers
    total = x + number if last == 1 else x.function.fma(last, x, number)
    for number in reversed(lower):
        total = x.function.fma(total, x, number)
    return total


# ------------------------------------------------------------------------------------------------------ exponentials


def exp(x: Value, low: Value | None = None) -> Value:
    """e^x, or e^(x + low) where x is the rounded value of a number that is known more exactly."""
    this = FORMATS[x.type.kind]
    n, p = _near_zero(x, low)
    total = x if low is None else x + low
    return x.function.select(total < this.lowest, 0.0, _finite(_scaled(1 + p, n), total, this.highest))


def decay(x: Value) -> Value:
    """e^-x for x >= 0, in fewer steps than ``exp``."""
    f, this = x.function, FORMATS[x.type.kind]
    start = this.shifter + this.bias
    shifted = f.fma(x, -1 / math.log(2), start)
    n = shifted - start
    r = -f.fma(n, this.log2_low, f.fma(n, this.log2_high, x))
    p = _rest(r)
    power = f.convert("bits", f.convert("bits", shifted, this.whole) << this.mantissa, Type(x.type.kind))  # 2^n
    return f.select(-this.lowest < x, 0.0, f.fma(power, p, power))  # NaN gives NaN, by p


def expm1(x: Value) -> Value:
    """e^x - 1."""
    n, p = _near_zero(x.function.max(-40.0, x))
    large = _finite(_scaled(1 + p, n), x, FORMATS[x.type.kind].highest)
    return x.function.select(x < 40, _less_one(n, p), large)


def tanh(x: Value) -> Value:
    """(t - 1) / (t + 1) with t = e^2x."""
    f = x.function
    t = _less_one(*_near_zero(f.min(40.0, 2 * _abs(x))))
    return f.op("sign_of", t / (t + 2), x)


def sinh(x: Value) -> Value:
    """(e^x - e^-x) / 2."""
    z = _abs(x)
    n, p = _near_zero(z)
    t = _less_one(n, p)
    y = x.function.select(z < 40, t * (0.5 + 0.5 / (t + 1)), _half_exp(z, n, p))
    return x.function.op("sign_of", y, x)


def cosh(x: Value) -> Value:
    """(e^x + e^-x) / 2."""
    z = _abs(x)
    n, p = _near_zero(z)
    e = _scaled(1 + p, n)
    return x.function.select(z < 40, 0.5 * e + 0.5 / e, _half_exp(z, n, p))


def sigmoid(x: Value) -> Value:
    """1 / (1 + e^-x)."""
    d = decay(_abs(x))
    return x.function.select(x < 0, d, 1.0) / (1 + d)


def _near_zero(x: Value, low: Value | None = None) -> tuple[Value, Value]:
    """A whole n, and p = e^r - 1, with x = n log(2) + r, abs(r) <= log(2) / 2; n is added to the ``shifter``."""
    f, this = x.function, FORMATS[x.type.kind]
    shifted = f.fma(x if low is None else x + low, 1 / math.log(2), this.shifter)
    n = shifted - this.shifter
    r = f.fma(n, -this.log2_low, f.fma(n, -this.log2_high, x))
    r = r if low is None else r + low
    return shifted, _rest(r)


def _rest(r: Value) -> Value:
    """e^r - 1, where abs(r) <= log(2) / 2."""
    return r.function.fma(r * r, polynomial(r, coefficients.EXPM1[r.type.kind]), r)


def _less_one(shifted: Value, p: Value) -> Value:
    """e^x - 1, from ``_near_zero(x)``, for x below 40."""
    f, this = p.function, FORMATS[p.type.kind]
    bits = f.convert("bits", shifted + this.bias, this.whole) << this.mantissa
    power = f.convert("bits", bits, Type(p.type.kind))  # 2^n
    return f.fma(power, p, power - 1)


def _scaled(m: Value, shifted: Value) -> Value:
    """m 2^n, where that is a normal number: n is added to the exponent of m."""
    f, this = m.function, FORMATS[m.type.kind]
    n = f.convert("bits", shifted, this.whole) << this.mantissa
    return f.convert("bits", f.convert("bits", m, this.whole) + n, Type(m.type.kind))


def _half_exp(x: Value, shifted: Value, p: Value) -> Value:
    """e^x / 2, from ``_near_zero(x)``, for x from 40: finite also where e^x is not."""
    return _finite(_scaled(1 + p, shifted - 1), x, FORMATS[x.type.kind].highest + math.log(2))


def _finite(y: Value, x: Value, limit: float) -> Value:
    """y where x is below the limit, and then infinite; NaN where x is."""
    return x.function.select(x < limit, y, x + math.inf)


def _abs(x: Value) -> Value:
    return x.function.op("abs", x)


# -------------------------------------------------------------------------------------------------------- logarithms


def log(x: Value) -> Value:
    """The natural logarithm; NaN where x < 0."""
    f, this = x.function, FORMATS[x.type.kind]
    tiny, digits = x < 2.0 ** (1 - this.bias), this.mantissa + 2
    up, down = f.select(tiny, x * 2.0**digits, x), f.select(tiny, f.constant(float(digits), x.type), 0.0)
    y = _log(up, down)
    return f.select(x > 0, f.select(x < math.inf, y, x), f.select(x.equal(0), -math.inf, f.constant(math.nan, x.type)))


def log1p(x: Value) -> Value:
    """log(1 + x), with all digits where x is small: what 1 + x loses by rounding is added again."""
    f = x.function
    u = 1 + x
    lost = f.select(x < 1, x - (u - 1), 1 - (u - x))
    return log(u) + f.select((u > 0) & (u < math.inf), lost / u, 0.0)


def softplus(x: Value) -> Value:
    """log(1 + e^x)."""
    d = decay(_abs(x))
    u = 1 + d  # from 1 to 2, where what it loses need not be divided by u
    return x.function.max(0.0, x) + (_log(u) + (d - (u - 1)))


def _log(x: Value, down: Value | float = 0.0) -> Value:
    """log(2^-down x) for a normal number x > 0, with x = 2^e m, log(m) = 2s + 2/3 s^3 + ..., s = (m - 1) / (m + 1)."""
    f, this = x.function, FORMATS[x.type.kind]
    e, m = _parts(x)
    e = e - down
    r = m - 1  # exact
    s = r / (r + 2)
    z = s * s
    square = 0.5 * r * r
    rest = f.fma(s, f.fma(z, polynomial(z, coefficients.LOG[x.type.kind]), square), e * this.log2_low)
    return e * this.log2_high - ((square - rest) - r)


def _parts(x: Value) -> tuple[Value, Value]:
    """A whole e and m with x = 2^e m, sqrt(1/2) <= m < sqrt(2), for a normal number x > 0."""
    f, this = x.function, FORMATS[x.type.kind]
    root = this.bits(math.sqrt(0.5))
    bits = f.convert("bits", x, this.whole) + (this.bits(1.0) - root)
    one = 2.0**this.mantissa  # a whole number is put into its last bits: thus it becomes a floating one
    exponent = f.convert("bits", f.op("shift_right_logical", bits, this.mantissa) | this.bits(one), Type(x.type.kind))
    m = f.convert("bits", (bits & (2**this.mantissa - 1)) + root, Type(x.type.kind))
    return exponent - (one + this.bias), m


# ----------------------------------------------------------------------------------- the normal distribution, arctan


def erf(x: Value) -> Value:
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    f = x.function
    z = f.min(6.0, _abs(x))
    near = f.fma(z, polynomial(z * z, coefficients.ERF[x.type.kind]), z)
    n, p = _bell(z, 1.0)
    ratio = _tail(z * math.sqrt(2))
    far = (z - z) + (1 - 2 * _scaled(f.fma(ratio, p, ratio), n))  # z - z is 0, or NaN
    return f.op("sign_of", f.select(z < 1, near, far), x)


def normal(x: Value) -> tuple[Value, Value]:
    """The integral of the normal density up to x, and exp(-x^2 / 2); 0 where the first would be subnormal."""
    f = x.function
    most = FORMATS[x.type.kind].tail
    z = f.min(most, _abs(x))
    n, p = _bell(z, 0.5)
    ratio = _tail(z)
    zero = z - z  # or NaN
    tail, bell = (f.select(z < most, _scaled(y, n), zero) for y in (f.fma(ratio, p, ratio), 1 + p))
    return f.select(x < 0, tail, 1 - tail), bell


def gelu(x: Value) -> Value:
    """x times the integral of the normal density up to x; 0 where that would be subnormal.

    With z = abs(x) it is (x + z) / 2 - z tail(z), which takes fewer steps than the integral itself.
    """
    f, z = x.function, _abs(x)
    n, p = _bell(z, 0.5)
    ratio = _tail(z, weighted=True)
    line = f.fma(0.5, z, 0.5 * x)
    return f.select(z < FORMATS[x.type.kind].weighted_tail, line - _scaled(f.fma(ratio, p, ratio), n), line)


def _tail(z: Value, weighted: bool = False) -> Value:
    """e^(z^2 / 2) times the integral of the normal density from z >= 0 on; if weighted, also times z."""
    f, kind = z.function, z.type.kind
    q = polynomial(z, coefficients.TAIL[kind])
    first, *rest = coefficients.TAIL_REST[kind]
    over = z * q
    under = f.fma(coefficients.TAIL_SLOPE[kind], over, polynomial(z, [first, *rest]))
    return (over if weighted else q) / under


def _bell(z: Value, scale: float) -> tuple[Value, Value]:
    """A whole n, added to the ``shifter``, and p, with e^(-scale z^2) = 2^n (1 + p). The scale is a power of 2.

    z^2 has twice as many bits as other numbers here: z may be large.
    """
    f, this, kind = z.function, FORMATS[z.type.kind], z.type.kind
    high, low = product(z, z)
    shifted = f.fma(high, -scale / math.log(2), this.shifter)
    n = shifted - this.shifter
    r = f.fma(n, this.log2_high / scale, high) + f.fma(n, this.log2_low / scale, low)
    numbers = [(-scale) ** k * number for k, number in enumerate((1.0, 1.0, 0.5, *coefficients.EXP[kind]))]
    return shifted, r * polynomial(r, numbers[1:])


def arctan(x: Value) -> Value:
    """The angle whose tangent is x: arctan(z) is pi/4 + arctan((z - 1) / (z + 1)), and pi/2 - arctan(1 / z)."""
    f = x.function
    z = _abs(x)
    small, large = z <= math.tan(math.pi / 8), z > math.tan(3 * math.pi / 8)
    over = f.select(small, z, f.select(large, f.constant(-1.0, x.type), z - 1))
    under = f.select(small, 1.0, f.select(large, z, z + 1))
    t = over / under
    square = t * t
    angle = f.fma(t * square, polynomial(square, coefficients.ARCTAN[x.type.kind]), t)
    start = f.select(small, f.constant(0.0, x.type), f.select(large, f.constant(math.pi / 2, x.type), math.pi / 4))
    return f.op("sign_of", start + angle, x)


# ------------------------------------------------------------------------------------------------------------ powers


def power(x: Value, y: Value) -> Value:
    """x^y as IEEE 754 has it: NaN where x < 0 and y is not whole, 1 where y is 0 or x is 1.

    e^(y log(abs(x))), with a logarithm of twice as many bits: those of f64 for f32, those of two f64 for f64.
    """
    f = x.function
    z, size = _abs(x), _abs(y)
    if x.type.kind == "f32":
        exponent = f.convert("widen", y, F64) * log(f.convert("widen", z, F64))
        result = f.convert("narrow", exp(exponent), Type("f32"))
    else:
        result = _power(z, y)
    result = f.select(size.equal(0) | z.equal(1), 1.0, result)

    one = 2.0 ** FORMATS[x.type.kind].mantissa  # from here on all numbers are whole, from its double on even
    half = 0.5 * size
    whole = (one <= size) | ((size + one) - one).equal(size)
    even = (one <= half) | ((half + one) - one).equal(half)
    undefined = (x < 0) & (-math.inf < x) & whole.equal(False)
    result = f.select(whole & even.equal(False), f.op("sign_of", result, x), result)
    return f.select(undefined, f.constant(math.nan, x.type), result)


def _power(x: Value, y: Value) -> Value:
    """x^y in f64, for x >= 0, by the steps of ``_log``, but in sums of two numbers."""
    f, this = x.function, FORMATS["f64"]
    tiny = x < 2.0 ** (1 - this.bias)
    e, m = _parts(f.select(tiny, x * 2.0**54, x))
    e = e - f.select(tiny, f.constant(54.0, x.type), 0.0)
    over, under = m - 1, m + 1
    s = over / under
    back, back_low = product(s, under)
    s_low = (((over - back) - back_low) - s * (m - (under - 1))) / under
    z, z_low = product(s, s)
    z_low = f.fma(2 * s, s_low, z_low)
    cube, cube_low = product(s, z)
    cube_low = f.fma(s, z_low, f.fma(s_low, z, cube_low))
    third, third_low = product(cube, f.constant(2 / 3, x.type))
    third_low = f.fma(cube, 2 / 3 * 2.0**-54, f.fma(cube_low, 2 / 3, third_low))  # 2/3 is 2/3 + 2/3 2^-54 in f64
    rest = cube * z * polynomial(z, coefficients.LOG_REST["f64"])
    high, low = ordered_sum(e * this.log2_high, 2 * s)
    high, low_2 = ordered_sum(high, third)
    high, low = ordered_sum(high, low + low_2 + (rest + f.fma(2.0, s_low, third_low) + e * this.log2_low))
    high = f.select(x.equal(0), -math.inf, f.select(x < math.inf, high, x))
    exponent, exponent_low = product(y, high)
    return exp(exponent, f.select(_abs(exponent) < 1000, f.fma(y, low, exponent_low), 0.0))
