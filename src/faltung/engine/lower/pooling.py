"""Pooling of every kind on the kernels of ``pool``.

What is kept for the error, beside the shape of x: of a maximum its tap in each region, as a small whole number, for
that is less to read than x; of a mean nothing; otherwise x.

>>> y, (shape, x, taps) = kept = forward(MaxPool(2), {}, np.array([1.0, 3.0, 5.0, 5.0, 9.0]).reshape(1, 5, 1))
>>> y.ravel().tolist(), shape, x, taps.ravel().tolist()
([3.0, 5.0], (5, 1), None, [1, 0])
>>> error(MaxPool(2), {}, kept[1], np.array([10.0, 20.0]).reshape(1, 2, 1)).ravel().tolist()
[0.0, 10.0, 20.0, 0.0, 0.0]
"""

import math
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from faltung.elements.adaptive import AdaptivePool, GlobalPool, regions
from faltung.elements.element import Array, Params, Run
from faltung.elements.pool import Pool
from faltung.elements.pooling import LpPool, MaxPool, MeanPool, Pooling
from faltung.engine.host import arena, workers
from faltung.engine.host.machine import Machine, host
from faltung.engine.kernels import gather, pool, whole
from faltung.engine.kernels.aggregates import Max, Mean, Norm
from faltung.engine.kernels.bands import Places, numbers
from faltung.engine.kernels.channels import period
from faltung.engine.kernels.elementwise import COST, code
from faltung.engine.kernels.pool import Aggregate
from faltung.engine.kernels.regions import Axis, Regions
from faltung.engine.loops.language import I8, I32
from faltung.engine.lower.pointwise import no_gradient
from faltung.engine.lower.reductions import Aggregated
from faltung.engine.programs.ready import ready
from faltung.geometry import per_axis


class Pooled:
    """One pooling on given sizes."""

    def __init__(self, regions: Regions, places: list[Places], aggregate: Aggregate, dtype: Any, masks: bool):
        self._aggregate, self._dtype, self._channels = aggregate, dtype, regions.channels
        self._settings = regions, aggregate, masks
        self._sizes = tuple(axis.size for axis in places)
        self._counts = tuple(len(axis.begin) for axis in places)
        self._tables = [numbers(places, regions, error) for error in (False, True)]
        self._work = COST * math.prod(max(axis.size, int(axis.count.sum())) for axis in places) * regions.channels

    def forward(self, x: Array) -> tuple[Array, Any]:
        """y, and what is kept."""
        y = arena.empty((len(x), *self._counts, self._channels), self._dtype)
        taps = arena.empty(y.shape, self._aggregate.keeps.dtype) if self._aggregate.keeps else None
        self._launch(self._forward, self._tables[0], len(x), x, y, taps)
        return y, (x.shape[1:], x if self._aggregate.reads else None, taps)

    def error(self, kept: Any, dy: Array) -> Array:
        """dx."""
        _, x, taps = kept
        dx = arena.empty((len(dy), *self._sizes, self._channels), self._dtype)
        dy = np.ascontiguousarray(dy)
        if self._aggregate.reads:  # all regions of an example are one task
            self._launch(self._error, (self._tables[0][0], 1), len(dy), x, dy, dx)
        else:
            self._launch(self._error, self._tables[1], len(dy), dy, taps, dx)
        return dx

    @cached_property
    def _forward(self) -> Callable[..., None]:
        return code(pool.forward, self._dtype, *self._settings)

    @cached_property
    def _error(self) -> Callable[..., None]:
        return code(pool.error if self._aggregate.reads else gather.gather, self._dtype, *self._settings)

    def _launch(
        self, kernel: Callable[..., None], table: tuple[Array, int], examples: int, *arrays: Array | None
    ) -> None:
        sizes, bands = table
        workers.launch(kernel, sizes, *arrays, tasks=examples * bands, work=examples * self._work)


