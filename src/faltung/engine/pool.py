"""The kernels of pooling: regions of an array are summarised, and error signals sent back to them.

    forward    y[t] = g(x of region t)
    error      dx of region t += dy[t] dg(x of region t)

What g is says an aggregate. A task is an example or a band of one. In the error it owns a band of dx: regions that
reach into two bands are visited by both tasks, each of which writes its own part. Regions are visited backwards, so
that an entry of dx gets its shares in the order of the taps, as in the NumPy definition. Disjoint regions are written
once, overlapping ones added to zeros.

>>> from faltung.engine.aggregates import Mean
>>> from faltung.engine.language import F32
>>> from faltung.engine.printer import text
>>> from faltung.engine.regions import Axis
>>> pairs = Regions(16, (Axis(taps=2, stride=2, cut=False),), disjoint=True)
>>> print(text(forward(F32.times(16), pairs, Mean(), masks=True)))
pool_forward(sizes: index*, x: f32*, y: f32*, kept: index*, scratch: index*, first: index, last: index)
    ...
    for task in first .. last
        ...
        for t in sizes[row + 2] .. sizes[row + 3]
            total: f32x16 = 0.0
            mul... = sizes[spans0 + 2 * t] * 16
            prefetch(x.1[mul... + 1024])
            prefetch(x.1[mul... + 1040])
            total = total + x.1[mul... : mul... + 16]
            total = total + x.1[mul... + 16 : mul... + 32]
            y[...] = total * 0.5
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from faltung.engine import arena
from faltung.engine.bands import AXIS, BAND, fields
from faltung.engine.elementwise import TASK
from faltung.engine.lanes import Part, blocks, fill, parts, pitches
from faltung.engine.language import INDEX, Function, Type, Value, pointer
from faltung.engine.regions import UNROLLED, Cover, Region, Regions, Span

VECTORS = 4
"""Vectors in a block: so many chains of additions or comparisons run side by side, with 3 or 4 registers each."""

AHEAD = 4096
"""Bytes by which fetching is ahead. What processors fetch by themselves comes too late where there is much to do for a
number: 3 x 3 maxima of 8 x 112 x 112 x 64 took 3.7 ms without, 1.0 ms with it; a copy takes 1.4 ms."""


class Aggregate(ABC):
    """What is computed of a region."""

    reads: ClassVar[bool] = False
    """Does the error need x?"""

    @property
    def long(self) -> bool:
        """Is it so much code for one tap that a loop over taps costs nothing?"""
        return False

    @property
    def keeps(self) -> Type | None:
        """What else the error needs: whole numbers of this type, one for each number of y."""
        return None

    @abstractmethod
    def forward(self, region: Region) -> tuple[list[Value], list[Value]]:
        """Write the computation of y, and of what is kept; a value for each part."""

    @abstractmethod
    def error(self, region: Region, dy: list[Value], kept: list[Value]) -> None:
        """Write the shares of dy by ``region.spread``."""


def forward(kind: Type, regions: Regions, aggregate: Aggregate, masks: bool) -> Function:
    """y, and what the error needs, by vectors of this type: arguments are run-time numbers, x, y, and what is kept."""
    kept = pointer(aggregate.keeps or INDEX)
    f = Function("pool_forward", sizes=pointer(INDEX), x=pointer(kind), y=pointer(kind), kept=kept, **TASK)
    sizes, x, y, kept, _, first, last = f.arguments

    def summarise(region: Region, place: Value) -> None:
        values, others = aggregate.forward(region)
        for array, numbers in ((y, values), (kept, others)):
            for part, value in zip(region.parts, numbers, strict=False):
                part.store(f, value, array, place)

    _Tasks(f, kind, regions, masks, aggregate.long, sizes, x, None, summarise).write(first, last)
    return f


def error(kind: Type, regions: Regions, aggregate: Aggregate, masks: bool) -> Function:
    """dx, by vectors of this type: arguments are run-time numbers, x, dy, what forward kept, and dx."""
    arrays = {"x": pointer(kind), "dy": pointer(kind), "kept": pointer(aggregate.keeps or INDEX), "dx": pointer(kind)}
    f = Function("pool_error", sizes=pointer(INDEX), **arrays, **TASK)
    sizes, x, dy, kept, dx, _, first, last = f.arguments

    def send_back(region: Region, place: Value) -> None:
        shares = [part.load(f, dy, place, name="dy") for part in region.parts]
        others = [part.load(f, kept, place, name="kept") for part in region.parts] if aggregate.keeps else []
        aggregate.error(region, shares, others)

    _Tasks(f, kind, regions, masks, aggregate.long, sizes, x, dx, send_back).write(first, last)
    return f


@dataclass
class _Tasks:
    """The loops over tasks, regions and blocks of channels; in the error (with dx) they run backwards."""

    f: Function
    kind: Type
    regions: Regions
    masks: bool
    long: bool
    sizes: Value
    x: Value
    dx: Value | None
    body: Callable[[Region, Value], None]
    """Writes what is to be done with one region, and the place of its value in y."""

    def write(self, first: Value, last: Value) -> None:
        """Write all."""
        f, rank, channels = self.f, len(self.regions.axes), self.regions.channels
        size = {name: f.load(self.sizes, place, name=name) for place, name in enumerate(fields(rank))}
        self.axes = [{name: size[f"{name}{axis}"] for name in AXIS} for axis in range(rank)]
        x_example, *self.pitches = pitches(f, channels, [axis["size"] for axis in self.axes])
        y_example, *self.y_pitches = pitches(f, channels, [axis["count"] for axis in self.axes])
        with f.loop("task", last, first) as task:
            n, band = (task // size["bands"]).named("n"), (task % size["bands"]).named("band")
            table = (size["table"] + band * len(BAND)).named("row")
            self.band = {name: f.load(self.sizes, table + place, name=name) for place, name in enumerate(BAND)}
            self.x_n = f.at(self.x, n * x_example)
            self.dx_n = None if self.dx is None else f.at(self.dx, n * x_example)
            if self.dx_n is not None:
                self._zero(self.dx_n)
            self._regions([], n * y_example)

    def _zero(self, dx: Value) -> None:
        """Zeros where no region writes, or all are going to be added."""
        f, channels, last = self.f, self.regions.channels, len(self.axes) - 1

        def rows(axis: int, place: Value, start: Value) -> None:
            low, high = f.constant(0), self.axes[axis]["size"]
            if axis == 0:
                low, high = self.band["begin"], self.band["end"]
            if axis == last:
                start = f.max(low, start)
                count = f.max(0, high - start) * channels
                fill(f, f.at(dx, place + start * channels), count, 0.0, self.kind)
                return
            with f.loop(f"i{axis}", high, low) as i:
                rows(axis + 1, place + i * self.pitches[axis], f.select(i < self.axes[axis]["covered"], start, 0))

        rows(0, f.constant(0), self.axes[last]["covered"])

    def _regions(self, spans: list[Span], place: Value) -> None:
        axis = len(spans)
        start, stop = self.f.constant(0), self.axes[axis]["count"]
        if axis == 0:
            start, stop = self.band["first"], self.band["last"]
        if axis == len(self.axes) - 1:
            self._row(spans, place, start, stop)
            return
        with self._through(f"t{axis}", stop, start) as t:
            self._regions([*spans, self._span(axis, t)], place + t * self.y_pitches[axis])

    def _row(self, spans: list[Span], place: Value, start: Value, stop: Value) -> None:
        """The regions start .. stop of the last axis: those behind the whole ones, these, and those before them."""
        f, axis, whole, broken = self.f, self.regions.axes[-1], self.band["whole"], self.band["broken"]
        cover = Cover(self.regions, self.kind, self.masks)
        once = self.dx is not None and not self.regions.disjoint
        if not 0 < axis.taps <= UNROLLED or (self.long and cover.pixels < 2):
            self._singles(spans, place, start, stop, whole=False)
            return
        if cover.pixels >= 2:  # a region that no vector has room for is added by itself, or written by two of them
            count = broken - whole
            whole = whole + count % cover.pixels if once else f.select(count < cover.pixels, broken, whole)
        elif not (axis.cut or (once and not spans)):
            self._singles(spans, place, start, stop, whole=True)
            return
        with f.loop("side", 2) as side:
            behind = side.equal(0)
            self._singles(spans, place, f.select(behind, broken, start), f.select(behind, stop, whole), whole=False)
            with f.where(behind):
                if cover.pixels >= 2:
                    self._strips(spans, place, whole, broken, cover)
                else:
                    self._singles(spans, place, whole, broken, whole=True)

    def _strips(self, spans: list[Span], place: Value, start: Value, stop: Value, cover: Cover) -> None:
        """Whole regions, several in a vector."""
        f = self.f
        with f.loop("strip", (stop - start + (cover.pixels - 1)) // cover.pixels) as strip:
            t = f.max(start, stop - (strip + 1) * cover.pixels)
            here = place + t * self.regions.channels
            self._region([*spans, self._whole(t)], here, f.constant(0), [cover.part], cover)

    def _singles(self, spans: list[Span], place: Value, start: Value, stop: Value, whole: bool) -> None:
        """Regions one by one, their channels in blocks of vectors."""
        last, channels = len(self.axes) - 1, parts(self.regions.channels, self.kind, self.masks)
        with self._through("t", stop, start) as t:
            here = [*spans, self._whole(t) if whole else self._span(last, t)]
            place = place + t * self.regions.channels
            blocks(self.f, channels, VECTORS, lambda c, vectors: self._region(here, place, c, vectors))

    def _region(self, spans: list[Span], place: Value, c: Value, parts: list[Part], cover: Cover | None = None) -> None:
        f, adds, unrolled, ahead = self.f, not self.regions.disjoint, not self.long, self._ahead(parts, cover)
        x, dx = f.at(self.x_n, c), f.at(self.dx_n, c) if self.dx_n is not None else None
        region = Region(f, self.kind.times(1), parts, spans, self.pitches, x, dx, adds, unrolled, ahead, cover)
        self.body(region, place + c)

    def _ahead(self, parts: list[Part], cover: Cover | None) -> list[int]:
        """The cache lines of what some later region of the same row will add to a row of taps."""
        channels, stride, size = self.regions.channels, self.regions.axes[-1].stride, self.kind.size
        if self.long:
            return []
        far = -(-AHEAD // (channels * size)) * channels * (1 if self.dx is None else -1)
        pixels = [0] if cover else [channels * pixel for pixel in range(stride)]
        numbers = cover.pixels * stride * channels if cover else parts[-1].begin + parts[-1].count
        return [far + pixel + line for pixel in pixels for line in range(0, numbers, arena.LINE // size)]

    def _whole(self, t: Value) -> Span:
        """A whole region of the last axis, all of whose entries belong to this task."""
        axis, f = self.regions.axes[-1], self.f
        begin = f.load(self.sizes, self.axes[-1]["spans"] + 2 * t, name="begin")
        return Span(begin, f.constant(axis.taps), axis.dilation, f.constant(0), f.constant(axis.taps))

    def _span(self, number: int, t: Value) -> Span:
        """Region t of an axis."""
        f, axis, table = self.f, self.regions.axes[number], self.axes[number]["spans"]
        begin = f.load(self.sizes, table + 2 * t, name="begin")
        count = f.load(self.sizes, table + 2 * t + 1, name="count") if axis.cut else f.constant(axis.taps)
        low, high = f.constant(0), count
        if number == 0 and self.dx is not None and not self.regions.disjoint:
            low = f.max(low, (self.band["begin"] - begin + (axis.dilation - 1)) // axis.dilation)
            high = f.min(high, (self.band["end"] - begin + (axis.dilation - 1)) // axis.dilation)
        return Span(begin, count, axis.dilation, low, high)

    @contextmanager
    def _through(self, name: str, stop: Value, start: Value) -> Iterator[Value]:
        with self.f.loop(name, stop, start) as t:
            yield start + stop - 1 - t if self.dx is not None else t
