"""The value of a formula, by NumPy. The dtype is that of x."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.formula.functions import CONSTANTS, FUNCTIONS, OPERATORS, REDUCTIONS, count
from faltung.formula.tree import Apply, Name, Node, Number, Reduce

Array = NDArray[Any]


def evaluate(node: Node, x: Array, where: Array | bool) -> Any:
    """The value of a tree for each entry of x, or for each window (then the last axis has the size 1), or for all."""
    match node:
        case Number(value):
            return x.dtype.type(value)
        case Name("x"):
            return x
        case Name("m"):
            return count(x, where)
        case Name(constant):
            return x.dtype.type(CONSTANTS[constant])
        case Apply(function, arguments):
            compute = OPERATORS[function] if function in OPERATORS else FUNCTIONS[function].numpy
            return compute(*[evaluate(a, x, where) for a in arguments])
        case Reduce(function, body):
            e = np.broadcast_to(evaluate(body, x, where), x.shape)
            return REDUCTIONS[function](e, where)
