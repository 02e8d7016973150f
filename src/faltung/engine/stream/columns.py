"""Products of a few vectors with a matrix whose weights pass by once, in the order in which they lie.

    y[s, o] = start[s, o] + sum over taps k and inputs i of x[k, s, i] w[k, i, o]

The sums of all streams s for a block of outputs stay in registers, while one number of x after the other meets a row of
weights. So for few streams the time is that of reading the weights: on one core of a Zen 5, 2.9 MB pass by at 95 to 107
GB/s, from its L3 cache.

Weights lie block by block, and in each block tap by tap and input by input. They are float32; or bfloat16, the upper
half of float32, in pairs of inputs: the first of a pair is the lower half of a word of 32 bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host.machine import Machine
from faltung.engine.loops.language import F32, Function, Value, Variable

CHAINS = 8
"""So many sums at least are under way at once: two multiply-adds begin in each cycle, and each takes four."""
PAIR = 2
"""So many vectors of weights at least meet each number. With one, every multiply-add would need a load of its own, and
of both two begin in each cycle: for 8 streams of 64 outputs that took 5.2 us instead of 4.6.
"""
LINE = 64
"""Bytes that come from memory together."""
AHEAD, FEW = 4096, 4
"""Bytes by which weights are fetched ahead, for so many streams at most; for 8, arithmetic takes the time.

