"""The same entries in another shape."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from faltung.elements.element import Array, Element, Params, Run, Shape, View, product, varied
from faltung.elements.settings import refuse
from faltung.errors import ShapeError


class Reshaping(Element):
    """The base: y has x's entries in row-major order, and so has dx those of dy."""

    linear = True

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        """It varies: the units come from all positions, and no axis is left that says from which."""
        return varied(*seen)

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, tuple[int, ...]]:
        self.admit(params, x)
        return x.reshape(len(x), *self.output(x.shape[1:])), x.shape[1:]

    def error(self, params: Params, kept: tuple[int, ...], dy: Array) -> Array:
        return dy.reshape(len(dy), *kept)

    def _entries(self, shape: Shape) -> int:
        """How many entries an example has."""
        entries = product(shape)
        if entries is None:
            raise ShapeError(
                f"got an input of {shape}, expected axes of known size",
                element=self,
                way_out="put GlobalPool(...) or AdaptivePool(...) before it, or close the axes in .on(...)",
            )
        return entries


@dataclass(frozen=True, repr=False)
class Flatten(Reshaping):
    """y[n, i] = the i-th entry of x[n], row-major: the last axis, the channels, runs fastest.

    Shapes: x (n, *axes, channels), y (n, product of the sizes).
    Derivatives: dx has the entries of dy.
    Raises: ShapeError where an axis is open.
    Source: memo p. 13, between the last pooling and the first affine element.

    >>> import numpy as np
    >>> flat = Flatten()
    >>> y, kept = flat.forward({}, np.array([[[1.0, 2.0], [3.0, 4.0]]]))
    >>> y.tolist(), flat.error({}, kept, np.array([[5.0, 6.0, 7.0, 8.0]])).tolist()
    ([[1.0, 2.0, 3.0, 4.0]], [[[5.0, 6.0], [7.0, 8.0]]])
    """

    def output(self, *shapes: Shape) -> Shape:
        return (self._entries(*shapes),)


@dataclass(frozen=True, repr=False)
class Reshape(Reshaping):
    """y[n] = the entries of x[n], row-major, in the shape ``sizes``; one size may be -1, for whatever is left.

    Shapes: x (n, *any), y (n, *sizes), as many entries.
    Derivatives: dx has the entries of dy.
    Raises: ShapeError where an axis is open, or the numbers of entries differ.
    Source: generators, which begin with an affine element and go on with (height, width, channels).

    >>> import numpy as np
    >>> image = Reshape((2, -1, 1))
    >>> y, kept = image.forward({}, np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]))
    >>> y[0, ..., 0].tolist(), image.error({}, kept, 2 * y).tolist()
    ([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[2.0, 4.0, 6.0, 8.0, 10.0, 12.0]])
    """

    sizes: tuple[int, ...]

    def __post_init__(self):
        sizes = self.sizes if isinstance(self.sizes, tuple) else ()
        whole = all(type(size) is int and (size >= 1 or size == -1) for size in sizes)
        if not sizes or not whole or sizes.count(-1) > 1:
            refuse(self, "sizes", self.sizes, "a tuple of whole numbers of at least 1, one of which may be -1")

    def output(self, *shapes: Shape) -> Shape:
        entries = self._entries(*shapes)
        known = math.prod(size for size in self.sizes if size != -1)
        fits = entries == known or (-1 in self.sizes and entries > 0 and entries % known == 0)
        if not fits:
            expected = f"a multiple of {known}" if -1 in self.sizes else str(known)
            raise ShapeError(
                f"got {entries} entries in {shapes[0]}, expected {expected}",
                element=self,
                way_out="choose sizes with that product",
            )
        return tuple(entries // known if size == -1 else size for size in self.sizes)
