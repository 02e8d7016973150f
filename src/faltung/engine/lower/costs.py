"""Costs: their terms and slopes on kernels; the shares, and the sum of the terms, by the lines of the law.

A cost is no element: ``LOWERINGS`` gives ``forward(cost, y, target, weight)`` and ``error(cost, kept)``. What is kept
is what the law keeps.

>>> J, kept = forward(CrossEntropy(), np.array([[0.0, np.log(3.0)], [1000.0, 0.0]]), np.array([0, 0]))
>>> round(J, 4), error(CrossEntropy(), kept).round(4).tolist()
(0.6931, [[-0.375, 0.375], [0.0, 0.0]])
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from faltung.elements.costs import BinaryCrossEntropy, Cost, CrossEntropy, SquaredError
from faltung.elements.element import Array
from faltung.engine import arena
from faltung.engine.channels import wide
from faltung.engine.elementwise import Visit, code, elementwise, launch, vectors
from faltung.engine.language import F64, Function, Type, Value, pointer
from faltung.engine.mathematics import exp, log, log1p, sigmoid
from faltung.engine.rows import each_row, largest, row_kernel, row_length, summed
from faltung.engine.rows import launch as launch_rows


def _squares(kind: Type) -> Function:
    """terms[row] = half the sum of the squares of y - target."""
    f = row_kernel("squares", y=pointer(kind), target=pointer(kind), terms=pointer(F64))
    y, target, terms, *_ = f.arguments
    length = row_length(f)
    visit = vectors(f, length, kind.lanes)
    with each_row(f) as row:

        def square(i: Value, mask: Value | None) -> Value:
            d = wide(_load(f, kind, y, row * length + i, mask) - _load(f, kind, target, row * length + i, mask))
            return d * d

        f.store(0.5 * summed(f, F64.times(kind.lanes), visit, square), terms, row)
    return f


def _differences(kind: Type) -> Function:
    """dy = (y - target) share[row]."""
    f = row_kernel("differences", **dict.fromkeys(["y", "target", "share", "dy"], pointer(kind)))
    y, target, shares, dy, *_ = f.arguments
    length = row_length(f)
    visit = vectors(f, length, kind.lanes)
    with each_row(f) as row:
        share = f.load(shares, row)

        def slope(i: Value, mask: Value | None) -> None:
            d = _load(f, kind, y, row * length + i, mask) - _load(f, kind, target, row * length + i, mask)
            f.store(d * share, dy, row * length + i, mask)

        visit(slope)
    return f


def _entropies(kind: Type, soft: bool) -> Function:
    """terms[row] = the sum of -wanted log(p) over the classes that are wanted."""
    f = row_kernel("entropies", **dict.fromkeys([*TARGET, "y", "terms"], pointer(kind)))
    *target, y, terms = f.arguments[:5]
    length = row_length(f)
    visit = vectors(f, length, kind.lanes)
    with each_row(f) as row:
        wanted = _wanted(f, kind, soft, target, row, length)
        logit, most, total = _exponentials(f, kind, visit, f.at(y, row * length))
        size = log(total)

        def term(i: Value, mask: Value | None) -> Value:
            w = wanted(i, mask)
            return f.select(w > 0, w * (size - (logit(i, mask) - most)), 0.0)  # 0 inf would be NaN

        f.store(summed(f, kind, visit, term), terms, row)
    return f


def _surpluses(kind: Type, soft: bool) -> Function:
    """dy = (p sum(wanted) - wanted) share[row]."""
    f = row_kernel("surpluses", **dict.fromkeys([*TARGET, "y", "share", "dy"], pointer(kind)))
    *target, y, shares, dy = f.arguments[:6]
    length = row_length(f)
    visit = vectors(f, length, kind.lanes)
    with each_row(f) as row:
        wanted = _wanted(f, kind, soft, target, row, length)
        logit, most, total = _exponentials(f, kind, visit, f.at(y, row * length))
        all_wanted, share = summed(f, kind, visit, wanted), f.load(shares, row)

        def slope(i: Value, mask: Value | None) -> None:
            p = exp(logit(i, mask) - most) / total
            f.store((all_wanted * p - wanted(i, mask)) * share, dy, row * length + i, mask)

        visit(slope)
    return f


TARGET = ("target", "weight", "classes")
"""Soft targets of all classes; or a label for each row, its weight, and the numbers of all classes, to find it by."""


def _wanted(
    f: Function, kind: Type, soft: bool, target: list[Value], row: Value, length: Value
) -> Callable[..., Value]:
    """What probability each class should have, times its weight."""
    if soft:
        return lambda i, mask: _load(f, kind, target[0], row * length + i, mask)
    label, weight, classes = f.load(target[0], row), f.load(target[1], row), target[2]
    return lambda i, mask: f.select(_load(f, kind, classes, i, mask).equal(label), weight, 0.0)


def _exponentials(f: Function, kind: Type, visit: Visit, y: Value) -> tuple[Callable[..., Value], Value, Value]:
    """The logits of the row y, the largest of them, and the sum of exp(logit - largest)."""

    def logit(i: Value, mask: Value | None) -> Value:
        return _load(f, kind, y, i, mask)

    most = largest(f, kind, visit, logit)
    return logit, most, summed(f, kind, visit, lambda i, mask: exp(logit(i, mask) - most))


def _load(f: Function, kind: Type, array: Value, i: Value, mask: Value | None) -> Value:
    return f.load(array, i, kind.lanes, mask)


def _binary_terms(kind: Type) -> Function:
    """max(y, 0) - y target + log(1 + exp(-abs(y)))."""

    def term(y: Value, target: Value) -> list[Value]:
        f = y.function
        return [(f.max(0.0, y) - y * target) + log1p(exp(-f.op("abs", y)))]

    return elementwise(kind, 2, term)


def _binary_slopes(kind: Type) -> Function:
    """dy = (sigmoid(y) - target) share."""
    return elementwise(kind, 3, lambda y, target, share: [(sigmoid(y) - target) * share])


def squared_terms(cost: SquaredError, y: Array, target: Array) -> Array:
    """See ``SquaredError.terms``."""
    terms = arena.empty((len(y),), np.float64)
    kernel = code(_squares, y.dtype)
    launch_rows(kernel, y, _like(target, y), terms, rows=len(y), length=math.prod(y.shape[1:]))
    return terms


def squared_slopes(cost: SquaredError, y: Array, target: Array, share: Array) -> Array:
    """The slopes, times the share of the example."""
    dy = arena.empty(y.shape, y.dtype)
    kernel = code(_differences, y.dtype)
    launch_rows(kernel, y, _like(target, y), _like(share, y), dy, rows=len(y), length=math.prod(y.shape[1:]))
    return dy


def entropy_terms(cost: CrossEntropy, y: Array, target: Array) -> Array:
    """See ``CrossEntropy.terms``."""
    terms = arena.empty(y.shape[:-1], y.dtype)
    soft, wanted = _entropy_target(cost, y, target)
    launch_rows(code(_entropies, y.dtype, soft), *wanted, y, terms, rows=terms.size, length=y.shape[-1])
    return terms


def entropy_slopes(cost: CrossEntropy, y: Array, target: Array, share: Array) -> Array:
    """The slopes, times the share of the position."""
    dy = arena.empty(y.shape, y.dtype)
    soft, wanted = _entropy_target(cost, y, target)
    kernel = code(_surpluses, y.dtype, soft)
    launch_rows(kernel, *wanted, y, _like(share, y), dy, rows=share.size, length=y.shape[-1])
    return dy


def _entropy_target(cost: CrossEntropy, y: Array, target: Array) -> tuple[bool, tuple[Array, ...]]:
    """Is the target soft? And what the kernels take for it (``TARGET``)."""
    classes = y.shape[-1]
    class_weights = np.ones(classes, y.dtype) if cost.class_weights is None else np.array(cost.class_weights, y.dtype)
    if target.dtype.kind == "f":
        wanted = _like(target, y) * class_weights
        return True, (wanted, wanted, wanted)
    labelled = np.ones(target.shape, bool) if cost.ignore is None else target != cost.ignore
    labels = np.where(labelled, target, 0)
    return False, (_like(labels, y), class_weights[labels] * labelled, np.arange(classes, dtype=y.dtype))


def binary_terms(cost: BinaryCrossEntropy, y: Array, target: Array) -> Array:
    """See ``BinaryCrossEntropy.terms``."""
    terms = arena.empty(y.shape, y.dtype)
    launch(code(_binary_terms, y.dtype), y, _like(target, y), terms, count=y.size)
    return terms


def binary_slopes(cost: BinaryCrossEntropy, y: Array, target: Array, share: Array) -> Array:
    """The slopes, times the share of the entry."""
    dy = arena.empty(y.shape, y.dtype)
    launch(code(_binary_slopes, y.dtype), y, _like(target, y), _like(share, y), dy, count=y.size)
    return dy


def _like(array: Array, y: Array) -> Array:
    """The array in the dtype of y, its numbers side by side."""
    return np.ascontiguousarray(array, y.dtype)


PARTS: dict[type[Cost], tuple[Callable[..., Array], Callable[..., Array]]] = {
    SquaredError: (squared_terms, squared_slopes),
    CrossEntropy: (entropy_terms, entropy_slopes),
    BinaryCrossEntropy: (binary_terms, binary_slopes),
}


def forward(cost: Cost, y: Array, target: Array, weight: Array | None = None) -> tuple[float, Any]:
    """See ``Cost.forward``."""
    cost.admit(y.shape, target)
    y = np.ascontiguousarray(y)
    share, total = cost._weights(target, weight), cost.total(target, weight)
    share = share / total if total else np.zeros_like(share)
    terms, _ = PARTS[type(cost)]
    return float(np.sum(share * terms(cost, y, target), dtype=np.float64)), (y, target, share)


def error(cost: Cost, kept: Any) -> Array:
    """See ``Cost.error``."""
    _, slopes = PARTS[type(cost)]
    return slopes(cost, *kept)


LOWERINGS = dict.fromkeys(PARTS, (forward, error))
