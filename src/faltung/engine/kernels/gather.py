"""The error of pooling where shares need no x: an entry of dx gathers what comes from the regions that hold it.

    dx[i] = sum over the regions t that hold i of dy[t] dg at i's tap in t, in the order of the taps

So every entry of dx is written once, and none is read. On each axis a table says which regions hold an entry. Along the
last axis, entries that the same regions hold are a *run*; but where windows move by a stride s, it is gone through by
*blocks* of s entries: those of block u are held by the windows u, u-1, ..., each at a tap that is known when the kernel
is written. Few channels of neighbouring blocks share a vector. A task is a band of rows of an example.

>>> from faltung.engine.kernels.aggregates import Mean
>>> from faltung.engine.loops.language import F32
>>> from faltung.engine.loops.printer import text
>>> halves = Regions(16, (Axis(taps=3, stride=2, cut=False),))
>>> print(text(gather(F32.times(16), halves, Mean(), masks=True)))
pool_gather(sizes: index*, dy: f32*, kept: index*, dx: f32*, scratch: index*, first: index, last: index)
    ...
        for u in ...
            ...
            dy.3 = dy[... + u * 16 : ...]
            total.3 = 1.0 / 3.0 * dy.3
            total.4 = 1.0 / 3.0 * dy.3
            add... = total.3 + 1.0 / 3.0 * dy[... + (u - 1) * 16 : ...]
            total.3 = add...
            mul... = u * 32
            blocks[mul... : mul... + 16] = total.3
            blocks[mul... + 16 : mul... + 32] = total.4
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from faltung.engine.kernels.bands import RUN
from faltung.engine.kernels.elementwise import TASK
from faltung.engine.kernels.lanes import Part, blocks, parts
from faltung.engine.kernels.pool import Aggregate, Sizes
from faltung.engine.kernels.regions import Axis, Cover, Regions, Span, number
from faltung.engine.loops.language import BOOL, INDEX, Constant, Function, Type, Value, Variable, pointer

SUMS = 12
"""Vectors of dx that are summed side by side."""


@dataclass
class _Held:
    """The regions that hold an entry i of an axis: so many, the last of which is the newest one."""

    i: Value
    newest: Value
    held: Value


Ends = tuple[Value, Value]
Region = tuple[Value, Value, Value]
"""Its place in dy, the number of i's tap in it, and how many entries it has; or as much as some axes say of these."""
Visit = Callable[[Value, Value, Value], None]
"""What is done with a region."""


def gather(kind: Type, regions: Regions, aggregate: Aggregate, masks: bool) -> Function:
    """dx, by vectors of this type: arguments are run-time numbers, dy, what forward kept, and dx."""
    kept = pointer(aggregate.keeps or INDEX)
    f = Function("pool_gather", sizes=pointer(INDEX), dy=pointer(kind), kept=kept, dx=pointer(kind), **TASK)
    sizes, dy, kept, dx, _, first, last = f.arguments
    _Writer(f, kind, regions, aggregate, masks, Sizes(f, sizes, regions), dy, kept, dx).write(first, last)
    return f


