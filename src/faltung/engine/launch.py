"""One correlation of rows, or its gradient, on given sizes: memory is laid out, weights are packed, workers are sent.

Everything here speaks of three axes (those that are missing have size 1) and of addresses.
"""

import ctypes
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine import arena, boxes, correlate, depthwise, gradient, pack, workers
from faltung.engine.compile import Code, compile
from faltung.engine.correlate import SIZES, Rows
from faltung.engine.machine import host

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
    functions = [*correlate.correlate("correlate", rows, tile, here), pack.pack("pack", rows, tile)]
    return tile, compile(functions, {"correlate", "pack"}, here)


@cache
def summer(rows: Rows, machine: str | None = None) -> tuple[gradient.Sums, Code]:
    """The code that sums the gradient over such rows, and puts it in order."""
    here = host(machine)
    plan = gradient.schedule(rows, here)
    functions = [*gradient.gradient("gradient", rows, plan, here), pack.unpack("unpack", rows, plan)]
    return plan, compile(functions, {"gradient", "unpack"}, here)


@cache
def separate(rows: Rows, machine: str | None = None) -> Code:
    """The code that convolves such rows where every channel goes by itself."""
    here = host(machine)
    return compile([depthwise.convolve("correlate", rows, depthwise.schedule(rows, here))], {"correlate"}, here)


