"""Where branches meet: sum, product and concatenation of two or more inputs."""

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from faltung.elements.element import Array, Element, Params, Run, Shape, View, varied
from faltung.elements.settings import refuse
from faltung.errors import ShapeError

Arrays = tuple[Array, ...]


class Join(Element):
    """The base: any number of inputs from two on, as many error signals."""

    @property
    def arity(self) -> None:
        return None

    def _unfit(self, shapes: Sequence[Shape], expected: str, way_out: str) -> ShapeError:
        listed = ", ".join(map(str, shapes))
        return ShapeError(f"got inputs of {listed}, expected {expected}", element=self, way_out=way_out)

    def admit_all(self, params: Params, x: Arrays) -> None:
        """Refuse what does not fit; batches too, of which NumPy would repeat a single example silently."""
        self.admit(params, *x)
        if any(len(array) != len(x[0]) for array in x):
            raise self._unfit([array.shape for array in x], "equal batches", "give as many examples in each")


class Entrywise(Join):
    """The base of joins whose inputs have one shape; an axis that is open in one may be known from another."""

    def output(self, *shapes: Shape) -> Shape:
        same_rank = len(shapes) >= 2 and len(set(map(len, shapes))) == 1
        known = [_known(axis) for axis in zip(*shapes, strict=same_rank)]
        if not same_rank or any(len(sizes) > 1 for sizes in known):
            way_out = "make them equal by padding='same', Crop(size='like') or Conv(..., kernel=1)"
            raise self._unfit(shapes, "two or more of one shape", way_out)
        return tuple(min(sizes, default=None) for sizes in known)


@dataclass(frozen=True, repr=False)
class Sum(Entrywise):
    """y = x_1 + x_2 + ...

    Shapes: y has the shape of every x; nothing is repeated to fit.
    Derivatives: dx_i = dy.
    Raises: ShapeError where the shapes differ.
    Source: memo p. 7, the chain rule, where one value reaches J on several ways.

    >>> both = Sum()
    >>> y, kept = both.forward({}, (np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])))
    >>> y.tolist(), [dx.tolist() for dx in both.error({}, kept, np.array([[3.0, 4.0]]))]
    ([[11.0, 22.0]], [[[3.0, 4.0]], [[3.0, 4.0]]])
    """

    linear = True

    def forward(self, params: Params, x: Arrays, run: Run = Run()) -> tuple[Array, int]:
        self.admit_all(params, x)
        return functools.reduce(np.add, x), len(x)

    def error(self, params: Params, kept: int, dy: Array) -> Arrays:
        return (dy,) * kept


@dataclass(frozen=True, repr=False)
class Product(Entrywise):
    """y = x_1 x_2 ..., entry by entry: a gate, where one of them lies between 0 and 1.

    Shapes: y has the shape of every x; nothing is repeated to fit.
    Derivatives: dx_i = dy times the product of the others, never y / x_i: an x may be 0.
    Raises: ShapeError where the shapes differ.
    Source: the gates of WaveNet (van den Oord et al. 2016, equation 2).

    >>> gate = Product()
    >>> y, kept = gate.forward({}, (np.array([[0.0, 2.0]]), np.array([[10.0, 20.0]])))
    >>> y.tolist(), [dx.tolist() for dx in gate.error({}, kept, np.array([[3.0, 4.0]]))]
    ([[0.0, 40.0]], [[[30.0, 80.0]], [[0.0, 8.0]]])
    """

    def forward(self, params: Params, x: Arrays, run: Run = Run()) -> tuple[Array, Arrays]:
        self.admit_all(params, x)
        return functools.reduce(np.multiply, x), tuple(x)

    def error(self, params: Params, kept: Arrays, dy: Array) -> Arrays:
        return tuple(functools.reduce(np.multiply, kept[:i] + kept[i + 1 :], dy) for i in range(len(kept)))


@dataclass(frozen=True, repr=False)
class Concat(Join):
    """y = x_1, x_2, ... one after the other along ``axis``: the channels, or an axis counted from 0 without the batch.

    Shapes: x_i (n, *axes, channels) with equal sizes on all other axes, y their sum on this one.
    Derivatives: dx_i = the part of dy that x_i became.
    Raises: ShapeError where other axes differ, or ``axis`` does not exist.
    Source: skip connections of U-Net (Ronneberger et al. 2015).

    >>> both = Concat()
    >>> y, kept = both.forward({}, (np.array([[1.0]]), np.array([[2.0, 3.0]])))
    >>> y.tolist(), [dx.tolist() for dx in both.error({}, kept, np.array([[4.0, 5.0, 6.0]]))]
    ([[1.0, 2.0, 3.0]], [[[4.0]], [[5.0, 6.0]]])
    """

    axis: int = field(default=-1, kw_only=True)

    linear = True

    def __post_init__(self):
        if type(self.axis) is not int or self.axis < -1:
            refuse(self, "axis", self.axis, "-1 (the channels), or a whole number from 0")

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        """Along the channels as for other joins; along another axis it varies."""
        over_channels = self.axis in (-1, len(shapes[0]) - 1)
        return super().receptive(seen, shapes) if over_channels else varied(*seen)

    def output(self, *shapes: Shape) -> Shape:
        rank = len(shapes[0])
        if len(shapes) < 2 or any(len(shape) != rank for shape in shapes):
            raise self._unfit(shapes, "two or more with as many axes", "bring them to one number of axes")
        if not -1 <= self.axis < rank or rank == 0:
            raise self._unfit(shapes, f"an axis {self.axis}", f"choose axis -1 to {rank - 1}")
        sizes = []
        for axis, together in enumerate(zip(*shapes, strict=True)):
            if axis == self.axis % rank:
                sizes.append(None if None in together else sum(together))
                continue
            known = _known(together)
            if len(known) > 1:
                way_out = "make them equal by padding='same' or Crop(size='like')"
                raise self._unfit(shapes, f"equal sizes on axis {axis}", way_out)
            sizes.append(min(known, default=None))
        return tuple(sizes)

    def forward(self, params: Params, x: Arrays, run: Run = Run()) -> tuple[Array, tuple[int, ...]]:
        self.admit_all(params, x)
        axis = self._axis(x[0])
        return np.concatenate(x, axis), tuple(array.shape[axis] for array in x)

    def error(self, params: Params, kept: tuple[int, ...], dy: Array) -> Arrays:
        return tuple(np.split(dy, list(itertools.accumulate(kept[:-1])), self._axis(dy)))

    def _axis(self, array: Array) -> int:
        """The axis of an array that has the batch first."""
        return self.axis % (array.ndim - 1) + 1


def _known(sizes: Iterable[int | None]) -> set[int]:
    """The sizes that are not open; one that is open fits any."""
    return {size for size in sizes if size is not None}
