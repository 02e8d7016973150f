"""What pooling computes of a region: its maximum, its mean, or a norm."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from faltung.engine.kernels import mathematics
from faltung.engine.kernels.pool import Aggregate
from faltung.engine.kernels.regions import Entries, Region, number
from faltung.engine.loops.language import I32, Constant, Type, Value, Variable


@dataclass(frozen=True)
class Max(Aggregate):
    """The first maximum, and NaN where a region holds one; what is kept is its tap.

    Measured: an error that reads taps takes about half the time of one that looks for the maximum again, 32 against
    53 us for 2 x 2 on 8 x 32 x 32 x 64, and 1.3 against 3.2 ms on 8 x 112 x 112 x 64; forward takes the same.
    """

    taps: Type

    @property
    def keeps(self) -> Type:
        return self.taps

    def forward(self, region: Entries) -> tuple[list[Value], list[Value]]:
        best, taps = first_largest(region, lambda part, x, tap: x)
        short = self.taps.kind != I32.kind
        return best, [region.f.convert("narrow", tap, self.taps) for tap in taps] if short else taps

    def share(self, dy: Value, kept: Value | None, tap: Value | int, count: Value) -> Value:
        assert kept is not None
        elsewhere = dy * 0.0  # as in the NumPy definition: NaN where dy is not finite
        return dy.function.select(kept.equal(tap), dy, elsewhere)


@dataclass(frozen=True)
class Mean(Aggregate):
    """The sum of the entries divided by their number, or by another one."""

    divisor: int = 0
    """0 is the number of entries."""

    def forward(self, region: Entries) -> tuple[list[Value], list[Value]]:
        count = self._count(region)
        return [_quotient(total, count) for total in sums(region, lambda part, x, tap: x)], []

    def share(self, dy: Value, kept: Value | None, tap: Value | int, count: Value) -> Value:
        f, kind = dy.function, dy.type.times(1)
        return 1.0 / (f.constant(self.divisor, kind) if self.divisor else number(count, kind)) * dy

    def _count(self, region: Entries) -> Value:
        return region.f.constant(self.divisor, region.kind) if self.divisor else region.count


@dataclass(frozen=True)
class Norm(Aggregate):
    """The p-th root of the sum of |x|^p, where |x| is divided by its largest entry first."""

    p: float
    reads: ClassVar[bool] = True

    @property
    def long(self) -> bool:
        return self.p not in FACTORS

    def forward(self, region: Entries) -> tuple[list[Value], list[Value]]:
        scales = self._scales(region)
        return [scale * norm for scale, norm in zip(scales, self._norms(region, scales), strict=True)], []

    def error(self, region: Region, dy: list[Value]) -> None:
        f, scales = region.f, self._scales(region)
        norms = [f.max(1.0, norm) for norm in self._norms(region, scales)]

        def share(entries: list[Value], tap: Value) -> list[Value]:
            return [
                each * (_power(_size(x) / scale / norm, self.p - 1) * _sign(x))
                for x, each, scale, norm in zip(entries, dy, scales, norms, strict=True)
            ]

        region.spread(share)

    def _scales(self, region: Entries) -> list[Value]:
        """The largest |x|; 1 where that is 0 or not finite."""
        largest, f = region.variables("largest", 0.0), region.f

        def look(entries: list[Value], tap: Value) -> None:
            for x, most in zip(entries, largest, strict=True):
                most.set(f.max(_size(x), most.value))

        region.visit(look)
        most = [variable.value for variable in largest]
        return [f.select((value > 0) & (value < math.inf), value, 1.0) for value in most]

    def _norms(self, region: Entries, scales: list[Value]) -> list[Value]:
        totals = sums(region, lambda part, x, tap: _power(_size(x) / scales[part], self.p))
        return [_power(total, 1 / self.p) for total in totals]


Entry = Callable[[int, Value, Value], Value]
"""What is reduced: of the number of a part, its entries at a tap, and the number of the tap."""


def sums(region: Entries, entry: Entry) -> list[Value]:
    """The sums over a region."""
    totals = region.variables("total", 0.0)

    def add(entries: list[Value], tap: Value) -> None:
        for part, (x, total) in enumerate(zip(entries, totals, strict=True)):
            total.set(total.value + entry(part, x, tap))

    region.visit(add)
    return _values(totals)


def first_largest(region: Entries, entry: Entry) -> tuple[list[Value], list[Value]]:
    """The largest ones of a region, NaN above all, and the taps at which they come first."""
    best, first = region.variables("best", -math.inf), region.variables("tap", 0, I32)

    def look(entries: list[Value], tap: Value) -> None:
        for part, (x, largest, place) in enumerate(zip(entries, best, first, strict=True)):
            e, old = entry(part, x, tap), largest.value
            stays = (e <= old) | old.not_equal(old)
            largest.set(region.f.select(stays, old, e))
            place.set(region.f.select(stays, place.value, number(tap, I32)))

    region.visit(look)
    return _values(best), _values(first)


def _values(variables: list[Variable]) -> list[Value]:
    return [variable.value for variable in variables]


def _quotient(total: Value, count: Value) -> Value:
    """Exact products in place of divisions by powers of 2, which take longer."""
    if isinstance(count, Constant) and math.frexp(count.number)[0] == 0.5:
        return total * (1 / count.number)
    return total / count


FACTORS = (0, 1, 2, 3, 4)
"""Exponents of powers that are products."""


def _power(x: Value, exponent: float) -> Value:
    """x^exponent for x >= 0; small whole powers are products, and the root of 2 is a root."""
    if exponent in FACTORS:
        return math.prod([x] * int(exponent), start=x.function.constant(1.0, x.type))
    if exponent == 0.5:
        return x.function.op("sqrt", x)
    return mathematics.power(x, x.function.constant(exponent, x.type))


def _size(x: Value) -> Value:
    return x.function.op("abs", x)


def _sign(x: Value) -> Value:
    """-1, 1, or x itself where that is 0 or NaN."""
    f = x.function
    return f.select(x > 0, f.constant(1.0, x.type), f.select(x < 0, f.constant(-1.0, x.type), x))
