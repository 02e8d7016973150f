"""Functions given as text: read, evaluated, and differentiated by formula.

    parse       text -> tree, or an error that says where       (no ``eval``: only what the grammar names can be said)
    write       tree -> canonical text
    evaluate    tree, x -> value
    derive      tree -> the tree of its derivative, by SymPy

SymPy is needed to differentiate, and for nothing else: a derivative is a formula too, and can be kept as text.
"""

from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from faltung.errors import FormulaError, MissingExtraError
from faltung.formula.evaluate import evaluate
from faltung.formula.parse import Kind, parse
from faltung.formula.tree import Node, write

__all__ = ["Formula", "Kind"]


@dataclass(frozen=True)
class Formula:
    """y = f(x), with f given as text.

    A *pointwise* formula is applied to each entry of x. An *aggregate* formula g(x_1, ..., x_m) has one value for a
    window, the last axis of x; in it ``x`` is one entry, ``m`` their number, and every x stands under one of the
    aggregates ``sum``, ``mean``, ``max``, ``min`` (of one argument; they may be nested). A formula of *entries* sees
    the window too, but has a value for each entry: so the derivative dg/dx_k of an aggregate.

    Numbers, ``x``, ``pi``, ``e``, + - * / ** and parentheses mean what they mean in Python. The functions are abs,
    arctan, cos, cosh, erf, exp, expm1, log, log1p, relu, sigmoid, sign, sin, sinh, softplus, sqrt, step, tan, tanh,
    and of two arguments max, min, ratio; ``faltung.formula.functions`` defines them, and says what holds at kinks.
    ``first_max(e)``, ``first_min(e)`` are 1 at the first such entry of the window, 0 at the others.

    ``text`` becomes the canonical text: from it the same formula is made again.

    Raises: FormulaError where the text is no such formula, and at which position. Sources: memo p. 7 and 11.

    >>> f = Formula("x * sigmoid(1.702*x)")
    >>> f(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
    [-0.1542, 0.0, 0.8458]
    >>> f.derivative().text
    'sigmoid(1.702 * x) + 1.702 * x * sigmoid(1.702 * x) * sigmoid(-1.702 * x)'

    >>> g = Formula("sum(abs(x)**3)**(1/3)", "aggregate")
    >>> g(np.array([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])).round(4).tolist()
    [3.3019, 0.0]
    >>> g.derivative().text
    'ratio(sign(x) * abs(x)**2, sum(abs(x)**3)**(2 / 3))'
    >>> g.derivative()(np.array([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])).round(4).tolist()
    [[0.0917, -0.3669, 0.8255], [0.0, 0.0, 0.0]]
    """

    text: str
    kind: Kind = "pointwise"
    tree: Node = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.kind not in get_args(Kind):
            raise FormulaError(
                f"got the kind {self.kind!r}, expected one of {', '.join(get_args(Kind))}", way_out="choose one of them"
            )
        object.__setattr__(self, "tree", parse(self.text, self.kind))
        object.__setattr__(self, "text", write(self.tree))

    def __call__(self, x: ArrayLike, where: NDArray[Any] | None = None) -> NDArray[Any]:
        """The value, in the dtype of x.

        Args:
            x: any shape for a pointwise formula, (..., m) otherwise.
            where: which entries of x take part, broadcast to its shape; all by default. The others change nothing,
                and have the value 0; so has a window of which no entry takes part.

        Nothing is raised or warned where a value overflows or is not defined: it is inf or nan, as in IEEE 754.

        >>> g = Formula("log(mean(exp(x)))", "aggregate")
        >>> g(np.array([1.0, 3.0, 9.0]), where=np.array([True, True, False])).round(4).tolist()
        2.4338
        """
        x = np.asarray(x)
        if x.dtype.kind != "f":
            x = x.astype(np.float64)
        taking_part = True if where is None else np.broadcast_to(where, x.shape)
        with np.errstate(all="ignore"):
            y = evaluate(self.tree, x, taking_part)
            if self.kind == "aggregate":
                y = np.broadcast_to(y, (*x.shape[:-1], 1))[..., 0]
                taking_part = np.any(taking_part, axis=-1)
            else:
                y = np.broadcast_to(y, x.shape)
            return np.where(taking_part, y, 0).astype(x.dtype)

    def derivative(self) -> "Formula":
        """f', or dg/dx_k of an aggregate formula, which is a formula of entries.

        Where f is not differentiable the derivative still is a number: at kinks by the conventions of
        ``faltung.formula.functions``; and 0 where it would divide by a root that is 0, as at the tip of a norm.

        Raises: MissingExtraError where SymPy is not installed; FormulaError for a formula of entries, and where the
        derivative would be longer than a formula may be.

        >>> Formula("sqrt(mean((x - mean(x))**2))", "aggregate").derivative().text
        'ratio(x - mean(x), m * sqrt(mean((x - mean(x))**2)))'
        """
        if self.kind == "entries":
            raise FormulaError(
                f"the derivative of {self.text!r}, which has a value for each entry of a window",
                way_out="only pointwise and aggregate formulas are differentiated",
            )
        try:
            from faltung.formula.derivative import derive
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "SymPy is not installed, and differentiates formulas",
                way_out="install it: pip install 'faltung[formula]'",
            ) from error
        text = write(derive(self.tree))
        return Formula(text, "pointwise" if self.kind == "pointwise" else "entries")