@dataclass
class _Writer:
    """The statements of ``gather``."""

    f: Function
    kind: Type
    regions: Regions
    aggregate: Aggregate
    masks: bool
    size: Sizes
    dy: Value
    kept: Value
    dx: Value

    def write(self, first: Value, last: Value) -> None:
        """Write all."""
        f, size = self.f, self.size
        with f.loop("task", last, first) as task:
            n, band = (task // size["bands"]).named("n"), (task % size["bands"]).named("part")
            begin = (band * size["band"]).named("begin")
            dx, dy = f.at(self.dx, n * size.x_pitches[0]), n * size.y_pitches[0]
            runs = f.constant(0), size["before"] + size["behind"]
            if len(self.regions.axes) > 1:
                blocks = size["first"], size["last"]
                self._rows([], dx, dy, (begin, f.min(begin + size["band"], size["size0"])), runs, blocks)
                return
            low, starts, stops = size["first"] + begin, band.equal(0), (band + 1).equal(size["bands"])
            runs = f.select(starts, 0, size["before"]), f.select(stops, runs[1], size["before"])
            blocks, start = (low, f.min(low + size["band"], size["last"])), (dy, f.constant(0), f.constant(1))
            self._row(dx, lambda visit: visit(*start), True, runs, blocks)

    def _rows(self, outer: list[_Held], dx: Value, dy: Value, here: Ends, runs: Ends, blocks: Ends) -> None:
        """All rows; those that regions hold only once, as seen along other axes than the last, more simply."""
        f, axis = self.f, len(outer)
        if axis < len(self.regions.axes) - 1:
            with f.loop(f"i{axis}", here[1], here[0]) as i:
                _, _, newest, held = self._run(axis, i)
                place = f.at(dx, i * self.size.x_pitches[axis + 1])
                inner = f.constant(0), self.size[f"size{axis + 1}"]
                self._rows([*outer, _Held(i, newest, held)], place, dy, inner, runs, blocks)
            return
        alone = math.prod((each.held for each in outer), start=f.constant(1)).equal(1)
        start = dy, f.constant(0), f.constant(1)
        with f.where(alone):
            once = [replace(each, held=f.constant(1)) for each in outer]
            self._each(0, once, start, lambda *region: self._row(dx, lambda visit: visit(*region), True, runs, blocks))
        with f.where(alone.equal(False)):
            self._row(dx, lambda visit: self._each(0, outer, start, visit), False, runs, blocks)

    def _row(self, dx: Value, regions: Callable[[Visit], None], alone: bool, runs: Ends, blocks_: Ends) -> None:
        """The last axis: its runs, and its blocks. ``regions`` visits the regions of the row; ``alone``, it is one."""
        f, channels, axis = self.f, self.regions.channels, self.regions.axes[-1]
        vectors = parts(channels, self.kind, self.masks)
        with f.loop("run", runs[1], runs[0]) as run:
            begin, end, newest, held = self._run(len(self.regions.axes) - 1, run)
            one = held.equal(1) if alone else f.constant(0, BOOL)

            def entries(c: Value, some: list[Part]) -> None:
                with f.where(one):
                    regions(lambda *region: self._run_of_one(region, newest, (begin, end), some, f.at(dx, c), c))
                with f.where(one.equal(False)), f.loop("i", end, begin) as i:
                    self._entry(regions, _Held(i, newest, held), some, f.at(dx, i * channels + c), c)

            blocks(f, vectors, 4, entries)
        if not axis.blocks:
            return
        cover = Cover(replace(self.regions, axes=(Axis(axis.stride, axis.stride),)), self.kind, self.masks)
        first, last = blocks_
        begin = self.size.span(len(self.regions.axes) - 1, first, whole=True).begin
        dx = f.at(dx, (begin - first * axis.stride) * channels, name="blocks")
        shared = f.select(last - first < cover.pixels, last, first) if cover.pixels > 1 else last
        with f.loop("u", shared, first) as u:
            most = max(1, SUMS // axis.stride)
            blocks(f, vectors, most, lambda c, some: self._block(regions, alone, u, some, f.at(dx, c), c))
        if cover.pixels > 1:
            with f.loop("strip", (last - shared + (cover.pixels - 1)) // cover.pixels) as strip:
                u = f.min(shared + strip * cover.pixels, last - cover.pixels).named("u")
                self._block(regions, alone, u, [cover.part], dx, f.constant(0), cover)

    def _run_of_one(self, region: Region, t: Value, run: Ends, some: list[Part], dx: Value, c: Value) -> None:
        """The entries of a run that one region holds."""
        f, keeps, (place, tap, count) = self.f, self.aggregate.keeps, region
        span = self.size.span(len(self.regions.axes) - 1, t)
        row = tap * span.most
        both = [self._load(part, place + t * self.regions.channels + c, row) for part in some]

        def shares(tap: Value | int) -> list[Value]:
            return [self.aggregate.share(*each, tap, count * span.count) for each in both]

        same = None if keeps else shares(0)
        with f.loop("i", run[1], run[0]) as i:
            values = shares(number(self._tap(i, span), keeps)) if keeps else same
            for part, value in zip(some, values or [], strict=True):
                part.store(f, value, dx, i * self.regions.channels)

    def _entry(self, regions: Callable[[Visit], None], held: _Held, some: list[Part], dx: Value, c: Value) -> None:
        """An entry."""
        sums = self._zeros(some)

        def visit(place: Value, tap: Value, count: Value) -> None:
            for part, total in zip(some, sums, strict=True):
                total.set(total.value + self.aggregate.share(*self._load(part, place + c, tap), 0, count))

        regions(lambda *region: self._each(len(self.regions.axes) - 1, [held], region, visit))
        for part, total in zip(some, sums, strict=True):
            part.store(self.f, total.value, dx)

    def _block(
        self,
        regions: Callable[[Visit], None],
        alone: bool,
        u: Value,
        some: list[Part],
        dx: Value,
        c: Value,
        cover: Cover | None = None,
    ) -> None:
        """The entries of a block, or of several with few channels."""
        f, channels, axis = self.f, self.regions.channels, self.regions.axes[-1]
        sums = [self._zeros(some) for _ in range(axis.stride)]

        def visit(place: Value, tap: Value, count: Value) -> None:
            for back in range(-(-axis.taps // axis.stride)):
                for which, part in enumerate(some):
                    both = self._load(part, place + (u - back) * channels + c, tap * axis.taps)
                    for k in range(back * axis.stride, min(axis.taps, (back + 1) * axis.stride)):
                        total = sums[k % axis.stride][which]
                        share = self.aggregate.share(*both, k, count * axis.taps)
                        total.set(share if alone and not back else total.value + share)

        regions(visit)
        place = u * (axis.stride * channels)  # from the table it would be known late, and loads wait for that
        if cover:
            cover.store(f, [total.value for (total,) in sums], dx, place)
            return
        for r, totals in enumerate(sums):
            for part, total in zip(some, totals, strict=True):
                part.store(f, total.value, dx, place + r * channels)

    def _each(self, axis: int, rows: list[_Held], region: Region, visit: Visit) -> None:
        """All regions that hold an entry of these axes, the newest first: thus come the taps in their order."""
        if not rows:
            visit(*region)
            return
        (held, *inner), own, (place, tap, count) = rows, self.regions.axes[axis], region
        with self.f.loop("back", held.held) as back:
            t = held.newest - back * (own.dilation // math.gcd(own.stride, own.dilation))
            span, here = self.size.span(axis, t), place + t * self.size.y_pitches[axis + 1]
            found = here, tap * span.most + self._tap(held.i, span), count * span.count
            self._each(axis + 1, inner, found, visit)

    def _tap(self, i: Value, span: Span) -> Value:
        return (i - span.begin) // span.dilation

    def _load(self, part: Part, place: Value, row: Value) -> tuple[Value, Value | None]:
        """dy of a region, and what is kept of it, less the number of the first tap of a row."""
        f, keeps = self.f, self.aggregate.keeps
        dy = part.load(f, self.dy, place, name="dy")
        if keeps is None:
            return dy, None
        kept = part.load(f, self.kept, place, name="kept")
        return dy, kept if isinstance(row, Constant) else kept - number(row, keeps)

    def _zeros(self, some: list[Part]) -> list[Variable]:
        return [self.f.variable("total", self.f.constant(0.0, self.kind)) for _ in some]

    def _run(self, axis: int, number: Value) -> list[Value]:
        place = self.size[f"runs{axis}"] + len(RUN) * number
        return [self.size.load(place + at, name) for at, name in enumerate(RUN)]
