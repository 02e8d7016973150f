"""One correlation of rows, or its gradient, on given sizes: memory is laid out, weights are packed, workers are sent.

Everything here speaks of three axes (those that are missing have size 1), and of places: an array and how many bytes
behind its first number. What follows from the sizes is found once, so that a call costs no more than its launches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine import arena, boxes, correlate, depthwise, pack, workers
from faltung.engine import gradient as gradients
from faltung.engine.compile import Code
from faltung.engine.correlate import SIZES, Rows
from faltung.engine.language import Function
from faltung.engine.machine import Machine, host
from faltung.engine.recall import recalled
from faltung.engine.recording import Fresh, Slices, constant, sliced
from faltung.engine.slices import add_slices

Array = NDArray[Any]

SLICES = 8
"""So many tasks a gradient falls into, if it can: slices of examples with sums of their own, and ranges of outputs."""
SUMS = 4 << 20
"""Bytes of partial sums from which on slices are fewer."""


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
def convolver(rows: Rows, outer: int, machine: str | None = None) -> tuple[correlate.Tile, Code]:
    """The code that convolves such rows, with ``outer`` taps in the outer axes, and packs weights for it."""
    here = host(machine)
    tile = correlate.schedule(rows, outer, here)
    return tile, recalled(_convolver, here, rows, tile, public=frozenset({"correlate", "pack"}))


def _convolver(machine: Machine, rows: Rows, tile: correlate.Tile) -> list[Function]:
    return [*correlate.correlate("correlate", rows, tile, machine), pack.pack("pack", rows, tile)]


@cache
def summer(rows: Rows, machine: str | None = None) -> tuple[gradients.Sums, Code]:
    """The code that sums the gradient over such rows, and puts it in order."""
    here = host(machine)
    plan = gradients.schedule(rows, here)
    return plan, recalled(_summer, here, rows, plan, public=frozenset({"gradient", "unpack"}))


def _summer(machine: Machine, rows: Rows, plan: gradients.Sums) -> list[Function]:
    return [*gradients.gradient("gradient", rows, plan, machine), pack.unpack("unpack", rows, plan)]


@cache
def separate(rows: Rows, machine: str | None = None) -> Code:
    """The code that convolves such rows where every channel goes by itself."""
    here = host(machine)
    return recalled(_separate, here, rows)


def _separate(machine: Machine, rows: Rows) -> list[Function]:
    return [depthwise.convolve("correlate", rows, depthwise.schedule(rows, machine))]


@cache
def separate_summer(rows: Rows, h_taps: int, machine: str | None = None) -> Code:
    """The code that sums the gradient over such rows where every channel goes by itself."""
    here = host(machine)
    return recalled(_separate_summer, here, rows, h_taps)


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
                separate(self.rows).functions["correlate"], numbers, x, w, y, start, *self._steps[2:5],
                tasks=count, work=self._work, scratch=scratch,
            )  # fmt: skip
            return
        functions, blocks, count = self._convolver
        packed = arena.empty((count,), self._dtype)
        workers.launch(functions["pack"], w, packed, *self._steps, tasks=blocks, work=count)
        numbers, scratch = self._sizes
        workers.launch(
            functions["correlate"], numbers, x, packed, y, start, tasks=int(numbers[0]), work=self._work,
            scratch=scratch,
        )  # fmt: skip

    @cached_property
    def slices(self) -> tuple[int, int]:
        """How many slices a gradient falls into, and how many examples (boxes, where channels go by themselves) each.

        There are fewer where the sums would be large.
        """
        if self.rows.depthwise:
            examples, most = self._boxes[1], SLICES
        else:
            examples, most = self.examples, SUMS // (self._summer[2] * self.rows.kind.size)
        share = -(-examples // max(1, min(examples, SLICES, most)))
        return -(-examples // share), share

    def sums(self, slices: int) -> Array:
        """Memory for the sums of so many slices."""
        count = self._all_taps * self.rows.outputs if self.rows.depthwise else self._summer[2]
        return arena.sums((slices, count), self._dtype)

    def add(self, x: Place, dy: Place, sums: Array, *, fresh: bool) -> None:
        """sums[slice] = the sum over the slice's pixels of x dy; and what is there, if they are not ``fresh``."""
        slices = len(sums)
        begins = Fresh(1) if fresh else 0
        if self.rows.depthwise:
            numbers, count, scratch = self._boxes
            share = -(-count // slices)
            workers.launch(
                separate_summer(self.rows, self.axes[1].taps).functions["gradient"], numbers, x, dy, sums, count, share,
                begins, tasks=-(-count // share), work=self._work, scratch=scratch,
            )  # fmt: skip
            return
        share = -(-self.examples // slices)
        cut, pieces, scratch = self._cut(slices)
        workers.launch(
            self._summer[0]["gradient"], self._sizes[0], x, dy, sums, self.examples, share, *cut, begins,
            tasks=-(-self.examples // share) * self.groups * pieces, work=self._work, scratch=scratch,
        )  # fmt: skip

    def finish(self, sums: Array, dw: Array) -> None:
        """dw = the slices together, added in their order."""
        slices, count = sums.shape
        if self.rows.depthwise:
            add_slices(sums, dw)
            return
        functions, blocks, _ = self._summer
        workers.launch(
            functions["unpack"], sums, dw, Slices(slices), self.groups, *self._steps, tasks=blocks, work=slices * count
        )

    @cached_property
    def _convolver(self) -> tuple[Mapping[str, Callable[..., None]], int, int]:
        """The kernels that pack and convolve, the blocks of outputs of all groups, and the packed weights."""
        tile, code = convolver(self.rows, self.axes[0].taps * self.axes[1].taps)
        blocks = -(-self.rows.outputs // tile.block) * self.groups
        return code.functions, blocks, self._all_taps * self.rows.inputs * blocks * tile.block

    @cached_property
    def _summer(self) -> tuple[Mapping[str, Callable[..., None]], int, int]:
        """The kernels that add and unpack, the blocks of outputs of all groups, and the numbers of a slice."""
        plan, code = summer(self.rows)
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
        """The numbers of a ``Cut``, the tasks of a slice and group, and the bytes of scratch.

        ``wanted`` are the tasks that a slice should have.
        """
        rows, (d, h, w), plan = self.rows, self.axes, summer(self.rows)[0]
        pixels = -(-self.examples // slices), h.output, w.output
        cut = gradients.cut(rows, plan, d.taps * h.taps, pixels, -(-wanted // self.groups), host())
        high = min((cut.band - 1) * h.stride + (h.taps - 1) * h.dilation + 1, h.size)
        errors, padded = cut.band * cut.span * plan.block * plan.copied, high * w.reach * rows.x_pixel * plan.joined
        return astuple(cut), cut.pieces(rows, plan), cut.together * (errors + padded) * rows.kind.size

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
    def _band(self) -> int:
        """A band is as high as lets what one block of weights reads and writes lie in a quarter of the L2 cache, but
        lower where there were few tasks."""
        rows, (d, h, w) = self.rows, self.axes
        tile = correlate.schedule(rows, d.taps * h.taps, host())
        row_bytes = rows.kind.size * (w.output * tile.block + w.reach * tile.channels * h.stride)
        bands = -(-SLICES // (self.examples * self.groups * d.output))
        return max(1, min(-(-h.output // bands), host().l2 // 4 // row_bytes))

    @cached_property
    def _sizes(self) -> tuple[Array, int]:
        """The run-time numbers, and the bytes of scratch of one worker."""
        rows, (d, h, w), band = self.rows, self.axes, self._band
        bands = -(-h.output // band)
        numbers = {
            "tasks": self.examples * self.groups * d.output * bands,
            "groups": self.groups, "bands": bands, "band": band,
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
        scratch = d.taps * high * w.reach * rows.inputs * rows.kind.size if rows.padded else 0
        return constant(np.array([numbers[name] for name in SIZES], np.int64)), scratch


def gradient(calls: Sequence[tuple[Call, Place, Place]], dw: Array) -> None:
    """dw = the sum over all pixels of x dy, of calls (and their x and dy) that differ in size alone, the largest first.

    Each slice of examples has sums of its own; the later calls add to the first slice.
    """
    first = calls[0][0]
    sums = first.sums(1 if sliced() else first.slices[0])
    for number, (call, x, dy) in enumerate(calls):
        call.add(x, dy, sums if number == 0 else sums[:1], fresh=number == 0)
    first.finish(sums, dw)
