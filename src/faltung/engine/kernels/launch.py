"""One correlation of rows, or its gradient, on given sizes: memory is laid out, weights are packed, workers are sent.

Everything here speaks of three axes (those that are missing have size 1), and of places: an array and how many bytes
behind its first number. What follows from the sizes is found once, so that a call costs no more than its launches.
"""

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host import arena, workers
from faltung.engine.host.compile import Code
from faltung.engine.host.machine import Machine, host
from faltung.engine.host.recall import recalled
from faltung.engine.host.recording import Fresh, Slices, constant, packs_once, sliced
from faltung.engine.kernels import apart, boxes, correlate, depthwise, pack
from faltung.engine.kernels import gradient as gradients
from faltung.engine.kernels.correlate import SIZES
from faltung.engine.kernels.slices import add_slices
from faltung.engine.kernels.tiles import Rows, Tile, even, schedule
from faltung.engine.loops.language import Function

Array = NDArray[Any]

SLICES = 8
"""So many tasks a gradient falls into, if it can: slices of examples with sums of their own, and ranges of outputs."""
SUMS = 4 << 20
"""Bytes of partial sums from which on slices are fewer."""
PIXELS = 128
"""Where examples are few, slices are parts of an example of at least so many pixels."""
TILES = 4
"""So many tiles of a row at least make a task."""
PACKED = 9
"""From so many tiles on it pays to pack the weights."""
APART = 32
"""Taps of a volume go apart if the weights of one and so many inputs fit the L1 cache."""


@dataclass(frozen=True)
class Axis:
    """One axis: output t reads the inputs start + t*stride + k*dilation, for the ``taps`` values of k."""

    size: int = 1
    output: int = 1
    taps: int = 1
    stride: int = 1
    dilation: int = 1
    start: int = 0

    @property
    def reach(self) -> int:
        """From the first input that is read to the last, padding counted."""
        return (self.output - 1) * self.stride + (self.taps - 1) * self.dilation + 1


@dataclass(frozen=True)
class Steps:
    """Numbers from one example, plane and row to the next; and pixel, where the row runs across the batch."""

    example: int
    plane: int
    row: int
    pixel: int = 0


@dataclass(frozen=True)
class Taps:
    """Numbers in w from one tap of each axis, input, output and group to the next; backwards where negative."""

    d: int
    h: int
    w: int
    input: int
    output: int
    group: int = 0


@cache
def convolver(rows: Rows, tile: Tile, machine: Machine) -> Code:
    """The code that convolves such rows, and packs weights for it where they are not read in place."""
    public = frozenset({"correlate"} if tile.filters else {"correlate", "pack"})
    return recalled(_convolver, machine, rows, tile, public=public)


def _convolver(machine: Machine, rows: Rows, tile: Tile) -> list[Function]:
    if tile.apart:
        return [*apart.correlate("correlate", rows, tile), pack.pack("pack", rows, tile)]
    functions = correlate.correlate("correlate", rows, tile, machine)
    return functions if tile.filters else [*functions, pack.pack("pack", rows, tile)]


@cache
def summer(rows: Rows, machine: Machine) -> tuple[gradients.Sums, Code]:
    """The code that sums the gradient over such rows, and puts it in order."""
    plan = gradients.schedule(rows, machine)
    return plan, recalled(_summer, machine, rows, plan, public=frozenset({"gradient", "unpack"}))


def _summer(machine: Machine, rows: Rows, plan: gradients.Sums) -> list[Function]:
    return [*gradients.gradient("gradient", rows, plan, machine), pack.unpack("unpack", rows, plan)]


@cache
def separate(rows: Rows, machine: Machine) -> Code:
    """The code that convolves such rows where every channel goes by itself."""
    return recalled(_separate, machine, rows)


def _separate(machine: Machine, rows: Rows) -> list[Function]:
    return [depthwise.convolve("correlate", rows, depthwise.schedule(rows, machine))]


@cache
def separate_summer(rows: Rows, h_taps: int, machine: Machine) -> Code:
    """The code that sums the gradient over such rows where every channel goes by itself."""
    return recalled(_separate_summer, machine, rows, h_taps)


def _separate_summer(machine: Machine, rows: Rows, h_taps: int) -> list[Function]:
    return [depthwise.gradient("gradient", rows, h_taps, depthwise.schedule(rows, machine))]


Place = tuple[Array, int]
"""An array, and bytes behind its first number."""