@cache
def separate_summer(rows: Rows, h_taps: int, machine: str | None = None) -> Code:
    """The code that sums the gradient over such rows where every channel goes by itself."""
    here = host(machine)
    return compile([depthwise.gradient("gradient", rows, h_taps, depthwise.schedule(rows, here))], {"gradient"}, here)


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

    def correlate(self, x: int, w: int, bias: Array | None, y: int) -> None:
        """y = correlate(x, w) + bias; x, w and y are addresses."""
        if self.rows.depthwise:
            self._correlate_separately(x, w, bias, y)
            return
        rows, (d, h, _) = self.rows, self.axes
        tile, code = convolver(rows, d.taps * h.taps)
        blocks = -(-rows.outputs // tile.block)
        count = d.taps * h.taps * rows.taps * rows.inputs * blocks * tile.block * self.groups
        packed = arena.empty((count,), self.dtype)
        start = np.zeros((self.groups, blocks * tile.block), self.dtype)
        if bias is not None:
            start[:, : rows.outputs] = bias.reshape(self.groups, rows.outputs)
        numbers, scratch, _ = self._sizes
        workers.launch(
            code.functions["pack"], w, packed.ctypes.data, *self._taps(), tasks=blocks * self.groups, work=count
        )
        workers.launch(
            code.functions["correlate"], numbers.ctypes.data, x, packed.ctypes.data, y, start.ctypes.data,
            tasks=int(numbers[0]), work=self.work, scratch=scratch,
        )  # fmt: skip

    def gradient(self, x: int, dy: int, dw: int) -> None:
        """dw = the sum over all pixels of x dy; x, dy and dw are addresses."""
        if self.rows.depthwise:
            self._gradient_separately(x, dy, dw)
            return
        rows, (d, h, w) = self.rows, self.axes
        plan, code = summer(rows)
        blocks = -(-rows.outputs // plan.block)
        count = d.taps * h.taps * rows.taps * rows.inputs * plan.block
        most = SUMS // (self.groups * blocks * count * rows.kind.size)
        slices = max(1, min(self.examples, SLICES, most))
        share = -(-self.examples // slices)
        slices = -(-self.examples // share)
        few = -(-blocks // min(blocks, -(-SLICES // (slices * self.groups))))
        sums = arena.empty((slices * blocks * self.groups, count), self.dtype)
        numbers, _, band = self._sizes
        # One example's share of the copies: of dy a block of outputs, of x one plane of a group's channels.
        high = min((band - 1) * h.stride + (h.taps - 1) * h.dilation + 1, h.size)
        wide = w.reach * rows.x_pixel if plan.joined else w.size * (-(-rows.inputs // plan.panel) * plan.panel)
        one = rows.kind.size * (band * w.output * plan.block + high * wide)
        together = max(1, min(share, host().l2 // 3 // one)) if band == h.output else 1
        workers.launch(
            code.functions["gradient"], numbers.ctypes.data, x, dy, sums.ctypes.data, self.examples, share,
            together, few,
            tasks=slices * self.groups * -(-blocks // few), work=self.work,
            scratch=together * one + 4 * plan.lanes * rows.kind.size,
        )  # fmt: skip
        workers.launch(
            code.functions["unpack"], sums.ctypes.data, dw, slices, self.groups, *self._taps(),
            tasks=blocks * self.groups, work=slices * sums.size,
        )  # fmt: skip

    def _correlate_separately(self, x: int, w: int, bias: Array | None, y: int) -> None:
        numbers, count, scratch = self._boxes
        start = np.zeros(self.rows.outputs, self.dtype) if bias is None else np.ascontiguousarray(bias)
        workers.launch(
            separate(self.rows).functions["correlate"], numbers.ctypes.data, x, w, y, start.ctypes.data,
            self.taps.d, self.taps.h, self.taps.w, tasks=count, work=self.work, scratch=scratch,
        )  # fmt: skip

    def _gradient_separately(self, x: int, dy: int, dw: int) -> None:
        numbers, count, scratch = self._boxes
        d, h, w = self.axes
        share = -(-count // SLICES)
        sums = arena.empty((-(-count // share), d.taps * h.taps * w.taps * self.rows.outputs), self.dtype)
        sums[...] = 0
        workers.launch(
            separate_summer(self.rows, h.taps).functions["gradient"], numbers.ctypes.data, x, dy, sums.ctypes.data,
            count, share, tasks=len(sums), work=self.work, scratch=scratch,
        )  # fmt: skip
        for part in sums[1:]:
            sums[0] += part
        ctypes.memmove(dw, sums.ctypes.data, sums[0].nbytes)

    @cached_property
    def _boxes(self) -> tuple[Array, int, int]:
        """Where channels go by themselves: the run-time numbers, the boxes, and the bytes of scratch of one worker."""
        here, x, y = host(), self.x, self.y
        steps = (x.example, x.plane, x.row, y.example, y.plane, y.row)
        numbers, count, scratch = boxes.layout(self.rows, here.lanes(self.rows.kind.size), self.axes, steps, here.l2)
        return np.array(numbers, np.int64), self.examples * count, scratch

    @property
    def dtype(self) -> Any:
        """NumPy's name for the kind of numbers."""
        return np.dtype(f"float{8 * self.rows.kind.size}")

    @cached_property
    def work(self) -> int:
        """Multiply-adds."""
        d, h, w = self.axes
        pixels = self.examples * d.output * h.output * w.output
        return pixels * d.taps * h.taps * self.rows.taps * self.rows.inputs * self.rows.outputs * self.groups

    def _taps(self) -> tuple[int, ...]:
        d, h, _ = self.axes
        taps = self.taps
        return d.taps, h.taps, taps.d, taps.h, taps.w, taps.input, taps.output, taps.group

    @cached_property
    def _sizes(self) -> tuple[Array, int, int]:
        """The run-time numbers, the bytes of scratch of one worker, and the rows of a band.

        A band of rows is as high as lets its input and output lie in a quarter of the L2 cache together.
        """
        rows, (d, h, w) = self.rows, self.axes
        row_bytes = rows.kind.size * (w.output * rows.y_pixel + w.reach * rows.x_pixel * h.stride)
        band = max(1, min(h.output, host().l2 // 4 // max(row_bytes, 1)))
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
        scratch = d.taps * high * w.reach * rows.x_pixel * rows.kind.size if rows.padded else 0
        return np.array([numbers[name] for name in SIZES], np.int64), scratch, band
