"""Functions of one number, the activations and whatever a formula says: y = f(x) in one pass, dx = dy f' in another.

>>> y, kept = forward(SiLU(), {}, np.array([[-1.0, 0.0, 1.0]]))
>>> y.round(4).tolist(), error(SiLU(), {}, kept, np.array([[1.0, 1.0, 2.0]])).round(4).tolist()
([[-0.2689, 0.0, 0.7311]], [[0.0723, 0.5, 1.8553]])
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from faltung.elements.activations import (
    ELU,
    GELU,
    Activation,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from faltung.elements.element import Array, Element, Params, Run
from faltung.elements.pointwise import Pointwise
from faltung.engine.host import arena
from faltung.engine.kernels.elementwise import code, elementwise, launch, streamed
from faltung.engine.kernels.mathematics import exp, expm1, gelu, normal, sigmoid, softplus, tanh
from faltung.engine.loops.language import Function, Type, Value
from faltung.engine.lower.formula import translate
from faltung.engine.programs.ready import ready
from faltung.formula import Formula
from faltung.formula.tree import Name


@dataclass(frozen=True)
class Pair:
    """f(x), and f' from what is kept: x, or y where that gives it more simply."""

    value: Callable[[Any, Value], Value]
    slope: Callable[[Any, Value], Value]
    keeps_y: bool = False


def _formula(text: str, x: Value) -> Value:
    return translate(x.function, x.type, Formula(text).tree, {Name("x"): x})


def _step(x: Value, below: float) -> Value:
    """1 where x > 0, elsewhere ``below``."""
    return x.function.select(x > 0, x.function.constant(1.0, x.type), below)


def _elu_slope(elu: ELU, x: Value) -> Value:
    return x.function.select(x > 0, 1.0, elu.alpha * exp(x.function.min(0.0, x)))


def _gelu_slope(gelu: GELU, x: Value) -> Value:
    cdf, bell = normal(x)
    return cdf + x * (bell * (1 / math.sqrt(2 * math.pi)))


def _silu_slope(silu: SiLU, x: Value) -> Value:
    s = sigmoid(x)
    return s * (1 + x * (1 - s))


PAIRS: dict[type[Activation], Pair] = {
    Sigmoid: Pair(lambda _, x: sigmoid(x), lambda _, y: y * (1 - y), keeps_y=True),
    Tanh: Pair(lambda _, x: tanh(x), lambda _, y: 1 - y * y, keeps_y=True),
    ReLU: Pair(lambda _, x: x.function.max(0.0, x), lambda _, y: _step(y, 0.0), keeps_y=True),
    LeakyReLU: Pair(
        lambda leaky, x: x.function.select(x > 0, x, leaky.negative_slope * x),
        lambda leaky, x: _step(x, leaky.negative_slope),
    ),
    ELU: Pair(lambda elu, x: x.function.select(x > 0, x, elu.alpha * expm1(x.function.min(0.0, x))), _elu_slope),
    Softplus: Pair(lambda _, x: softplus(x), lambda _, x: sigmoid(x)),
    GELU: Pair(lambda _, x: gelu(x), _gelu_slope),
    SiLU: Pair(lambda _, x: x * sigmoid(x), _silu_slope),
    Pointwise: Pair(lambda f, x: _formula(f.formula, x), lambda f, x: _formula(f.derivative, x)),
}
"""Each function and its derivative, as the elements of these names define them."""


def _forward(kind: Type, element: Activation, stream: bool) -> Function:
    return elementwise(kind, 1, lambda x: [PAIRS[type(element)].value(element, x)], stream=stream)


def _error(kind: Type, element: Activation, stream: bool) -> Function:
    return elementwise(kind, 2, lambda kept, dy: [dy * PAIRS[type(element)].slope(element, kept)], stream=stream)


@ready
def forward(element: Activation, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
    """y = f(x), and what is kept: x or y."""
    x = np.ascontiguousarray(x)
    y = arena.empty(x.shape, x.dtype)
    launch(code(_forward, x.dtype, element, streamed(x, y)), x, y, count=x.size)
    return y, y if PAIRS[type(element)].keeps_y else x


@ready
def error(element: Activation, params: Params, kept: Array, dy: Array) -> Array:
    """dx = dy f'."""
    kept, dy = np.ascontiguousarray(kept), np.ascontiguousarray(dy)
    dx = arena.empty(dy.shape, dy.dtype)
    launch(code(_error, dy.dtype, element, streamed(kept, dy, dx)), kept, dy, dx, count=dy.size)
    return dx


def no_gradient(element: Element, params: Params, kept: Any, dy: Array) -> dict[str, Array]:
    """Of an element without parameters."""
    return {}


LOWERINGS = dict.fromkeys(PAIRS, (forward, error, no_gradient))
