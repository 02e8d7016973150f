"""Pooling to a fixed size, whatever the size of the input: the slides' two ways to take inputs of any size.

>>> [[(region.start, region.stop) for region in regions(size, 3)] for size in (6, 7, 2)]
[[(0, 2), (2, 4), (4, 6)], [(0, 3), (2, 5), (4, 7)], [(0, 1), (0, 2), (1, 2)]]
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from faltung.elements.element import Array, Element, Params, Run, Shape, View, through, varied
from faltung.elements.pooling import MaxPool, MeanPool, Pooling, check_axes
from faltung.elements.settings import check_choice, check_sizes
from faltung.geometry import PerAxis, Window, per_axis

KINDS = {"mean": MeanPool, "max": MaxPool}


@dataclass(frozen=True, repr=False)
class AdaptivePool(Element):
    """y[n, j, c] = the mean or maximum of x[n, floor(j i/o) .. ceil((j+1) i/o) - 1, c], for i inputs and o outputs

    Regions of variable size to an output of a fixed ``size``, one number or one an axis. They cover the input,
    their sizes differ by at most one, and neighbours share at most one entry if o <= i. Where o divides i this is
    ``MeanPool(i // o)`` or ``MaxPool(i // o)``; of several equal maxima the first, in row-major order, takes the whole
    error signal.

    Shapes: x (n, *axes, channels), y (n, *size, channels), which is known even where the axes are open.
    Derivatives: those of ``MeanPool`` and ``MaxPool``; what overlapping regions send to an entry is added.
    Raises: ShapeError where ``size`` has not one entry an axis, or an axis is empty.
    Source: slides, "Dynamic sizing": variable sized pooling regions to a fixed size.

    >>> pool = AdaptivePool(2, "mean")
    >>> y, kept = pool.forward({}, np.array([1.0, 3.0, 5.0]).reshape(1, 3, 1))
    >>> y.ravel().tolist()
    [2.0, 4.0]
    >>> pool.error({}, kept, np.array([10.0, 20.0]).reshape(1, 2, 1)).ravel().tolist()
    [5.0, 15.0, 10.0]
    """

    size: PerAxis
    kind: str

    def __post_init__(self):
        check_sizes(self, self.size)
        check_choice(self, "kind", self.kind, tuple(KINDS))

    def output(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        check_axes(self, shape)
        return (*per_axis(self.size, len(shape) - 1, "size", self), shape[-1])

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        """That of ``MeanPool`` where the regions are disjoint; elsewhere it varies."""
        inputs, outputs = shapes[0][:-1], self.output(*shapes)[:-1]
        axes = [divmod(i, o) for i, o in zip(inputs, outputs, strict=True) if i is not None and o is not None]
        if len(axes) < len(inputs) or any(rest for _, rest in axes):
            return varied(*seen)
        return through(seen[0], [Window(region, region) for region, _ in axes], inputs)

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        self.admit(params, x)
        y = np.empty((len(x), *self._counts(x), x.shape[-1]), x.dtype)
        for position, region in self._regions(x):
            y[position] = _over(x[region], self.kind).forward({}, x[region])[0]
        return y, x

    def error(self, params: Params, kept: Array, dy: Array) -> Array:
        dx = np.zeros_like(kept)
        for position, region in self._regions(kept):
            dx[region] += _over(kept[region], self.kind).error({}, kept[region], dy[position])
        return dx

    def _counts(self, x: Array) -> tuple[int, ...]:
        return per_axis(self.size, x.ndim - 2, "size", self)

    def _regions(self, x: Array) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Each position of y, and the region of x that it summarises."""
        sizes = zip(x.shape[1:-1], self._counts(x), strict=True)
        axes = [enumerate(regions(size, count)) for size, count in sizes]
        for place in itertools.product(*axes):
            position = (slice(j, j + 1) for j, _ in place)
            yield (slice(None), *position), (slice(None), *(region for _, region in place))


@dataclass(frozen=True, repr=False)
class GlobalPool(Element):
    """y[n, c] = the mean or maximum of x[n, t, c] over all positions t

    Shapes: x (n, *axes, channels), y (n, channels): the input may have any size.
    Derivatives: dx[n, t, c] = dy[n, c] / m for a mean of m positions; for a maximum, dy[n, c] at the first one.
    Raises: ShapeError where an axis is empty.
    Source: slides, "Dynamic sizing": pooling down to a set of 1 x 1 feature maps.

    >>> pool = GlobalPool("max")
    >>> y, kept = pool.forward({}, np.array([[1.0, 7.0], [3.0, 5.0], [3.0, 6.0]])[None])
    >>> y.tolist()
    [[3.0, 7.0]]
    >>> pool.error({}, kept, np.array([[10.0, 20.0]])).tolist()
    [[[0.0, 20.0], [10.0, 0.0], [0.0, 0.0]]]
    """

    kind: str

    def __post_init__(self):
        check_choice(self, "kind", self.kind, tuple(KINDS))

    def output(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        check_axes(self, shape)
        return shape[-1:]

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        return "all"

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        self.admit(params, x)
        y, _ = _over(x, self.kind).forward({}, x)
        return y.reshape(len(x), x.shape[-1]), x

    def error(self, params: Params, kept: Array, dy: Array) -> Array:
        ones = (1,) * (kept.ndim - 2)
        return _over(kept, self.kind).error({}, kept, dy.reshape(len(dy), *ones, dy.shape[-1]))


def regions(size: int, count: int) -> list[slice]:
    """The region of each of ``count`` outputs on an axis of this size: from floor(j i/o) to ceil((j+1) i/o) - 1."""
    return [slice(j * size // count, -(-(j + 1) * size // count)) for j in range(count)]


def _over(x: Array, kind: str) -> Pooling:
    """The pooling whose single window is all of x."""
    return KINDS[kind](x.shape[1:-1])
