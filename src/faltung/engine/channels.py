"""Kernels over arrays whose numbers belong to channels in turn, with some numbers for each channel.

The last axis may be one channel, or 20, which no vector divides. So what belongs to the channels is written down again
and again until it fills whole vectors, a *period*: for 20 channels and vectors of 16, 160 numbers. Then channels need
not be counted: vector by vector, an array and the periods go side by side. A period has 8 vectors at least, so that in
a sum over all periods one vector need not wait for the one before.

A task is a block of whole periods; blocks depend on the sizes and the machine only.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine import arena, workers
from faltung.engine.elementwise import BLOCK, COST, TASK, Visit, vectors
from faltung.engine.language import F64, INDEX, Function, Type, Value, pointer

Array = NDArray[Any]
SUMS = 64
"""At most so many partial sums for each channel."""
FEW = 16
"""Each over at least so many periods, so that the sums are little beside what is summed."""


@dataclass(frozen=True)
class Period:
    """How ``channels`` come again in vectors of so many lanes.

    >>> Period(20, lanes=16).size, Period(64, lanes=16).size, Period(1000, lanes=16).size
    (160, 128, 2000)
    """

    channels: int
    lanes: int

    @property
    def size(self) -> int:
        """Numbers of a period."""
        size = math.lcm(self.channels, self.lanes)
        return size * -(-8 * self.lanes // size)

    def share(self, count: int) -> int:
        """Of ``count`` numbers, how many go into one partial sum."""
        return self.size * max(FEW, BLOCK // self.size, -(-count // (SUMS * self.size)))

    def spread(self, values: Array) -> Array:
        """What belongs to the channels, again and again for a period, in float64."""
        spread = np.empty((self.size // self.channels, self.channels))
        spread[...] = values.reshape(-1)
        return spread

    def total(self, sums: Array) -> Array:
        """The sum for each channel, from partial sums (tasks, ..., places of a period)."""
        return sums.reshape(*sums.shape[:-1], self.size // self.channels, self.channels).sum((0, -2))


def wide(x: Value) -> Value:
    """The numbers in f64."""
    return x if x.type.kind == "f64" else x.function.convert("widen", x, F64)


def narrow(x: Value, kind: Type) -> Value:
    """Numbers in f64, rounded to this kind."""
    return x if kind.kind == "f64" else x.function.convert("narrow", x, kind.times(1))


def periods(f: Function, count: Value, period: Value, lanes: int) -> Visit:
    """To visit i = 0, lanes, ... below count, and with each its place in its period."""
    whole = (count // period).named("periods")
    rest = (whole * period).named("rest")
    visit_rest = vectors(f, count - rest, lanes)

    def visit(body: Callable[..., None]) -> None:
        with f.loop("n", whole) as n:
            begin = (n * period).named("begin")
            with f.loop("place", period, step=lanes) as place:
                body(begin + place, place, None)
        visit_rest(lambda i, mask: body(rest + i, i, mask))

    return visit


def channelwise(kind: Type, inputs: int, constants: int, body: Callable[..., Value]) -> Function:
    """y[i] = body(x0[i], x1[i], ..., c0[i], c1[i], ...), all in f64 until y is stored.

    The numbers x and y are of this vector type; the c are constants of the channels, for one period.
    """
    f = _kernel("channelwise", kind, inputs, constants, kind)
    *arrays, y, period, block, count, _, first, last = f.arguments
    with f.loop("task", last, first) as task:
        begin = (task * block).named("begin")

        def vector(i: Value, place: Value, mask: Value | None) -> None:
            values = body(*_loaded(f, arrays, inputs, begin + i, place, kind.lanes, mask))
            f.store(narrow(values, kind), y, begin + i, mask)

        periods(f, f.min(count - begin, block), period, kind.lanes)(vector)
    return f


def channel_sums(kind: Type, inputs: int, constants: int, body: Callable[..., tuple[Value, Value]]) -> Function:
    """sums[task, s, place] = the sum over the block of body(x0[i], x1[i], ..., c0[i], c1[i], ...)[s], s = 0, 1."""
    f = _kernel("channel_sums", kind, inputs, constants, F64)
    *arrays, sums, period, block, count, _, first, last = f.arguments
    with f.loop("task", last, first) as task:
        begin, here = (task * block).named("begin"), f.at(sums, task * (2 * period))
        clear(f, here, period, kind.lanes)

        def vector(i: Value, place: Value, mask: Value | None) -> None:
            terms = body(*_loaded(f, arrays, inputs, begin + i, place, kind.lanes, mask))
            add(f, here, period, place, mask, terms)

        periods(f, f.min(count - begin, block), period, kind.lanes)(vector)
    return f


def clear(f: Function, sums: Value, period: Value, lanes: int) -> None:
    """The two sums of all places of a period, before anything is added."""
    with f.loop("place", 2 * period, step=lanes) as place:
        f.store(f.constant(0.0, F64.times(lanes)), sums, place)


def add(f: Function, sums: Value, period: Value, place: Value, mask: Value | None, terms: Iterable[Value]) -> None:
    """Add a term to each of the two sums of the places of a vector."""
    for number, term in enumerate(terms):
        at = number * period + place
        f.store(f.load(sums, at, term.type.lanes, mask) + term, sums, at, mask)


def _kernel(name: str, kind: Type, inputs: int, constants: int, output: Type) -> Function:
    arrays = {f"x{n}": pointer(kind) for n in range(inputs)} | {f"c{n}": pointer(F64) for n in range(constants)}
    sizes = dict.fromkeys(["period", "block", "count"], INDEX)
    return Function(name, **arrays, y=pointer(output), **sizes, **TASK)


def _loaded(
    f: Function, arrays: Sequence[Value], inputs: int, i: Value, place: Value, lanes: int, mask: Value | None
) -> Iterator[Value]:
    """What lies at i in the inputs, and at its place in the constants."""
    for number, array in enumerate(arrays):
        yield wide(f.load(array, i if number < inputs else place, lanes, mask))


def run_channelwise(
    function: Callable[..., None], period: Period, arrays: Sequence[Array], constants: Sequence[Array]
) -> Array:
    """The y of a kernel of ``channelwise``; the constants are one number a channel."""
    x = arrays[0]
    y = arena.empty(x.shape, x.dtype)
    block = period.size * max(1, BLOCK // period.size)
    _launch(function, period, arrays, constants, y, block)
    return y


def run_sums(
    function: Callable[..., None], period: Period, arrays: Sequence[Array], constants: Sequence[Array]
) -> Array:
    """The two sums of a kernel of ``channel_sums``, for each channel: (2, channels)."""
    block = period.share(arrays[0].size)
    sums = arena.empty((-(-arrays[0].size // block), 2, period.size), np.float64)
    _launch(function, period, arrays, constants, sums, block)
    return period.total(sums)


def _launch(
    function: Callable[..., None],
    period: Period,
    arrays: Sequence[Array],
    constants: Sequence[Array],
    y: Array,
    block: int,
) -> None:
    spread = [period.spread(values) for values in constants]
    count = arrays[0].size
    places = (array.ctypes.data for array in (*arrays, *spread, y))
    workers.launch(function, *places, period.size, block, count, tasks=-(-count // block), work=COST * count)
