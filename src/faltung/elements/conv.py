"""Convolution, in as many dimensions as the input has axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from faltung.elements.element import Array, Element, Parameter, Params, Run, Shape, View, product, through
from faltung.elements.products import correlate, correlate_error, correlate_gradient
from faltung.elements.settings import check_count, check_flag, check_rule
from faltung.errors import ShapeError
from faltung.geometry import Paddings, PerAxis, Window, check_settings, windows


@dataclass(frozen=True, repr=False)
class Conv(Element):
    """y[n, t, o] = b[o] + sum over k, i of x[n, t*stride + k*dilation - before, i] w[k, i, o]

    That is a cross-correlation, as in both sources: the kernel is not flipped. t and k run over one, two or three axes.

    Shapes: x (n, *axes, in), w (*kernel, in / groups, filters), b (filters,), y (n, *positions, filters), as many
    positions as ``faltung.geometry.Window`` says. ``kernel``, ``stride`` and ``dilation`` are one number, or one an
    axis. ``padding`` is "valid" (none), "same" (ceil(size / stride) positions), "full" (every overlap), "causal"
    (before only), a number of zeros, a pair (before, after), or a name or pair an axis. With g ``groups``, filters and
    channels fall into g parts, and each filter sees its own part; as many groups as channels make a depthwise
    convolution.
    Derivatives: dx is the transposed convolution of dy with w (memo: full, with the kernel flipped), dw the correlation
    of x with dy, db the sum of dy over batch and positions.
    Raises: ShapeError where kernel, padding and input do not fit, or the channels are not those of w.
    Source: memo p. 9-10; guide, relationship 15.

    >>> import numpy as np
    >>> blur = Conv(1, kernel=3)
    >>> p = {"w": np.ones((3, 1, 1)), "b": np.zeros(1)}
    >>> y, kept = blur.forward(p, np.arange(5.0).reshape(1, 5, 1))
    >>> y.ravel().tolist()
    [3.0, 6.0, 9.0]
    >>> dy = np.array([[[1.0], [0.0], [2.0]]])
    >>> blur.error(p, kept, dy).ravel().tolist()
    [1.0, 1.0, 3.0, 2.0, 2.0]
    >>> blur.gradient(p, kept, dy)["w"].ravel().tolist()
    [4.0, 7.0, 10.0]
    """

    filters: int
    kernel: PerAxis = field(kw_only=True)
    stride: PerAxis = field(default=1, kw_only=True)
    dilation: PerAxis = field(default=1, kw_only=True)
    padding: Paddings = field(default="valid", kw_only=True)
    groups: int = field(default=1, kw_only=True)
    bias: bool = field(default=True, kw_only=True)
    initial: str = field(default="glorot", kw_only=True)

    linear = True

    def __post_init__(self):
        check_count(self, filters=self.filters, groups=self.groups)
        check_settings(self, self.kernel, self.stride, self.dilation, self.padding)
        check_flag(self, bias=self.bias)
        check_rule(self, self.initial)

    def windows(self, *shapes: Shape) -> tuple[Window, ...]:
        return windows(len(shapes[0]) - 1, self.kernel, self.stride, self.dilation, self.padding, self)

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        return through(seen[0], self.windows(*shapes), shapes[0])

    def output(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        check_channels(self, shape, self.groups, self.filters)
        return (*positions(self, self.windows(shape), shape[:-1]), self.filters)

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        taps = tuple(window.kernel for window in self.windows(*shapes))
        inputs = (shapes[0][-1] or 0) // self.groups
        fans = (math.prod(taps) * inputs, math.prod(taps) * self.filters // self.groups)
        w = Parameter((*taps, inputs, self.filters), self.initial, fans)
        return {"w": w, "b": Parameter((self.filters,))} if self.bias else {"w": w}

    def multiplications(self, *shapes: Shape) -> int | None:
        w = self.parameters(*shapes)["w"].shape
        count = product(self.output(*shapes)[:-1])
        return None if count is None else count * math.prod(w)

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        self.admit(params, x)
        y = correlate(x, params["w"], self.windows(x.shape[1:]), self.groups)
        return (y + params["b"] if self.bias else y), x

    def error(self, params: Params, kept: Array, dy: Array) -> Array:
        return correlate_error(dy, params["w"], self.windows(kept.shape[1:]), self.groups, kept.shape[1:-1])

    def gradient(self, params: Params, kept: Array, dy: Array) -> dict[str, Array]:
        dw = {"w": correlate_gradient(kept, dy, self.windows(kept.shape[1:]), self.groups)}
        return dw | {"b": dy.sum(tuple(range(dy.ndim - 1)))} if self.bias else dw


def positions(element: Element, windows: tuple[Window, ...], sizes: Shape) -> Shape:
    """How many positions each window has on each axis."""
    axes = enumerate(zip(windows, sizes, strict=True))
    return tuple(window.output(size, axis, element) for axis, (window, size) in axes)


def check_channels(element: Element, shape: Shape, groups: int, filters: int) -> None:
    """Refuse an input without axes or with open channels, and groups that do not divide channels and filters."""
    if len(shape) < 2 or shape[-1] is None:
        raise ShapeError(
            f"got an input of {shape}, expected (*axes, channels) with a known number of channels",
            element=element,
            way_out="give the input as (height, width, channels) or (time, channels)",
        )
    if shape[-1] % groups or filters % groups:
        raise ShapeError(
            f"got {shape[-1]} channels and {filters} filters in {groups} groups, expected groups to divide both",
            element=element,
            way_out="choose groups among the common divisors",
        )
