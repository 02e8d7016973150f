"""Resizing: forward applies the matrices R, the error their transposes, on the kernel of ``interpolate``.

Where every entry becomes so many equal ones, as "nearest" makes them for whole scales, resizing is the error of pooling
by sums of disjoint windows, and its error that pooling: their kernels fill vectors also where channels are few.

>>> for resize in (Resize(2), Resize(2, method="linear")):
...     y, kept = forward(resize, {}, np.array([0.0, 4.0]).reshape(1, 2, 1))
...     y.ravel().tolist(), error(resize, {}, kept, np.array([1.0, 2.0, 3.0, 5.0]).reshape(1, 4, 1)).ravel().tolist()
([0.0, 0.0, 4.0, 4.0], [3.0, 8.0])
([0.0, 1.0, 3.0, 4.0], [3.25, 7.75])
"""

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from faltung.elements.element import Array, Params, Run
from faltung.elements.resize import Resize, Taps
from faltung.engine.host import arena, workers
from faltung.engine.host.machine import Machine, host
from faltung.engine.kernels.aggregates import Mean
from faltung.engine.kernels.bands import Places
from faltung.engine.kernels.elementwise import COST, code
from faltung.engine.kernels.interpolate import Along, Matrix, interpolate, numbers
from faltung.engine.kernels.regions import Axis, Regions
from faltung.engine.lower.pointwise import no_gradient
from faltung.engine.lower.pooling import Pooled
from faltung.engine.programs.ready import ready
from faltung.geometry import Window, per_axis

Applied = Callable[[Array], Array]


class Interpolated:
    """y = R x, for matrices along each axis."""

    def __init__(self, matrices: list[Matrix], along: Along, dtype: Any, masks: bool):
        self._shape = (*(len(matrix.starts) - 1 for matrix in matrices), along.channels)
        self._numbers, self._weights, self._bands = numbers(matrices, along.channels, dtype)
        self._scratch = matrices[-1].size * along.channels * dtype.itemsize
        self._settings = dtype, along, masks

    @cached_property
    def _kernel(self) -> Callable[..., None]:
        return code(interpolate, *self._settings)

    def __call__(self, x: Array) -> Array:
        """y."""
        y = arena.empty((len(x), *self._shape), x.dtype)
        workers.launch(
            self._kernel, self._numbers, self._weights, x, y,
            tasks=len(x) * self._bands, work=COST * max(x.size, y.size), scratch=self._scratch,
        )  # fmt: skip
        return y


@lru_cache(maxsize=256)
def _both(
    element: Resize, shapes: tuple[tuple[int, ...], ...], dtype: Any, machine: Machine
) -> tuple[Applied, Applied]:
    """Forward and error, for inputs of these shapes."""
    (*sizes, channels), outputs = shapes[0], element.output(*shapes)[:-1]
    nearest, rank = element.method == "nearest", len(sizes)
    scales = per_axis(element.scale, rank, "scale", element) if nearest and element.scale else (0.5,)
    if all(scale == int(scale) for scale in scales):
        return _repeated(sizes, [int(scale) for scale in scales], channels, dtype, machine.masks)
    axes = list(zip(element.taps(tuple(sizes), outputs), sizes, strict=True))
    there = Along(channels, rank, entries=1 if nearest else 2, weighted=not nearest)
    back = Along(channels, rank, weighted=not nearest)
    return (
        Interpolated([_matrix(*axis) for axis in axes], there, dtype, machine.masks),
        Interpolated([_transposed(*axis) for axis in axes], back, dtype, machine.masks),
    )


def _repeated(sizes: list[int], scales: list[int], channels: int, dtype: Any, masks: bool) -> tuple[Applied, Applied]:
    """Every entry as often as the scales say, and sums over these."""
    regions = Regions(channels, tuple(Axis(scale, scale, cut=False) for scale in scales), disjoint=True)
    places = [Places.windows(Window(k, k), k * size) for k, size in zip(scales, sizes, strict=True)]
    sums = Pooled(regions, places, Mean(divisor=1), dtype, masks)
    return (lambda x: sums.error((None, None, None), x)), (lambda dy: sums.forward(dy)[0])


def _matrix(taps: Taps, size: int) -> Matrix:
    """R, whose rows have an entry for each tap."""
    columns, weights = (np.stack(numbers, axis=1) for numbers in zip(*taps, strict=True))
    return Matrix(size, np.arange(len(columns) + 1) * len(taps), columns.ravel(), weights.ravel())


def _transposed(taps: Taps, size: int) -> Matrix:
    """The transpose of R; in its rows first what comes from the first taps, then what comes from the second ones."""
    rows, weights = (np.concatenate(numbers) for numbers in zip(*taps, strict=True))
    outputs = len(rows) // len(taps)
    return Matrix.listed(rows, np.arange(len(rows)) % outputs, weights, size, outputs)


@ready
def forward(element: Resize, params: Params, x: Any, run: Run = Run()) -> tuple[Array, Any]:
    """The element's ``forward``; only the shapes of its inputs are kept."""
    inputs = x if element.arity == 2 else (x,)
    shapes = tuple(a.shape[1:] for a in inputs)
    if inputs[0].size == 0:
        return element.forward(params, x, run)
    there, _ = _both(element, shapes, inputs[0].dtype, host())
    return there(np.ascontiguousarray(inputs[0])), shapes


@ready
def error(element: Resize, params: Params, kept: Any, dy: Array) -> Any:
    """The element's ``error``."""
    if dy.size == 0:
        return element.error(params, kept, dy)
    _, back = _both(element, kept, dy.dtype, host())
    dx = back(np.ascontiguousarray(dy))
    return (dx, None) if element.arity == 2 else dx


LOWERINGS = {Resize: (forward, error, no_gradient)}
