"""Sum and product in one pass over all inputs, bit for bit as the law has them; concatenation by copying rows.

>>> y, kept = product_forward(Product(), {}, (np.array([[0.0, 2.0]]), np.array([[10.0, 20.0]])))
>>> y.tolist(), [dx.tolist() for dx in product_error(Product(), {}, kept, np.array([[3.0, 4.0]]))]
([[0.0, 40.0]], [[[30.0, 80.0]], [[0.0, 8.0]]])
"""

import math
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce

import numpy as np

from faltung.elements.element import Array, Params, Run
from faltung.elements.joins import Arrays, Concat, Product, Sum
from faltung.engine.host import arena
from faltung.engine.host.recording import constant
from faltung.engine.kernels import rows
from faltung.engine.kernels.elementwise import code, elementwise, launch, streamed, vectors
from faltung.engine.loops.language import INDEX, Function, Type, Value, pointer
from faltung.engine.lower.pointwise import no_gradient
from faltung.engine.programs.ready import ready

MOST = 8
"""Inputs that one pass reads side by side."""


def joined(kind: Type, combine: Callable[[Value, Value], Value], inputs: int, stream: bool) -> Function:
    """y = x0 combined with x1, then with x2, ..."""
    return elementwise(kind, inputs, lambda *x: [reduce(combine, x)], stream=stream)


def _shares(kind: Type, inputs: int, stream: bool) -> Function:
    """dx_i = dy times all x but x_i."""

    def body(dy: Value, *x: Value) -> Sequence[Value]:
        return [reduce(operator.mul, x[:i] + x[i + 1 :], dy) for i in range(inputs)]

    return elementwise(kind, 1 + inputs, body, outputs=inputs, stream=stream)


def _gathered(kind: Type, parts: int, back: bool, stream: bool) -> Function:
    """Each row of y is a row of x0, then one of x1, ...; or ``back``, from y to the others."""
    names = [f"x{n}" for n in range(parts)]
    f = rows.row_kernel("gathered", **dict.fromkeys([*names, "y"], pointer(kind)), lengths=pointer(INDEX))
    *x, y, lengths = f.arguments[: parts + 2]
    sizes = [f.load(lengths, n, name=f"length{n}") for n in range(parts)]
    visits = [vectors(f, size, kind.lanes) for size in sizes]
    with rows.each_row(f) as row:
        whole = f.at(y, row * rows.row_length(f))
        for part, size, visit in zip(x, sizes, visits, strict=True):
            own = f.at(part, row * size)
            source, target = (whole, own) if back else (own, whole)

            def move(i: Value, mask: Value | None, source: Value = source, target: Value = target) -> None:
                f.store(f.load(source, i, kind.lanes, mask), target, i, mask, streamed=stream)

            visit(move)
            whole = f.at(whole, size)
    return f


def _join(combine: Callable[[Value, Value], Value], x: Arrays) -> Array:
    """The inputs combined from left to right."""
    y, rest = np.ascontiguousarray(x[0]), list(map(np.ascontiguousarray, x[1:]))
    while rest:
        together, rest = [y, *rest[: MOST - 1]], rest[MOST - 1 :]
        y = arena.empty(y.shape, y.dtype)
        kernel = code(joined, y.dtype, combine, len(together), streamed(*together, y))
        launch(kernel, *together, y, count=y.size)
    return y


@ready
def sum_forward(element: Sum, params: Params, x: Arrays, run: Run = Run()) -> tuple[Array, int]:
    """See ``Sum.forward``."""
    element.admit_all(params, x)
    return _join(operator.add, x), len(x)


def sum_error(element: Sum, params: Params, kept: int, dy: Array) -> Arrays:
    """See ``Sum.error``."""
    return (dy,) * kept


@ready
def product_forward(element: Product, params: Params, x: Arrays, run: Run = Run()) -> tuple[Array, Arrays]:
    """See ``Product.forward``."""
    element.admit_all(params, x)
    return _join(operator.mul, x), tuple(x)


@ready
def product_error(element: Product, params: Params, kept: Arrays, dy: Array) -> Arrays:
    """See ``Product.error``."""
    if len(kept) >= MOST:
        return element.error(params, kept, dy)
    inputs = [np.ascontiguousarray(array) for array in (dy, *kept)]
    dx = tuple(arena.empty(dy.shape, dy.dtype) for _ in kept)
    launch(code(_shares, dy.dtype, len(kept), streamed(*inputs, *dx)), *inputs, *dx, count=dy.size)
    return dx


@ready
def concat_forward(element: Concat, params: Params, x: Arrays, run: Run = Run()) -> tuple[Array, tuple[int, ...]]:
    """See ``Concat.forward``."""
    element.admit_all(params, x)
    axis = _axis(element, x[0])
    sizes = tuple(array.shape[axis] for array in x)
    y = arena.empty((*x[0].shape[:axis], sum(sizes), *x[0].shape[axis + 1 :]), x[0].dtype)
    _gather(tuple(map(np.ascontiguousarray, x)), y, axis, back=False)
    return y, sizes


@ready
def concat_error(element: Concat, params: Params, kept: tuple[int, ...], dy: Array) -> Arrays:
    """See ``Concat.error``."""
    dy, axis = np.ascontiguousarray(dy), _axis(element, dy)
    dx = tuple(arena.empty((*dy.shape[:axis], size, *dy.shape[axis + 1 :]), dy.dtype) for size in kept)
    _gather(dx, dy, axis, back=True)
    return dx


def _axis(element: Concat, array: Array) -> int:
    """The axis of an array that has the batch first."""
    return element.axis % (array.ndim - 1) + 1


def _gather(parts: Arrays, y: Array, axis: int, back: bool) -> None:
    lengths = tuple([math.prod(part.shape[axis:]) for part in parts])
    lines = all(length * y.itemsize % arena.LINE == 0 for length in lengths)  # then all rows begin cache lines
    stream = lines and streamed(*parts, y)
    kernel, positions = code(_gathered, y.dtype, len(parts), back, stream), math.prod(y.shape[:axis])
    rows.launch(kernel, *parts, y, _numbers(lengths), rows=positions, length=sum(lengths))


@lru_cache(maxsize=256)
def _numbers(numbers: tuple[int, ...]) -> Array:
    return constant(np.array(numbers))


LOWERINGS = {
    Sum: (sum_forward, sum_error, no_gradient),
    Product: (product_forward, product_error, no_gradient),
    Concat: (concat_forward, concat_error, no_gradient),
}
