"""Costs: one number J for the output y of a network and what it should be, the target; and the error signal at y.

    J = sum over terms i of share[i] term[i]        dy = share[i] (d term[i] / dy)        share[i] = weight[i] / total

A term is what one example, position or entry costs; each cost states it and its derivative. ``reduction="mean"``
divides by the total weight of the terms that count, "sum" by 1, as in the memo. J is summed in float64, dy has y's
dtype. Where nothing counts, J and dy are 0. Source: memo p. 4.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from faltung.elements.element import Array, Element
from faltung.elements.entries import refuse_entries
from faltung.elements.settings import check_choice, check_number, refuse
from faltung.elements.softmax import log_softmax, softmax
from faltung.errors import DataError, ShapeError
from faltung.special import sigmoid


@dataclass(frozen=True, repr=False)
class Cost(ABC):
    """The base of all costs: ``terms`` and their ``slopes``, weighted and summed.

    >>> y, target = np.array([[1.0], [3.0]]), np.zeros((2, 1))
    >>> [SquaredError(reduction=how).forward(y, target)[0] for how in ("mean", "sum")]
    [2.5, 5.0]
    >>> SquaredError().forward(y, target, weight=np.array([1.0, 0.0]))[0]  # the second example does not count
    0.5
    """

    reduction: str = field(default="mean", kw_only=True)

    def __post_init__(self):
        check_choice(self, "reduction", self.reduction, ("mean", "sum"))

    def forward(self, y: Array, target: Array, weight: Array | None = None) -> tuple[float, Any]:
        """J, and what ``error`` will need.

        Shapes: y (n, *axes, channels); ``weight`` (n,), one an example, or (n, *axes), one a position, if there are
        terms for each position.
        Raises: ShapeError, DataError where target or weight do not fit.
        """
        self.admit(y.shape, target)
        share = self.weights(target, weight)
        total = self.total(target, weight)
        share = share / total if total else np.zeros_like(share)
        terms = self.terms(y, target)
        return float(np.sum(share * terms, dtype=np.float64)), (y, target, share)

    def error(self, kept: Any) -> Array:
        """The error signal dy = dJ/dy, the reduction's factor included."""
        y, target, share = kept
        return self.slopes(y, target) * _spread(share, y.ndim).astype(y.dtype)

    def total(self, target: Array, weight: Array | None = None) -> float:
        """What J is divided by; it does not depend on y, so it is known before the forward pass."""
        if self.reduction == "sum":
            return 1.0
        return float(np.sum(self.counted(target) * self.weights(target, weight), dtype=np.float64))

    def weights(self, target: Array, weight: Array | None) -> Array:
        """The weight of each term, in float64; 1 where none is given.

        Raises: ShapeError, DataError where a weight does not fit.
        """
        shape = self.counted(target).shape
        if weight is None:
            return np.ones(shape)
        weight = np.asarray(weight, np.float64)
        if weight.ndim == 0 or weight.shape != shape[: weight.ndim]:
            raise ShapeError(
                f"got weights of shape {weight.shape}, expected {shape} or its first axes",
                element=self,
                way_out="give one weight an example",
            )
        wrong = ~(np.isfinite(weight) & (weight >= 0))
        refuse_entries(self, "weight", weight, wrong, "a finite number from 0", "use 0 to leave a target out")
        return np.broadcast_to(_spread(weight, len(shape)), shape)

    @abstractmethod
    def admit(self, shape: tuple[int, ...], target: Array) -> None:
        """Refuse a target that does not fit an output y of this shape, batch included."""

    @abstractmethod
    def counted(self, target: Array) -> Array:
        """What each term counts in the divisor of a mean, before ``weight``: 1, unless the cost says otherwise."""

    @abstractmethod
    def terms(self, y: Array, target: Array) -> Array:
        """The terms, each still to be weighted."""

    @abstractmethod
    def slopes(self, y: Array, target: Array) -> Array:
        """The derivative of its term by each entry of y."""

    __repr__ = Element.__repr__


