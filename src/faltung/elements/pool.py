"""Pooling by any differentiable function, written as a formula or in Python."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from faltung.elements.element import Array
from faltung.elements.pointwise import derived
from faltung.elements.pooling import Pooling
from faltung.elements.settings import refuse
from faltung.errors import ShapeError
from faltung.formula import Formula, Kind

Aggregate = Callable[[Array], Any]


@dataclass(frozen=True, repr=False)
class Pool(Pooling):
    """y_n = g(x of window n), dx += dy_n dg(x of window n), for any differentiable g

    ``g`` is an aggregate ``Formula``: in it x is an entry of the window, m the number of true entries, and ``sum``,
    ``mean``, ``max`` and ``min`` reduce over them, as in "log(mean(exp(x)))". ``derivative`` is then found by SymPy
    when the element is made. A model file keeps its text, which is then given, and SymPy is not needed.

    Or both are functions in Python of all windows at once: g from (..., m) to (...), its derivative from (..., m) to
    (..., m). Such an element sees whole windows only, and cannot be written into a model file.

    Shapes: x (n, *axes, channels), y (n, *positions, channels). Settings: see ``faltung.elements.pooling``.
    Raises: FormulaError where a text is no formula; MissingExtraError where SymPy is needed and not installed;
    SettingError where a function in Python comes without derivative or with padding; ShapeError where a window spans
    more than the padded input or holds nothing but padding, or a function returns another shape.
    Source: memo p. 11-12, "any other differentiable functions".

    >>> pool = Pool(2, "sqrt(mean(x**2))")
    >>> y, kept = pool.forward({}, np.array([1.0, -7.0, 3.0, 3.0]).reshape(1, 4, 1))
    >>> y.ravel().tolist()
    [5.0, 3.0]
    >>> pool.error({}, kept, np.array([10.0, -2.0]).reshape(1, 2, 1)).ravel().tolist()
    [1.0, -7.0, -1.0, -1.0]
    >>> spread = Pool(2, lambda x: x[..., 1] - x[..., 0], lambda x: np.broadcast_to([-1.0, 1.0], x.shape))
    >>> spread.forward({}, kept)[0].ravel().tolist()
    [-8.0, 0.0]
    """

    g: str | Aggregate
    derivative: str | Aggregate | None = None

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.g, str) and not callable(self.derivative):
            object.__setattr__(self, "derivative", derived(self, self.g, "aggregate", self.derivative))
        elif isinstance(self.g, str) or not callable(self.g) or not callable(self.derivative):
            refuse(self, "derivative", self.derivative, "g and its derivative both as text or both as functions")
        elif self.padding != "valid":
            refuse(self, "padding", self.padding, "'valid', as functions in Python see whole windows only")

    def aggregate(self, u: Array, inside: Array) -> Array:
        return self._value(self.g, "aggregate", u, inside, u.shape[:-1])

    def slopes(self, u: Array, inside: Array) -> Array:
        return self._value(self.derivative, "entries", u, inside, u.shape)

    def _value(self, f: Any, kind: Kind, u: Array, inside: Array, shape: tuple[int, ...]) -> Array:
        if isinstance(f, str):
            return Formula(f, kind)(u, where=None if inside.all() else inside)
        y = np.asarray(f(u))
        if y.shape != shape:
            raise ShapeError(
                f"got {y.shape} from {getattr(f, '__name__', f)} for windows {u.shape}, expected {shape}",
                element=self,
                way_out="reduce the last axis in g and no other, and keep it in its derivative",
            )
        return y.astype(u.dtype, copy=False)
