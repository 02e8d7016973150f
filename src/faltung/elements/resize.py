"""Resizing by interpolation: the step before the convolution in a resize-convolution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from faltung.elements.element import Array, Element, Params, Run, Shape, View, varied
from faltung.elements.pooling import check_axes
from faltung.elements.settings import check_choice, check_number, check_sizes
from faltung.errors import SettingError, ShapeError
from faltung.geometry import PerAxis, Window, per_axis

if TYPE_CHECKING:
    from fractions import Fraction  # which takes long to load

Scale: TypeAlias = float | tuple[float, ...]
Taps: TypeAlias = list[tuple[Array, Array]]
"""A matrix with few entries in each row: pairs of an index and a weight, each with one entry a row."""
ALIGNMENTS = {"nearest": ("half_pixel", "asymmetric"), "linear": ("half_pixel", "corners", "asymmetric")}


@dataclass(frozen=True, repr=False)
class Resize(Element):
    """y = R x along each axis in turn, where row j of the matrix R reads x at the place s(j)

        half_pixel    s(j) = (j + 1/2) r - 1/2      pixels are areas; the areas of input and output coincide
        corners       s(j) = j (i-1) / (o-1)        pixels are points; the first and last of both coincide (linear only)
        asymmetric    s(j) = j r                    pixels are points; the first of both coincide

    for i inputs, o outputs and the ratio r = i / o. ``method`` "nearest" takes the entry in whose area the place lies:
    floor(s + 1/2) for half_pixel, floor(s) for asymmetric. "linear" interpolates between the entries floor(s) and
    floor(s) + 1; before the first entry and after the last one it repeats them. It does not smooth when it shrinks.

    The output's size is floor(size * ``scale``), one number or one an axis, and then r = 1 / scale, as in ONNX; or
    it is ``size``, one number or one an axis; ``size="like"`` takes it from a second input, whose values do not matter.
    A scale stands for the simplest fraction near it, so that 1/49 and 0.7 mean what they say.

    Shapes: x (n, *axes, channels), y (n, *sizes, channels).
    Derivatives: dx = R^T dy along each axis in turn.
    Raises: SettingError unless exactly one of scale and size is given; ShapeError where an output would be empty.
    Source: slides, "Interpolation + convolution". PyTorch's "nearest" is asymmetric, its "nearest-exact" half_pixel;
    its linear modes are half_pixel, or with ``align_corners`` corners. ONNX says half_pixel (nearest: with
    round_prefer_ceil), align_corners, and asymmetric (nearest: with floor).

    >>> x = np.array([0.0, 4.0]).reshape(1, 2, 1)
    >>> for resize in (Resize(2), Resize(2, method="linear"), Resize(2, method="linear", alignment="asymmetric")):
    ...     resize.forward({}, x)[0].ravel().tolist()
    [0.0, 0.0, 4.0, 4.0]
    [0.0, 1.0, 3.0, 4.0]
    [0.0, 2.0, 4.0, 4.0]
    >>> Resize(2).error({}, x, np.array([1.0, 2.0, 3.0, 5.0]).reshape(1, 4, 1)).ravel().tolist()
    [3.0, 8.0]
    """

    scale: Scale | None = None
    size: PerAxis | str | None = field(default=None, kw_only=True)
    method: str = field(default="nearest", kw_only=True)
    alignment: str = field(default="half_pixel", kw_only=True)

    linear = True

    def __post_init__(self):
        if (self.scale is None) == (self.size is None):
            raise SettingError(
                f"got scale={self.scale!r} and size={self.size!r}, expected exactly one of them",
                element=self,
                way_out='write Resize(2), Resize(size=(32, 32)) or Resize(size="like")',
            )
        for entry in self.scale if isinstance(self.scale, tuple) else (self.scale,):
            if entry is not None:
                check_number(self, "scale", entry, 1e-6)
        if self.size not in (None, "like"):
            check_sizes(self, self.size)
        check_choice(self, "method", self.method, tuple(ALIGNMENTS))
        check_choice(self, "alignment", self.alignment, ALIGNMENTS[self.method])

    @property
    def arity(self) -> int:
        return 2 if self.size == "like" else 1

    def output(self, *shapes: Shape) -> Shape:
        check_axes(self, shapes[0])
        sizes = self._sizes(*shapes)
        for axis, (size, output) in enumerate(zip(shapes[0], sizes, strict=False)):
            if output is not None and output < 1:
                raise ShapeError(
                    f"got an output of size {output} from an input of {size} on axis {axis}, expected at least 1",
                    element=self,
                    way_out="use a larger scale, or name the size",
                )
        return (*sizes, shapes[0][-1])

    def _sizes(self, shape: Shape, like: Shape | None = None) -> Shape:
        rank = len(shape) - 1
        if like is not None:
            return per_axis(like[:-1], rank, "size", self)
        if self.size is not None:
            return per_axis(self.size, rank, "size", self)
        axes = zip(self._scales(rank), shape, strict=False)
        return tuple(None if size is None else math.floor(scale * size) for scale, size in axes)

    def _scales(self, rank: int) -> "list[Fraction]":
        from fractions import Fraction

        return [Fraction(scale).limit_denominator(10**6) for scale in per_axis(self.scale, rank, "scale", self)]

    def _ratios(self, sizes: Shape, outputs: Shape) -> "list[Fraction | None]":
        """The ratio r on each axis; None where it depends on a size that is open."""
        from fractions import Fraction

        if self.scale is not None:
            return [1 / scale for scale in self._scales(len(sizes))]
        axes = zip(sizes, outputs, strict=True)
        return [None if size is None or output is None else Fraction(size, output) for size, output in axes]

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        """That of the transposed convolution that a whole scale amounts to; elsewhere it varies."""
        ratios = self._ratios(shapes[0][:-1], self._sizes(*shapes))
        scales = [ratio.denominator for ratio in ratios if ratio is not None and ratio.numerator == 1]
        if isinstance(seen[0], str) or len(scales) < len(ratios) or self.alignment == "corners":
            return varied(seen[0])
        axes = zip(seen[0], scales, strict=True)
        return tuple(field.through_transposed(self._transposed(scale)) for field, scale in axes)

    def _transposed(self, scale: int) -> Window:
        """The window of the transposed convolution that this resizing is away from the borders."""
        if self.method == "nearest":
            return Window(kernel=scale, stride=scale)
        if self.alignment == "half_pixel":
            return Window(kernel=2 * scale - scale % 2, stride=scale, padding=scale // 2)
        return Window(kernel=2 * scale - 1, stride=scale, padding=scale - 1)

    def forward(self, params: Params, x: Any, run: Run = Run()) -> tuple[Array, Any]:
        inputs = x if self.arity == 2 else (x,)
        self.admit(params, *inputs)
        y = kept = inputs[0]
        sizes = self._sizes(*(a.shape[1:] for a in inputs))
        for axis, taps in enumerate(self.taps(kept.shape[1:-1], sizes), start=1):
            y = _read(y, axis, taps)
        return y, kept

    def error(self, params: Params, kept: Array, dy: Array) -> Any:
        dx = dy
        for axis, taps in enumerate(self.taps(kept.shape[1:-1], dy.shape[1:-1]), start=1):
            dx = _spread(dx, axis, taps, kept.shape[axis])
        return (dx, None) if self.arity == 2 else dx

    def taps(self, sizes: Shape, outputs: Shape) -> list[Taps]:
        """R on each axis, from the sizes of x and y."""
        axes = zip(sizes, outputs, self._ratios(sizes, outputs), strict=True)
        return [self._axis_taps(*cast("tuple[int, int, Fraction]", axis)) for axis in axes]

    def _axis_taps(self, size: int, output: int, ratio: "Fraction") -> Taps:
        """R (output, size), whose rows have one or two entries."""
        step, start, unit = self._places(size, output, ratio)
        low, rest = np.divmod(step * np.arange(output, dtype=np.int64) + start, unit)
        if self.method == "nearest":
            return [(low.clip(0, size - 1), np.ones(output))]
        return [(low.clip(0, size - 1), 1 - rest / unit), ((low + 1).clip(0, size - 1), rest / unit)]

    def _places(self, size: int, output: int, ratio: "Fraction") -> tuple[int, int, int]:
        """Whole numbers: output j reads at (step j + start) / unit; "nearest" reads the entry at the floor of it."""
        i, o = ratio.numerator, ratio.denominator
        match self.alignment:
            case "corners":
                return size - 1, 0, max(output - 1, 1)
            case "asymmetric":
                return i, 0, o
        return 2 * i, i if self.method == "nearest" else i - o, 2 * o


def _read(x: Array, axis: int, taps: Taps) -> Array:
    """R x along an axis."""
    return reduce(np.add, [_along(axis, weight, x) * x.take(index, axis) for index, weight in taps])


def _spread(dy: Array, axis: int, taps: Taps, size: int) -> Array:
    """R^T dy along an axis of x with this size."""
    dx = np.zeros((*dy.shape[:axis], size, *dy.shape[axis + 1 :]), dy.dtype)
    entries = np.moveaxis(dx, axis, 0)
    for index, weight in taps:
        for i, share in zip(index, np.moveaxis(_along(axis, weight, dy) * dy, axis, 0), strict=True):
            entries[i] += share
    return dx


def _along(axis: int, weight: Array, a: Array) -> Array:
    """The weights, one for each entry of an axis, in the dtype and the number of axes of a."""
    return weight.astype(a.dtype).reshape(-1, *(1 for _ in a.shape[axis + 1 :]))
