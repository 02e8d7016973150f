"""Boxes: some rows and columns of one plane of an image, all channels, which lie in the scratch while kernels work.

What a box of y needs of x is copied between zeros, so that kernels know no borders, and y is copied, or collected and
copied back. So memory is read and written once, in the order of its addresses, and a box stays in the L2 cache.

An axis with a dilation falls into boxes of every d-th output, which need every d-th input: inside they are not dilated.
In the scratch a pixel has whole vectors, and not a power of 2 of them: else the places of one channel would all meet
in the same few sets of the L1 cache.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from faltung.engine.kernels.elementwise import AHEAD, sweep
from faltung.engine.kernels.tiles import Rows
from faltung.engine.loops.language import Function, Value

if TYPE_CHECKING:
    from faltung.engine.kernels.launch import Axis

AXIS = ("output", "input", "start", "stride", "dilation", "taps", "every", "step", "length", "parts")
STEPS = ("x_example", "x_plane", "x_row", "y_example", "y_plane", "y_row")
SIZES = (*(f"{axis}_{what}" for axis in "dhw" for what in AXIS), *STEPS)
"""The run-time numbers of a call, in the order in which they lie in memory."""
ROWS, PIXELS = 3, 16
"""A box is as wide as y unless it cannot hold so many times the rows of one output; so many pixels it has at least."""


@dataclass(frozen=True)
class Cut:
    """How an axis falls into ``parts``: boxes of ``length`` outputs that lie ``every`` apart.

    They need ``reach`` places of x; from one output to the next it is ``step`` places.

    >>> from faltung.engine.kernels.launch import Axis
    >>> Cut.of(Axis(size=20, output=16, taps=3, dilation=2), room=7)
    Cut(every=2, step=1, length=4, parts=4, reach=6)
    """

    every: int
    step: int
    length: int
    parts: int
    reach: int

    @classmethod
    def of(cls, axis: "Axis", room: int, least: int = 1) -> "Cut":
        """Boxes that need at most ``room`` places, but have ``least`` outputs where there are so many."""
        common = math.gcd(axis.stride, axis.dilation)
        every, step = axis.dilation // common, axis.stride // common
        outputs = -(-axis.output // every)
        parts = -(-outputs // max(least, (room - axis.taps) // step + 1))
        length = -(-outputs // parts)
        return cls(every, step, length, parts * min(every, axis.output), (length - 1) * step + axis.taps)


def pitch(rows: Rows, lanes: int) -> int:
    """Numbers from one pixel in the scratch to the next."""
    vectors = -(-rows.outputs // lanes)
    return lanes * (vectors + (vectors % 16 == 0))


def layout(rows: Rows, lanes: int, axes: "Sequence[Axis]", steps: Sequence[int], l2: int) -> tuple[list[int], int, int]:
    """The numbers of ``SIZES``, the boxes of an example, and the bytes of scratch: x, y, and a vector for each tap.

    A third of the L2 cache is for x, another one for y, and the last one for what passes by.
    """
    d, h, w = axes = [replace(axis, dilation=1) if axis.taps == 1 else axis for axis in axes]
    pixel = pitch(rows, lanes) * rows.kind.size
    places = l2 // 3 // (pixel * d.taps)
    columns = Cut.of(w, places // Cut.of(h, ROWS * h.taps).reach, PIXELS)
    planes = Cut(every=1, step=1, length=1, parts=d.output, reach=d.taps)
    cuts = planes, Cut.of(h, places // columns.reach), columns
    numbers: list[int] = []
    for axis, cut in zip(axes, cuts, strict=True):
        numbers += [axis.output, axis.size, axis.start, axis.stride, axis.dilation, axis.taps]
        numbers += [cut.every, cut.step, cut.length, cut.parts]
    pixels = math.prod(cut.reach for cut in cuts) + math.prod(cut.length for cut in cuts)
    taps = math.prod(axis.taps for axis in axes)
    scratch = pixels * pixel + taps * lanes * rows.kind.size
    return [*numbers, *steps], math.prod(cut.parts for cut in cuts), scratch


@dataclass(frozen=True)
class Span:
    """A box on one axis: ``count`` outputs from ``first`` on. It needs ``reach`` places of x from ``begin`` on.

    Those from low to high exist, the others are padding.
    """

    first: Value
    count: Value
    begin: Value
    reach: Value
    low: Value
    high: Value

    @classmethod
    def of(cls, f: Function, size: dict[str, Value], axis: str, part: Value) -> "Span":
        """One part of an axis; the last ones may be shorter, or empty."""
        output, extent, start, stride, dilation, taps, every, step, length, _ = (
            size[f"{axis}_{what}"] for what in AXIS
        )
        first = (part % every + part // every * length * every).named(f"{axis}_first")
        count = f.max(f.min((output - first + every - 1) // every, length), 0).named(f"{axis}_count")
        begin = (first * stride + start).named(f"{axis}_begin")
        reach = f.max((count - 1) * step + taps, 0).named(f"{axis}_reach")
        low = f.min(f.max((dilation - 1 - begin) // dilation, 0), reach).named(f"{axis}_low")
        high = f.max(f.min((extent - begin + dilation - 1) // dilation, reach), low).named(f"{axis}_high")
        return cls(first, count, begin, reach, low, high)


class Box:
    """One box in a kernel that is being written: where it lies, and its places in the scratch."""

    def __init__(self, f: Function, rows: Rows, lanes: int, size: dict[str, Value], number: Value, scratch: Value):
        self.f, self.rows, self.lanes, self.size, self.pitch = f, rows, lanes, size, pitch(rows, lanes)
        dilation = rows.dilation if rows.taps > 1 else 1
        common = math.gcd(rows.stride, dilation)
        self.step = rows.stride // common
        """Places from one output of a row to the next."""
        self.y_step = dilation // common * rows.y_pixel
        """Numbers from one output of a row to the next, in memory."""
        spans: dict[str, Span] = {}
        for axis in "whd":
            parts = size[f"{axis}_parts"]
            spans[axis], number = Span.of(f, size, axis, number % parts), number // parts
        self.n, self.d, self.h, self.w = number, spans["d"], spans["h"], spans["w"]
        self.x_row = (self.w.reach * self.pitch).named("box_x_row")
        self.x_plane = (self.h.reach * self.x_row).named("box_x_plane")
        self.y_row = (self.w.count * self.pitch).named("box_y_row")
        self.x = scratch
        self.y = f.at(scratch, self.d.reach * self.x_plane, name="box_y")
        self.weights = f.at(self.y, self.h.count * self.y_row, name="weights")

    def fill(self, x: Value) -> None:
        """Copy x, with zeros around it; planes that are padding are left out."""
        f, size, d, h, w = self.f, self.size, self.d, self.h, self.w
        with f.loop("i", d.high, d.low) as i, f.loop("j", h.reach) as j:
            target = f.at(self.x, i * self.x_plane + j * self.x_row, name="box_x")
            plane, row = d.begin + i * size["d_dilation"], h.begin + j * size["h_dilation"]
            source = f.at(x, self.n * size["x_example"] + plane * size["x_plane"] + row * size["x_row"])
            high = f.select((j >= h.low) & (j < h.high), w.high, w.low)
            self._zero(target, f.constant(0), w.low)
            with f.loop("t", high, w.low) as t:
                place = (w.begin + t * size["w_dilation"]) * self.rows.x_pixel
                self._copy(f.at(source, place), f.at(target, t * self.pitch), inwards=True)
            self._zero(target, high, w.reach)

    def fetch(self, y: Value) -> None:
        """Copy y."""
        with self._outputs(y) as (inside, outside):
            self._copy(outside, inside, inwards=True)

    def write(self, y: Value) -> None:
        """Copy what has been collected to y."""
        with self._outputs(y) as (inside, outside):
            self._copy(inside, outside, inwards=False)

    def row_of(self, y: Value, i: Value) -> Value:
        """Where row i of the box begins in memory."""
        size, row = self.size, self.h.first + i * self.size["h_every"]
        place = self.n * size["y_example"] + self.d.first * size["y_plane"] + row * size["y_row"]
        return self.f.at(y, place + self.w.first * self.rows.y_pixel)

    @contextmanager
    def vectors(self) -> Iterator[tuple[Value, Value | None]]:
        """For each vector of channels: the first of them, and the mask of those that there are."""
        f, channels, lanes = self.f, self.rows.outputs, self.lanes
        with f.loop("c", channels, step=lanes) as c:
            yield c, f.first_lanes(f.constant(channels) - c, lanes) if channels % lanes else None

    @contextmanager
    def _outputs(self, y: Value) -> Iterator[tuple[Value, Value]]:
        f = self.f
        with f.loop("i", self.h.count) as i:
            row = self.row_of(y, i)
            with f.loop("t", self.w.count) as t:
                yield f.at(self.y, i * self.y_row + t * self.pitch), f.at(row, t * self.y_step)

    def _copy(self, source: Value, target: Value, inwards: bool) -> None:
        """One pixel; inwards, with zeros up to whole vectors."""
        f, lanes, ahead = self.f, self.lanes, AHEAD // self.rows.kind.size

        def vector(c: Value, mask: Value | None) -> None:
            f.prefetch(source if inwards else target, c + ahead)
            f.store(f.load(source, c, lanes, mask), target, c, None if inwards else mask)

        sweep(f, f.constant(self.rows.outputs), lanes, vector)

    def _zero(self, row: Value, low: Value, high: Value) -> None:
        zeros = self.f.constant(0.0, self.rows.kind.times(self.lanes))
        with self.f.loop("i", high * self.pitch, low * self.pitch, step=self.lanes) as i:
            self.f.store(zeros, row, i)
