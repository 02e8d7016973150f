"""The memo's two networks (p. 3 to 6): every quantity beside its formula, by Faltung and by that formula in NumPy.

H. Kuwajima, *Memo: Backpropagation in Convolutional Neural Network* (2014). The memo writes z = W^T x + b, but its
derivatives, W^T delta and delta x^T, are those of z = W x + b, as in the UFLDL tutorial; so we write that. Columns are
examples, and * is element by element. In Faltung rows are examples: its w is W^T, and what it returns is transposed.

Run it with ``python examples/memo.py``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import faltung as ft

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """One line of the memo: the formula, its value by Faltung, and its value by NumPy."""

    formula: str
    faltung: Array | float
    numpy: Array | float

    @property
    def difference(self) -> float:
        """The largest difference between the two."""
        return float(np.max(np.abs(np.subtract(self.faltung, self.numpy))))

    def __str__(self) -> str:
        rows = [" ".join(f"{value:8.4f}" for value in row) for row in np.atleast_2d(self.faltung)]
        first = f"  {self.formula:46}{rows[0]:30}{self.difference:.0e}"
        return "\n".join([first, *(f"{'':48}{row}" for row in rows[1:])])


def sigmoid(z: Array) -> Array:
    """The memo's activation function f, p. 3."""
    return 1 / (1 + np.exp(-z))


def single_neuron() -> list[Quantity]:
    """Memo p. 3-4: h = sigmoid(W x + b), J = 1/2 |y - h|^2, summed over m = 3 examples."""
    x = np.array([[0.5, -1.0, 2.0], [1.5, 0.5, -1.0], [-0.5, 2.0, 1.0]])
    y = np.array([[1.0, 0.0, 1.0]])
    W, b = np.array([[0.4, -0.6, 0.2]]), np.array([[0.1]])

    net = ft.Chain(affine=ft.Affine(1), sigmoid=ft.Sigmoid()).on((3,))
    params = {"affine.w": W.T, "affine.b": b[:, 0]}
    back = net.backpropagate(params, x.T, y.T, cost=ft.SquaredError(reduction="sum"))

    z = W @ x + b
    a = sigmoid(z)
    delta_a = -(y - a)
    delta_z = delta_a * a * (1 - a)
    return [
        Quantity("z = W x + b", back.values["affine"].T, z),
        Quantity("h = a = sigmoid(z)", back.values["sigmoid"].T, a),
        Quantity("J = sum 1/2 |y - h|^2", back.cost, 0.5 * np.sum((y - a) ** 2)),
        Quantity("delta(a) = -(y - a)", back.errors["sigmoid"].T, delta_a),
        Quantity("delta(z) = delta(a) * a * (1 - a)", back.errors["affine"].T, delta_z),
        Quantity("grad W J = sum delta(z) x^T", back.gradients["affine.w"].T, delta_z @ x.T),
        Quantity("grad b J = sum delta(z)", back.gradients["affine.b"][:, None], delta_z.sum(1, keepdims=True)),
    ]


def two_layers() -> list[Quantity]:
    """Memo p. 5-6: h = sigmoid(W2 sigmoid(W1 x + b1) + b2), three inputs, two hidden units, one output, m = 3."""
    a1 = np.array([[0.5, -1.0, 2.0], [1.5, 0.5, -1.0], [-0.5, 2.0, 1.0]])
    y = np.array([[1.0, 0.0, 1.0]])
    W1, b1 = np.array([[0.4, -0.6, 0.2], [-0.3, 0.1, 0.8]]), np.array([[0.1], [-0.2]])
    W2, b2 = np.array([[1.2, -0.7]]), np.array([[0.3]])

    net = ft.Chain(z2=ft.Affine(2), a2=ft.Sigmoid(), z3=ft.Affine(1), a3=ft.Sigmoid()).on((3,))
    params = {"z2.w": W1.T, "z2.b": b1[:, 0], "z3.w": W2.T, "z3.b": b2[:, 0]}
    back = net.backpropagate(params, a1.T, y.T, cost=ft.SquaredError(reduction="sum"))
    value, error, gradient = back.values, back.errors, back.gradients

    z2 = W1 @ a1 + b1
    a2 = sigmoid(z2)
    z3 = W2 @ a2 + b2
    a3 = sigmoid(z3)
    delta_a3 = -(y - a3)
    delta_z3 = delta_a3 * a3 * (1 - a3)
    delta_a2 = W2.T @ delta_z3
    delta_z2 = delta_a2 * a2 * (1 - a2)
    delta_a1 = W1.T @ delta_z2
    return [
        Quantity("z(2) = W(1) a(1) + b(1)", value["z2"].T, z2),
        Quantity("a(2) = sigmoid(z(2))", value["a2"].T, a2),
        Quantity("z(3) = W(2) a(2) + b(2)", value["z3"].T, z3),
        Quantity("h = a(3) = sigmoid(z(3))", value["a3"].T, a3),
        Quantity("J = sum 1/2 |y - h|^2", back.cost, 0.5 * np.sum((y - a3) ** 2)),
        Quantity("delta(a(3)) = -(y - a(3))", error["a3"].T, delta_a3),
        Quantity("delta(z(3)) = delta(a(3)) * a(3) * (1 - a(3))", error["z3"].T, delta_z3),
        Quantity("delta(a(2)) = W(2)^T delta(z(3))", error["a2"].T, delta_a2),
        Quantity("delta(z(2)) = delta(a(2)) * a(2) * (1 - a(2))", error["z2"].T, delta_z2),
        Quantity("delta(a(1)) = W(1)^T delta(z(2))", error["x"].T, delta_a1),
        Quantity("grad W(2) J = sum delta(z(3)) a(2)^T", gradient["z3.w"].T, delta_z3 @ a2.T),
        Quantity("grad b(2) J = sum delta(z(3))", gradient["z3.b"][:, None], delta_z3.sum(1, keepdims=True)),
        Quantity("grad W(1) J = sum delta(z(2)) a(1)^T", gradient["z2.w"].T, delta_z2 @ a1.T),
        Quantity("grad b(1) J = sum delta(z(2))", gradient["z2.b"][:, None], delta_z2.sum(1, keepdims=True)),
    ]


def main() -> None:
    """Print both networks."""
    for example in (single_neuron, two_layers):
        print(f"{example.__doc__}\n  {'formula':46}{'by Faltung':>11}{'off NumPy by':>31}")
        print(*example(), sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
