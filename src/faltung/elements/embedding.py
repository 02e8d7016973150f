"""Embedding: a learned vector for each index."""

from dataclasses import dataclass

import numpy as np

from faltung.elements.element import Array, Element, Parameter, Params, Run, Shape
from faltung.elements.entries import refuse_entries
from faltung.elements.settings import check_count
from faltung.errors import DataError


@dataclass(frozen=True, repr=False)
class Embedding(Element):
    """y[n, t, c] = w[x[n, t], c]

    Shapes: x (n, *axes), integers from 0 to count - 1, w (count, channels), y (n, *axes, channels). The shape of its
    input has no channels: ``Embedding(256, 32).output((None,))`` is ``(None, 32)``.
    Derivatives: dw[i, c] = the sum of dy[n, t, c] over all n, t with x[n, t] = i; indices have no error signal.
    Raises: DataError where x holds anything else, with the first offender's position.
    Source: the affine element without bias (memo p. 3), for inputs that are all 0 but for a 1 at place x.

    >>> letters = Embedding(3, 2)
    >>> p = {"w": np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])}
    >>> y, kept = letters.forward(p, np.array([[2, 0, 2]]))
    >>> y.tolist()
    [[[4.0, 5.0], [0.0, 1.0], [4.0, 5.0]]]
    >>> letters.gradient(p, kept, np.array([[[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]]]))["w"].tolist()
    [[3.0, 4.0], [0.0, 0.0], [11.0, 22.0]]
    """

    count: int
    channels: int

    takes_indices = True
    linear = True  # in the vectors that the indices stand for, and in w

    def __post_init__(self):
        check_count(self, count=self.count, channels=self.channels)

    def output(self, *shapes: Shape) -> Shape:
        return (*shapes[0], self.channels)

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        return {"w": Parameter((self.count, self.channels), "normal")}

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        self.admit(params, x)
        self.admit_indices(x)
        return params["w"][x], x

    def admit_indices(self, x: Array) -> None:
        """Refuse indices that no vector has."""
        if x.dtype.kind not in "iu":
            raise DataError(f"got indices of {x.dtype}, expected integers", element=self, way_out="convert them")
        if x.size and (x.min() < 0 or x.max() >= self.count):
            wrong = (x < 0) | (x >= self.count)
            refuse_entries(self, "index", x, wrong, f"0 to {self.count - 1}", "count from 0, or make count larger")

    def error(self, params: Params, kept: Array, dy: Array) -> None:
        return None

    def gradient(self, params: Params, kept: Array, dy: Array) -> dict[str, Array]:
        dw = np.zeros((self.count, self.channels), dy.dtype)
        np.add.at(dw, kept, dy)
        return {"w": dw}
