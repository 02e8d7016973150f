"""The checks pass what is right, fail what is wrong, and name the wrong entry: faults are planted in right elements."""

import math
import warnings
from typing import Any

import numpy as np
import pytest

import faltung as ft
from faltung.check import adjoint_check, element_check, gradient_check
from faltung.errors import NetworkError, SettingError, ShapeError

CONV: dict[str, Any] = {"kernel": 3, "padding": 1}
RUN = ft.Run()


class FlippedKernel(ft.Conv):
    """The error forgets that the kernel is flipped."""

    def error(self, params, kept, dy):
        w = params["w"]
        return super().error({"w": w[tuple(slice(None, None, -1) for _ in w.shape[:-2])]}, kept, dy)


class SwappedChannels(ft.Conv):
    """The gradient of w has its channels in the wrong order."""

    def gradient(self, params, kept, dy):
        gradient = super().gradient(params, kept, dy)
        return gradient | {"w": gradient["w"][..., ::-1, :]}


class ForgottenBias(ft.Conv):
    def gradient(self, params, kept, dy):
        return {"w": super().gradient(params, kept, dy)["w"]}


class DoubledTie(ft.Element):
    """Max pooling over 2 x 2 by the memo's rule: every maximum of a window gets the whole error."""

    def output(self, *shapes):
        return ft.MaxPool(2).output(*shapes)

    def forward(self, params, x, run=RUN):
        y, _ = ft.MaxPool(2).forward(params, x)
        return y, (x, y)

    def error(self, params, kept, dy):
        x, y = kept
        up = np.ones((1, 2, 2, 1))
        return (x == np.kron(y, up)) * np.kron(dy, up)


PLANTED = [(FlippedKernel, "x"), (SwappedChannels, "w"), (ForgottenBias, "b")]


def ties():
    """Two examples of two values, so that most windows have several maxima."""
    return np.random.default_rng(0).integers(0, 2, (2, 4, 4, 1)).astype(float)


@pytest.mark.parametrize(("fault", "name"), PLANTED)
def test_element_check_names_what_is_planted(fault, name):
    right = element_check(ft.Conv(2, **CONV), (5, 5, 2))
    wrong = element_check(fault(2, **CONV), (5, 5, 2))
    assert right.passed(1e-9)
    assert not wrong.passed(0.05)
    assert [each for each, difference in wrong.by_name.items() if difference > 1e-9] == [name]
    assert wrong.worst.name == name


@pytest.mark.parametrize(("fault", "name"), PLANTED)
def test_adjoint_check_names_what_is_planted(fault, name):
    right = adjoint_check(ft.Conv(2, **CONV), (5, 5, 2))
    wrong = adjoint_check(fault(2, **CONV), (5, 5, 2))
    assert right.passed()
    assert right.worst is None
    assert right.y == right.x == right.w
    assert not wrong.passed(0.001)
    assert wrong.worst is not None
    assert wrong.worst.name == name


@pytest.mark.parametrize(("fault", "name"), PLANTED)
def test_gradient_check_of_a_network_names_what_is_planted(fault, name):
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(3, 6, 6, 2)), np.array([0, 1, 1])
    for kind in (ft.Conv, fault):
        net = ft.Chain(
            first=ft.Conv(2, kernel=1), conv=kind(2, **CONV), tanh=ft.Tanh(), flat=ft.Flatten(), dense=ft.Affine(2)
        ).on((6, 6, 2))
        check = gradient_check(net, net.initial(seed=0), x, labels, cost=ft.CrossEntropy(), entries=20)
        wrong = {each for each, difference in check.by_name.items() if difference > 1e-7}
        assert check.passed() == (not wrong)
        if kind is ft.Conv:
            assert not wrong
        else:  # a wrong error signal is wrong for everything before it
            assert wrong == ({"first.w", "first.b", "x"} if name == "x" else {f"conv.{name}"})
            assert check.worst.name in wrong