@dataclass(frozen=True)
class Call:
    """A correlation on given sizes."""

    rows: Rows
    axes: tuple[Axis, Axis, Axis]
    examples: int
    x: Steps
    y: Steps
    taps: Taps
    groups: int = 1

    def correlate(self, x: Place, w: Place, bias: Array | None, y: Place) -> None:
        """y = correlate(x, w) + bias."""
        start = self._zeros if bias is None else np.ascontiguousarray(bias)
        if self.rows.depthwise:
            numbers, count, scratch = self._boxes
            workers.launch(
                separate(self.rows, host()).functions["correlate"], numbers, x, w, y, start, *self._steps[2:5],
                tasks=count, work=self._work, scratch=scratch,
            )  # fmt: skip
            return
        functions, blocks, count = self._convolver
        if not self.tile.filters:
            packed = arena.empty((count,), self._dtype)
            workers.launch(functions["pack"], w, packed, *self._steps, tasks=blocks, work=count)
            w = packed, 0
        numbers, tasks, scratch = self._sizes
        workers.launch(
            functions["correlate"], numbers, x, w, y, start, tasks=tasks, work=self._work, scratch=scratch,
        )  # fmt: skip

    @cached_property
    def slices(self) -> int:
        """How many slices a gradient falls into. There are fewer where the sums would be large."""
        if self.rows.depthwise:
            boxes = self._boxes[1]
            return -(-boxes // -(-boxes // SLICES))
        return self._slices[0]

    @cached_property
    def _slices(self) -> tuple[int, int, int, int]:
        """The slices, and the examples, rows and columns of each: examples fall into parts where they are few."""
        _, h, w = self.axes
        most = max(1, min(SLICES, SUMS // (self._summer[2] * self.rows.kind.size)))
        share, high, wide = -(-self.examples // most), h.output, w.output
        parts = min(most // self.examples, h.output * w.output // PIXELS)
        if parts > 1:
            high = -(-h.output // parts)
            wide = -(-w.output // max(1, parts // h.output))
        return -(-self.examples // share) * -(-h.output // high) * -(-w.output // wide), share, high, wide

    def sums(self, slices: int) -> Array:
        """Memory for the sums of so many slices."""
        count = self._all_taps * self.rows.outputs if self.rows.depthwise else self._summer[2]
        return arena.sums((slices, count), self._dtype)

    def add(self, x: Array, dy: Array, sums: Array) -> None:
        """sums[slice] = the sum over the slice's pixels of x dy."""
        if self.rows.depthwise:
            numbers, count, scratch = self._boxes
            share = -(-count // len(sums))
            kernel = separate_summer(self.rows, self.axes[1].taps, host()).functions["gradient"]
            workers.launch(
                kernel, numbers, x, dy, sums, count, share, Fresh(1),
                tasks=-(-count // share), work=self._work, scratch=scratch,
            )  # fmt: skip
            return
        cut, tasks, scratch = self._cut(len(sums))
        workers.launch(
            self._summer[0]["gradient"], self._sizes[0], x, dy, sums, self.examples, *cut, Fresh(1), tasks=tasks,
            work=self._work, scratch=scratch,
        )  # fmt: skip

    def finish(self, sums: Array, dw: Array) -> None:
        """dw = the slices together, added in their order."""
        slices, count = sums.shape
        if self.rows.depthwise:
            add_slices(sums, dw)
            return
        functions, blocks, _ = self._summer
        workers.launch(
            functions["unpack"], sums, dw, Slices(slices), self.groups, *self._steps,
            tasks=blocks * self.axes[0].taps * self.axes[1].taps, work=slices * count,
        )  # fmt: skip

    @cached_property
    def tile(self) -> Tile:
        """The tile; weights that few pixels meet are read where they are, if they lie as the tile reads them.

        Not where they are packed once for many uses.
        """
        rows, (d, h, w), taps, here = self.rows, self.axes, self.taps, host()
        tile = schedule(rows, d.taps * h.taps, here)
        tiles = self.examples * d.output * h.output * -(-w.output // tile.pixels)
        filters = self.groups * rows.outputs
        steps = (taps.output, taps.input, taps.w * (rows.taps > 1), taps.h * (h.taps > 1), taps.d * (d.taps > 1))
        tap = rows.inputs * filters
        row = rows.taps * tap
        fits = steps == (1, filters, tap * (rows.taps > 1), row * (h.taps > 1), h.taps * row * (d.taps > 1))
        if fits and tiles < PACKED and not packs_once() and (here.masks or rows.outputs % tile.block == 0):
            return replace(tile, filters=filters, channels=rows.inputs)
        # not of images: where their rows run across larger batches, sums have another order
        volume = not rows.across and (d.size > 1 or d.taps > 1)
        if volume and tile.channels < rows.inputs:
            most = here.l1 * 2 // 3 // (tile.block * rows.kind.size)
            channels = max(c for c in range(1, most + 1) if rows.inputs % c == 0)
            return replace(tile, channels=channels, together=1, apart=True) if channels >= APART else tile
        return tile

    @cached_property
    def _convolver(self) -> tuple[Mapping[str, Callable[..., None]], int, int]:
        """The kernels that pack and convolve, the blocks of outputs of all groups, and the packed weights."""
        tile = self.tile
        blocks = -(-self.rows.outputs // tile.block) * self.groups
        return (
            convolver(self.rows, tile, host()).functions,
            blocks,
            self._all_taps * self.rows.inputs * blocks * tile.block,
        )

    @cached_property
    def _summer(self) -> tuple[Mapping[str, Callable[..., None]], int, int]:
        """The kernels that add and unpack, the blocks of outputs of all groups, and the numbers of a slice."""
        plan, code = summer(self.rows, host())
        blocks = -(-self.rows.outputs // plan.block) * self.groups
        return code.functions, blocks, self._all_taps * self.rows.inputs * blocks * plan.block

    @cached_property
    def _cuts(self) -> dict[tuple[int, bool], tuple[tuple[int, ...], int, int]]:
        return {}

    def _cut(self, slices: int) -> tuple[tuple[int, ...], int, int]:
        """How a gradient is cut: ``_cut_anew``, remembered."""
        key = slices, sliced()
        if key not in self._cuts:
            self._cuts[key] = self._cut_anew(slices, SLICES // slices if not key[1] else 1)
        return self._cuts[key]

    def _cut_anew(self, slices: int, wanted: int) -> tuple[tuple[int, ...], int, int]:
        """The numbers of a slice and of a ``Cut``, the tasks, and the bytes of scratch.

        ``wanted`` are the tasks that a slice should have.
        """
        rows, (d, h, w), plan = self.rows, self.axes, summer(self.rows, host())[0]
        pixels = self._slices[1:] if slices > 1 else (self.examples, h.output, w.output)
        cut = gradients.cut(rows, plan, d.taps * h.taps, pixels, -(-wanted // self.groups), host())
        high = min((cut.band - 1) * h.stride + (h.taps - 1) * h.dilation + 1, h.size)
        wide = replace(w, output=cut.span).reach
        errors, padded = cut.band * cut.span * plan.block * plan.copied, high * wide * rows.x_pixel * plan.joined
        scratch = cut.together * (errors + padded) * rows.kind.size
        return (*pixels, *astuple(cut)), slices * self.groups * cut.pieces(rows, plan), scratch

    @cached_property
    def _boxes(self) -> tuple[Array, int, int]:
        """Where channels go by themselves: the run-time numbers, the boxes, and the bytes of scratch of one worker."""
        here, x, y = host(), self.x, self.y
        steps = (x.example, x.plane, x.row, y.example, y.plane, y.row)
        numbers, count, scratch = boxes.layout(self.rows, here.lanes(self.rows.kind.size), self.axes, steps, here.l2)
        return constant(np.array(numbers, np.int64)), self.examples * count, scratch

    @cached_property
    def _zeros(self) -> Array:
        """The bias where there is none."""
        return constant(np.zeros(self.groups * self.rows.outputs, self._dtype))

    @property
    def _dtype(self) -> Any:
        return self.rows.kind.dtype

    @cached_property
    def _all_taps(self) -> int:
        d, h, _ = self.axes
        return d.taps * h.taps * self.rows.taps

    @cached_property
    def _work(self) -> int:
        """Multiply-adds."""
        d, h, w = self.axes
        pixels = self.examples * d.output * h.output * w.output
        return pixels * self._all_taps * self.rows.inputs * self.rows.outputs * self.groups

    @cached_property
    def _steps(self) -> tuple[int, ...]:
        """How ``pack`` and ``unpack`` find their way in w."""
        d, h, _ = self.axes
        taps = self.taps
        return d.taps, h.taps, taps.d, taps.h, taps.w, taps.input, taps.output, taps.group

    @cached_property
    def _pieces(self) -> tuple[int, int, int]:
        """The rows and columns of a task of a correlation, and its blocks of outputs.

        A band is as high, and a span as wide, as lets what one block of weights reads and writes lie in a quarter of
        the L2 cache, but less where there were few tasks. Outputs are divided where weights outweigh pixels.
        Where tasks are few, bands are as high as lets ``SLICES`` workers be done soonest: of 56 rows, ten bands of 6
        keep two workers busy for 30 rows, fourteen of 4 for 28.
        """
        rows, (d, h, w), tile = self.rows, self.axes, self.tile
        if tile.apart:
            return self._planes
        planes = self.examples * self.groups * d.output
        wanted = -(-SLICES // planes)
        few = blocks = -(-rows.outputs // tile.block)
        places = d.size * h.size * w.size * rows.inputs + h.output * w.output * rows.outputs
        if self._all_taps * rows.inputs * rows.outputs > places:
            few = even(blocks, -(-blocks // wanted))
            wanted = -(-wanted // -(-blocks // few))
        planes *= -(-blocks // few)
        column = rows.kind.size * (tile.block + tile.channels * h.stride * rows.stride)
        most = host().l2 // 4 // column
        band = max(1, min(-(-h.output // wanted), most // w.output))
        if planes * -(-h.output // band) < 2 * SLICES:
            heights = range(band, (band - 1) // 2, -1)
            band = min(heights, key=lambda high: -(-planes * -(-h.output // high) // SLICES) * high)
        span = max(-(-w.output // -(-wanted // -(-h.output // band))), TILES * tile.pixels)
        if band == 1:
            span = min(span, max(most, TILES * tile.pixels))
        return band, min(even(w.output, span), w.output), few

    @cached_property
    def _planes(self) -> tuple[int, int, int]:
        """Where taps go apart: a task's planes, the columns, and its blocks of outputs.

        What one block of weights reads and writes of the planes may take three quarters of the L2 cache.
        """
        rows, (d, h, w), tile = self.rows, self.axes, self.tile
        blocks, wanted = -(-rows.outputs // tile.block), -(-SLICES // (self.examples * self.groups))
        few = even(blocks, -(-blocks // wanted))
        wanted = -(-wanted // -(-blocks // few))
        plane = h.size * w.size * tile.channels * d.stride + h.output * w.output * tile.block
        most = host().l2 * 3 // 4 // (plane * rows.kind.size)
        return even(d.output, max(1, min(-(-d.output // wanted), most))), w.output, few

    @cached_property
    def _sizes(self) -> tuple[Array, int, int]:
        """The run-time numbers, the tasks, and the bytes of scratch of one worker."""
        rows, (d, h, w), (band, span, few) = self.rows, self.axes, self._pieces
        apart = self.tile.apart
        bands, spans = -(-(d if apart else h).output // band), -(-w.output // span)
        ranges = -(-rows.outputs // (self.tile.block * few))
        numbers = {
            "tasks": self.examples * self.groups * (1 if apart else d.output) * bands * spans * ranges,
            "groups": self.groups, "bands": bands, "band": band, "spans": spans, "span": span,
            "ranges": ranges, "few": few,
            "depth": d.output, "height": h.output, "width": w.output,
            "x_depth": d.size, "x_height": h.size, "x_width": w.size,
            "d_start": d.start, "h_start": h.start, "w_start": w.start,
            "d_stride": d.stride, "h_stride": h.stride, "d_dilation": d.dilation, "h_dilation": h.dilation,
            "d_taps": d.taps, "h_taps": h.taps,
            "x_example": self.x.example, "x_plane": self.x.plane, "x_row": self.x.row,
            "y_example": self.y.example, "y_plane": self.y.plane, "y_row": self.y.row,
            "x_pixel": self.x.pixel, "y_pixel": self.y.pixel,
        }  # fmt: skip
        high = min((band - 1) * h.stride + (h.taps - 1) * h.dilation + 1, h.size)
        wide = replace(w, output=span).reach
        scratch = d.taps * high * wide * rows.inputs * rows.kind.size if rows.padded and not apart else 0
        return constant(np.array([numbers[name] for name in SIZES], np.int64)), numbers["tasks"], scratch


def gradient(call: Call, x: Array, dy: Array, dw: Array) -> None:
    """dw = the sum over all pixels of x dy; each slice of pixels has sums of its own."""
    sums = call.sums(1 if sliced() else call.slices)
    call.add(x, dy, sums)
    call.finish(sums, dw)