With that, networks of 2.9, 6.0 and 0.9 MB took 30.8, 63.3 and 7.2 us a sample, without it 33.8, 68.4 and 8.2.
"""
ADDED = 32
"""Multiply-adds that are written one after the other, at least."""


@dataclass(frozen=True)
class Columns:
    """A matrix, and how its outputs fall into vectors and blocks."""

    taps: int
    inputs: int
    vectors: int
    """Of outputs."""
    sets: int
    """Inputs go by turns to so many sums, or few outputs would wait for their own. This decides about rounding."""
    streams: int
    half: bool
    """Are the weights bfloat16?"""
    machine: Machine

    @property
    def lanes(self) -> int:
        """Of a vector."""
        return self.machine.lanes(F32.size)

    @property
    def together(self) -> int:
        """Inputs whose weights lie in one word."""
        return 2 if self.half else 1

    @property
    def rows(self) -> int:
        """Of words, for each vector of outputs."""
        return self.taps * -(-self.inputs // self.together)

    @property
    def words(self) -> int:
        """Of all weights."""
        return self.rows * self.vectors * self.lanes

    @property
    def sums(self) -> int:
        """For so many there are registers: three quarters of all, or a third, where weights take some to be widened."""
        return self.machine.registers // 3 if self.half else self.machine.registers * 3 // 4

    def groups(self) -> list[range]:
        """The streams, in parts, which meet a block's weights one after the other; several if PAIR finds no room else.

        >>> from faltung.engine.host.machine import AVX512
        >>> [columns(2, 32, outputs, 8, False, AVX512).groups() for outputs in (64, 128)]
        [[range(0, 4), range(4, 8)], [range(0, 8)]]
        """
        most = self.streams if self.half else self.sums // (PAIR * self.sets)  # weights would be widened again
        count = -(-self.streams // most)
        return [range(*cuts) for cuts in pairwise(-(-self.streams * k // count) for k in range(count + 1))]

    def blocks(self) -> list[tuple[int, int, int]]:
        """From which vector to which one, and how many at a time, whose sums fit into the registers.

        >>> from faltung.engine.host.machine import AVX512
        >>> columns(1, 64, 320, 1, False, AVX512).blocks(), columns(1, 64, 320, 8, False, AVX512).blocks()
        ([(0, 20, 20)], [(0, 18, 3), (18, 20, 2)])
        """
        parts = self.groups()
        room = PAIR if len(parts) > 1 else max(1, self.sums // (self.streams * self.sets))
        count = max(1, -(-self.vectors // room))
        narrow, wider = divmod(self.vectors, count)
        middle = wider * (narrow + 1)
        blocks = [(0, middle, narrow + 1), (middle, self.vectors, narrow)]
        return [(begin, end, width) for begin, end, width in blocks if begin < end]

    def part(self, begin: int, end: int) -> "Columns":
        """Some of the vectors; their sums are rounded as those of all."""
        return replace(self, vectors=end - begin)

    def some(self, taps: int) -> "Columns":
        """So many taps of it only."""
        return replace(self, taps=taps)

    def pack(self, w: NDArray[Any]) -> NDArray[Any]:
        """The weights (taps, inputs, outputs) as words; outputs that do not exist have weights of 0."""
        size = self.rows // self.taps * self.together
        rows = np.zeros((self.taps, size, self.vectors * self.lanes), np.float32)
        rows[:, : self.inputs, : w.shape[2]] = w
        words = rows.reshape(self.taps * size, self.vectors, self.lanes)
        if self.half:
            bits = bfloat16(words).view(np.uint32)
            words = (bits[0::2] >> 16 | bits[1::2]).view(np.int32)
        parts = [words[:, at : at + width] for begin, end, width in self.blocks() for at in range(begin, end, width)]
        return np.concatenate([words[:0].ravel(), *(part.ravel() for part in parts)])


def columns(taps: int, inputs: int, outputs: int, streams: int, half: bool, machine: Machine) -> Columns:
    """The columns of a matrix (taps, inputs, outputs)."""
    vectors = -(-outputs // machine.lanes(F32.size))
    sets = next(sets for sets in (1, 2, 4) if sets * vectors >= CHAINS or sets == 4)
    return Columns(taps, inputs, vectors, sets, streams, half, machine)


def bfloat16(w: NDArray[Any]) -> NDArray[np.float32]:
    """The nearest numbers that have 8 bits, as float32; those halfway go to the even one.

    >>> bfloat16(np.array([1.0, 1 / 3], np.float32)).tolist()
    [1.0, 0.333984375]
    """
    bits = np.ascontiguousarray(w, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


Start = Callable[[int, Value], Value]
"""What the sums of a stream begin with, at a place among the outputs."""
Finish = Callable[[int, Value, Value], None]
"""Takes a stream, a place among the outputs, and the sums there."""

Rows = Sequence[Sequence[Value]]
"""Of each stream some values."""


def product(
    f: Function,
    columns: Columns,
    w: Value,
    x: Sequence[tuple[Value, int]],
    start: Start,
    finish: Finish,
    before: int = 0,
) -> None:
    """Write the product. ``x`` is for each tap where the inputs of the first stream lie, and the step to the next.

    The first taps, so many ``before``, are summed up for themselves; start is added to that, and then come the others.
    """
    lanes = columns.lanes
    for begin, end, width in columns.blocks():
        zeros = [f.constant(0.0, F32.times(lanes))] * width
        with f.loop("block", end, begin, step=width) as block:
            places = [(block + v) * lanes for v in range(width)]
            words = f.at(w, block * (columns.rows * lanes), name="w")
            for group in columns.groups():
                inputs = [[f.at(first, s * step) for s in group] for first, step in x]
                early = _added(columns, words, inputs[:before], [zeros] * len(group)) if before else []
                totals = [[start(s, place) for place in places] for s in group]
                if before:
                    totals = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(totals, early, strict=True)]
                some = f.at(words, columns.some(before).rows * width * lanes)
                totals = _added(columns, some, inputs[before:], totals)
                for s, row in zip(group, totals, strict=True):
                    for place, total in zip(places, row, strict=True):
                        finish(s, place, total)


def _added(columns: Columns, w: Value, x: Rows, totals: Rows) -> list[list[Value]]:
    """The totals of streams and vectors, and the products of some taps."""
    sums, words = _Sums(columns, totals), columns.some(1).rows * len(totals[0]) * columns.lanes
    for tap, inputs in enumerate(x):
        sums.add(w.function.at(w, tap * words), inputs)
    return sums.totals()


class _Sums:
    """The sums of a block of outputs, in registers."""

    def __init__(self, columns: Columns, start: Rows):
        self.columns, self.width = columns, len(start[0])
        self._held = [[[_sum(value, again) for again in range(columns.sets)] for value in row] for row in start]

    def add(self, w: Value, x: Sequence[Value]) -> None:
        """Add the products of one tap."""
        f, columns, words = w.function, self.columns, self.width * self.columns.lanes
        least = max(columns.sets, columns.together)
        unrolled = max(least, ADDED // (self.width * len(x)) // least * least)
        whole = columns.inputs - columns.inputs % unrolled
        with f.loop("i", whole, step=unrolled) as i:
            self._add_some(f.at(w, i // columns.together * words), [f.at(row, i) for row in x], unrolled)
        rest = columns.inputs - whole
        self._add_some(f.at(w, whole // columns.together * words), [f.at(row, whole) for row in x], rest)

    def _add_some(self, w: Value, x: Sequence[Value], count: int) -> None:
        """Of streams and vectors, the fewer ones lie in registers while the others pass."""
        streams, vectors = range(len(x)), range(self.width)
        for i in range(count):
            if len(streams) <= len(vectors):
                numbers = [self._number(x[s], i) for s in streams]
                for v in vectors:
                    weights = self._weights(w, i, v)
                    for s in streams:
                        self._multiply(s, v, i, numbers[s], weights)
            else:
                row = [self._weights(w, i, v) for v in vectors]
                for s in streams:
                    number = self._number(x[s], i)
                    for v in vectors:
                        self._multiply(s, v, i, number, row[v])

    def _multiply(self, s: int, v: int, i: int, number: Value, weights: Value) -> None:
        total = self._held[s][v][i % self.columns.sets]
        total.set(number.function.fma(number, weights, total.value))

    def _number(self, x: Value, i: int) -> Value:
        return x.function.broadcast(x.function.load(x, i), self.columns.lanes)

    def _weights(self, w: Value, i: int, v: int) -> Value:
        f, lanes, together = w.function, self.columns.lanes, self.columns.together
        at, line = (i // together * self.width + v) * lanes, LINE // (F32.size * lanes)
        if self.columns.streams <= FEW and i % together == 0 and v % line == 0:
            f.prefetch(w, at + AHEAD // F32.size)
        word = f.load(w, at, lanes)
        if together == 1:
            return word
        return f.convert("bits", word & -1 << 16 if i % together else word << 16, F32)

    def totals(self) -> list[list[Value]]:
        """The sums of each stream."""
        return [[_total([held.value for held in sets]) for sets in row] for row in self._held]


def _sum(start: Value, again: int) -> Variable:
    return start.function.variable("sum", 0.0 if again else start, start.type)


def _total(values: list[Value]) -> Value:
    while len(values) > 1:
        values = [a + b for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]
