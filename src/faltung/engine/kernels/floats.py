"""What a floating number consists of; and numbers with twice as many bits, as sums of two.

>>> from faltung.engine.loops.interpreter import run
>>> from faltung.engine.loops.language import F64, Function, pointer
>>> f = Function("f", x=pointer(F64), y=pointer(F64))
>>> x, y = f.arguments
>>> third = f.load(x)
>>> for place, part in enumerate(product(third, third)):
...     f.store(part, y, place)
>>> results = np.empty(2)
>>> run(f, np.array([1 / 3]), results)
>>> results.tolist()
[0.1111111111111111, -6.1679056923619804e-18]
"""

from dataclasses import dataclass

import numpy as np

from faltung.engine.loops.language import I32, I64, Type, Value


@dataclass(frozen=True)
class Format:
    """What a floating number consists of, and constants that depend on it."""

    whole: Type
    """A whole number of as many bits."""
    mantissa: int
    """Bits of the fraction."""
    bias: int
    """The exponent of 1, as it is stored."""
    log2_high: float
    log2_low: float
    """log(2) in two parts, the first with so few bits that its product with an exponent is exact."""
    lowest: float
    highest: float
    """Arguments of exp below which the result is not a normal number, and above which it is infinite."""
    tail: float
    """From where on the integral of the normal density is not a normal number."""
    weighted_tail: float
    """From where on z times that integral is not a normal number."""

    @property
    def shifter(self) -> float:
        """A number so large that the sums with it are whole, and their last bits those of a whole number."""
        return 1.5 * 2.0**self.mantissa

    @property
    def half(self) -> int:
        """A mask that leaves half of the bits of the fraction, so that products of what is left are exact."""
        return -1 << (self.mantissa + 2) // 2

    def bits(self, number: float) -> int:
        """The bits of a number as a whole number."""
        whole = self.whole.dtype
        return int(np.array(number, f"f{whole.itemsize}").view(whole))


FORMATS = {
    "f32": Format(I32, 23, 127, 0.693359375, -2.1219444005469057e-4, -87.33654, 88.72284, 12.949952, 13.146247),
    "f64": Format(
        I64,
        52,
        1023,
        0.6931471803691238,
        1.9082149292705877e-10,
        -708.3964185322641,
        709.782712893384,
        37.51937934714449,
        37.61586831395599,
    ),
}


def halves(x: Value) -> tuple[Value, Value]:
    """x as a sum of two numbers with half as many bits."""
    f, this = x.function, FORMATS[x.type.kind]
    high = f.convert("bits", f.convert("bits", x, this.whole) & this.half, Type(x.type.kind))
    return high, x - high


def product(a: Value, b: Value) -> tuple[Value, Value]:
    """a b, and what its rounding loses."""
    f, product = a.function, a * b
    (a_high, a_low), (b_high, b_low) = halves(a), halves(b)
    in_steps = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    return product, f.op("if_fused", f.fma(a, b, f.op("negate", product)), in_steps)


def ordered_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b, and what its rounding loses, where a is 0 or abs(a) >= abs(b)."""
    total = a + b
    return total, b - (total - a)


def exact_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b, and what its rounding loses."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
