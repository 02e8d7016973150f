"""Sum and product in one pass over all inputs, bit for bit as the law has them; concatenation by copying rows.

>>> y, kept = product_forward(Product(), {}, (np.array([[0.0, 2.0]]), np.array([[10.0, 20.0]])))
>>> y.tolist(), [dx.tolist() for dx in product_error(Product(), {}, kept, np.array([[3.0, 4.0]]))]
([[0.0, 40.0]], [[[30.0, 80.0]], [[0.0, 8.0]]])
"""

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from faltung.elements.element import Array, Params, Run
from faltung.elements.joins import Arrays, Concat, Product, Sum
from faltung.engine import arena, rows
from faltung.engine.elementwise import code, elementwise, launch
from faltung.engine.lanes import copy
from faltung.engine.language import INDEX, Function, Type, Value, pointer
from faltung.engine.lower.pointwise import no_gradient

MOST = 8
"""Inputs that one pass reads side by side."""


def joined(kind: Type, combine: Callable[[Value, Value], Value], inputs: int) -> Function:
    """y = x0 combined with x1, then with x2, ..."""
    return elementwise(kind, inputs, lambda *x: [reduce(combine, x)])


def _shares(kind: Type, inputs: int) -> Function:
    """dx_i = dy times all x but x_i."""

    def body(dy: Value, *x: Value) -> Sequence[Value]:
        return [reduce(operator.mul, x[:i] + x[i + 1 :], dy) for i in range(inputs)]

    return elementwise(kind, 1 + inputs, body, outputs=inputs)


def _copied(kind: Type) -> Function:
    """Rows of x, ``x_step`` numbers from one to the next, become rows of y."""
    f = rows.row_kernel("copied", x=pointer(kind), y=pointer(kind), x_step=INDEX, y_step=INDEX)
    x, y, x_step, y_step, *_ = f.arguments
    with rows.each_row(f) as row:
        copy(f, f.at(y, row * y_step), f.at(x, row * x_step), rows.row_length(f), kind)
    return f


def _join(combine: Callable[[Value, Value], Value], x: Arrays) -> Array:
    """The inputs combined from left to right."""
    y, rest = np.ascontiguousarray(x[0]), list(map(np.ascontiguousarray, x[1:]))
    while rest:
        together, rest = [y, *rest[: MOST - 1]], rest[MOST - 1 :]
        y = arena.empty(y.shape, y.dtype)
        launch(code(joined, y.dtype, combine, len(together)), *together, y, count=y.size)
    return y


def sum_forward(element: Sum, params: Params, x: Arrays, run: Run = Run()) -> tuple[Array, int]:
    """See ``Sum.forward``."""
    element._admit(params, x)
    return _join(operator.add, x), len(x)


def sum_error(element: Sum, params: Params, kept: int, dy: Array) -> Arrays:
    """See ``Sum.error``."""
    return (dy,) * kept


def product_forward(element: Product, params: Params, x: Arrays, run: Run = Run()) -> tuple[Array, Arrays]:
    """See ``Product.forward``."""
    element._admit(params, x)
    return _join(operator.mul, x), tuple(x)


def product_error(element: Product, params: Params, kept: Arrays, dy: Array) -> Arrays:
    """See ``Product.error``."""
    if len(kept) >= MOST:
        return element.error(params, kept, dy)
    inputs = [np.ascontiguousarray(array) for array in (dy, *kept)]
    dx = tuple(arena.empty(dy.shape, dy.dtype) for _ in kept)
    launch(code(_shares, dy.dtype, len(kept)), *inputs, *dx, count=dy.size)
    return dx


def concat_forward(element: Concat, params: Params, x: Arrays, run: Run = Run()) -> tuple[Array, tuple[int, ...]]:
    """See ``Concat.forward``."""
    element._admit(params, x)
    axis = _axis(element, x[0])
    sizes = tuple(array.shape[axis] for array in x)
    y = arena.empty((*x[0].shape[:axis], sum(sizes), *x[0].shape[axis + 1 :]), x[0].dtype)
    count, whole = math.prod(y.shape[:axis]), math.prod(y.shape[axis:])
    for array, part in zip(x, _parts(y, sizes, axis), strict=True):
        length = math.prod(array.shape[axis:])
        _copy(np.ascontiguousarray(array), part, count, length, x_step=length, y_step=whole)
    return y, sizes


def concat_error(element: Concat, params: Params, kept: tuple[int, ...], dy: Array) -> Arrays:
    """See ``Concat.error``."""
    dy, axis = np.ascontiguousarray(dy), _axis(element, dy)
    count, whole = math.prod(dy.shape[:axis]), math.prod(dy.shape[axis:])
    parts = _parts(dy, kept, axis)
    dx = tuple(arena.empty(part.shape, dy.dtype) for part in parts)
    for part, own in zip(parts, dx, strict=True):
        length = math.prod(part.shape[axis:])
        _copy(part, own, count, length, x_step=whole, y_step=length)
    return dx


def _axis(element: Concat, array: Array) -> int:
    """The axis of an array that has the batch first."""
    return element.axis % (array.ndim - 1) + 1


def _parts(array: Array, sizes: Sequence[int], axis: int) -> list[Array]:
    """Views of these sizes, one after the other along the axis."""
    return np.split(array, list(itertools.accumulate(sizes))[:-1], axis)


def _copy(x: Array, y: Array, count: int, length: int, x_step: int, y_step: int) -> None:
    """Copy so many rows of this length, from so many numbers to the next."""
    rows.launch(code(_copied, x.dtype), x, y, x_step, y_step, rows=count, length=length)


LOWERINGS = {
    Sum: (sum_forward, sum_error, no_gradient),
    Product: (product_forward, product_error, no_gradient),
    Concat: (concat_forward, concat_error, no_gradient),
}
