"""A convolution on given sizes, as calls of the kernels ``correlate``, ``narrow``, ``depthwise`` and ``gradient``.

    forward    y = correlate(x, w)                          one call
    error      dx = correlate(dy, w, its taps in reverse)   one call for each phase of the stride: dx[phase + s*j]
                                                            reads only taps that lie s apart, so no zeros are inserted
    gradient   dw = sums over pixels                        slices of examples, added in a fixed order

A transposed convolution exchanges forward and error; an affine element is a convolution with one tap. Where each output
sees one input only, positions need not be told apart: they become one long row.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from faltung.elements.element import Array
from faltung.engine.host import arena
from faltung.engine.host.machine import host
from faltung.engine.host.recording import exact, packs_once, sliced
from faltung.engine.kernels import elementwise, narrow, totals, winograd
from faltung.engine.kernels.lanes import fill
from faltung.engine.kernels.launch import Axis, Call, Place, Steps, Taps, gradient
from faltung.engine.kernels.tiles import Rows
from faltung.engine.kernels.winograd_sums import Sums
from faltung.engine.loops.language import INDEX, Function, Type, pointer
from faltung.geometry import Window

CHANNELS, EXAMPLES, WIDTH = 16, 8, 40
"""Rows run across the batch from so many channels and so many examples on, up to this width of y, where x is padded."""
SETS, WAYS = 4096, 8
"""Lines so many bytes apart share a set of the L1 cache, which holds so many of them."""
Three = tuple[int, int, int]


@dataclass(frozen=True)
class _Part:
    """A call, and where in x (of the call), w and y it begins."""

    call: Call | narrow.Call | winograd.Call
    x: int = 0
    w: int = 0
    y: int = 0


@dataclass(frozen=True)
class Convolution:
    """One convolution on one size: the windows of its three axes, the size of x, how channels fall into groups."""

    kind: Type
    windows: tuple[Window, Window, Window]
    groups: int
    channels: int
    filters: int
    extent: Three

    def forward(self, x: Array, w: Array, bias: Array | None) -> Array:
        """y = correlate(x, w) + bias."""
        y = arena.empty((len(x), *self.positions, self.filters), x.dtype)
        for part in self._known("forward", len(x), self._forward):
            part.call.correlate(_at(x, part.x), _at(w, part.w), bias, _at(y, part.y))
        return y

    def error(self, dy: Array, w: Array, bias: Array | None = None) -> Array:
        """dx, and plus ``bias`` where a transposed convolution asks for it."""
        dx = arena.empty((len(dy), *self.extent, self.channels), dy.dtype)
        if any(phase.axis.taps == 0 for axis in self._phases for phase in axis):
            if bias is None:
                elementwise.launch(elementwise.code(_zeros, dx.dtype), dx, count=dx.size)
            else:
                dx[...] = bias
        for part in self._known("error", len(dy), self._error):
            part.call.correlate(_at(dy, part.x), _at(w, part.w), bias, _at(dx, part.y))
        return dx

    def gradient(self, x: Array, dy: Array, w_shape: tuple[int, ...]) -> Array:
        """dw, summed over the batch."""
        if not len(x):
            return np.zeros(w_shape, x.dtype)
        dw = arena.empty(w_shape, x.dtype)
        if sums := self._fewer_in_sums(len(x)):
            sums.gradient(x, dy, dw)
        else:
            [part] = self._known("gradient", len(x), lambda count: self._rows(count, across=False))
            gradient(part.call, x, dy, dw)  # pyright: ignore[reportArgumentType] -- narrow ones sum nothing
        return dw

    @cached_property
    def positions(self) -> Three:
        """The size of y."""
        d, h, w = (window.output(size) or 0 for window, size in zip(self.windows, self.extent, strict=True))
        return d, h, w

    @cached_property
    def _plans(self) -> dict[tuple[str, int, bool, bool], list[_Part]]:
        return {}

    def _known(self, product: str, examples: int, plan: Callable[[int], list[_Part]]) -> list[_Part]:
        """The calls of one product on so many examples, planned once."""
        key = product, examples, packs_once(), exact()
        if key not in self._plans:
            self._plans[key] = plan(examples) if examples else []
        return self._plans[key]

    @cached_property
    def _depthwise(self) -> bool:
        return 1 < self.groups == self.channels == self.filters

    @cached_property
    def _split(self) -> Three:
        """How many groups there are, and the inputs and outputs of each; a depthwise convolution is taken as one."""
        if self._depthwise:
            return 1, 1, self.filters
        return self.groups, self.channels // self.groups, self.filters // self.groups

    @cached_property
    def _pointwise(self) -> bool:
        axes = zip(self.windows, self.extent, strict=True)
        return all(w.kernel == 1 and w.stride == 1 and w.pads(size) == (0, 0) for w, size in axes)

    @cached_property
    def _tap_steps(self) -> Three:
        """Numbers in w from one depth, height and width tap to the next."""
        tap = self.channels // self.groups * self.filters
        _, kh, kw = (window.kernel for window in self.windows)
        return kh * kw * tap, kw * tap, tap

    @cached_property
    def _phases(self) -> list[list["_Phase"]]:
        """The phases of dx, axis by axis."""
        axes = zip(self.windows, self.extent, self.positions, strict=True)
        return [list(_phases(window, size, output)) for window, size, output in axes]

    def _spread_error(self, examples: int) -> list[_Part]:
        """One call for each phase of the depth, where ``narrow`` pays: dy is spread over the rows of dx."""
        (d, *plane), (d_tap, h_tap, w_tap) = self.windows, self._tap_steps
        if self._depthwise:
            return []
        inputs, outputs = self.filters // self.groups, self.channels // self.groups
        taps = [(window.kernel, window.stride, window.dilation) for window in plane]
        rows = narrow.Rows(self.kind, inputs, outputs, plane[0].kernel, *taps[1], self.filters, self.channels)
        h, w = (
            Axis(size, output, *steps, -window.pads(size)[0])
            for window, steps, size, output in zip(plane, taps, self.extent[1:], self.positions[1:], strict=True)
        )
        x, y = _steps(self.positions, self.filters), _steps(self.extent, self.channels)
        parts = []
        for phase in self._phases[0]:
            steps = Taps(-phase.every * d_tap, h_tap, w_tap, 1, self.filters, inputs)
            spread = replace(y, plane=y.plane * d.stride)
            call = narrow.Call(rows, (phase.axis, h, w), examples, x, spread, steps, self.groups)
            if phase.axis.taps:
                parts.append(_Part(call, 0, phase.tap * d_tap, phase.number * y.plane))
        return parts if all(part.call.pays(host()) for part in parts) else []

    def _spread_forward(self, examples: int) -> list[_Part]:
        """One call where ``narrow`` pays: x is spread over the rows of y, with taps counted backwards."""
        (d, *plane), (d_tap, h_tap, w_tap) = self.windows, self._tap_steps
        if self._depthwise or any(window.stride > 1 for window in plane):
            return []
        inputs, outputs = self.channels // self.groups, self.filters // self.groups
        h, w = (
            Axis(output, size, window.kernel, 1, window.dilation, window.pads(size)[0] - window.span + 1)
            for window, size, output in zip(plane, self.extent[1:], self.positions[1:], strict=True)
        )
        rows = narrow.Rows(self.kind, inputs, outputs, h.taps, w.taps, 1, w.dilation, self.channels, self.filters)
        depth = Axis(self.extent[0], self.positions[0], d.kernel, d.stride, d.dilation, -d.pads(self.extent[0])[0])
        x, y = _steps(self.extent, self.channels), _steps(self.positions, self.filters)
        steps = Taps(d_tap, -h_tap, -w_tap, self.filters, 1, outputs)
        call = narrow.Call(rows, (depth, h, w), examples, x, y, steps, self.groups)
        return [_Part(call, 0, (h.taps - 1) * h_tap + (w.taps - 1) * w_tap)] if call.pays(host()) else []

    def _fewer_multiplications(self, examples: int, *, back: bool = False) -> list[_Part]:
        """One call where ``winograd`` pays, and rounding may differ; ``back`` is the error."""
        found = self._in_tiles(examples, back=back)
        return [_Part(found[0], 0, found[1])] if found and found[0].pays(host()) else []

    def _fewer_in_sums(self, examples: int) -> Sums | None:
        """The gradient where ``winograd_sums`` pays, and rounding may differ: of a slice, since it has one task."""
        found = self._in_tiles(examples) if sliced() else None
        sums = Sums(found[0]) if found else None
        return sums if sums and sums.pays(host()) else None

    def _in_tiles(self, examples: int, *, back: bool = False) -> tuple[winograd.Call, int] | None:
        """The call of ``winograd``, if these are images with 3x3 taps, and rounding may differ; and where w begins."""
        (depth, *plane), (_, h_tap, w_tap) = self.windows, self._tap_steps
        taps = [(window.kernel, window.stride, window.dilation) for window in plane]
        if exact() or self.groups > 1 or depth.kernel > 1 or self.extent[0] > 1 or taps != [(3, 1, 1)] * 2:
            return None
        pads = [window.pads(size)[0] for window, size in zip(plane, self.extent[1:], strict=True)]
        x, y = (self.extent, self.channels), (self.positions, self.filters)
        steps, first, starts = Taps(0, h_tap, w_tap, self.filters, 1), 0, [-pad for pad in pads]
        if back:
            x, y = y, x
            steps, first = Taps(0, -h_tap, -w_tap, 1, self.filters), 2 * (h_tap + w_tap)
            starts = [pad - 2 for pad in pads]
        h, w = (
            Axis(size, output, 3, start=start) for size, output, start in zip(x[0][1:], y[0][1:], starts, strict=True)
        )
        rows = winograd.Rows(self.kind, x[1], y[1])
        call = winograd.Call(rows, (h, w), examples, _steps(*x), _steps(*y), steps)
        return call, first

    def _forward(self, examples: int) -> list[_Part]:
        if parts := self._spread_forward(examples) or self._fewer_multiplications(examples):
            return parts
        padded = self.windows[2].pads(self.extent[2]) != (0, 0)
        return self._rows(examples, across=padded and self._small(self._split[1], self.positions[2]))

    def _small(self, inputs: int, width: int) -> bool:
        """Are these small images, whose rows may run across the batch?"""
        flat = self.extent[0] == 1 == self.windows[0].kernel and not self._depthwise
        return flat and inputs >= CHANNELS and width <= WIDTH

    def _rows(self, examples: int, *, across: bool) -> list[_Part]:
        """The calls that read x and w as they are: forward, and the gradient."""
        groups, inputs, outputs = self._split
        taps = Taps(*self._tap_steps, self.filters, 1, outputs)
        window = self.windows[2]
        rows = Rows(
            self.kind, inputs, outputs, window.kernel, window.stride, window.dilation, self.channels, self.filters,
            padded=_pads(window), depthwise=self._depthwise,
        )  # fmt: skip
        if self._pointwise:
            return [_Part(_long(rows, examples * math.prod(self.extent), taps, groups))]
        axes = tuple(
            Axis(size, output, w.kernel, w.stride, w.dilation, -w.pads(size)[0])
            for w, size, output in zip(self.windows, self.extent, self.positions, strict=True)
        )
        x, y = _steps(self.extent, self.channels), _steps(self.positions, self.filters)
        call = Call(rows, axes, examples, x, y, taps, groups)  # pyright: ignore[reportArgumentType] -- three of them
        return [_Part(_across(call) if across else call)]

    def _error(self, examples: int) -> list[_Part]:
        """One call for each phase of dx: the back of a convolution has inputs and outputs exchanged."""
        groups, inputs, outputs = 1, 1, self.channels
        if not self._depthwise:
            groups, inputs, outputs = self.groups, self.filters // self.groups, self.channels // self.groups
        if self._pointwise:
            rows = Rows(
                self.kind, inputs, outputs, 1, 1, 1, self.filters, self.channels,
                padded=False, depthwise=self._depthwise,
            )  # fmt: skip
            taps = Taps(0, 0, 0, 1, self.filters, inputs)
            return [_Part(_long(rows, examples * math.prod(self.extent), taps, groups))]
        if parts := self._spread_error(examples) or self._fewer_multiplications(examples, back=True):
            return parts
        across = self._small(inputs, self.extent[2])
        strides = [window.stride for window in self.windows]
        x, plain = _steps(self.positions, self.filters), _steps(self.extent, self.channels)
        y = Steps(plain.example, plain.plane * strides[0], plain.row * strides[1])
        parts = []
        for combination in itertools.product(*self._phases):
            axes = tuple(phase.axis for phase in combination)
            if any(axis.taps == 0 for axis in axes):
                continue
            last = axes[2]
            rows = Rows(
                self.kind, inputs, outputs, last.taps, 1, last.dilation, self.filters, strides[2] * self.channels,
                padded=True, depthwise=self._depthwise,
            )  # fmt: skip
            back = [(phase, step) for phase, step in zip(combination, self._tap_steps, strict=True)]
            d_step, h_step, w_step = (-phase.every * step for phase, step in back)
            taps = Taps(d_step, h_step, w_step, 1, self.filters, inputs)
            d, h, v = (phase.number for phase in combination)
            call = Call(rows, axes, examples, x, y, taps, groups)  # pyright: ignore[reportArgumentType] -- three of them
            begin_y = d * plain.plane + h * plain.row + v * self.channels
            parts.append(
                _Part(_across(call) if across else call, 0, sum(phase.tap * step for phase, step in back), begin_y)
            )
        return parts


def _zeros(kind: Type) -> Function:
    f = Function("zeros", y=pointer(kind), count=INDEX, **elementwise.TASK)
    y, count, _, first, last = f.arguments
    with f.loop("task", last, first) as task:
        begin = task * elementwise.BLOCK
        fill(f, f.at(y, begin), f.min(count - begin, elementwise.BLOCK), 0.0, kind)
    return f


def _long(rows: Rows, pixels: int, taps: Taps, groups: int) -> Call:
    """A call on one row of so many pixels."""
    return Call(rows, (Axis(), Axis(), Axis(pixels, pixels)), 1, Steps(0, 0, 0), Steps(0, 0, 0), taps, groups)


def _across(call: Call) -> Call:
    """The same call with rows across the batch: height and width become the outer axes, examples the last one.

    Not where so many pixels of a tile would fall into one set of the L1 cache that they push each other out; and few
    examples keep their rows, but are added in the same order.
    """
    rows, (_, h, w), batch = call.rows, call.axes, call.examples
    turned = replace(rows, taps=1, stride=1, dilation=1, padded=False, across=True)
    x = Steps(0, call.x.row, rows.x_pixel, call.x.example)
    y = Steps(0, call.y.row, rows.y_pixel, call.y.example)
    taps = Taps(call.taps.h, call.taps.w, 0, call.taps.input, call.taps.output, call.taps.group)
    turned_call = Call(turned, (h, w, Axis(batch, batch)), 1, x, y, taps, call.groups)
    alike = turned_call.tile.pixels * math.gcd(x.pixel * rows.kind.size, SETS) // SETS
    if alike > WAYS:
        return call
    return turned_call if batch >= EXAMPLES else replace(call, rows=replace(rows, ordered=True))


def _pads(window: Window) -> bool:
    """Is there a size at which the window reaches beyond the input?"""
    return any(window.pads(size) != (0, 0) for size in range(1, window.stride + 1))


def _at(array: Array, offset: int) -> Place:
    """The place of a number."""
    return array, array.itemsize * offset


@dataclass(frozen=True)
class _Phase:
    """The places number, number + stride, ... of dx, and the taps that reach them: from ``tap`` down, every so many."""

    number: int
    axis: Axis
    tap: int
    every: int


def _phases(window: Window, size: int, output: int) -> Iterator[_Phase]:
    """What reaches dx along one axis; a phase that no tap reaches has 0 taps."""
    stride, dilation, before = window.stride, window.dilation, window.pads(size)[0]
    every = stride // math.gcd(stride, dilation)
    for number in range(min(stride, size)):
        count = -(-(size - number) // stride)
        taps = [k for k in range(window.kernel) if (number + before - k * dilation) % stride == 0]
        last = taps[-1] if taps else 0
        start = (number + before - last * dilation) // stride
        yield _Phase(number, Axis(output, count, len(taps), 1, every * dilation // stride, start), last, every)


def _steps(extent: Three, channels: int) -> Steps:
    d, h, w = extent
    return Steps(d * h * w * channels, h * w * channels, w * channels)


def total(dy: Array) -> Array:
    """db, the sum of dy over all but the channels."""
    return totals.total(dy) if dy.size else np.zeros(dy.shape[-1:], dy.dtype)
