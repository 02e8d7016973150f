"""From the tree of a formula to the loop language: for each function of the grammar, what computes it.

The NumPy definitions of ``faltung.formula.functions`` are the law, NaN and kinks included.
"""

from collections.abc import Callable, Mapping

import numpy as np

from faltung.engine.kernels import mathematics, trigonometry
from faltung.engine.loops.language import Function, Type, Value
from faltung.formula.evaluate import evaluate
from faltung.formula.functions import CONSTANTS
from faltung.formula.tree import Apply, Name, Node, Number, Reduce


def _sign(x: Value) -> Value:
    return x.function.select(x > 0, 1.0, x.function.select(x < 0, x.function.constant(-1.0, x.type), x))


def _maximum(x: Value, y: Value) -> Value:
    return x.function.select(x.equal(x), x.function.max(x, y), x)  # NaN where one of them is


def _minimum(x: Value, y: Value) -> Value:
    return x.function.select(x.equal(x), x.function.min(x, y), x)


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "**": mathematics.power,
    "neg": lambda x: -x,
    "abs": lambda x: x.function.op("abs", x),
    "arctan": mathematics.arctan,
    "cos": trigonometry.cos,
    "cosh": mathematics.cosh,
    "erf": mathematics.erf,
    "exp": mathematics.exp,
    "expm1": mathematics.expm1,
    "log": mathematics.log,
    "log1p": mathematics.log1p,
    "max": _maximum,
    "min": _minimum,
    "ratio": lambda x, y: x.function.select(y.equal(0), 0.0, x / y),
    "relu": lambda x: x.function.max(0.0, x),
    "sigmoid": mathematics.sigmoid,
    "sign": _sign,
    "sin": trigonometry.sin,
    "sinh": mathematics.sinh,
    "softplus": mathematics.softplus,
    "sqrt": lambda x: x.function.op("sqrt", x),
    "step": lambda x: x.function.select(x > 0, x.function.constant(1.0, x.type), 0.0),
    "tan": trigonometry.tan,
    "tanh": mathematics.tanh,
}
"""Operators and functions of an entry."""

FACTORS = 4
"""Whole powers of at most so many factors are products: the most that stay within 4 ulp, also of 1 / x."""


def translate(f: Function, kind: Type, node: Node, known: dict[Node, Value]) -> Value:
    """The value of a tree, as statements of f.

    Args:
        f: the function that is being written.
        kind: of the numbers, f32 or f64, as many lanes as the values that are known.
        node: the tree.
        known: the value of Name("x"), and of whatever else has been computed before, such as the reductions of a
            window. What is computed on the way is added, so that it is computed once.
    """
    if node not in known:
        known[node] = _translate(f, kind, node, known)
    return known[node]


def _translate(f: Function, kind: Type, node: Node, known: dict[Node, Value]) -> Value:
    if _is_constant(node, known):
        return f.constant(_number(node, kind), kind)
    if not isinstance(node, Apply):
        raise KeyError(f"{node} is not known")
    exponent = node.arguments[-1]
    if node.function == "**" and _is_constant(exponent, known):
        number = _number(exponent, kind)
        if number.is_integer() and 1 <= abs(number) <= FACTORS:
            return _product(f, translate(f, kind, node.arguments[0], known), int(number))
    return FUNCTIONS[node.function](*(translate(f, kind, argument, known) for argument in node.arguments))


def _product(f: Function, x: Value, exponent: int) -> Value:
    """x^exponent, |exponent| from 1 to 4."""
    x = x if exponent > 0 else f.constant(1.0, x.type) / x
    square = x * x if abs(exponent) > 1 else x
    return [x, square, square * x, square * square][abs(exponent) - 1]


def _is_constant(node: Node, known: Mapping[Node, Value]) -> bool:
    match node:
        case Name(name):
            return name in CONSTANTS and node not in known
        case Apply(_, arguments):
            return all(_is_constant(argument, known) for argument in arguments)
        case Reduce():
            return False
        case Number():
            return True


def _number(node: Node, kind: Type) -> float:
    """The value of a constant, rounded as the law rounds it."""
    with np.errstate(all="ignore"):
        return float(evaluate(node, np.zeros(1, kind.dtype), True))
