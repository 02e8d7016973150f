"""Softmax over the channels, and its logarithm."""

from dataclasses import dataclass

import numpy as np

from faltung.elements.element import Array, Element, Params, Run, Shape
from faltung.errors import ShapeError


class OverChannels(Element):
    """The base of functions of all channels of a position."""

    def output(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not shape or shape[-1] == 0:
            raise ShapeError(
                f"got an input of {shape}, expected channels on its last axis",
                element=self,
                way_out="give one channel a class",
            )
        return shape


@dataclass(frozen=True, repr=False)
class Softmax(OverChannels):
    """y[c] = exp(x[c]) / sum over k of exp(x[k]), at each position; stable for large |x|.

    Shapes: x, y (n, *axes, channels).
    Derivatives: dx = y (dy - sum over k of dy[k] y[k]).
    Raises: ShapeError where there are no channels.
    Source: UFLDL tutorial, softmax regression. For training, ``CrossEntropy`` takes what comes before the softmax.

    >>> softmax = Softmax()
    >>> y, kept = softmax.forward({}, np.array([[0.0, np.log(3.0)], [1000.0, 0.0]]))
    >>> y.round(4).tolist()
    [[0.25, 0.75], [1.0, 0.0]]
    >>> softmax.error({}, kept, np.array([[1.0, 0.0], [1.0, 2.0]])).round(4).tolist()
    [[0.1875, -0.1875], [0.0, 0.0]]
    """

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        self.admit(params, x)
        y = softmax(x)
        return y, y

    def error(self, params: Params, kept: Array, dy: Array) -> Array:
        return kept * (dy - (dy * kept).sum(-1, keepdims=True))


@dataclass(frozen=True, repr=False)
class LogSoftmax(OverChannels):
    """y[c] = x[c] - log(sum over k of exp(x[k])), at each position; stable for large |x|.

    Shapes: x, y (n, *axes, channels).
    Derivatives: dx = dy - exp(y) (sum over k of dy[k]).
    Raises: ShapeError where there are no channels.
    Source: the logarithm of ``Softmax``.

    >>> logs = LogSoftmax()
    >>> y, kept = logs.forward({}, np.array([[0.0, np.log(3.0)], [1000.0, 0.0]]))
    >>> y.round(4).tolist()
    [[-1.3863, -0.2877], [0.0, -1000.0]]
    >>> logs.error({}, kept, np.array([[1.0, 0.0], [1.0, 0.0]])).round(4).tolist()
    [[0.75, -0.75], [0.0, 0.0]]
    """

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        self.admit(params, x)
        y = log_softmax(x)
        return y, y

    def error(self, params: Params, kept: Array, dy: Array) -> Array:
        return dy - np.exp(kept) * dy.sum(-1, keepdims=True)


def softmax(x: Array) -> Array:
    """exp(x) / (sum of exp(x)) over the last axis; shifted by the maximum, no exponential overflows.

    >>> softmax(np.array([1000.0, 1000.0, 1000.0 + np.log(2.0)])).round(4).tolist()
    [0.25, 0.25, 0.5]
    """
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    """x - log(sum of exp(x)) over the last axis; shifted by the maximum, no exponential overflows.

    >>> log_softmax(np.array([1000.0, 0.0])).tolist()
    [0.0, -1000.0]
    """
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
