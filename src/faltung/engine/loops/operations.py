"""The operations of the loop language: each with its meaning in NumPy beside its text in LLVM.

They work lane by lane. The operands of an operation have one type, which its result has too, but for comparisons,
whose results are truth values. In a text {a} {b} {c} are the operands and {t} is their type, {to} the type of the
result, {m} that of truth values; the second of two instructions calls the result of the first {first}. ``llvm.fma`` and
the like, a name alone, is an LLVM intrinsic. Compiled kernels call nothing: an operation that LLVM would turn into the
call of a library is not in the table.

Without meaning, and different from machine to machine: whole numbers that ``to_int`` or ``narrow`` cannot hold, and
shifts by less than 0 or by all bits. Whole division by 0 stops the process; the interpreter raises ZeroDivisionError.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Lanes = NDArray[Any]


@dataclass(frozen=True)
class Operation:
    """What an operation means, and how LLVM is told; None where numbers of that kind do not have it."""

    meaning: Callable[..., Any]
    floating: str | None
    whole: str | None
    compares: bool = False
    """Are the results truth values?"""

    def text(self, floating: bool) -> str | None:
        """How LLVM is told, for floating or for whole numbers (and truth values)."""
        return self.floating if floating else self.whole


def fused(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """a * b + c, rounded once.

    >>> a, b, c = (np.array([number]) for number in (1 + 2.0**-52, 1 - 2.0**-52, -1.0))
    >>> fused(a, b, c).tolist(), (a * b + c).tolist()
    ([-4.930380657631324e-32], [0.0])
    """
    if a.dtype != np.float32:
        return np.array([_fused(*map(float, lanes)) for lanes in zip(a, b, c, strict=True)], a.dtype)
    # The product of float32 numbers is exact in float64. The sum with c is rounded to an odd last bit where it is not
    # exact; it has 29 bits more than the result, so that rounding it again gives the exact sum rounded once.
    product, c = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + c
    back = total - product
    missing = (product - (total - back)) + (c - back)
    bits = total.view(np.int64)
    even = np.isfinite(total) & (missing != 0) & (bits & 1 == 0)
    bits += even * np.where((missing > 0) == (total > 0), 1, -1)
    return total.astype(np.float32)


def _fused(a: float, b: float, c: float) -> float:
    from fractions import Fraction  # which takes long to load

    if not np.isfinite([a, b, c]).all():
        return c if np.isfinite([a, b]).all() else a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return float(exact) if exact else a * b + c  # the latter for the sign of zero
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


def _quotient(a: Lanes, b: Lanes) -> Lanes:
    if not b.all():
        raise ZeroDivisionError("quotient by 0")
    down = a // b
    return down + ((down * b != a) & ((a < 0) != (b < 0)))


def _logical(a: Lanes, b: Lanes) -> Lanes:
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    return (a.view(unsigned) >> b.view(unsigned)).view(a.dtype)


UNFUSED = {"fma": "fmul {t} {a}, {b}; fadd {t} {first}, {c}", "if_fused": "select i1 false, {t} {a}, {t} {b}"}
"""On a machine without the instruction ``fma``, where LLVM would call a library: rounded twice."""

OPERATIONS = {
    "add": Operation(np.add, "fadd {t} {a}, {b}", "add {t} {a}, {b}"),
    "sub": Operation(np.subtract, "fsub {t} {a}, {b}", "sub {t} {a}, {b}"),
    "mul": Operation(np.multiply, "fmul {t} {a}, {b}", "mul {t} {a}, {b}"),
    "div": Operation(np.divide, "fdiv {t} {a}, {b}", None),
    "negate": Operation(np.negative, "fneg {t} {a}", "sub {t} zeroinitializer, {a}"),
    "fma": Operation(fused, "llvm.fma", None),
    # a where the machine rounds ``fma`` once, else b; the other one is not computed
    "if_fused": Operation(lambda a, b: a, "select i1 true, {t} {a}, {t} {b}", None),
    # Towards 0, as processors do it; a remainder has the sign of a.
    "quotient": Operation(_quotient, None, "sdiv {t} {a}, {b}"),
    "remainder": Operation(lambda a, b: a - b * _quotient(a, b), None, "srem {t} {a}, {b}"),
    # b where a or b is NaN, or where both are 0.
    "min": Operation(
        lambda a, b: np.where(a < b, a, b), "fcmp olt {t} {a}, {b}; select {m} {first}, {t} {a}, {t} {b}", "llvm.smin"
    ),
    "max": Operation(
        lambda a, b: np.where(a > b, a, b), "fcmp ogt {t} {a}, {b}; select {m} {first}, {t} {a}, {t} {b}", "llvm.smax"
    ),
    "sqrt": Operation(np.sqrt, "llvm.sqrt", None),
    "abs": Operation(np.abs, "llvm.fabs", None),
    "round": Operation(np.rint, "llvm.rint", None),  # to whole numbers, halves to even ones
    "sign_of": Operation(np.copysign, "llvm.copysign", None),  # a with the sign of b
    # Comparisons with NaN do not hold, but for "not_equal".
    "less": Operation(np.less, "fcmp olt {t} {a}, {b}", "icmp slt {t} {a}, {b}", compares=True),
    "less_equal": Operation(np.less_equal, "fcmp ole {t} {a}, {b}", "icmp sle {t} {a}, {b}", compares=True),
    "equal": Operation(np.equal, "fcmp oeq {t} {a}, {b}", "icmp eq {t} {a}, {b}", compares=True),
    "not_equal": Operation(np.not_equal, "fcmp une {t} {a}, {b}", "icmp ne {t} {a}, {b}", compares=True),
    "and": Operation(np.bitwise_and, None, "and {t} {a}, {b}"),
    "or": Operation(np.bitwise_or, None, "or {t} {a}, {b}"),
    "xor": Operation(np.bitwise_xor, None, "xor {t} {a}, {b}"),
    "shift": Operation(np.left_shift, None, "shl {t} {a}, {b}"),
    "shift_right": Operation(np.right_shift, None, "ashr {t} {a}, {b}"),  # copies of the sign come in from the left
    "shift_right_logical": Operation(_logical, None, "lshr {t} {a}, {b}"),  # zeros come in from the left
    # a is the condition; {t} is the type of b and c
    "select": Operation(np.where, "select {m} {a}, {t} {b}, {t} {c}", "select {m} {a}, {t} {b}, {t} {c}"),
}
"""Operation by name."""

CONVERSIONS = {
    "to_float": Operation(np.ndarray.astype, None, "sitofp {t} {a} to {to}"),
    "to_int": Operation(np.ndarray.astype, "fptosi {t} {a} to {to}", None),  # towards 0
    "widen": Operation(np.ndarray.astype, "fpext {t} {a} to {to}", "sext {t} {a} to {to}"),
    "narrow": Operation(np.ndarray.astype, "fptrunc {t} {a} to {to}", "trunc {t} {a} to {to}"),
    "bits": Operation(np.ndarray.view, "bitcast {t} {a} to {to}", "bitcast {t} {a} to {to}"),  # the same bits
    "place": Operation(lambda a, to: a, None, "inttoptr {t} {a} to {to}"),  # an address, of an argument block
}
"""What turns lanes of one type into as many of another; meanings take the new NumPy type too."""
