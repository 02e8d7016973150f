"""Kernels over arrays whose last axis is channels, with some numbers for each channel.

The last axis may be one channel, or 20, which no vector divides. So what belongs to the channels is written down again
and again until it fills whole vectors, a *period*: for 20 channels and vectors of 16, 160 numbers. Then channels need
not be counted: period by period, an array and the tables go side by side. Many channels are a period by themselves.

Sums over all that belongs to a channel are columns of a table of two rows of a period, float64 in memory; to these a
few periods at a time are added. Which numbers are one partial sum depends on the sizes and the machine only.
"""

import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host import arena, workers
from faltung.engine.host.machine import host
from faltung.engine.host.recording import Fresh, sliced
from faltung.engine.kernels.elementwise import BLOCK, COST, TASK, code, vectors
from faltung.engine.kernels.lanes import copy, fill
from faltung.engine.loops.language import F64, INDEX, Function, Type, Value, pointer

Array = NDArray[Any]
SLICES = 8
"""So many partial sums for each channel, if there are so many examples; otherwise their positions are divided."""
ROWS = 16
"""Periods whose terms are added up before they go to memory, where one array is read, ..."""
TERMS = 4
"""... first so many of them at a time, then these sums; and of several arrays no more than that."""
PERIODS = 32
"""A task is so many periods at least, so that its tables are little beside what it reads."""
AHEAD = 8192
"""Bytes by which fetching is ahead, in all arrays together: sums of 28 MB took 0.67 ms without, 0.54 with (Zen 5)."""


