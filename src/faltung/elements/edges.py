"""Axes cut or lengthened at their ends: crop and pad, each the other's way back."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeGuard, cast

import numpy as np

from faltung.elements.element import Array, Element, Params, Run, Shape, View, through
from faltung.elements.settings import check_choice, refuse
from faltung.errors import ShapeError
from faltung.geometry import PerAxis, Window, per_axis, whole, whole_per_axis

Ends: TypeAlias = tuple[int, int]
"""(before, after)."""
Amount: TypeAlias = int | Ends | tuple[Ends, ...]
"""As much at both ends of every axis, a pair for every axis, or a pair an axis."""


class Edge(Element):
    """The base of crop and pad: an input needs axes, and its channels pass."""

    def output(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) < 2:
            raise ShapeError(
                f"got an input of {shapes[0]}, expected (*axes, channels)",
                element=self,
                way_out="put it before Flatten() or GlobalPool(...)",
            )
        return (*self.sizes(*shapes), shapes[0][-1])

    @abstractmethod
    def sizes(self, *shapes: Shape) -> Shape:
        """The sizes of y's axes."""


@dataclass(frozen=True, repr=False)
class Crop(Edge):
    """y[n, t, c] = x[n, t + before, c]: ``before`` entries are left out before each axis, ``after`` entries after it.

    ``amount`` is one number for all ends, a pair (before, after) for all axes, or a pair an axis. Instead of it,
    ``size`` is what is to be left, for all axes or one an axis; ``size="like"`` takes it from a second input, whose
    values do not matter. Then ``align`` says where it lies: in the "centre" (the odd one left out goes after), or at
    the "start".

    Shapes: x (n, *axes, channels), y (n, *sizes, channels).
    Derivatives: dx is dy with zeros where entries were left out.
    Raises: ShapeError where nothing would be left, or the input is smaller than the wanted size.
    Source: the cropped skips of U-Net (Ronneberger et al. 2015) and FCN (Long et al. 2015).

    >>> crop = Crop((1, 2))
    >>> y, kept = crop.forward({}, np.arange(5.0).reshape(1, 5, 1))
    >>> y.ravel().tolist(), crop.error({}, kept, 10 * y).ravel().tolist()
    ([1.0, 2.0], [0.0, 10.0, 20.0, 0.0, 0.0])
    >>> Crop(size=2).forward({}, np.arange(5.0).reshape(1, 5, 1))[0].ravel().tolist()
    [1.0, 2.0]
    """

    amount: Amount | None = None
    size: PerAxis | str | None = field(default=None, kw_only=True)
    align: str = field(default="centre", kw_only=True)

    linear = True

    def __post_init__(self):
        check_choice(self, "align", self.align, ("centre", "start"))
        if self.amount is not None:
            check_amount(self, self.amount)
            if self.size is not None or self.align != "centre":
                refuse(self, "amount", self.amount, "None where size or align is given")
        elif self.size != "like" and not whole_per_axis(self.size, least=1):
            refuse(self, "size", self.size, 'a size, one an axis, or "like" (a second input), as there is no amount')

    @property
    def arity(self) -> int:
        return 2 if self.size == "like" else 1

    def sizes(self, *shapes: Shape) -> Shape:
        axes = shapes[0][:-1]
        if self.amount is not None:
            pairs = zip(axes, ends(self, self.amount, len(axes)), strict=True)
            sizes = tuple(None if size is None else size - before - after for size, (before, after) in pairs)
        else:
            sizes = self._wanted(*shapes)
        for axis, (had, left) in enumerate(zip(axes, sizes, strict=True)):
            if had is not None and left is not None and not 1 <= left <= had:
                raise ShapeError(
                    f"got size {had} on axis {axis}, of which {left} would be left, expected 1 to {had}",
                    element=self,
                    way_out="crop less, or give a larger input",
                )
        return sizes

    def _wanted(self, shape: Shape, like: Shape | None = None) -> Shape:
        if like is None:
            return per_axis(self.size, len(shape) - 1, "size", self)
        if len(like) != len(shape):
            raise ShapeError(
                f"got inputs of {shape}, {like}, expected as many axes",
                element=self,
                way_out="take a second input with the axes of the first",
            )
        return like[:-1]

    def _starts(self, *shapes: Shape) -> Shape:
        """The first entry that is left on each axis; None where it depends on an open size."""
        axes = shapes[0][:-1]
        if self.amount is not None:
            return tuple(before for before, _ in ends(self, self.amount, len(axes)))
        if self.align == "start":
            return (0,) * len(axes)
        pairs = zip(axes, self.sizes(*shapes), strict=True)
        return tuple(None if had is None or left is None else (had - left) // 2 for had, left in pairs)

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        if isinstance(seen[0], str):
            return seen[0]
        return tuple(field.shifted(start) for field, start in zip(seen[0], self._starts(*shapes), strict=True))

    def forward(self, params: Params, x: Any, run: Run = Run()) -> tuple[Array, tuple[Ends, ...]]:
        inputs = x if self.arity == 2 else (x,)
        self.admit(params, *inputs)
        had, *_ = shapes = [a.shape[1:] for a in inputs]
        starts = cast("tuple[int, ...]", self._starts(*shapes))
        sizes = cast("tuple[int, ...]", self.sizes(*shapes))
        stops = [start + size for start, size in zip(starts, sizes, strict=True)]
        y = inputs[0][(slice(None), *map(slice, starts, stops))]
        return y, tuple((start, size - stop) for start, stop, size in zip(starts, stops, had, strict=False))

    def error(self, params: Params, kept: tuple[Ends, ...], dy: Array) -> Any:
        dx = np.pad(dy, ((0, 0), *kept, (0, 0)))
        return (dx, None) if self.arity == 2 else dx


@dataclass(frozen=True, repr=False)
class Pad(Edge):
    """y[n, t, c] = x[n, t - before, c], and beyond x's ends what the mode says:

    "constant", the ``value``; "edge", the first or last entry; "reflect", the entries in mirror order, the first or
    last not repeated. ``amount`` is one number for all ends, a pair (before, after) for all axes, or a pair an axis.

    Shapes: x (n, *axes, channels), y (n, *sizes, channels), each size before + axis + after.
    Derivatives: dx is the sum of dy over all places at which the entry of x stands.
    Raises: ShapeError where an axis is empty, or not longer than what it reflects.
    Source: guide, section 2, for zeros; Odena et al. 2016 (distill), for padding before a convolution against artifacts
    at the border.

    >>> mirror = Pad((2, 1), mode="reflect")
    >>> y, kept = mirror.forward({}, np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1))
    >>> y.ravel().tolist()
    [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]
    >>> dy = np.array([1.0, 10.0, 100.0, 1000.0, 2.0, 20.0]).reshape(1, 6, 1)
    >>> mirror.error({}, kept, dy).ravel().tolist()
    [100.0, 1030.0, 3.0]
    """

    amount: Amount
    mode: str = field(default="constant", kw_only=True)
    value: float = field(default=0.0, kw_only=True)

    def __post_init__(self):
        check_amount(self, self.amount)
        check_choice(self, "mode", self.mode, ("constant", "reflect", "edge"))
        if type(self.value) not in (int, float) or not math.isfinite(self.value):
            refuse(self, "value", self.value, "a finite number")
        if self.mode != "constant" and self.value != 0:
            refuse(self, "value", self.value, "0 where the mode is not constant")

    @property
    def linear(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride] -- here it depends on the value
        """True unless a constant is added."""
        return self.value == 0

    def windows(self, rank: int) -> tuple[Window, ...]:
        """The windows of one entry that pad as much."""
        return tuple(Window(padding=pair) for pair in ends(self, self.amount, rank))

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        """As if zeros were padded: that the units at the border repeat others, a field does not say."""
        return through(seen[0], self.windows(len(shapes[0]) - 1), shapes[0])

    def sizes(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        axes = list(enumerate(zip(shape[:-1], self.windows(len(shape) - 1), strict=True)))
        for axis, (size, window) in axes:
            most = max(window.pads(size or 1))
            if self.mode == "reflect" and size is not None and most >= size:
                raise ShapeError(
                    f"got size {size} on axis {axis}, of which {most} would be reflected, expected more than {most}",
                    element=self,
                    way_out="pad less, or use mode='edge'",
                )
        return tuple(window.output(size, axis, self) for axis, (size, window) in axes)

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, tuple[int, ...]]:
        self.admit(params, x)
        pads = ((0, 0), *ends(self, self.amount, x.ndim - 2), (0, 0))
        constant = {"constant_values": self.value} if self.mode == "constant" else {}
        return np.pad(x, pads, cast("Any", self.mode), **constant), x.shape[1:-1]

    def error(self, params: Params, kept: tuple[int, ...], dy: Array) -> Array:
        for axis, (size, pair) in enumerate(zip(kept, ends(self, self.amount, len(kept)), strict=True), start=1):
            dy = self._sum_back(dy, axis, size, *pair)
        return dy

    def _sum_back(self, dy: Array, axis: int, size: int, before: int, after: int) -> Array:
        """The error signal before the padding of one axis."""
        dy = np.moveaxis(dy, axis, 0)
        dx = dy[before : before + size]
        if self.mode != "constant":
            dx = dx.copy()
            source = np.pad(np.arange(size), (before, after), cast("Any", self.mode))  # y[t] = x[source[t]]
            for t in (*range(before), *range(before + size, before + size + after)):
                dx[source[t]] += dy[t]
        return np.moveaxis(dx, 0, axis)


def check_amount(element: Element, amount: object) -> None:
    """Refuse what is neither a number, nor a pair, nor a pair an axis."""
    pairs = isinstance(amount, tuple) and len(amount) > 0 and all(map(_pair, amount))
    if not (whole(amount, least=0) or _pair(amount) or pairs):
        refuse(element, "amount", amount, "a whole number from 0, a pair (before, after) of them, or a pair an axis")


def ends(element: Element, amount: Amount, rank: int) -> tuple[Ends, ...]:
    """Return (before, after) for each of ``rank`` axes."""
    if isinstance(amount, int):
        return ((amount, amount),) * rank
    return (amount,) * rank if _pair(amount) else per_axis(amount, rank, "amount", element)


def _pair(value: object) -> TypeGuard[Ends]:
    return isinstance(value, tuple) and len(value) == 2 and all(whole(end, least=0) for end in value)
