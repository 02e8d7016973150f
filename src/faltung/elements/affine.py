"""The affine element: every output a weighted sum of the input's channels, plus a bias."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from faltung.elements.element import Array, Element, Parameter, Params, Run, Shape, View, product
from faltung.elements.settings import check_count, check_flag, check_rule
from faltung.errors import ShapeError


@dataclass(frozen=True, repr=False)
class Affine(Element):
    """y[n, ..., o] = b[o] + sum over i of x[n, ..., i] w[i, o]

    Shapes: x (n, ..., in), w (in, units), b (units,), y (n, ..., units); every position of x is treated alike.
    ``w`` is the transpose of the UFLDL tutorial's W, so that with it z = W x + b.
    Derivatives: dx = dy w^T, dw = x^T dy, db = the sum of dy.
    Raises: ShapeError where the number of channels is open, or not that of w.
    Source: memo p. 3-6, less its mixed conventions: with z = W x + b the error is W^T dz and the gradient dz x^T.

    >>> import numpy as np
    >>> sums = Affine(2)
    >>> p = {"w": np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), "b": np.array([0.0, 10.0])}
    >>> y, kept = sums.forward(p, np.array([[1.0, 2.0, 4.0]]))
    >>> y.tolist()
    [[3.0, 16.0]]
    >>> dy = np.array([[1.0, -2.0]])
    >>> sums.error(p, kept, dy).tolist()
    [[1.0, -1.0, -2.0]]
    >>> sums.gradient(p, kept, dy)["w"].tolist()
    [[1.0, -2.0], [2.0, -4.0], [4.0, -8.0]]
    """

    units: int
    bias: bool = field(default=True, kw_only=True)
    initial: str = field(default="glorot", kw_only=True)

    linear = True

    def __post_init__(self):
        check_count(self, units=self.units)
        check_flag(self, bias=self.bias)
        check_rule(self, self.initial)

    def output(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not shape or shape[-1] is None:
            raise ShapeError(
                f"got an input of {shape}, expected a known number of channels on its last axis",
                element=self,
                way_out="put Flatten() before it, or close that axis in .on(...)",
            )
        return (*shape[:-1], self.units)

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        inputs = shapes[0][-1] or 0
        w = Parameter((inputs, self.units), self.initial, fans=(inputs, self.units))
        return {"w": w, "b": Parameter((self.units,))} if self.bias else {"w": w}

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        """Where an input was flattened, all of it."""
        return "all" if len(shapes[0]) == 1 and seen[0] == "varies" else seen[0]

    def multiplications(self, *shapes: Shape) -> int | None:
        return product((*shapes[0], self.units))

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        self.admit(params, x)
        y = x @ params["w"]
        return (y + params["b"] if self.bias else y), x

    def error(self, params: Params, kept: Array, dy: Array) -> Array:
        return dy @ params["w"].T

    def gradient(self, params: Params, kept: Array, dy: Array) -> dict[str, Array]:
        x_rows, dy_rows = kept.reshape(-1, kept.shape[-1]), dy.reshape(-1, dy.shape[-1])
        dw = {"w": x_rows.T @ dy_rows}
        return dw | {"b": dy_rows.sum(0)} if self.bias else dw
