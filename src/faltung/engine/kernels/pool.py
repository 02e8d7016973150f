"""The kernels of pooling: regions of an array are summarised, and error signals sent back to them.

    forward    y[t] = g(x of region t)
    error      dx of region t += dy[t] dg(x of region t)

What g is says an aggregate. A task of forward is a band of an example; of the error it is an example, whose regions are
visited backwards, so that an entry of dx gets its shares in the order of the taps, as in the NumPy definition. Where
shares need no x, ``gather`` is better.

>>> from faltung.engine.kernels.aggregates import Mean
>>> from faltung.engine.loops.language import F32
>>> from faltung.engine.loops.printer import text
>>> from faltung.engine.kernels.regions import Axis
>>> pairs = Regions(16, (Axis(taps=2, stride=2, cut=False),), disjoint=True)
>>> print(text(forward(F32.times(16), pairs, Mean(), masks=True)))
pool_forward(sizes: index*, x: f32*, y: f32*, kept: index*, scratch: index*, first: index, last: index)
    ...
    for task in first .. last
        ...
        for t in begin .. min(count0, begin + band)
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

from faltung.engine.host import arena
from faltung.engine.kernels.bands import fields
from faltung.engine.kernels.elementwise import TASK
from faltung.engine.kernels.lanes import Part, blocks, fill, parts, pitches
from faltung.engine.kernels.regions import UNROLLED, Cover, Entries, Region, Regions, Span
from faltung.engine.loops.language import INDEX, Function, Type, Value, pointer

VECTORS = 4
"""Vectors in a block: so many chains of additions or comparisons run side by side, with 3 or 4 registers each."""

AHEAD = 4096
"""Bytes by which fetching is ahead. What processors fetch by themselves comes too late where there is much to do for a
number: 3 x 3 maxima of 8 x 112 x 112 x 64 took 3.7 ms without, 1.0 ms with it; a copy takes 1.4 ms."""


class Aggregate(ABC):
    """What is computed of a region: of those whose shares need x ``error`` is asked for, of others ``share``."""

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
    def forward(self, region: Entries) -> tuple[list[Value], list[Value]]:
        """Write the computation of y, and of what is kept; a value for each part."""

    def error(self, region: Region, dy: list[Value]) -> None:
        """Write the shares of dy by ``region.spread``."""
        raise NotImplementedError

    def share(self, dy: Value, kept: Value | None, tap: Value | int, count: Value) -> Value:
        """The share of dy of the entry at this tap, of a region of so many entries."""
        raise NotImplementedError


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
    """dx, by vectors of this type: arguments are run-time numbers, x, dy and dx."""
    f = Function("pool_error", sizes=pointer(INDEX), **dict.fromkeys(["x", "dy", "dx"], pointer(kind)), **TASK)
    sizes, x, dy, dx, _, first, last = f.arguments

    def send_back(region: Region, place: Value) -> None:
        aggregate.error(region, [part.load(f, dy, place, name="dy") for part in region.parts])

    _Tasks(f, kind, regions, masks, aggregate.long, sizes, x, dx, send_back).write(first, last)
    return f


class Sizes:
    """What a kernel reads of the numbers of ``bands``."""

    def __init__(self, f: Function, place: Value, regions: Regions):
        axes = range(len(regions.axes))
        self._f, self._place, self._axes = f, place, regions.axes
        self._head = {name: f.load(place, at, name=name) for at, name in enumerate(fields(len(axes)))}
        self.x_pitches = pitches(f, regions.channels, [self[f"size{axis}"] for axis in axes])
        self.y_pitches = pitches(f, regions.channels, [self[f"count{axis}"] for axis in axes])

    def __getitem__(self, name: str) -> Value:
        return self._head[name]

    def load(self, place: Value, name: str) -> Value:
        """A number of a table."""
        return self._f.load(self._place, place, name=name)

    def span(self, number: int, t: Value, whole: bool = False) -> Span:
        """Region t of an axis, which may be known to be a whole one."""
        f, axis, place = self._f, self._axes[number], self[f"spans{number}"] + 2 * t
        begin = self.load(place, "begin")
        taps = f.constant(axis.taps) if axis.taps else self[f"most{number}"]
        return Span(begin, self.load(place + 1, "count") if axis.cut and not whole else taps, axis.dilation, taps)


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
        f = self.f
        self.size = Sizes(f, self.sizes, self.regions)
        (x_example, *self.pitches), (y_example, *self.y_pitches) = self.size.x_pitches, self.size.y_pitches
        bands = self.size["bands"] if self.dx is None else f.constant(1)
        with f.loop("task", last, first) as task:
            n, begin, end = (task // bands).named("n"), f.constant(0), self.size["count0"]
            if self.dx is None:
                begin = (task % bands * self.size["band"]).named("begin")
                end = f.min(end, begin + self.size["band"]).named("end")
            self.x_n, self.dx_n = f.at(self.x, n * x_example), None
            if self.dx is not None:
                self.dx_n = f.at(self.dx, n * x_example)
                fill(f, self.dx_n, x_example, 0.0, self.kind)
            self._regions([], n * y_example, begin, end)

    def _regions(self, spans: list[Span], place: Value, start: Value, stop: Value) -> None:
        axis = len(spans)
        if axis == len(self.regions.axes) - 1:
            self._row(spans, place, start, stop)
            return
        with self._through(f"t{axis}", stop, start) as t:
            here = [*spans, self.size.span(axis, t)], place + t * self.y_pitches[axis]
            self._regions(*here, self.f.constant(0), self.size[f"count{axis + 1}"])

    def _row(self, spans: list[Span], place: Value, start: Value, stop: Value) -> None:
        """The regions start .. stop of the last axis: those behind the whole ones, these, and those before them."""
        f, axis, cover = self.f, self.regions.axes[-1], Cover(self.regions, self.kind, self.masks)
        several = cover.pixels >= 2 and (self.dx is None or self.regions.disjoint)
        if not 0 < axis.taps <= UNROLLED or (self.long and not several):
            self._singles(spans, place, start, stop, whole=False)
            return
        if not (several or axis.cut):
            self._singles(spans, place, start, stop, whole=True)
            return
        whole, broken = self.size["whole"], self.size["broken"]
        if not spans:
            whole = f.max(start, f.min(whole, stop))
            broken = f.max(whole, f.min(broken, stop))
        if several:  # where they are too few for a vector, they are written one by one
            whole = f.select(broken - whole < cover.pixels, broken, whole)
        with f.loop("side", 2) as side:
            behind = side.equal(0)
            self._singles(spans, place, f.select(behind, broken, start), f.select(behind, stop, whole), whole=False)
            with f.where(behind):
                if several:
                    self._strips(spans, place, whole, broken, cover)
                else:
                    self._singles(spans, place, whole, broken, whole=True)

    def _strips(self, spans: list[Span], place: Value, start: Value, stop: Value, cover: Cover) -> None:
        """Whole regions, several in a vector."""
        f = self.f
        with f.loop("strip", (stop - start + (cover.pixels - 1)) // cover.pixels) as strip:
            t = f.max(start, stop - (strip + 1) * cover.pixels)
            here = place + t * self.regions.channels
            self._region([*spans, self.size.span(len(spans), t, whole=True)], here, f.constant(0), [cover.part], cover)

    def _singles(self, spans: list[Span], place: Value, start: Value, stop: Value, whole: bool) -> None:
        """Regions one by one, their channels in blocks of vectors."""
        last, channels = len(spans), parts(self.regions.channels, self.kind, self.masks)
        with self._through("t", stop, start) as t:
            here = [*spans, self.size.span(last, t, whole)]
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

    @contextmanager
    def _through(self, name: str, stop: Value, start: Value) -> Iterator[Value]:
        with self.f.loop(name, stop, start) as t:
            yield start + stop - 1 - t if self.dx is not None else t
