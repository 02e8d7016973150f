"""Costs: J and the error signal at y, in one pass over y by one kernel.

A cost is no element: ``LOWERINGS`` gives ``forward(cost, y, target, weight)`` and ``error(cost, kept)``; what is kept
is dy. What J is divided by is known before the pass, so dy has its final scale. A task is a part of one example, or a
band of positions; it gives its part of J, and says whether there is a target that the definition would refuse. Then the
definition is asked, which says what is wrong.

>>> J, dy = forward(CrossEntropy(), np.array([[0.0, np.log(3.0)], [1000.0, 0.0]]), np.array([0, 0]))
>>> round(J, 4), error(CrossEntropy(), dy).round(4).tolist()
(0.6931, [[-0.375, 0.375], [0.0, 0.0]])
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.elements.costs import BinaryCrossEntropy, Cost, CrossEntropy, SquaredError
from faltung.elements.element import Array
from faltung.engine.host import arena, workers
from faltung.engine.host.recording import constant
from faltung.engine.kernels import rows
from faltung.engine.kernels.channels import narrow, wide
from faltung.engine.kernels.elementwise import BLOCK, COST, TASK, Visit, code, sweep, vectors
from faltung.engine.kernels.mathematics import decay, log, log1p, sigmoid
from faltung.engine.kernels.rows import each_band, largest, row_kernel, row_length, summed
from faltung.engine.loops.language import F64, I64, INDEX, Function, Type, Value, pointer

GIVEN = {"weights": pointer(F64), "step": INDEX, "factor": F64}
"""The weight of each term, with the step from one to the next, 0 if there is one for all; and 1 / total."""
SUMS = 2
"""Numbers that a task gives: the sum of weight times term, and a number above 0 if a target is wrong."""


# --------------------------------------------------------------------------------------------- terms of single entries


def entries(kind: Type, cost: type[Cost]) -> Function:
    """dy = slope share, for tasks of ``BLOCK`` entries of one example."""
    arrays = dict.fromkeys(("y", "target", "dy"), pointer(kind))
    f = Function("entries", **arrays, **GIVEN, sums=pointer(F64), length=INDEX, **TASK)
    y, target, dy, weights, step, factor, sums, length, _, first, last = f.arguments
    tasks = ((length + (BLOCK - 1)) // BLOCK).named("tasks_of_example")
    with f.loop("task", last, first) as task:
        n, begin = task // tasks, (task % tasks * BLOCK).named("begin")
        here = [f.at(array, n * length + begin) for array in (y, target, dy)]
        weight = f.load(weights, n * step)
        share = narrow(weight * factor, kind)
        total = f.variable("total", 0.0, F64.times(kind.lanes))
        wrong = f.variable("wrong", 0.0, kind)

        def vector(i: Value, mask: Value | None) -> None:
            y, t = (f.load(array, i, kind.lanes, mask) for array in here[:2])
            term, slope, right = ENTRIES[cost](y, t)
            f.store(slope * share, here[2], i, mask)
            total.set(total.value + (term if mask is None else f.select(mask, term, 0.0)))
            if right is not None:
                wrong.set(f.select(right, wrong.value, 1.0))

        sweep(f, f.min(length - begin, BLOCK), kind.lanes, vector)
        f.store(weight * f.sum_lanes(total.value), sums, SUMS * task)
        f.store(wide(f.max_lanes(wrong.value)), sums, SUMS * task + 1)
    return f


def _square(y: Value, target: Value) -> tuple[Value, Value, None]:
    d = y - target
    return 0.5 * wide(d) * wide(d), d, None


def _binary(y: Value, target: Value) -> tuple[Value, Value, Value]:
    f = y.function
    term = (f.max(0.0, y) - y * target) + log1p(decay(f.op("abs", y)))
    return wide(term), sigmoid(y) - target, (target >= 0) & (target <= 1)


ENTRIES: dict[type[Cost], Callable[[Value, Value], tuple[Value, Value, Value | None]]] = {
    SquaredError: _square,
    BinaryCrossEntropy: _binary,
}
"""The term of an entry in f64, its slope, and whether the target is right, if not all are."""


def _of_entries(cost: Cost, y: Array, target: Array, weight: Array | None, factor: float) -> tuple[Array, Array]:
    examples = len(y) if weight is None else weight.size
    length, dy = y.size // max(1, examples), arena.empty(y.shape, y.dtype)
    tasks = examples * -(-length // BLOCK)
    sums = arena.empty((tasks, SUMS), np.float64)
    workers.launch(
        code(entries, y.dtype, type(cost)), y, target, dy, *_given(weight), factor, sums, length,
        tasks=tasks, work=COST * y.size,
    )  # fmt: skip
    return sums, dy


# ------------------------------------------------------------------------------------------------------- cross-entropy


def entropies(kind: Type, soft: bool, ignoring: bool) -> Function:
    """dy = (p sum(wanted) - wanted) share, with p = exp(y - most) / sum(exp(y - most)), for a band of positions.

    ``wanted`` is the target times the class's weight: of all classes, or of the one that the label names.
    """
    arrays = {"y": pointer(kind), "target": pointer(kind if soft else I64), "class_weights": pointer(kind)}
    f = row_kernel("entropies", **arrays, ignore=I64, **GIVEN, sums=pointer(F64), dy=pointer(kind))
    y, target, class_weights, ignore, weights, step, factor, sums, dy = f.arguments[: 6 + len(GIVEN)]
    length = row_length(f)
    visit = vectors(f, length, kind.lanes)
    with each_band(f) as (task, begin, end):
        cost, wrong = f.variable("cost", 0.0, F64), f.variable("wrong", 0.0, F64)
        with f.loop("row", end, begin) as row:
            weight = f.load(weights, row * step)
            share = narrow(weight * factor, kind)
            y_row, dy_row = f.at(y, row * length), f.at(dy, row * length)
            most, total = exponentials(f, kind, visit, y_row, dy_row)
            size = log(total)
            if soft:
                targets = f.at(target, row * length)
                arrays = y_row, targets, class_weights, dy_row
                term, right = _soft(f, kind, visit, arrays, (most, total, size), share)
            else:
                label, wanted, right = _label(f, kind, ignoring, (target, class_weights, ignore), row, length)
                _scale(f, kind, visit, dy_row, wanted * share / total)
                f.store(f.load(dy_row, label) - wanted * share, dy_row, label)
                term = f.select(wanted > 0, wanted * (size - (f.load(y_row, label) - most)), 0.0)
            cost.set(f.fma(weight, wide(term), cost.value))
            wrong.set(f.select(right, wrong.value, 1.0))
        f.store(cost.value, sums, SUMS * task)
        f.store(wrong.value, sums, SUMS * task + 1)
    return f


def exponentials(f: Function, kind: Type, visit: Visit, x: Value, y: Value) -> tuple[Value, Value]:
    """y = exp(x - most) along a row, where most is the largest x; and most, and the sum of y."""
    most = largest(f, kind, visit, lambda i, mask: f.load(x, i, kind.lanes, mask))

    def power(i: Value, mask: Value | None) -> Value:
        e = decay(most - f.load(x, i, kind.lanes, mask))
        f.store(e, y, i, mask)
        return e

    return most, summed(f, kind, visit, power)


def _scale(f: Function, kind: Type, visit: Visit, y: Value, factor: Value) -> None:
    visit(lambda i, mask: f.store(f.load(y, i, kind.lanes, mask) * factor, y, i, mask))


def _soft(
    f: Function, kind: Type, visit: Visit, arrays: tuple[Value, ...], exps: tuple[Value, Value, Value], share: Value
) -> tuple[Value, Value]:
    """The term of a position, and whether its targets are probabilities; dy holds its exponentials and gets slopes."""
    (y, targets, class_weights, dy), (most, total, size) = arrays, exps

    def target(i: Value, mask: Value | None) -> Value:
        return f.load(targets, i, kind.lanes, mask)

    def wanted(i: Value, mask: Value | None) -> Value:
        return target(i, mask) * f.load(class_weights, i, kind.lanes, mask)

    def term(i: Value, mask: Value | None) -> Value:
        w = wanted(i, mask)
        return f.select(w > 0, w * (size - (f.load(y, i, kind.lanes, mask) - most)), 0.0)  # 0 inf would be NaN

    def slope(i: Value, mask: Value | None) -> None:
        f.store(f.load(dy, i, kind.lanes, mask) * scale - wanted(i, mask) * share, dy, i, mask)

    def probability(i: Value, mask: Value | None) -> Value:
        t = target(i, mask)
        return f.select(t >= 0, t, math.nan)

    one = summed(f, kind, visit, probability)
    scale = summed(f, kind, visit, wanted) * share / total
    visit(slope)
    return summed(f, kind, visit, term), (one > 0.999) & (one < 1.001)


def _label(
    f: Function, kind: Type, ignoring: bool, arrays: tuple[Value, ...], row: Value, classes: Value
) -> tuple[Value, Value, Value]:
    """The label of a position, or 0 where it does not count; the weight of its class, or 0; and whether it is right."""
    target, class_weights, ignore = arrays
    label = f.convert("bits", f.load(target, row), INDEX)
    counts = right = (label >= 0) & (label < classes)
    if ignoring:
        ignored = label.equal(f.convert("bits", ignore, INDEX))
        right, counts = right | ignored, right & ignored.equal(False)
    label = f.select(counts, label, 0)
    return label, f.select(counts, f.load(class_weights, label), f.constant(0.0, kind.times(1))), right


def counted(kind: Type, ignoring: bool) -> Function:
    """The sum of weight times class weight over a band of labels."""
    f = row_kernel("counted", target=pointer(I64), class_weights=pointer(kind), ignore=I64, **GIVEN, sums=pointer(F64))
    labels, (weights, step, _, sums) = f.arguments[:3], f.arguments[3:7]
    with each_band(f) as (task, begin, end):
        total, wrong = f.variable("total", 0.0, F64), f.variable("wrong", 0.0, F64)
        with f.loop("row", end, begin) as row:
            _, wanted, right = _label(f, kind, ignoring, labels, row, row_length(f))
            total.set(f.fma(f.load(weights, row * step), wanted, total.value))
            wrong.set(f.select(right, wrong.value, 1.0))
        f.store(total.value, sums, SUMS * task)
        f.store(wrong.value, sums, SUMS * task + 1)
    return f


def _of_classes(
    cost: CrossEntropy, y: Array, target: Array, weight: Array | None, factor: float
) -> tuple[Array, Array]:
    dy, classes = arena.empty(y.shape, y.dtype), y.shape[-1]
    band = max(1, BLOCK // classes)
    sums = arena.empty((-(-y.size // classes // band), SUMS), np.float64)
    rows.launch(
        code(entropies, y.dtype, target.dtype.kind == "f", cost.ignore is not None), y, target,
        _class_weights(cost, classes, y.dtype), cost.ignore or 0, *_given(weight), factor, sums, dy,
        rows=y.size // classes, length=classes, band=band,
    )  # fmt: skip
    return sums, dy


def _counted(cost: CrossEntropy, y: Array, labels: Array, weight: Array | None) -> float:
    """What all labels count."""
    sums = np.empty((-(-labels.size // BLOCK), SUMS))
    class_weights = _class_weights(cost, y.shape[-1], sums.dtype)
    rows.launch(
        code(counted, sums.dtype, cost.ignore is not None), labels, class_weights, cost.ignore or 0,
        *_given(weight), 1.0, sums, rows=labels.size, length=y.shape[-1], band=BLOCK,
    )  # fmt: skip
    return value(cost, y, labels, sums, 1.0)


@lru_cache(maxsize=64)
def _class_weights(cost: CrossEntropy, classes: int, dtype: Any) -> Array:
    return constant(np.ones(classes, dtype) if cost.class_weights is None else np.array(cost.class_weights, dtype))


# ----------------------------------------------------------------------------------------------------------- all costs


def forward(cost: Cost, y: Array, target: Array, weight: Array | None = None) -> tuple[float, Array]:
    """J, as ``Cost.forward`` gives it, and dy."""
    target, weight, factor = admit(cost, y, target, weight)
    sums, dy = slopes(cost, np.ascontiguousarray(y), target, weight, factor)
    return value(cost, y, target, sums, factor), dy


def error(cost: Cost, kept: Array) -> Array:
    """dy."""
    return kept


def admit(cost: Cost, y: Array, target: Array, weight: Array | None) -> tuple[Array, Array | None, float]:
    """Target and weight as the kernels take them, and 1 / total; of y only shape and dtype count."""
    if not _fits(cost, y, target):
        cost.admit(y.shape, target)
    if weight is not None:
        spread = cost.weights(target, weight)
        weight = np.ascontiguousarray(spread if isinstance(cost, CrossEntropy) else weight, np.float64).ravel()
    target = np.ascontiguousarray(target, np.int64 if target.ndim < y.ndim else y.dtype)
    total = _total(cost, y, target, weight)
    return target, weight, 1 / total if total else 0.0


def slopes(cost: Any, y: Array, target: Array, weight: Array | None, factor: float) -> tuple[Array, Array]:
    """What the tasks give (``SUMS``), and dy.

    Args:
        cost: the cost.
        y: its numbers side by side.
        target: of the dtype of y, or int64.
        weight: of each term, or of each row of terms that belong together, in float64 and flat; None for 1.
        factor: 1 / total.
    """
    return (_of_classes if isinstance(cost, CrossEntropy) else _of_entries)(cost, y, target, weight, factor)


def value(cost: Cost, y: Array, target: Array, sums: Array, factor: float) -> float:
    """J from what all tasks give; where a target may be wrong, the definition decides."""
    total, wrong = sums.sum(0).tolist()
    if wrong > 0:
        cost.admit(y.shape, target)
    return total * factor


def _fits(cost: Cost, y: Array, target: Array) -> bool:
    """Does the target fit y, and need not be rounded? What its entries are, the kernel sees."""
    if isinstance(cost, CrossEntropy):
        if cost.class_weights is not None and len(cost.class_weights) != y.shape[-1]:
            return False
        if target.dtype.kind in "iu":
            return target.shape == y.shape[:-1]
    return target.shape == y.shape and target.dtype == y.dtype


def _total(cost: Cost, y: Array, target: Array, weight: Array | None) -> float:
    """See ``Cost.total``; without a look at the target where each term counts 1."""
    if cost.reduction == "sum":
        return 1.0
    terms = len(y) if isinstance(cost, SquaredError) else y.size
    if isinstance(cost, CrossEntropy):
        if target.dtype.kind != "f" and (cost.class_weights is not None or cost.ignore is not None):
            return _counted(cost, y, target, weight)
        if cost.class_weights is not None:
            each = cost.counted(target).ravel()
            return float(each.sum() if weight is None else each @ weight)
        terms = y.size // y.shape[-1]
    return float(terms if weight is None else weight.sum() * (terms // max(1, weight.size)))


def _given(weight: Array | None) -> tuple[Array, int]:
    """The values of ``GIVEN``, but for the last."""
    return (_ONE, 0) if weight is None else (weight, 1)


_ONE = constant(np.ones(1))


LOWERINGS = dict.fromkeys((SquaredError, CrossEntropy, BinaryCrossEntropy), (forward, error))
