"""The functions that a formula may use: each with its NumPy definition and its derivative, itself a formula.

At kinks the derivative is a convention: abs' = sign, sign' = step' = 0, relu'(0) = 0; where max(x, y) or min(x, y) is
a tie, the first argument receives all. What divides by a root divides by ``ratio``, so sqrt'(0) = 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import e, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.special import erf, sigmoid, softplus

Array = NDArray[Any]

CONSTANTS = {"pi": pi, "e": e}


@dataclass(frozen=True)
class Function:
    """A function of each entry by itself."""

    numpy: Callable[..., Any]
    derivatives: tuple[str, ...]
    """By each argument; the arguments are called x and y."""


def step(x: Array) -> Array:
    """1 where x > 0, else 0.

    >>> step(np.array([-2.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 1.0]
    """
    return np.greater(x, 0).astype(x.dtype)


def ratio(x: Array, y: Array) -> Array:
    """The quotient x / y, and 0 where y = 0.

    >>> ratio(np.array([3.0, 3.0]), np.array([2.0, 0.0])).tolist()
    [1.5, 0.0]
    """
    x, y = np.broadcast_arrays(x, y)
    return np.divide(x, y, out=np.zeros(x.shape, x.dtype), where=y != 0)


def power(x: Array, y: Array) -> Array:
    """The power x**y; a whole power goes by abs(x), for NumPy takes 50 times as long where x is negative.

    >>> power(np.array([-2.0, 3.0]), np.float64(3)).tolist()
    [-8.0, 27.0]
    """
    if np.ndim(y) > 0 or not float(y).is_integer():
        return np.power(x, y)
    size = np.power(np.abs(x), y)
    return np.copysign(size, x) if y % 2 else size


OPERATORS: dict[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": power,
    "neg": np.negative,
}

FUNCTIONS = {
    "abs": Function(np.abs, ("sign(x)",)),
    "arctan": Function(np.arctan, ("1 / (1 + x**2)",)),
    "cos": Function(np.cos, ("-sin(x)",)),
    "cosh": Function(np.cosh, ("sinh(x)",)),
    "erf": Function(erf, ("2 / sqrt(pi) * exp(-x**2)",)),
    "exp": Function(np.exp, ("exp(x)",)),
    "expm1": Function(np.expm1, ("exp(x)",)),
    "log": Function(np.log, ("1 / x",)),
    "log1p": Function(np.log1p, ("1 / (1 + x)",)),
    "max": Function(np.maximum, ("1 - step(y - x)", "step(y - x)")),
    "min": Function(np.minimum, ("1 - step(x - y)", "step(x - y)")),
    "ratio": Function(ratio, ("ratio(1, y)", "-ratio(x, y**2)")),
    "relu": Function(lambda x: np.maximum(x, x.dtype.type(0)), ("step(x)",)),
    "sigmoid": Function(sigmoid, ("sigmoid(x) * sigmoid(-x)",)),
    "sign": Function(np.sign, ("0",)),
    "sin": Function(np.sin, ("cos(x)",)),
    "sinh": Function(np.sinh, ("cosh(x)",)),
    "softplus": Function(softplus, ("sigmoid(x)",)),
    "sqrt": Function(np.sqrt, ("ratio(0.5, sqrt(x))",)),
    "step": Function(step, ("0",)),
    "tan": Function(np.tan, ("1 + tan(x)**2",)),
    "tanh": Function(np.tanh, ("1 - tanh(x)**2",)),
}
"""Functions of an entry. Those that another one's derivative needs are here too, and may be used as well."""


def count(e: Array, where: Array | bool) -> Array:
    """How many entries of the window take part: m."""
    return np.sum(np.broadcast_to(where, e.shape), axis=-1, keepdims=True, dtype=e.dtype)


def total(e: Array, where: Array | bool) -> Array:
    """The sum over the window."""
    return np.sum(e, axis=-1, keepdims=True, where=where)


def mean(e: Array, where: Array | bool) -> Array:
    """The sum over the window, divided by the count."""
    return total(e, where) / count(e, where)


def largest(e: Array, where: Array | bool) -> Array:
    """The largest entry of the window."""
    return np.where(where, e, -np.inf).max(axis=-1, keepdims=True)


def first_largest(e: Array, where: Array | bool) -> Array:
    """1 at the first largest entry of the window, 0 at the others.

    >>> first_largest(np.array([3.0, 5.0, 5.0]), where=True).tolist()
    [0.0, 1.0, 0.0]
    """
    first = np.where(where, e, -np.inf).argmax(axis=-1)
    return np.equal(np.arange(e.shape[-1]), first[..., np.newaxis]).astype(e.dtype)


REDUCTIONS: dict[str, Callable[[Array, Array | bool], Array]] = {
    "sum": total,
    "mean": mean,
    "max": largest,
    "min": lambda e, where: -largest(-e, where),
    "first_max": first_largest,
    "first_min": lambda e, where: first_largest(-e, where),
}
"""Functions of the whole window, the last axis, of which the entries in ``where`` take part.

``first_max`` and ``first_min`` have a value for each entry, the others one for the window.
"""
PER_ENTRY = {"first_max", "first_min"}
