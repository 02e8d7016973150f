"""The first entry that is not finite is found where it was planted, in the order of computation."""

from dataclasses import dataclass

import numpy as np
import pytest

from faltung.elements import Affine, SquaredError
from faltung.elements.activations import Identity
from faltung.elements.element import Element
from faltung.network import Chain, Graph, Node
from faltung.network.nonfinite import NonFinite, first_nonfinite


@dataclass(frozen=True, repr=False)
class Faulty(Element):
    """Hands everything on, but plants NaN at example 2, channel 1, in the value or the error signal."""

    value: bool = False
    signal: bool = False

    def output(self, *shapes):
        return shapes[0]

    def forward(self, params, x, run=None):
        return planted(x) if self.value else x, None

    def error(self, params, kept, dy):
        return planted(dy) if self.signal else dy


def planted(array):
    array = array.copy()
    array[2, 1] = np.nan
    return array


def found(fault, params=None, x=None, target=None):
    network = Chain(first=Affine(3), fault=fault, then=Identity(), last=Affine(3)).on((3,))
    params = network.initial(0, np.float64) | (params or {})
    x = np.ones((4, 3)) if x is None else x
    target = np.zeros((4, 3)) if target is None else target
    back = network.backpropagate(params, x, target, cost=SquaredError())
    return first_nonfinite(network, params, target, back)


def test_nothing_is_found_where_nothing_is():
    assert found(Faulty()) is None


def test_a_value_before_all_that_follows_from_it():
    place = found(Faulty(value=True, signal=True))
    assert isinstance(place, NonFinite)
    assert (place.what, place.name, place.element, place.index) == ("value", "fault", Faulty(True, True), (2, 1))
    assert np.isnan(place.number)
    assert place.per_example


def test_an_error_signal_is_found_at_the_value_whose_it_is():
    place = found(Faulty(signal=True))
    assert place is not None
    assert (place.what, place.name, place.element, place.index) == ("error signal", "first", Affine(3), (2, 1))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_inputs_then_target_then_parameters_then_values(number):
    w, x, target = np.ones((3, 3)), np.ones((4, 3)), np.zeros((4, 3))
    w[0, 2], x[3, 1], target[1, 0] = number, number, number
    arguments = {"params": {"last.w": w}, "target": target, "x": x}
    expected = [("input", "x", (3, 1)), ("target", "", (1, 0)), ("parameter", "last.w", (0, 2))]
    with np.errstate(all="ignore"):
        for (what, name, index), argument in zip(expected, ("x", "target", "params"), strict=True):
            place = found(Faulty(value=True), **arguments)
            assert place is not None
            assert (place.what, place.name, place.index) == (what, name, index)
            np.testing.assert_equal(place.number, number)
            del arguments[argument]
        place = found(Faulty(value=True))
    assert place is not None
    assert place.what == "value"


def test_of_several_targets_the_one_is_named_that_is_not_finite():
    network = Graph(one=Node(Affine(2), "x"), other=Node(Affine(2), "x")).on((3,))
    params, costs = network.initial(0, np.float64), {"one": SquaredError(), "other": SquaredError()}
    targets = {"one": np.zeros((4, 2)), "other": np.zeros((4, 2))}
    back = network.backpropagate(params, np.ones((4, 3)), targets, cost=costs)
    assert first_nonfinite(network, params, targets, back) is None
    targets["other"] = planted(targets["other"])
    back = network.backpropagate(params, np.ones((4, 3)), targets, cost=costs)
    place = first_nonfinite(network, params, targets, back)
    assert place is not None
    assert (place.what, place.name, place.element, place.index) == ("target", "other", None, (2, 1))