class Averaged:
    """The mean over all positions of examples of this shape; for few channels, too, it fills vectors."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, machine: Machine):
        self._shape, self._dtype, self._work = shape, dtype, COST * math.prod(shape)
        self._period = period(shape[-1], machine.lanes(dtype.itemsize))

    def forward(self, x: Array) -> tuple[Array, Any]:
        """y, and what is kept."""
        tables = arena.empty((len(x), self._period), np.float64)
        y = arena.empty((len(x), self._shape[-1]), self._dtype)
        self._launch(code(whole.mean_forward, self._dtype), x, tables, y)
        return y, (self._shape,)

    def error(self, kept: Any, dy: Array) -> Array:
        """dx."""
        dx = arena.empty((len(dy), *self._shape), self._dtype)
        self._launch(code(whole.mean_error, self._dtype), np.ascontiguousarray(dy), dx)
        return dx

    def _launch(self, kernel: Callable[..., None], first: Array, *others: Array) -> None:
        workers.launch(
            kernel, first, *others, self._shape[-1], self._period, math.prod(self._shape),
            tasks=len(first), work=len(first) * self._work, scratch=self._period * self._dtype.itemsize,
        )  # fmt: skip


@lru_cache(maxsize=256)
def _job(element: Any, shape: tuple[int, ...], dtype: Any, machine: Machine) -> Pooled | Averaged | None:
    """What an element does with x of this shape, batch left out; None where there is no kernel for it."""
    element.output(shape)  # refuses shapes that do not fit
    match element:
        case Pooling():
            windows, aggregate = element.windows(shape), _aggregate(element, len(shape) - 1)
            axes = tuple(
                Axis(w.kernel, w.stride, w.dilation, cut=w.padding not in ("valid", 0, (0, 0))) for w in windows
            )
            disjoint = all(w.kernel == w.stride and w.dilation == 1 for w in windows)
            places = [Places.windows(*axis) for axis in zip(windows, shape, strict=False)]
        case GlobalPool(kind="mean"):
            return Averaged(shape, dtype, machine)
        case GlobalPool():  # all of x is one region, as long as all axes together
            aggregate, axes, disjoint = _reduction(element.kind), (Axis(),), True
            places = [Places.slices([slice(0, math.prod(shape[:-1]))], math.prod(shape[:-1]))]
        case _:
            aggregate, axes, disjoint = _reduction(element.kind), (Axis(),) * (len(shape) - 1), False
            counts = per_axis(element.size, len(axes), "size", element)
            places = [Places.slices(regions(*axis), axis[0]) for axis in zip(shape, counts, strict=False)]
    return Pooled(Regions(shape[-1], axes, disjoint), places, aggregate, dtype, machine.masks) if aggregate else None


def _aggregate(element: Pooling, rank: int) -> Aggregate | None:
    """What is computed of a window; None where that has no kernel."""
    taps = math.prod(per_axis(element.kernel, rank, "kernel", element))
    match element:
        case MaxPool():
            return Max(I8 if taps <= 127 else I32)
        case MeanPool():
            return Mean(taps if element.count_padding else 0)
        case LpPool():
            return Norm(float(element.p))
        case Pool(g=str(g), derivative=str(derivative)):
            return Aggregated(g, derivative)
    return None


def _reduction(kind: str) -> Aggregate:
    return Max(I32) if kind == "max" else Mean()


@ready
def forward(
    element: Pooling | AdaptivePool | GlobalPool, params: Params, x: Array, run: Run = Run()
) -> tuple[Array, Any]:
    """The element's ``forward``, with other things kept."""
    job = _job(element, x.shape[1:], x.dtype, host()) if x.size else None
    if job is None:
        return element.forward(params, x, run)
    y, kept = job.forward(np.ascontiguousarray(x))
    return y.reshape(len(x), x.shape[-1]) if isinstance(element, GlobalPool) else y, kept


@ready
def error(element: Pooling | AdaptivePool | GlobalPool, params: Params, kept: Any, dy: Array) -> Array:
    """The element's ``error``."""
    if not isinstance(kept, tuple):  # the definition's own
        return element.error(params, kept, dy)
    shape = kept[0]
    job = _job(element, shape, dy.dtype, host())
    assert job is not None, "what is kept comes from its forward"
    return job.error(kept, dy).reshape(len(dy), *shape)


LOWERINGS = dict.fromkeys((MaxPool, MeanPool, LpPool, Pool, AdaptivePool, GlobalPool), (forward, error, no_gradient))
