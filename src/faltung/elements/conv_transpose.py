"""Transposed convolution: the error of a convolution, used forward."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from faltung.elements.conv import check_channels
from faltung.elements.element import Array, Element, Parameter, Params, Run, Shape, View, product
from faltung.elements.products import correlate, correlate_error, correlate_gradient
from faltung.elements.settings import check_count, check_flag, check_rule, refuse
from faltung.errors import ShapeError
from faltung.geometry import Paddings, PerAxis, Window, check_settings, per_axis, whole_per_axis, windows


@dataclass(frozen=True, repr=False)
class ConvTranspose(Element):
    """y[n, t*stride + k*dilation - before, o] += x[n, t, i] w[k, o, i]; then y + b

    The error signal of the ``Conv`` that has the same kernel, stride, dilation and padding, and that maps y's sizes to
    x's: its forward is that convolution's error, its error that convolution's forward, and w has its layout.

    Shapes: x (n, *axes, in), w (*kernel, filters / groups, in), b (filters,), y (n, *sizes, filters), each size
    stride (axis - 1) + span - before - after + output_padding. Where the stride is above 1, several sizes convolve to
    the same number of positions: ``output_padding`` (0 to stride - 1; computed positions, not zeros) or the wanted
    ``size`` itself says which; ``size="like"`` takes it from a second input, whose values do not matter. With "same"
    it is axis * stride, unless ``size`` says otherwise.
    Derivatives: dx = conv(dy, w), dw the correlation of dy with x, db the sum of dy.
    Raises: ShapeError where no such size convolves to the input's.
    Source: guide, relationships 8 to 14; slides, "Transpose convolution".

    >>> import numpy as np
    >>> up = ConvTranspose(1, kernel=3, stride=2)
    >>> p = {"w": np.array([1.0, 2.0, 4.0]).reshape(3, 1, 1), "b": np.zeros(1)}
    >>> y, kept = up.forward(p, np.array([1.0, 10.0]).reshape(1, 2, 1))
    >>> y.ravel().tolist()
    [1.0, 2.0, 14.0, 20.0, 40.0]
    >>> dy = np.array([1.0, 0.0, -1.0, 0.0, 2.0]).reshape(1, 5, 1)
    >>> up.error(p, kept, dy).ravel().tolist()
    [-3.0, 7.0]
    """

    filters: int
    kernel: PerAxis = field(kw_only=True)
    stride: PerAxis = field(default=1, kw_only=True)
    dilation: PerAxis = field(default=1, kw_only=True)
    padding: Paddings = field(default="valid", kw_only=True)
    output_padding: PerAxis = field(default=0, kw_only=True)
    size: PerAxis | str | None = field(default=None, kw_only=True)
    groups: int = field(default=1, kw_only=True)
    bias: bool = field(default=True, kw_only=True)
    initial: str = field(default="glorot", kw_only=True)

    linear = True

    def __post_init__(self):
        check_count(self, filters=self.filters, groups=self.groups)
        check_settings(self, self.kernel, self.stride, self.dilation, self.padding)
        check_flag(self, bias=self.bias)
        check_rule(self, self.initial)
        if self.size not in (None, "like") and not whole_per_axis(self.size, least=1):
            refuse(self, "size", self.size, '"like" (a second input), a number from 1, or one an axis')
        if not whole_per_axis(self.output_padding, least=0):
            refuse(self, "output_padding", self.output_padding, "a whole number from 0, or one an axis")
        if self.size is not None and self.output_padding != 0:
            refuse(self, "output_padding", self.output_padding, "0 where the size is given")

    @property
    def arity(self) -> int:
        return 2 if self.size == "like" else 1

    def windows(self, shape: Shape) -> tuple[Window, ...]:
        """The windows of the convolution whose error this is."""
        return windows(len(shape) - 1, self.kernel, self.stride, self.dilation, self.padding, self)

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        if isinstance(seen[0], str):
            return seen[0]
        axes = zip(seen[0], self.windows(shapes[0]), self._sizes(*shapes), strict=True)
        return tuple(field.through_transposed(window, size) for field, window, size in axes)

    def output(self, *shapes: Shape) -> Shape:
        check_channels(self, shapes[0], self.groups, self.filters)
        return (*self._sizes(*shapes), self.filters)

    def _sizes(self, shape: Shape, like: Shape | None = None) -> Shape:
        axes = list(enumerate(zip(self.windows(shape), shape[:-1], strict=True)))
        if self.size is None:
            extra = per_axis(self.output_padding, len(axes), "output_padding", self)
            return tuple(window.transposed_output(size, extra[axis], axis, self) for axis, (window, size) in axes)
        wanted = per_axis(self.size, len(axes), "size", self) if like is None else like[:-1]
        if len(wanted) != len(axes):
            raise ShapeError(
                f"got inputs of {len(axes)} and {len(wanted)} axes, expected as many in both",
                element=self,
                way_out="give a second input whose axes have the wanted sizes",
            )
        for (axis, (window, size)), goal in zip(axes, wanted, strict=True):
            if size is not None and goal is not None:
                window.output_padding(size, goal, axis, self)
        return wanted

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        taps = tuple(window.kernel for window in self.windows(shapes[0]))
        inputs = shapes[0][-1] or 0
        fans = (math.prod(taps) * inputs // self.groups, math.prod(taps) * self.filters // self.groups)
        w = Parameter((*taps, self.filters // self.groups, inputs), self.initial, fans)
        return {"w": w, "b": Parameter((self.filters,))} if self.bias else {"w": w}

    def multiplications(self, *shapes: Shape) -> int | None:
        count = product(shapes[0][:-1])
        return None if count is None else count * math.prod(self.parameters(*shapes)["w"].shape)

    def forward(self, params: Params, x: Any, run: Run = Run()) -> tuple[Array, Any]:
        inputs = x if self.arity == 2 else (x,)
        self.admit(params, *inputs)
        shapes = [a.shape[1:] for a in inputs]
        sizes = cast("tuple[int, ...]", self._sizes(*shapes))
        y = correlate_error(inputs[0], params["w"], self.windows(shapes[0]), self.groups, sizes)
        return (y + params["b"] if self.bias else y), inputs[0]

    def error(self, params: Params, kept: Array, dy: Array) -> Any:
        dx = correlate(dy, params["w"], self.windows(kept.shape[1:]), self.groups)
        return (dx, None) if self.arity == 2 else dx

    def gradient(self, params: Params, kept: Array, dy: Array) -> dict[str, Array]:
        dw = {"w": correlate_gradient(dy, kept, self.windows(kept.shape[1:]), self.groups)}
        return dw | {"b": dy.sum(tuple(range(dy.ndim - 1)))} if self.bias else dw