def test_the_worst_entry_is_the_one_that_was_planted():
    class OneWrong(ft.Affine):
        def gradient(self, params, kept, dy):
            gradient = super().gradient(params, kept, dy)
            gradient["w"][2, 1] += 3
            return gradient

    for worst in (element_check(OneWrong(4), (5,)).worst, adjoint_check(OneWrong(4), (5,)).worst):
        assert worst is not None
        assert (worst.name, worst.index) == ("w", (2, 1))
        assert worst.analytic - worst.numeric == pytest.approx(3)


def test_a_doubled_tie_fails_and_the_first_maximum_passes_on_the_same_ties():
    right, wrong = element_check(ft.MaxPool(2), ties()), element_check(DoubledTie(), ties())
    assert right.passed(1e-9)
    assert right.kinks == wrong.kinks > 10
    assert not wrong.passed(0.1)
    assert element_check(DoubledTie(), (4, 4, 1)).passed()  # random numbers do not tie


def test_a_doubled_tie_is_named():
    x = ties()
    worst = element_check(DoubledTie(), x).worst
    n, i, j, c = worst.index
    window = x[n, i // 2 * 2 : i // 2 * 2 + 2, j // 2 * 2 : j // 2 * 2 + 2, c]
    tied = int((window == window.max()).sum())
    assert x[worst.index] == window.max()
    assert worst.analytic / worst.numeric == pytest.approx(tied)
    assert tied > 1


def test_max_pooling_is_refused_by_the_adjoint_check():
    with pytest.raises(SettingError, match=r"MaxPool\(2\): got an element that is not linear; use element_check"):
        adjoint_check(ft.MaxPool(2), (4, 4, 1))


@pytest.mark.parametrize("windows", [{"kernel": 2}, {"kernel": 3, "stride": 1}, {"kernel": 2, "padding": 1}])
def test_kinks_are_no_faults(windows):
    assert element_check(ft.MaxPool(**windows), ties()).passed(1e-8)
    x = np.random.default_rng(0).integers(-1, 2, (5, 8)).astype(float)
    for element in (ft.ReLU(), ft.LeakyReLU(0.1)):
        check = element_check(element, x)
        assert check.passed(1e-9)
        assert check.kinks == (x == 0).sum()


def test_a_kink_beside_an_entry_is_passed_by():
    """The first step of 1e-4 reaches over the kink of ReLU, the second does not."""
    check = element_check(ft.ReLU(), np.array([[3e-5, -3e-5, 2.0]]))
    assert check.passed(1e-9)
    assert check.kinks == 0


def test_a_wrong_slope_beside_a_kink_is_found():
    class Steeper(ft.ReLU):
        def slope(self, kept):
            return super().slope(kept) * 1.001

    check = element_check(Steeper(), np.array([[3e-5, -3e-5, 2.0, 0.0, 1.0]]))
    assert not check.passed(1e-4)


def test_nothing_but_kinks_is_nothing_to_compare():
    with pytest.raises(SettingError, match=r"got nothing to compare \(3 entries at kinks\), .*; move inputs and param"):
        element_check(ft.ReLU(), np.zeros((1, 3)))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_checker_fails_on_nan(poison):
    class Poisoned(ft.Conv):
        def gradient(self, params, kept, dy):
            gradient = super().gradient(params, kept, dy)
            gradient["w"][1, 0, 0] = poison
            return gradient

    check = element_check(Poisoned(2, kernel=3), (5, 1))
    assert not check.passed(1e300)
    assert (check.worst.name, check.worst.index) == ("w", (1, 0, 0))
    adjoint = adjoint_check(Poisoned(2, kernel=3), (5, 1))
    assert not adjoint.passed(1e300)
    assert adjoint.worst is not None
    assert (adjoint.worst.name, adjoint.worst.index) == ("w", (1, 0, 0))


def test_a_cost_that_is_nan_never_passes():
    net = ft.Chain(dense=ft.Affine(2)).on((3,))
    x = np.array([[1.0, np.nan, 0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        check = gradient_check(net, net.initial(), x, np.zeros((1, 2)), cost=ft.SquaredError())
    assert math.isnan(check.difference)
    assert not check.passed(math.inf)


def test_what_is_zero_but_for_rounding_is_not_wrong():
    """A bias before a batch normalisation has no influence: its derivative is 0, its slope the noise of J."""
    net = ft.Chain(conv=ft.Conv(2, kernel=3), norm=ft.BatchNorm(), tanh=ft.Tanh(), pool=ft.GlobalPool("mean")).on(
        (8, 1)
    )
    x = np.random.default_rng(0).normal(size=(4, 8, 1))
    check = gradient_check(net, net.initial(seed=1), x, np.array([0, 1, 1, 0]), cost=ft.CrossEntropy())
    assert check.passed()
    dead = element_check(ft.ReLU(), -np.ones((2, 3)))
    assert (dead.difference, dead.by_name, dead.passed(0.0)) == (0.0, {"x": 0.0}, True)


def test_a_derivative_with_the_sign_turned_is_far_off():
    class Turned(ft.Tanh):
        def slope(self, kept):
            return -super().slope(kept)

    assert element_check(Turned(), (4,)).difference > 1e3


def test_the_ufldl_exercise_is_below_1e_minus_9():
    """The recipe of the UFLDL exercise: 2 filters of 9x9, mean pooling over 5x5, ten images, every parameter."""
    train, _ = ft.data.fashion()
    x, labels = train[np.arange(10)]
    net = ft.Chain(
        conv=ft.Conv(2, kernel=9, initial="ufldl"),
        sigm=ft.Sigmoid(),
        pool=ft.MeanPool(5),
        flat=ft.Flatten(),
        dense=ft.Affine(10, initial="ufldl"),
    ).on((28, 28, 1))
    params = net.initial(seed=0)
    check = gradient_check(net, params, x, labels, cost=ft.CrossEntropy(), names=net.parameters)
    assert check.entries == {"conv.w": 162, "conv.b": 2, "dense.w": 320, "dense.b": 10}
    assert check.difference < 1e-9
    assert check.passed(1e-9)
    errors = gradient_check(net, params, x, labels, cost=ft.CrossEntropy(), names=["x"], entries=30)
    assert errors.entries == {"x": 30}
    assert errors.passed()


def test_several_inputs_outputs_costs_and_indices():
    net = ft.Graph(
        word=ft.Node(ft.Embedding(5, 3), "words"),
        both=ft.Node(ft.Concat(), "word", "x"),
        a=ft.Node(ft.Affine(2), "both"),
        b=ft.Node(ft.Tanh(), "a"),
        c=ft.Node(ft.Affine(1), "x"),
    ).on(words=(4,), x=(4, 2))
    random = np.random.default_rng(0)
    inputs = {"words": random.integers(0, 5, (2, 4)), "x": random.normal(size=(2, 4, 2))}
    targets = {"b": random.normal(size=(2, 4, 2)), "c": random.normal(size=(2, 4, 1))}
    costs = {"b": ft.SquaredError(), "c": ft.SquaredError(reduction="sum")}
    check = gradient_check(net, net.initial(seed=0), inputs, targets, cost=costs)
    assert list(check.by_name) == ["word.w", "a.w", "a.b", "c.w", "c.b", "x"]
    assert check.passed()


def test_an_element_with_several_inputs_some_without_influence():
    up = ft.ConvTranspose(2, kernel=3, stride=2, size="like")
    check = element_check(up, (3, 2), (7, 1))
    assert check.by_name["x1"] == 0
    assert check.passed(1e-9)
    assert adjoint_check(up, (3, 2), (8, 1)).passed()
    assert adjoint_check(ft.Sum(), (3, 2), (3, 2), (3, 2)).passed()


def test_an_element_that_takes_indices():
    indices = np.array([[0, 2, 2]])
    assert list(element_check(ft.Embedding(3, 2), indices).by_name) == ["w"]
    with pytest.raises(SettingError, match="got the shape of an input of indices; give an array of indices"):
        element_check(ft.Embedding(3, 2), (3,))


def test_batch_statistics_and_dropout_are_checked_in_training():
    run = ft.Run(training=True, seed=3, node="drop")
    assert element_check(ft.Dropout(0.5), (20,), run=run).passed()
    assert element_check(ft.BatchNorm(), np.random.default_rng(0).normal(size=(5, 4, 2)), run=run).passed()
    assert element_check(ft.BatchNorm(), (4, 2)).passed()


def test_means_round_unless_they_are_over_a_power_of_two():
    assert adjoint_check(ft.MeanPool(2), (4, 4, 2)).passed()
    rounded = adjoint_check(ft.MeanPool(3), (9, 9, 2))
    assert not rounded.passed()
    assert rounded.passed(1e-15)
    assert rounded.w is None


def test_a_forward_that_is_not_linear_is_found_by_the_adjoint_check():
    class Offset(ft.Identity):
        def forward(self, params, x, run=RUN):
            return x + 1, x

    check = adjoint_check(Offset(), (3,))
    assert not check.passed(0.001)
    assert check.worst is None


def test_arguments_stay_as_they_were():
    random = np.random.default_rng(0)
    net = ft.Chain(dense=ft.Affine(2)).on((3,))
    params, x = net.initial(seed=0, dtype=np.float64), random.normal(size=(2, 3))
    before = [params["dense.w"].copy(), x.copy()]
    check = gradient_check(net, params, x, np.array([0, 1]), cost=ft.CrossEntropy(), entries=4, seed=5)
    assert np.array_equal(params["dense.w"], before[0])
    assert np.array_equal(x, before[1])
    assert check.entries == {"dense.w": 4, "dense.b": 2, "x": 4}
    assert check == gradient_check(net, params, x, np.array([0, 1]), cost=ft.CrossEntropy(), entries=4, seed=5)


def test_the_reports_can_be_read():
    lines = str(element_check(ft.Conv(2, **CONV), (5, 5, 2))).splitlines()
    assert [line.split()[0] for line in lines] == ["entries", "x", "w", "b", "all", "worst:"]
    assert lines[1].split()[1] == "100"
    assert "more at kinks" in str(element_check(ft.MaxPool(2), ties()))
    sums = str(adjoint_check(ft.Conv(2, **CONV), (5, 5, 2)))
    assert len({line.split("=")[1] for line in sums.splitlines()}) == 1
    assert "worst: b[" in str(adjoint_check(ForgottenBias(2, **CONV), (5, 5, 2)))


def test_arguments_that_are_refused():
    net = ft.Chain(dense=ft.Affine(2)).on((3,))
    arguments = (net, net.initial(), np.ones((1, 3)), np.array([0]))
    with pytest.raises(
        NetworkError, match=r"got the names \['dense.v'\], expected some of \['dense.w', 'dense.b', 'x'\]"
    ):
        gradient_check(*arguments, cost=ft.CrossEntropy(), names=["dense.v"])
    refused: list[dict[str, Any]] = [{"epsilon": 0.0}, {"epsilon": float("nan")}, {"entries": 0}]
    for wrong in refused:
        with pytest.raises(
            SettingError, match=r"got epsilon=.*, entries=.*, expected numbers above 0; use the defaults"
        ):
            gradient_check(*arguments, cost=ft.CrossEntropy(), **wrong)


def test_a_derivative_of_a_wrong_shape():
    class Short(ft.Affine):
        def error(self, params, kept, dy):
            return super().error(params, kept, dy)[:1]

    for check in (element_check, adjoint_check):
        with pytest.raises(
            ShapeError, match=r"got a derivative by 'x' of shape \(1, 3\), expected \(2, 3\); give it the"
        ):
            check(Short(2), (3,))
