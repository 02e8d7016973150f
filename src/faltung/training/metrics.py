"""How good a network is on data: its cost, and how many targets it names rightly."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from faltung.data.dataset import Data, batches
from faltung.elements.costs import BinaryCrossEntropy, Cost, CrossEntropy
from faltung.elements.element import Array, Params
from faltung.network import Network


@dataclass(frozen=True)
class Tally:
    """A sum of costs and what it is divided by, added up over batches in float64.

    With ``reduction="mean"`` a batch counts by the total weight of its targets, so that the batches' sizes do not
    matter; with "sum" it counts by its examples, so that what comes out is the cost of one example.

    >>> from faltung.elements.costs import SquaredError
    >>> tally = Tally().add(SquaredError(), 3.0, np.zeros((1, 2))).add(SquaredError(), 6.0, np.zeros((2, 2)))
    >>> tally, tally.mean
    (Tally(cost=15.0, weight=3.0), 5.0)
    """

    cost: float = 0.0
    weight: float = 0.0

    def add(self, cost: Cost, J: float, target: Any) -> "Tally":
        """The tally after one more batch, whose cost is J."""
        if cost.reduction == "sum":
            return Tally(self.cost + J, self.weight + len(target))
        total = cost.total(np.asarray(target))
        return Tally(self.cost + J * total, self.weight + total)

    @property
    def mean(self) -> float:
        """The cost so far; 0 where nothing counts."""
        return self.cost / self.weight if self.weight else 0.0


def right(cost: Cost, y: Array, target: Array) -> tuple[int, int] | None:
    """How many targets y names rightly, and of how many; None where the cost has no classes.

    ``CrossEntropy``: the class of the largest logit is the label (or the most probable class); ignored labels do not
    count. ``BinaryCrossEntropy``: a positive logit stands for a target above 1/2.

    >>> right(CrossEntropy(ignore=-1), np.array([[3.0, 1.0], [2.0, 5.0], [0.0, 9.0]]), np.array([0, 0, -1]))
    (1, 2)
    """
    match cost:
        case CrossEntropy():
            labels = target.argmax(-1) if target.ndim == y.ndim else target
            counted = np.ones(labels.shape, bool) if cost.ignore is None else labels != cost.ignore
            return int(np.sum((y.argmax(-1) == labels) & counted)), int(counted.sum())
        case BinaryCrossEntropy():
            return int(np.sum((y > 0) == (target > 0.5))), target.size
    return None


def evaluate(
    network: Network,
    params: Params,
    data: Data,
    *,
    cost: Cost,
    batch: int = 256,
    after: Callable[[], None] | None = None,
) -> dict[str, float]:
    """The cost over all examples, and the accuracy from 0 to 1 where the cost has classes.

    ``after`` is called after each batch.
    Raises: ShapeError, NetworkError, DataError where parameters, data and cost do not fit the network.

    >>> from faltung.data import Arrays
    >>> from faltung.elements import Affine
    >>> from faltung.network import Chain
    >>> network = Chain(dense=Affine(2)).on((2,))
    >>> params = {"dense.w": np.eye(2), "dense.b": np.zeros(2)}
    >>> data = Arrays(np.array([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]]), np.array([0, 1, 1]))
    >>> {name: round(value, 4) for name, value in evaluate(network, params, data, cost=CrossEntropy()).items()}
    {'cost': 3.0001, 'accuracy': 0.6667}
    """
    tally, hits, counted = Tally(), 0, 0
    for x, target in batches(data, batch):
        y, target = network.predict(params, x), np.asarray(target)
        tally = tally.add(cost, cost.forward(y, target)[0], target)
        named = right(cost, y, target)
        if named:
            hits, counted = hits + named[0], counted + named[1]
        if after:
            after()
    return {"cost": tally.mean} | ({"accuracy": hits / counted} if counted else {})
