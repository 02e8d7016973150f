"""Crop and pad. What is cut out is a view where its numbers lie side by side; all else is copied once.

>>> mirror = Pad((2, 1), mode="reflect")
>>> y, kept = pad_forward(mirror, {}, np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1))
>>> y.ravel().tolist()
[3.0, 2.0, 1.0, 2.0, 3.0, 2.0]
>>> dy = np.array([1.0, 10.0, 100.0, 1000.0, 2.0, 20.0]).reshape(1, 6, 1)
>>> pad_error(mirror, {}, kept, dy).ravel().tolist()
[100.0, 1030.0, 3.0]
"""

from functools import lru_cache
from typing import Any, cast

import numpy as np

from faltung.elements.edges import Crop, Ends, Pad, ends
from faltung.elements.element import Array, Params, Run
from faltung.engine.host import arena, workers
from faltung.engine.host.machine import Machine, host
from faltung.engine.kernels.elementwise import COST, code, streamed
from faltung.engine.kernels.interpolate import Along, Matrix
from faltung.engine.kernels.margins import Margins, numbers, surround
from faltung.engine.lower.pointwise import no_gradient
from faltung.engine.lower.resize import Interpolated
from faltung.engine.programs.ready import ready


class Surrounded:
    """x between margins: of a number, or of x's own entries."""

    def __init__(
        self, sizes: tuple[int, ...], sources: list[Array], margins: Margins, before: int, dtype: Any, masks: bool
    ):
        self._shape = (*(len(source) for source in sources), margins.channels)
        self._numbers, self._bands = numbers(sizes, sources, margins.channels, before)
        self._compiled_in = margins, masks
        self._lines = margins.channels * np.dtype(dtype).itemsize % arena.LINE == 0  # does each position begin one?

    def __call__(self, x: Array) -> Array:
        """y."""
        x = np.ascontiguousarray(x)
        y = arena.empty((len(x), *self._shape), x.dtype)
        kernel = code(surround, x.dtype, *self._compiled_in, self._lines and streamed(x, y))
        workers.launch(
            kernel, self._numbers, x, y,
            tasks=len(x) * self._bands, work=COST * y.size,
        )  # fmt: skip
        return y


@lru_cache(maxsize=256)
def _surrounded(
    shape: tuple[int, ...], pads: tuple[Ends, ...], mode: str, value: float, dtype: Any, machine: Machine
) -> Surrounded:
    """x of this shape, with so many entries more at the ends of each axis."""
    *sizes, channels = shape
    number = float(value) if mode == "constant" else None
    sources = [_sources(size, pair, mode) for size, pair in zip(sizes, pads, strict=True)]
    return Surrounded(tuple(sizes), sources, Margins(channels, len(sizes), number), pads[-1][0], dtype, machine.masks)


@lru_cache(maxsize=256)
def _cut(shape: tuple[int, ...], kept: tuple[Ends, ...], dtype: Any, machine: Machine) -> Surrounded:
    """x of this shape (batch left out) without so many entries at the ends of each axis."""
    *sizes, channels = shape
    sources = [np.arange(before, size - after) for size, (before, after) in zip(sizes, kept, strict=True)]
    return Surrounded(tuple(sizes), sources, Margins(channels, len(sizes), 0.0), 0, dtype, machine.masks)


def _cut_out(x: Array, view: Array, kept: tuple[Ends, ...]) -> Array:
    """The view of x, or a copy of it, side by side."""
    return view if view.flags.c_contiguous else _cut(x.shape[1:], kept, x.dtype, host())(x)


def _sources(size: int, pair: Ends, mode: str) -> Array:
    """Which entry of x stands where; -1 where none does."""
    keyword = {"constant_values": -1} if mode == "constant" else {}
    return np.pad(np.arange(size), pair, cast("Any", mode), **keyword)


@lru_cache(maxsize=256)
def _padded(element: Pad, shape: tuple[int, ...], dtype: Any, machine: Machine) -> Surrounded:
    """x of this shape (batch left out), padded."""
    element.output(shape)  # refuses shapes that do not fit
    pads = tuple(ends(element, element.amount, len(shape) - 1))
    return _surrounded(shape, pads, element.mode, element.value, dtype, machine)


@lru_cache(maxsize=256)
def _summed(element: Pad, shape: tuple[int, ...], dtype: Any, machine: Machine) -> Interpolated:
    """The error of padding by other entries: for each what stands in its place, then what stands beyond the ends."""
    *sizes, channels = shape
    matrices = []
    for size, (before, after) in zip(sizes, ends(element, element.amount, len(sizes)), strict=True):
        places = np.arange(before + size + after)
        order = np.concatenate([places[before : before + size], places[:before], places[before + size :]])
        rows = _sources(size, (before, after), element.mode)[order]
        matrices.append(Matrix.listed(rows, order, np.ones(len(order)), size, len(order)))
    return Interpolated(matrices, Along(channels, len(sizes), weighted=False), dtype, machine.masks)


@ready
def crop_forward(element: Crop, params: Params, x: Any, run: Run = Run()) -> tuple[Array, tuple[Ends, ...]]:
    """See ``Crop.forward``."""
    y, kept = element.forward(params, x, run)
    return _cut_out(x[0] if element.arity == 2 else x, y, kept), kept


@ready
def crop_error(element: Crop, params: Params, kept: tuple[Ends, ...], dy: Array) -> Any:
    """See ``Crop.error``."""
    if dy.size == 0:
        return element.error(params, kept, dy)
    dx = _surrounded(dy.shape[1:], kept, "constant", 0.0, dy.dtype, host())(dy)
    return (dx, None) if element.arity == 2 else dx


@ready
def pad_forward(element: Pad, params: Params, x: Array, run: Run = Run()) -> tuple[Array, tuple[int, ...]]:
    """See ``Pad.forward``."""
    if x.size == 0:
        return element.forward(params, x, run)
    return _padded(element, x.shape[1:], x.dtype, host())(x), x.shape[1:-1]


@ready
def pad_error(element: Pad, params: Params, kept: tuple[int, ...], dy: Array) -> Array:
    """See ``Pad.error``."""
    if element.mode == "constant" or dy.size == 0:
        return _cut_out(dy, element.error(params, kept, dy), tuple(ends(element, element.amount, len(kept))))
    return _summed(element, (*kept, dy.shape[-1]), dy.dtype, host())(np.ascontiguousarray(dy))


LOWERINGS = {Crop: (crop_forward, crop_error, no_gradient), Pad: (pad_forward, pad_error, no_gradient)}
