"""Dropout: in training a random part of the entries is zeroed."""

import math
from dataclasses import dataclass

import numpy as np

from faltung.elements.element import Array, Element, Params, Run, Shape
from faltung.elements.settings import check_number
from faltung.randomness import uniform


@dataclass(frozen=True, repr=False)
class Dropout(Element):
    """y = x m, where m = 0 with probability ``rate``, else 1 / (1 - rate); y = x out of training.

    So the expectation of y is x, and nothing is left to be scaled afterwards. Each entry has an m of its own, which is
    a function of the run's seed, step and node, the example's index and the entry's: the same bits for any blocking of
    the batch (``faltung.randomness``).

    Shapes: y has the shape of x, any.
    Derivatives: dx = dy m.
    Raises: SettingError where the rate is not in [0, 1).
    Source: Srivastava et al. 2014, in the scaled ("inverted") form.

    >>> drop = Dropout(0.5)
    >>> x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> y, kept = drop.forward({}, x, Run(training=True, seed=1))
    >>> y.tolist(), drop.error({}, kept, x[::-1]).tolist()
    ([[2.0, 4.0, 6.0], [8.0, 0.0, 0.0]], [[8.0, 10.0, 12.0], [2.0, 0.0, 0.0]])
    >>> drop.forward({}, x)[0].tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    """

    rate: float

    linear = True

    def __post_init__(self):
        check_number(self, "rate", self.rate, 0, 1, open_end=True)

    def output(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array | None]:
        if not run.training:
            return x, None
        examples = range(run.first, run.first + len(x))
        u = uniform(examples, math.prod(x.shape[1:]), seed=run.seed, step=run.step, node=run.node)
        m = np.where(u < self.rate, 0, 1 / (1 - self.rate)).astype(x.dtype).reshape(x.shape)
        return x * m, m

    def error(self, params: Params, kept: Array | None, dy: Array) -> Array:
        return dy if kept is None else dy * kept
