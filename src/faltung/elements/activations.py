"""Functions of one number, applied to each entry by itself: y = f(x), dx = dy f'(x).

Each states f and f', and keeps whichever of x and y gives f' most simply. Shapes: y and dx have the shape of x.
Source: memo p. 3 (the sigmoid and its derivative a (1 - a)); the papers named at each.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from faltung.elements.element import Array, Element, Params, Run, Shape
from faltung.elements.settings import check_number
from faltung.special import erfc, sigmoid, softplus


class Activation(Element):
    """The base of the pointwise functions: ``forward`` gives f(x), ``slope`` f'(x) from what was kept."""

    def output(self, *shapes: Shape) -> Shape:
        return shapes[0]

    @abstractmethod
    def slope(self, kept: Array) -> Array:
        """f'(x) at each entry."""

    def error(self, params: Params, kept: Array, dy: Array) -> Array:
        return dy * self.slope(kept)


@dataclass(frozen=True, repr=False)
class Identity(Activation):
    """f(x) = x, f' = 1.

    >>> Identity().forward({}, np.array([[-1.0, 2.0]]))[0].tolist()
    [[-1.0, 2.0]]
    """

    linear = True

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        return x, x

    def slope(self, kept: Array) -> Array:
        return np.ones_like(kept)


@dataclass(frozen=True, repr=False)
class Sigmoid(Activation):
    """f(x) = 1 / (1 + exp(-x)), f' = y (1 - y). Memo p. 3.

    >>> sigm = Sigmoid()
    >>> y, kept = sigm.forward({}, np.array([[0.0, 2.0]]))
    >>> y.round(4).tolist(), sigm.error({}, kept, np.array([[1.0, -1.0]])).round(4).tolist()
    ([[0.5, 0.8808]], [[0.25, -0.105]])
    """

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        y = sigmoid(x)
        return y, y

    def slope(self, kept: Array) -> Array:
        return kept * (1 - kept)


@dataclass(frozen=True, repr=False)
class Tanh(Activation):
    """f(x) = tanh(x), f' = 1 - y^2.

    >>> tanh = Tanh()
    >>> y, kept = tanh.forward({}, np.array([[0.0, 1.0]]))
    >>> y.round(4).tolist(), tanh.slope(kept).round(4).tolist()
    ([[0.0, 0.7616]], [[1.0, 0.42]])
    """

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        y = np.tanh(x)
        return y, y

    def slope(self, kept: Array) -> Array:
        return 1 - kept * kept


@dataclass(frozen=True, repr=False)
class ReLU(Activation):
    """f(x) = max(x, 0), f' = 1 where x > 0, else 0 (also at the kink).

    >>> relu = ReLU()
    >>> y, kept = relu.forward({}, np.array([[-1.0, 0.0, 3.0]]))
    >>> y.tolist(), relu.error({}, kept, np.array([[5.0, 6.0, 7.0]])).tolist()
    ([[0.0, 0.0, 3.0]], [[0.0, 0.0, 7.0]])
    """

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        y = np.maximum(x, 0)
        return y, y

    def slope(self, kept: Array) -> Array:
        return (kept > 0).astype(kept.dtype)


@dataclass(frozen=True, repr=False)
class LeakyReLU(Activation):
    """f(x) = x where x > 0, else slope x; f' = 1 where x > 0, else slope (also at the kink).

    >>> leaky = LeakyReLU(0.5)
    >>> y, kept = leaky.forward({}, np.array([[-4.0, 3.0]]))
    >>> y.tolist(), leaky.error({}, kept, np.array([[1.0, 1.5]])).tolist()
    ([[-2.0, 3.0]], [[0.5, 1.5]])
    """

    negative_slope: float = 0.01

    def __post_init__(self):
        check_number(self, "negative_slope", self.negative_slope, 0)

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        return np.where(x > 0, x, x * x.dtype.type(self.negative_slope)), x

    def slope(self, kept: Array) -> Array:
        one = kept.dtype.type(1)
        return np.where(kept > 0, one, kept.dtype.type(self.negative_slope))


@dataclass(frozen=True, repr=False)
class ELU(Activation):
    """f(x) = x where x > 0, else alpha (exp(x) - 1); f' = 1 where x > 0, else y + alpha. Clevert et al. 2015.

    >>> elu = ELU()
    >>> y, kept = elu.forward({}, np.array([[-1.0, 2.0]]))
    >>> y.round(4).tolist(), elu.slope(kept).round(4).tolist()
    ([[-0.6321, 2.0]], [[0.3679, 1.0]])
    """

    alpha: float = 1.0

    def __post_init__(self):
        check_number(self, "alpha", self.alpha, 0)

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        return np.where(x > 0, x, x.dtype.type(self.alpha) * np.expm1(np.minimum(x, 0))), x

    def slope(self, kept: Array) -> Array:
        alpha = kept.dtype.type(self.alpha)
        return np.where(kept > 0, kept.dtype.type(1), alpha * np.exp(np.minimum(kept, 0)))


@dataclass(frozen=True, repr=False)
class Softplus(Activation):
    """f(x) = log(1 + exp(x)), f' = sigmoid(x); stable for large |x|.

    >>> soft = Softplus()
    >>> y, kept = soft.forward({}, np.array([[0.0, 1000.0]]))
    >>> y.round(4).tolist(), soft.slope(kept).tolist()
    ([[0.6931, 1000.0]], [[0.5, 1.0]])
    """

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        return softplus(x), x

    def slope(self, kept: Array) -> Array:
        return sigmoid(kept)


@dataclass(frozen=True, repr=False)
class GELU(Activation):
    """f(x) = x P(x) with P(x) = erfc(-x / sqrt 2) / 2, f' = P(x) + x exp(-x^2 / 2) / sqrt(2 pi).

    The exact form, not its approximation by tanh. Hendrycks & Gimpel 2016.

    >>> gelu = GELU()
    >>> y, kept = gelu.forward({}, np.array([[-1.0, 0.0, 1.0]]))
    >>> y.round(4).tolist(), gelu.slope(kept).round(4).tolist()
    ([[-0.1587, 0.0, 0.8413]], [[-0.0833, 0.5, 1.0833]])
    """

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        return x * _normal_cdf(x), x

    def slope(self, kept: Array) -> Array:
        density = np.exp(-kept * kept / 2) / math.sqrt(2 * math.pi)
        return _normal_cdf(kept) + kept * density


@dataclass(frozen=True, repr=False)
class SiLU(Activation):
    """f(x) = x s with s = sigmoid(x), f' = s (1 + x (1 - s)).

    >>> silu = SiLU()
    >>> y, kept = silu.forward({}, np.array([[-1.0, 0.0, 1.0]]))
    >>> y.round(4).tolist(), silu.slope(kept).round(4).tolist()
    ([[-0.2689, 0.0, 0.7311]], [[0.0723, 0.5, 0.9277]])
    """

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        return x * sigmoid(x), x

    def slope(self, kept: Array) -> Array:
        s = sigmoid(kept)
        return s * (1 + kept * (1 - s))


def _normal_cdf(x: Array) -> Array:
    return erfc(-x / math.sqrt(2)) / 2
