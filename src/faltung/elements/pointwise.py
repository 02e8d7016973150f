"""A pointwise function given as text, and what all elements given as text share: their derivative is found once."""

from dataclasses import dataclass, field

from faltung.elements.activations import Activation
from faltung.elements.element import Array, Element, Found, Params, Run
from faltung.errors import FaltungError
from faltung.formula import Formula, Kind


@dataclass(frozen=True, repr=False)
class Pointwise(Activation):
    """y = f(x), dx = dy f'(x), for any f written as a ``Formula`` in x

    f' is found by SymPy when the element is made. A model file keeps its text, which is then given as ``derivative``,
    and SymPy is not needed; it may also be given by hand, where another value at a kink is wanted.

    Shapes: y and dx have the shape of x.
    Raises: FormulaError where the text is no formula; MissingExtraError where SymPy is needed and not installed.
    Source: memo p. 7, elements "whose derivatives are known by symbolic computation".

    >>> import numpy as np
    >>> f = Pointwise("x * tanh(x)")
    >>> f.derivative
    'tanh(x) + x * (1 - tanh(x)**2)'
    >>> y, kept = f.forward({}, np.array([[0.0, 2.0]]))
    >>> y.round(4).tolist(), f.error({}, kept, np.array([[1.0, -1.0]])).round(4).tolist()
    ([[0.0, 1.9281]], [[0.0, -1.1053]])
    """

    formula: str
    derivative: str | None = field(default=None, kw_only=True)

    def __post_init__(self):
        object.__setattr__(self, "derivative", derived(self, self.formula, "pointwise", self.derivative))

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        return Formula(self.formula)(x), x

    def slope(self, kept: Array) -> Array:
        return Formula(str(self.derivative))(kept)


def derived(element: Element, formula: str, kind: Kind, derivative: str | None) -> str:
    """The text of the derivative of an element's formula: as it was given, or found, once for each formula.

    Raises: FormulaError where one of them is no formula; MissingExtraError where SymPy is needed and not installed.
    """
    try:
        f = Formula(formula, kind)
        if derivative is None or (isinstance(derivative, Found) and derivative.source != formula):
            return Found(f.derivative().text, source=formula)
        Formula(derivative, "entries" if kind == "aggregate" else kind)  # refuses what is no formula
        return derivative
    except FaltungError as error:
        error.element = element
        raise
