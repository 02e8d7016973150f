"""Normalisations: a mean of 0 and a variance of 1, then a learned scale and shift for each channel.

Both share two formulas, over the axes that are averaged (sums in float64, whatever the dtype):

    xhat = (x - mean(x)) / sigma, sigma = sqrt(mean((x - mean(x))^2) + epsilon)
    dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sigma

The two means that are taken off dxhat are what it loses because mean(x) and sigma move with x.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from faltung.elements.element import Array, Element, Parameter, Params, Run, Shape, View, product
from faltung.elements.settings import check_choice, check_number
from faltung.errors import ShapeError

Axes = tuple[int, ...]


class Normalisation(Element):
    """The base: y = xhat scale + shift, with xhat first in what is kept."""

    epsilon: float

    def __post_init__(self):
        check_number(self, "epsilon", self.epsilon, 1e-30)

    def output(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not shape or shape[-1] is None or 0 in shape:
            raise ShapeError(
                f"got an input of {shape}, expected a known number of channels on its last axis and no empty axis",
                element=self,
                way_out="close that axis in .on(...)",
            )
        return shape

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        channels = shapes[0][-1] or 0
        return {"scale": Parameter((channels,), "ones"), "shift": Parameter((channels,))}

    def multiplications(self, *shapes: Shape) -> int | None:
        return product(shapes[0])

    def gradient(self, params: Params, kept: Any, dy: Array) -> dict[str, Array]:
        positions = tuple(range(dy.ndim - 1))
        return {"scale": (dy * kept[0]).sum(positions), "shift": dy.sum(positions)}


@dataclass(frozen=True, repr=False)
class LayerNorm(Normalisation):
    """y[n, t, c] = xhat[n, t, c] scale[c] + shift[c], xhat = (x - mean(x)) / sqrt(variance(x) + epsilon)

    Mean and variance are those of each position's channels (``axes="channels"``), or of all entries of the example
    (``axes="all"``); never of other examples.

    Shapes: x, y (n, *axes, channels), scale and shift (channels,).
    Derivatives: with dxhat = dy scale and sigma the root, dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sigma;
    dscale = the sum of dy xhat, dshift that of dy, over batch and positions.
    Raises: ShapeError where the number of channels is open, or an axis empty.
    Source: Ba, Kiros & Hinton 2016; "channels" as in ByteNet (Kalchbrenner et al. 2016).

    >>> norm = LayerNorm()
    >>> p = {"scale": np.array([1.0, 1.0, 2.0]), "shift": np.array([0.0, 0.0, 10.0])}
    >>> y, kept = norm.forward(p, np.array([[-2.0, 0.0, 2.0], [1.0, 1.0, 1.0]]))
    >>> y.round(3).tolist()
    [[-1.225, 0.0, 12.449], [0.0, 0.0, 10.0]]
    >>> norm.error(p, kept, np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])).round(3).tolist()
    [[0.102, -0.204, 0.102], [0.0, 0.0, 0.0]]
    """

    axes: str = field(default="channels", kw_only=True)
    epsilon: float = field(default=1e-5, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "axes", self.axes, ("channels", "all"))

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        return seen[0] if self.axes == "channels" else "all"

    def _averaged(self, rank: int) -> Axes:
        return (rank - 1,) if self.axes == "channels" else tuple(range(1, rank))

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Any]:
        self.admit(params, x)
        xhat, sigma, _, _ = standardise(x, self._averaged(x.ndim), self.epsilon)
        return xhat * params["scale"] + params["shift"], (xhat, sigma)

    def error(self, params: Params, kept: Any, dy: Array) -> Array:
        xhat, sigma = kept
        return standardise_error(dy * params["scale"], xhat, sigma, self._averaged(dy.ndim))


@dataclass(frozen=True, repr=False)
class BatchNorm(Normalisation):
    """y[n, t, c] = xhat[n, t, c] scale[c] + shift[c], xhat = (x - mean[c]) / sqrt(variance[c] + epsilon)

    In training, mean and variance are those of the channel over batch and positions. Otherwise they are the state
    "mean" and "variance", which each training step renews: new = momentum old + (1 - momentum) batch's, where the
    batch's variance is the unbiased one, m / (m - 1) times the mean square of m values.

    Shapes: x, y (n, *axes, channels), scale, shift and the state (channels,).
    Derivatives: with dxhat = dy scale and sigma the root, dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sigma in
    training, the means over batch and positions, and dx = dxhat / sigma otherwise; dscale = the sum of dy xhat, dshift
    that of dy.
    Raises: ShapeError where the number of channels is open, an axis empty, or a channel has one value only in training.
    Source: Ioffe & Szegedy 2015, algorithms 1 and 2.

    >>> norm = BatchNorm(momentum=0.5)
    >>> p = {"scale": np.ones(1), "shift": np.zeros(1), "mean": np.zeros(1), "variance": np.ones(1)}
    >>> y, kept = norm.forward(p, np.array([[1.0], [3.0], [5.0]]), Run(training=True))
    >>> y.ravel().round(3).tolist()
    [-1.225, 0.0, 1.225]
    >>> norm.error(p, kept, np.array([[1.0], [0.0], [0.0]])).ravel().round(3).tolist()
    [0.102, -0.204, 0.102]
    >>> {name: new.tolist() for name, new in norm.renew(p, kept).items()}
    {'mean': [1.5], 'variance': [2.5]}
    """

    momentum: float = field(default=0.9, kw_only=True)
    epsilon: float = field(default=1e-5, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        check_number(self, "momentum", self.momentum, 0, 1, open_end=True)

    def state(self, *shapes: Shape) -> dict[str, Parameter]:
        channels = shapes[0][-1] or 0
        return {"mean": Parameter((channels,)), "variance": Parameter((channels,), "ones")}

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Any]:
        self.admit(params, x)
        if run.training:
            m = x.size // x.shape[-1]
            if m < 2:
                raise ShapeError(
                    f"got {m} values of each channel in training, expected at least 2 to have a variance",
                    element=self,
                    way_out="use a larger batch, or LayerNorm",
                )
            xhat, sigma, mean, variance = standardise(x, tuple(range(x.ndim - 1)), self.epsilon)
            statistics = (mean, variance * m / (m - 1))
        else:
            sigma = np.sqrt(params["variance"] + self.epsilon)[None]
            xhat, statistics = (x - params["mean"]) / sigma, None
        return xhat * params["scale"] + params["shift"], (xhat, sigma, statistics)

    def error(self, params: Params, kept: Any, dy: Array) -> Array:
        xhat, sigma, statistics = kept
        dxhat = dy * params["scale"]
        if statistics is None:
            return dxhat / sigma
        return standardise_error(dxhat, xhat, sigma, tuple(range(dy.ndim - 1)))

    def renew(self, params: Params, kept: Any) -> dict[str, Array]:
        *_, statistics = kept
        if statistics is None:
            return {}
        mean, variance = statistics
        return {"mean": self._mix(params["mean"], mean), "variance": self._mix(params["variance"], variance)}

    def _mix(self, old: Array, new: Array) -> Array:
        return (self.momentum * old + (1 - self.momentum) * new.reshape(old.shape)).astype(old.dtype)


def standardise(x: Array, axes: Axes, epsilon: float) -> tuple[Array, Array, Array, Array]:
    """Return xhat and sigma in x's dtype, mean and variance in float64; the averaged axes stay, with size 1.

    >>> [array.tolist() for array in standardise(np.array([[1.0, 5.0]]), axes=(1,), epsilon=0.0)]
    [[[-1.0, 1.0]], [[2.0]], [[3.0]], [[4.0]]]
    """
    mean = x.mean(axes, keepdims=True, dtype=np.float64)
    variance = np.square(x - mean).mean(axes, keepdims=True)
    sigma = np.sqrt(variance + epsilon)
    return ((x - mean) / sigma).astype(x.dtype), sigma.astype(x.dtype), mean, variance


def standardise_error(dxhat: Array, xhat: Array, sigma: Array, axes: Axes) -> Array:
    """Return dx from dxhat.

    >>> xhat, sigma, _, _ = standardise(np.array([[-2.0, 0.0, 2.0]]), axes=(1,), epsilon=0.0)
    >>> standardise_error(np.array([[1.0, 0.0, 0.0]]), xhat, sigma, axes=(1,)).round(4).tolist()
    [[0.1021, -0.2041, 0.1021]]
    """
    along = dxhat.mean(axes, keepdims=True, dtype=np.float64)
    across = (dxhat * xhat).mean(axes, keepdims=True, dtype=np.float64)
    return ((dxhat - along - xhat * across) / sigma).astype(dxhat.dtype)
