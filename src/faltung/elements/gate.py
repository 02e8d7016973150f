"""The gate of WaveNet, and what is the same at every position: an offset of each example."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faltung.elements.element import Array, Element, Params, Run, Shape, View
from faltung.errors import ShapeError
from faltung.special import sigmoid

Arrays = tuple[Array, Array]


@dataclass(frozen=True, repr=False)
class Gate(Element):
    """y[n, t, c] = tanh(x[n, t, c]) sigmoid(x[n, t, c + C]), for 2 C channels of x

    The first half of the channels says what passes, the second half how much of it; one convolution makes both.

    Shapes: x (n, *axes, 2 C), y (n, *axes, C).
    Derivatives: with a = tanh(x[.., c]) and s = sigmoid(x[.., c + C]), the first half of dx is dy s (1 - a^2), the
    second dy a s (1 - s).
    Raises: ShapeError where the number of channels is open, or odd.
    Source: van den Oord et al. 2016 (WaveNet), equation 2.

    >>> gate = Gate()
    >>> y, kept = gate.forward({}, np.array([[1.0, -1.0, 0.0, 2.0]]))
    >>> y.round(4).tolist(), gate.error({}, kept, np.array([[1.0, 10.0]])).round(4).tolist()
    ([[0.3808, -0.6708]], [[0.21, 3.6991, 0.1904, -0.7996]])
    """

    def output(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not shape or shape[-1] is None or shape[-1] % 2:
            raise ShapeError(
                f"got an input of {shape}, expected an even number of channels",
                element=self,
                way_out="give it twice as many channels as are to come out",
            )
        return (*shape[:-1], shape[-1] // 2)

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Arrays]:
        self.admit(params, x)
        half = x.shape[-1] // 2
        a, s = np.tanh(x[..., :half]), sigmoid(x[..., half:])
        return a * s, (a, s)

    def error(self, params: Params, kept: Arrays, dy: Array) -> Array:
        a, s = kept
        return np.concatenate((dy * s * (1 - a * a), dy * a * s * (1 - s)), -1)


@dataclass(frozen=True, repr=False)
class Offset(Element):
    """y[n, t, c] = x[n, t, c] + h[n, c]: each example's own vector, the same at every position

    Shapes: x (n, *axes, channels), h (n, channels), y as x.
    Derivatives: dx = dy, dh[n, c] = the sum of dy[n, t, c] over all positions t.
    Raises: ShapeError where h is no vector, or has not the channels of x.
    Source: the global conditioning of WaveNet (van den Oord et al. 2016, section 2.5).

    >>> offset = Offset()
    >>> y, kept = offset.forward({}, (np.array([[[1.0], [2.0], [3.0]]]), np.array([[10.0]])))
    >>> dx, dh = offset.error({}, kept, np.array([[[1.0], [0.0], [-3.0]]]))
    >>> y.ravel().tolist(), dx.ravel().tolist(), dh.tolist()
    ([11.0, 12.0, 13.0], [1.0, 0.0, -3.0], [[-2.0]])
    """

    linear = True

    @property
    def arity(self) -> int:
        return 2

    def output(self, *shapes: Shape) -> Shape:
        shape, vector = shapes
        if len(shape) < 2 or vector != shape[-1:]:
            raise ShapeError(
                f"got inputs of {shape}, {vector}, expected (*axes, channels) and a vector of as many channels",
                element=self,
                way_out="bring the vector to these channels by Affine(...)",
            )
        return shape

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        """That of x, unless the vector was made from all of it."""
        return "all" if "all" in seen else seen[0]

    def forward(self, params: Params, x: Arrays, run: Run = Run()) -> tuple[Array, None]:
        self.admit(params, *x)
        if len(x[0]) != len(x[1]):
            raise ShapeError(
                f"got batches of {len(x[0])} and {len(x[1])}, expected one vector an example",
                element=self,
                way_out="give as many vectors as examples",
            )
        y, h = x
        return y + h.reshape(len(h), *(1 for _ in y.shape[1:-1]), h.shape[-1]), None

    def error(self, params: Params, kept: None, dy: Array) -> Arrays:
        return dy, dy.sum(tuple(range(1, dy.ndim - 1)))
