"""The gate, in one pass over both halves, and the offset of each example.

What the gate keeps is its input: both functions are taken anew on the way back, which costs less than reading them.

>>> y, kept = gate_forward(Gate(), {}, np.array([[0.5, 0.0]]))
>>> y.round(4).tolist(), gate_error(Gate(), {}, kept, np.array([[1.0]])).round(4).tolist()
([[0.2311]], [[0.3932, 0.1155]])
"""

import math

import numpy as np

from faltung.elements.element import Array, Params, Run
from faltung.elements.gate import Arrays, Gate, Offset
from faltung.engine.host import arena, workers
from faltung.engine.host.machine import host
from faltung.engine.kernels import rows
from faltung.engine.kernels.elementwise import COST, TASK, code, vectors
from faltung.engine.kernels.mathematics import sigmoid, tanh
from faltung.engine.loops.language import INDEX, Function, Type, Value, pointer
from faltung.engine.lower.pointwise import no_gradient
from faltung.engine.programs.ready import ready

BLOCK = 4
"""Vectors of channels that are summed in one pass over all positions."""


def _gated(kind: Type) -> Function:
    """y = tanh(a) sigmoid(b); a row of x is a row of a and one of b."""
    f = rows.row_kernel("gated", x=pointer(kind), y=pointer(kind))
    x, y, *_ = f.arguments
    half = rows.row_length(f)
    visit = vectors(f, half, kind.lanes)
    with rows.each_row(f) as row:
        a, target = f.at(x, row * (half * 2)), f.at(y, row * half)
        b = f.at(a, half)

        def vector(i: Value, mask: Value | None) -> None:
            f.store(tanh(f.load(a, i, kind.lanes, mask)) * sigmoid(f.load(b, i, kind.lanes, mask)), target, i, mask)

        visit(vector)
    return f


def _ungated(kind: Type) -> Function:
    """da = dy s (1 - t^2), db = dy t s (1 - s), with t = tanh(a) and s = sigmoid(b)."""
    f = rows.row_kernel("ungated", x=pointer(kind), dy=pointer(kind), dx=pointer(kind))
    x, dy, dx, *_ = f.arguments
    half = rows.row_length(f)
    visit = vectors(f, half, kind.lanes)
    with rows.each_row(f) as row:
        a, da, errors = f.at(x, row * (half * 2)), f.at(dx, row * (half * 2)), f.at(dy, row * half)
        b, db = f.at(a, half), f.at(da, half)

        def vector(i: Value, mask: Value | None) -> None:
            t, s = tanh(f.load(a, i, kind.lanes, mask)), sigmoid(f.load(b, i, kind.lanes, mask))
            share = f.load(errors, i, kind.lanes, mask) * s
            f.store(share * (1 - t * t), da, i, mask)
            f.store(share * t * (1 - s), db, i, mask)

        visit(vector)
    return f


@ready
def gate_forward(element: Gate, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
    """See ``Gate.forward``."""
    element.admit(params, x)
    x, half = np.ascontiguousarray(x), x.shape[-1] // 2
    y = arena.empty((*x.shape[:-1], half), x.dtype)
    rows.launch(code(_gated, x.dtype), x, y, rows=math.prod(x.shape[:-1]), length=half)
    return y, x


@ready
def gate_error(element: Gate, params: Params, kept: Array, dy: Array) -> Array:
    """See ``Gate.error``."""
    dx = arena.empty(kept.shape, dy.dtype)
    kernel, dy = code(_ungated, dy.dtype), np.ascontiguousarray(dy)
    rows.launch(kernel, kept, dy, dx, rows=math.prod(dy.shape[:-1]), length=dy.shape[-1])
    return dx


def _moved(kind: Type) -> Function:
    """Each row of y is one of x plus that of h for its example, which has so many ``positions``."""
    arrays = dict.fromkeys(("x", "h", "y"), pointer(kind))
    f = rows.row_kernel("moved", **arrays, positions=INDEX)
    x, h, y, positions, *_ = f.arguments
    length = rows.row_length(f)
    visit = vectors(f, length, kind.lanes)
    with rows.each_row(f) as row:
        source, own, target = f.at(x, row * length), f.at(h, row // positions * length), f.at(y, row * length)

        def vector(i: Value, mask: Value | None) -> None:
            f.store(f.load(source, i, kind.lanes, mask) + f.load(own, i, kind.lanes, mask), target, i, mask)

        visit(vector)
    return f


def _totals(kind: Type) -> Function:
    """dh = the sum of the rows of an example; a task is a block of channels of one example."""
    f = Function("totals", dy=pointer(kind), dh=pointer(kind), positions=INDEX, channels=INDEX, **TASK)
    dy, dh, positions, channels, _, first, last = f.arguments
    block = BLOCK * kind.lanes
    blocks = ((channels + (block - 1)) // block).named("blocks")
    with f.loop("task", last, first) as task:
        n, begin = task // blocks, (task % blocks * block).named("begin")
        source, target = f.at(dy, n * (positions * channels) + begin), f.at(dh, n * channels + begin)
        masks = [f.first_lanes(channels - begin - v * kind.lanes, kind.lanes) for v in range(BLOCK)]
        totals = [f.variable(f"total{v}", 0.0, kind) for v in range(BLOCK)]
        with f.loop("row", positions) as row:
            for v, total in enumerate(totals):
                total.set(total.value + f.load(source, row * channels + v * kind.lanes, kind.lanes, masks[v]))
        for v, total in enumerate(totals):
            f.store(total.value, target, v * kind.lanes, masks[v])
    return f


@ready
def offset_forward(element: Offset, params: Params, x: Arrays, run: Run = Run()) -> tuple[Array, None]:
    """See ``Offset.forward``."""
    series, h = map(np.ascontiguousarray, x)
    if len(series) != len(h) or not series.size:
        return element.forward(params, x, run)
    element.admit(params, *x)
    y = arena.empty(series.shape, series.dtype)
    positions, channels = math.prod(series.shape[1:-1]), series.shape[-1]
    rows.launch(code(_moved, y.dtype), series, h, y, positions, rows=len(h) * positions, length=channels)
    return y, None


@ready
def offset_error(element: Offset, params: Params, kept: None, dy: Array) -> Arrays:
    """See ``Offset.error``."""
    dy, channels = np.ascontiguousarray(dy), dy.shape[-1]
    dh = arena.empty((len(dy), channels), dy.dtype)
    kernel = code(_totals, dy.dtype)
    blocks = -(-channels // (BLOCK * host().lanes(dy.itemsize)))
    workers.launch(kernel, dy, dh, math.prod(dy.shape[1:-1]), channels, tasks=len(dy) * blocks, work=COST * dy.size)
    return dy, dh


LOWERINGS = {Gate: (gate_forward, gate_error, no_gradient), Offset: (offset_forward, offset_error, no_gradient)}
