"""Regions of an array, as kernels that summarise them see them: a few vectors, tap by tap.

Lanes are channels, in blocks of a few vectors. Where a pixel has at most half a vector of channels, neighbouring
regions share a vector: a row of taps of all of them is loaded whole, and shuffles pick each tap's numbers from it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from faltung.engine.kernels.lanes import Part, parts
from faltung.engine.loops.language import INDEX, Constant, Function, Type, Value, Variable

UNROLLED = 16
"""Taps of a region, or of its rows, up to which they are written one after the other."""


@dataclass(frozen=True)
class Axis:
    """What is compiled in of an axis: region t has the entries begin[t] + k*dilation, k < count[t]."""

    taps: int = 0
    """Of a whole region; 0 where they are known only at run time, and no region counts as whole."""
    stride: int = 0
    dilation: int = 1
    cut: bool = True
    """Are there regions that are not whole, as at the border where there is padding?"""

    @property
    def blocks(self) -> bool:
        """Are entries gone through ``stride`` at a time, as they repeat, and their regions written one by one?"""
        return self.dilation == 1 and 0 < self.taps <= UNROLLED and self.stride <= UNROLLED


@dataclass(frozen=True)
class Regions:
    """What is compiled in; sizes, and the tables of begins and counts, are run-time numbers."""

    channels: int
    axes: tuple[Axis, ...]
    disjoint: bool = False
    """Are the regions disjoint, and is nothing left out but behind the last one of an axis?"""


@dataclass
class Span:
    """The entries of a region on one axis: begin + k*dilation, k < count <= most."""

    begin: Value
    count: Value
    dilation: int
    most: Value


@dataclass
class Entries(ABC):
    """What is summarised: one or several vectors of entries, tap by tap."""

    f: Function
    kind: Type
    parts: list[Part]

    @property
    @abstractmethod
    def count(self) -> Value:
        """The number of entries, as a floating number."""

    @abstractmethod
    def visit(self, body: Callable[[list[Value], Value], None]) -> None:
        """Write ``body(entries, number of the tap)`` for every tap, in row-major order."""

    def variables(self, name: str, start: float, kind: Type | None = None) -> list[Variable]:
        """A register for each part."""
        kind = kind or self.kind
        return [self.f.variable(name, self.f.constant(start, kind.times(part.lanes))) for part in self.parts]


@dataclass
class Region(Entries):
    """One region of an array, or several neighbours, as an aggregate sees it."""

    spans: list[Span]
    pitches: list[Value]
    x: Value
    dx: Value | None
    adds: bool
    unrolled: bool
    """Are few taps written one after the other?"""
    ahead: list[int]
    """Where, from a row of taps on, numbers lie that will be needed soon: the first visit to x fetches them."""
    cover: "Cover | None" = None
    """How neighbours share vectors, if they do."""

    @property
    def count(self) -> Value:
        """The number of entries, as a floating number."""
        total: Value = self.f.constant(1)
        for span in self.spans:
            total = total * span.count
        return number(total, self.kind)

    def visit(self, body: Callable[[list[Value], Value], None]) -> None:
        """Write ``body(entries, number of the tap)`` for every tap, in row-major order."""
        self._rows(lambda offset, tap: self._read_row(offset, tap, body))
        self.ahead = []

    def spread(self, body: Callable[[list[Value], Value], list[Value]]) -> None:
        """Write or add ``body(entries, number of the tap)`` to dx at every tap."""
        self._rows(lambda offset, tap: self._write_row(offset, tap, body))

    def _rows(self, row: Callable[[Value, Value], None]) -> None:
        """Write ``row(offset in x, number of the first tap)`` for every row of taps."""
        *outer, inner = self.spans
        few = self.unrolled and math.prod(_known(span.count) for span in self.spans) <= UNROLLED

        def nest(axis: int, offset: Value, tap: Value) -> None:
            if axis == len(outer):
                row(offset + inner.begin * self.pitches[-1], tap * inner.most)
                return
            span, pitch = outer[axis], self.pitches[axis]
            for_each(
                self.f, f"k{axis}", 0, span.count, few,
                lambda k: nest(axis + 1, offset + (span.begin + k * span.dilation) * pitch, tap * span.most + k),
            )  # fmt: skip

        nest(0, self.f.constant(0), self.f.constant(0))

    def _read_row(self, offset: Value, tap: Value, body: Callable[[list[Value], Value], None]) -> None:
        inner = self.spans[-1]
        for distance in self.ahead:
            self.f.prefetch(self.x, offset + distance)
        if self.cover:
            row = self.cover.load(self.f, self.x, offset)
            for k in range(self.cover.taps):
                body([self.cover.pick(self.f, row, k)], tap + k)
            return
        step = self.pitches[-1] * inner.dilation
        for_each(
            self.f, "k", 0, inner.count, self.unrolled, lambda k: body(self._load(self.x, offset + k * step), tap + k)
        )

    def _write_row(self, offset: Value, tap: Value, body: Callable[[list[Value], Value], list[Value]]) -> None:
        f, inner, dx = self.f, self.spans[-1], self.dx
        assert dx is not None
        if self.cover:
            cover, row = self.cover, self.cover.load(f, self.x, offset)
            cover.store(f, [body([cover.pick(f, row, k)], tap + k)[0] for k in range(cover.taps)], dx, offset)
            return

        def write(k: Value) -> None:
            place = offset + k * (self.pitches[-1] * inner.dilation)
            for part, share in zip(self.parts, body(self._load(self.x, place), tap + k), strict=True):
                part.store(f, part.load(f, dx, place, name="dx") + share if self.adds else share, dx, place)

        for_each(f, "k", 0, inner.count, self.unrolled, write)

    def _load(self, place: Value, offset: Value) -> list[Value]:
        return [part.load(self.f, place, offset, name="x") for part in self.parts]


@dataclass(frozen=True)
class Cover:
    """A row of taps of several neighbouring regions, read from x in whole vectors."""

    regions: Regions
    kind: Type
    masks: bool

    @property
    def pixels(self) -> int:
        """How many regions share a vector."""
        return self.kind.lanes // self.regions.channels

    @property
    def taps(self) -> int:
        """Taps of a row."""
        return self.regions.axes[-1].taps

    @property
    def part(self) -> Part:
        """The vector that they share."""
        return parts(self.pixels * self.regions.channels, self.kind, self.masks)[0]

    def _parts(self) -> list[Part]:
        """The entries of x that they have."""
        axis = self.regions.axes[-1]
        entries = (self.pixels - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1
        return parts(entries * self.regions.channels, self.kind, self.masks)

    def _sources(self, k: int) -> list[int]:
        """Where in the row each lane of tap k lies."""
        axis, channels = self.regions.axes[-1], self.regions.channels
        return [
            (p * axis.stride + k * axis.dilation) * channels + c for p in range(self.pixels) for c in range(channels)
        ]

    def load(self, f: Function, place: Value, offset: Value) -> list[Value]:
        """The row at place[offset]."""
        return [part.load(f, place, offset, name="x") for part in self._parts()]

    def pick(self, f: Function, row: list[Value], k: int) -> Value:
        """The numbers of tap k: one shuffle takes them from two vectors, each further vector needs another one."""
        lanes, sources = self.part.lanes, self._sources(k)
        sources += sources[:1] * (lanes - len(sources))
        first, *others = sorted({source // lanes for source in sources})
        value = row[first]
        for number, other in enumerate(others or [first]):
            lane = {first: 0, other: lanes} if number == 0 else {other: lanes}
            picked = [
                lane[source // lanes] + source % lanes if source // lanes in lane else min(place, lanes - 1)
                for place, source in enumerate(sources)
            ]
            value = f.shuffle(value, row[other], picked)
        return value

    def store(self, f: Function, shares: list[Value], place: Value, offset: Value) -> None:
        """place[offset ...] = the shares of all taps, of disjoint regions."""
        lanes, zeros = self.part.lanes, f.constant(0.0, shares[0].type)
        for part in self._parts():
            total = zeros
            for k, share in enumerate(shares):
                lane = {source - part.begin: number for number, source in enumerate(self._sources(k))}
                if any(number in lane for number in range(lanes)):
                    moved = [lane.get(number, -1) for number in range(lanes)]
                    total = f.shuffle(
                        share, total, [number if number >= 0 else lanes + n for n, number in enumerate(moved)]
                    )
            part.store(f, total, place, offset)


def _known(count: Value) -> float:
    return count.number if isinstance(count, Constant) else math.inf


def for_each(f: Function, name: str, start: Any, stop: Any, unroll: bool, body: Callable[[Value], None]) -> None:
    """A loop; with ``unroll``, and where few rounds are known, they are written one after the other."""
    start, stop = f.lift(start, INDEX), f.lift(stop, INDEX)
    if unroll and isinstance(start, Constant) and isinstance(stop, Constant) and stop.number - start.number <= UNROLLED:
        for k in range(int(start.number), int(stop.number)):
            body(f.constant(k))
    else:
        with f.loop(name, stop, start) as k:
            body(k)


def number(value: Value, kind: Type) -> Value:
    """An index as a number of another type."""
    f = value.function
    if isinstance(value, Constant):
        return f.constant(value.number, kind)
    return f.convert("to_float" if kind.floating else "narrow", value, kind)