@dataclass(frozen=True, repr=False)
class SquaredError(Cost):
    """J = sum over n of 1/2 ||y[n] - target[n]||^2, divided by the number (the total weight) of examples if "mean".

    Shapes: y, target (n, ...), weight (n,).
    Derivatives: dy = y - target, times the example's share.
    Raises: ShapeError where y and target differ in shape.
    Source: memo p. 4, where J is the "sum".

    >>> cost = SquaredError()
    >>> J, kept = cost.forward(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 0.0], [3.0, 0.0]]))
    >>> J, cost.error(kept).tolist()
    (5.25, [[0.5, 1.0], [0.0, 2.0]])
    """

    def admit(self, shape: tuple[int, ...], target: Array) -> None:
        _check_same(self, shape, target)

    def counted(self, target: Array) -> Array:
        return np.ones(len(target))

    def terms(self, y: Array, target: Array) -> Array:
        return np.square(self.slopes(y, target), dtype=np.float64).sum(tuple(range(1, y.ndim))) / 2

    def slopes(self, y: Array, target: Array) -> Array:
        return y - target.astype(y.dtype)


@dataclass(frozen=True, repr=False)
class CrossEntropy(Cost):
    """J = sum over n, t of -log p[n, t, target[n, t]] with p = softmax(y), at each position; stable for large |y|.

    y holds logits: no ``Softmax`` before it. The target is the label of each position, or what probability each class
    should have (soft targets): then the term is -sum over c of target[c] log p[c]. ``class_weights`` weigh the terms by
    their class; positions whose label is ``ignore`` cost nothing. "mean" divides by the total weight of the positions
    that count.

    Shapes: y (n, *axes, classes), target (n, *axes), integers from 0 to classes - 1, or (n, *axes, classes), floats;
    weight (n,) or (n, *axes).
    Derivatives: dy = p - onehot(target), times the position's share.
    Raises: ShapeError, DataError where labels or soft targets do not fit, with the first offender's position.
    Source: UFLDL tutorial, softmax regression.

    >>> cost = CrossEntropy()
    >>> J, kept = cost.forward(np.array([[0.0, np.log(3.0)], [1000.0, 0.0]]), np.array([0, 0]))
    >>> round(J, 4), cost.error(kept).round(4).tolist()
    (0.6931, [[-0.375, 0.375], [0.0, 0.0]])
    """

    class_weights: tuple[float, ...] | None = field(default=None, kw_only=True)
    ignore: int | None = field(default=None, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if self.class_weights is not None:
            if not isinstance(self.class_weights, tuple) or not self.class_weights:
                refuse(self, "class_weights", self.class_weights, "a tuple of numbers, one a class")
            for weight in self.class_weights:
                check_number(self, "class_weights", weight, 0)
        if self.ignore is not None and type(self.ignore) is not int:
            refuse(self, "ignore", self.ignore, "a whole number, the label that does not count")

    def admit(self, shape: tuple[int, ...], target: Array) -> None:
        classes = shape[-1]
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise ShapeError(
                f"got {len(self.class_weights)} class_weights for {classes} classes, expected one a class",
                element=self,
                way_out="give one weight a class",
            )
        if _soft(target) and target.shape == shape:
            wrong = ~(target >= 0) | (abs(target.sum(-1, keepdims=True) - 1) > 1e-3)
            expected = "probabilities from 0 whose sum over the classes is 1"
            refuse_entries(self, "soft target", target, wrong, expected, "divide them by their sum")
            return
        if target.dtype.kind not in "iu":
            raise DataError(
                f"got a target of {target.dtype} {target.shape}, expected integers {shape[:-1]}, or floats {shape}",
                element=self,
                way_out="convert labels to integers",
            )
        if target.shape != shape[:-1]:
            raise ShapeError(
                f"got labels of shape {target.shape}, expected {shape[:-1]}, one a position of y",
                element=self,
                way_out="give labels, not one-hot vectors, which would have to be floats",
            )
        wrong = self._labelled(target) & ((target < 0) | (target >= classes))
        way_out = "count the classes from 0, or set ignore to a label without meaning"
        refuse_entries(self, "label", target, wrong, f"0 to {classes - 1}", way_out)

    def counted(self, target: Array) -> Array:
        class_weights = None if self.class_weights is None else np.array(self.class_weights, np.float64)
        if _soft(target):
            return np.ones(target.shape[:-1]) if class_weights is None else target @ class_weights
        labelled = self._labelled(target)
        return labelled * (1.0 if class_weights is None else class_weights[np.where(labelled, target, 0)])

    def terms(self, y: Array, target: Array) -> Array:
        wanted = self._wanted(target, y.shape[-1], y.dtype)
        costs = np.multiply(wanted, -log_softmax(y), out=np.zeros_like(y), where=wanted > 0)  # 0 * inf would be nan
        return costs.sum(-1)

    def slopes(self, y: Array, target: Array) -> Array:
        wanted = self._wanted(target, y.shape[-1], y.dtype)
        return wanted.sum(-1, keepdims=True) * softmax(y) - wanted

    def _wanted(self, target: Array, classes: int, dtype: Any) -> Array:
        """The probability that each class should have, times the weight of the class; 0 where the label is ignored."""
        class_weights = np.ones(classes, dtype) if self.class_weights is None else np.array(self.class_weights, dtype)
        wanted = target.astype(dtype) if _soft(target) else target[..., None] == np.arange(classes)
        counted = True if _soft(target) else self._labelled(target)[..., None]
        return wanted * counted * class_weights

    def _labelled(self, labels: Array) -> Array:
        """Where a label stands that is not ignored."""
        return np.ones(labels.shape, bool) if self.ignore is None else labels != self.ignore


@dataclass(frozen=True, repr=False)
class BinaryCrossEntropy(Cost):
    """J = sum over all entries of -target log p - (1 - target) log(1 - p) with p = sigmoid(y); stable for large |y|.

    y holds logits: no ``Sigmoid`` before it. The term is computed as max(y, 0) - y target + log(1 + exp(-|y|)). "mean"
    divides by the number (the total weight) of all entries of y, channels included.

    Shapes: y, target (n, ...), targets from 0 to 1, weight (n,), or with more of the axes of y.
    Derivatives: dy = p - target, times the entry's share.
    Raises: ShapeError where y and target differ in shape, DataError where a target is not from 0 to 1.
    Source: UFLDL tutorial, logistic regression.

    >>> cost = BinaryCrossEntropy()
    >>> J, kept = cost.forward(np.array([[0.0, 1000.0]]), np.array([[1.0, 1.0]]))
    >>> round(J, 4), cost.error(kept).tolist()
    (0.3466, [[-0.25, 0.0]])
    """

    def admit(self, shape: tuple[int, ...], target: Array) -> None:
        _check_same(self, shape, target)
        wrong = ~((target >= 0) & (target <= 1))
        refuse_entries(self, "target", target, wrong, "0 to 1", "scale the targets")

    def counted(self, target: Array) -> Array:
        return np.ones(target.shape)

    def terms(self, y: Array, target: Array) -> Array:
        return (np.maximum(y, 0) - y * target.astype(y.dtype)) + np.log1p(np.exp(-abs(y)))

    def slopes(self, y: Array, target: Array) -> Array:
        return sigmoid(y) - target.astype(y.dtype)


def _check_same(cost: Cost, shape: tuple[int, ...], target: Array) -> None:
    if target.shape != shape:
        raise ShapeError(
            f"got a target of shape {target.shape}, expected {shape}, that of y",
            element=cost,
            way_out="reshape it: nothing is repeated to fit",
        )


def _soft(target: Array) -> bool:
    """Tell soft targets from labels."""
    return target.dtype.kind == "f"


def _spread(array: Array, rank: int) -> Array:
    """The array with axes of size 1 after its own, so that it broadcasts over them."""
    return array.reshape(array.shape + (1,) * (rank - array.ndim))