def period(channels: int, lanes: int) -> int:
    """How many numbers the tables of so many channels have, for vectors of so many lanes: 8 vectors at least.

    >>> period(20, lanes=16), period(64, lanes=16), period(1000, lanes=16)
    (160, 128, 1000)
    """
    if channels >= 8 * lanes:
        return channels
    size = math.lcm(channels, lanes)
    return size * -(-8 * lanes // size)


def wide(x: Value) -> Value:
    """The numbers in f64."""
    return x if x.type.kind == "f64" else x.function.convert("widen", x, F64)


def narrow(x: Value, kind: Type) -> Value:
    """Numbers in f64, rounded to this kind."""
    return x if kind.kind == "f64" else x.function.convert("narrow", x, kind.times(1))


class Periods:
    """What a kernel writes to go through arrays period by period, beside tables that it makes in its scratch."""

    def __init__(self, kind: Type, channels: Value, period: Value, scratch: Value):
        self.f, self.kind, self.period = channels.function, kind, period
        self._channels, self._scratch, self._visit = channels, scratch, vectors(self.f, period, kind.lanes)
        self._tables: list[Value] = []

    def spread(self, *constants: Value) -> None:
        """Make the tables of constants, which are places of one number a channel."""
        f = self.f
        self._tables = [f.at(self._scratch, n * self.period, name="table") for n in range(len(constants))]
        with f.loop("again", self.period // self._channels) as again:
            for table, constant in zip(self._tables, constants, strict=True):
                copy(f, f.at(table, again * self._channels), constant, self._channels, self.kind)

    def map(self, arrays: Sequence[Value], y: Value, begin: Value, length: Value, body: Callable[..., Value]) -> None:
        """y[i] = body(x0[i], ..., c0, ...) for so many numbers from ``begin`` on."""
        f = self.f

        def row(at: Value, place: Value, mask: Value | None) -> None:
            f.store(body(*self._numbers(arrays, at, place, mask), *self._constants(place, mask)), y, at + place, mask)

        whole, rest = (length // self.period).named("whole"), (length % self.period).named("rest")
        self._rows("n", begin, f.constant(0), whole, 1, row)
        vectors(f, rest, self.kind.lanes)(lambda place, mask: row(begin + length - rest, place, mask))

    def sums(
        self,
        arrays: Sequence[Value],
        sums: Value,
        begin: Value,
        length: Value,
        start: Sequence[Value],
        body: Callable[..., Sequence[Value]],
    ) -> None:
        """Add to sums[s, place], which are float64: body(x0[i], ..., c0, ..., sum 0, sum 1, ...) -> new sums.

        ``start`` are zeros, each a vector of what adds up a few rows.
        """
        f, lanes = self.f, self.kind.lanes

        def add(at: Value, place: Value, mask: Value | None, rows: int = 1) -> None:
            constants, totals = self._constants(place, mask), []
            for row in range(rows):
                for x in arrays:
                    f.prefetch(x, at + place + (row * self.period + AHEAD // (len(arrays) * self.kind.size)))
                if row % TERMS == 0:
                    totals.append(start)
                totals[-1] = body(*self._numbers(arrays, at + row * self.period, place, mask), *constants, *totals[-1])
            for number, parts in enumerate(zip(*totals, strict=True)):
                here = number * self.period + place
                f.store(f.load(sums, here, lanes, mask) + wide(reduce(operator.add, parts)), sums, here, mask)

        whole, rest = (length // self.period).named("whole"), (length % self.period).named("rest")
        rows = ROWS if len(arrays) == 1 else TERMS
        some = (whole // rows).named("some")
        self._rows("some", begin, f.constant(0), some, rows, lambda *at: add(*at, rows=rows))
        self._rows("one", begin, some * rows, whole, 1, add)
        vectors(f, rest, lanes)(lambda place, mask: add(begin + length - rest, place, mask))

    def places(self, body: Callable[[Value, Value | None], None]) -> None:
        """Visit the places of a period."""
        self._visit(body)

    def _rows(self, name: str, begin: Value, first: Value, last: Value, rows: int, body: Callable[..., None]) -> None:
        with self.f.loop(name, last, first) as n:
            at = (begin + n * (rows * self.period)).named("at")
            self._visit(lambda place, mask: body(at, place, mask))

    def _numbers(self, arrays: Sequence[Value], at: Value, place: Value, mask: Value | None) -> list[Value]:
        return [self.f.load(x, at + place, self.kind.lanes, mask) for x in arrays]

    def _constants(self, place: Value, mask: Value | None) -> list[Value]:
        return [self.f.load(table, place, self.kind.lanes, mask) for table in self._tables]


SIZES = dict.fromkeys(["channels", "period", "block", "count"], INDEX)


def channelwise(kind: Type, inputs: int, constants: int, body: Callable[..., Value]) -> Function:
    """y[i] = body(x0[i], x1[i], ..., c0, c1, ...); c are the rows of ``constants`` at i's channel."""
    names = [*(f"x{n}" for n in range(inputs)), "constants", "y"]
    f = Function("channelwise", **dict.fromkeys(names, pointer(kind)), **SIZES, **TASK | {"scratch": pointer(kind)})
    *arrays, rows, y, channels, period, block, count, scratch, first, last = f.arguments
    periods = Periods(kind, channels, period, scratch)
    periods.spread(*(f.at(rows, n * channels) for n in range(constants)))
    with f.loop("task", last, first) as task:
        begin = (task * block).named("begin")
        periods.map(arrays, y, begin, f.min(count - begin, block).named("length"), body)
    return f


def channel_sums(
    kind: Type, inputs: int, body: Callable[..., tuple[Value, Value]], *, exact: bool = False, first_row: bool = False
) -> Function:
    """sums[slice, s, place] += the sums over a slice, s = 0, 1, of body(x0[i], ..., c, sum 0, sum 1) -> new sums.

    Behind them lies how many numbers of a channel these are. c are ``constants``; with ``first_row`` those of a slice,
    which are its first position. ``exact`` sums are float64 all the way, others of this type for ``ROWS`` numbers.
    """
    arrays = dict.fromkeys([*(f"x{n}" for n in range(inputs)), "constants"], pointer(kind)) | {"sums": pointer(F64)}
    f = Function("channel_sums", **arrays, **SIZES, fresh=INDEX, **TASK | {"scratch": pointer(kind)})
    *arrays, row, sums, channels, period, block, count, fresh, scratch, first, last = f.arguments
    periods, size = Periods(kind, channels, period, scratch), width(period)
    start = 2 * [f.constant(0.0, F64.times(kind.lanes) if exact else kind)]
    with f.loop("task", last, first) as task:
        begin, here = (task * block).named("begin"), f.at(sums, task * size)
        length = f.min(count - begin, block).named("length")
        constants = f.at(row, task * channels) if first_row else row
        with f.where(fresh > 0):
            fill(f, here, size, 0.0, F64.times(kind.lanes))
            if first_row:
                copy(f, constants, f.at(arrays[0], begin), channels, kind)
        periods.spread(constants)
        periods.sums(arrays, here, begin, length, start, body)
        f.store(f.load(here, size - 1) + f.convert("to_float", length // channels, F64), here, size - 1)
    return f


def width(period: Any) -> Any:
    """The numbers of one slice of sums: two for each place, and how many were added."""
    return 2 * period + 1


def totals(sums: Value, slices: Value, channels: Value, period: Value, lanes: int) -> Callable[..., Any]:
    """A function of a vector of channels: their two sums over all slices and places."""
    f = sums.function

    def total(c: Value, mask: Value | None) -> list[Value]:
        both = [f.variable("total", 0.0, F64.times(lanes)) for _ in range(2)]
        with f.loop("part", slices) as part:
            for held, value in zip(both, slice_totals(sums, part, channels, period, c, lanes, mask), strict=True):
                held.set(held.value + value)
        return [held.value for held in both]

    return total


def slice_totals(
    sums: Value, part: Value, channels: Value, period: Value, c: Value, lanes: int, mask: Value | None
) -> list[Value]:
    """The two sums of a vector of channels over all places of a slice."""
    f = sums.function
    both = [f.variable("total", 0.0, F64.times(lanes)) for _ in range(2)]
    with f.loop("again", period // channels) as again:
        for number, held in enumerate(both):
            place = part * width(period) + number * period + again * channels + c
            held.set(held.value + f.load(sums, place, lanes, mask))
    return [held.value for held in both]


def counted(sums: Value, slices: Value, period: Value) -> Value:
    """How many numbers of a channel are in all slices."""
    f = sums.function
    count = f.variable("m", 0.0, F64)
    with f.loop("part", slices) as part:
        count.set(count.value + f.load(sums, part * width(period) + 2 * period))
    return count.value


def period_of(x: Array) -> int:
    """The period of an array's channels."""
    return period(x.shape[-1], host().lanes(x.itemsize))


def slice_of(x: Array) -> int:
    """The numbers of one slice: of whole examples, or where these are few or small, of positions."""
    if sliced():
        return max(x.size, 1)
    unit = math.prod(x.shape[1:]) if len(x) >= SLICES else x.shape[-1]
    return unit * max(-(-x.size // (SLICES * unit)), -(-PERIODS * period_of(x) // (2 * unit)))


def run_channelwise(kernel: Any, arrays: Sequence[Array], constants: Array | tuple[Array, int]) -> Array:
    """The y of a kernel of ``channelwise``; the constants have the arrays' dtype."""
    x = arrays[0]
    y, size = arena.empty(x.shape, x.dtype), period_of(x)
    block = size * max(PERIODS, BLOCK // size)
    workers.launch(
        code(kernel, x.dtype), *arrays, constants, y, x.shape[-1], size, block, x.size,
        tasks=-(-x.size // block), work=COST * x.size, scratch=4 * size * x.itemsize,
    )  # fmt: skip
    return y


def run_sums(kernel: Any, arrays: Sequence[Array], constants: Array | None = None) -> tuple[Array, Array | None]:
    """The sums of a kernel of ``channel_sums``, (slices, width), and the constants: if None, the slices' own."""
    x = arrays[0]
    size, block = period_of(x), slice_of(x)
    slices = -(-x.size // block)
    sums = arena.sums((slices, width(size)), np.float64)
    if constants is None:
        constants = arena.sums((slices, x.shape[-1]), x.dtype)
    workers.launch(
        code(kernel, x.dtype), *arrays, constants, sums, x.shape[-1], size, block, x.size, Fresh(1),
        tasks=slices, work=COST * x.size, scratch=size * x.itemsize,
    )  # fmt: skip
    return sums, constants
