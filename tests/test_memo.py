"""The memo's networks as an example that can be run: its numbers, and what it prints."""

import math

import numpy as np
import pytest

from example_files import load_example


@pytest.fixture(scope="module")
def memo():
    return load_example("memo")


def by_formula(quantities):
    return {quantity.formula.split(" = ")[0]: np.asarray(quantity.faltung) for quantity in quantities}


def test_faltung_and_the_formulas_agree(memo):
    for quantity in (*memo.single_neuron(), *memo.two_layers()):
        assert np.shape(quantity.faltung) == np.shape(quantity.numpy)
        assert quantity.difference < 1e-15, quantity.formula
        assert np.any(quantity.numpy)


def test_the_first_example_of_the_single_neuron_by_hand(memo):
    """With x = (0.5, 1.5, -0.5), W = (0.4, -0.6, 0.2), b = 0.1: z = 0.2 - 0.9 - 0.1 + 0.1 = -0.7, and y = 1."""
    found = by_formula(memo.single_neuron())
    h = 1 / (1 + math.exp(0.7))
    assert found["z"][0, 0] == pytest.approx(-0.7)
    assert found["h"][0, 0] == pytest.approx(h)
    assert found["delta(a)"][0, 0] == pytest.approx(h - 1)
    assert found["delta(z)"][0, 0] == pytest.approx((h - 1) * h * (1 - h))


def test_gradients_are_sums_over_the_examples(memo):
    found = by_formula(memo.two_layers())
    outer = sum(np.outer(found["delta(z(3))"][:, i], found["a(2)"][:, i]) for i in range(3))
    np.testing.assert_allclose(found["grad W(2) J"], outer, rtol=1e-14)
    np.testing.assert_allclose(found["grad b(1) J"][:, 0], found["delta(z(2))"].sum(1), rtol=1e-14)


def test_a_wrong_value_would_show(memo):
    assert memo.Quantity("a = b", np.array([1.0, 2.0]), np.array([1.0, 2.5])).difference == 0.5


def test_what_it_prints(memo, capsys):
    memo.main()
    lines = capsys.readouterr().out.splitlines()
    assert "Memo p. 3-4: h = sigmoid(W x + b), J = 1/2 |y - h|^2, summed over m = 3 examples." in lines
    cost = next(line for line in lines if line.startswith("  J = sum 1/2 |y - h|^2"))
    assert float(cost.split("|^2")[1].split()[0]) == pytest.approx(0.3365, abs=5e-5)
    assert max(map(len, lines)) <= 120
