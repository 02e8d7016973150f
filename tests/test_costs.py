from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differences import assert_close, slope
from faltung.elements.costs import BinaryCrossEntropy, CrossEntropy, SquaredError
from faltung.elements.element import example
from faltung.errors import DataError, SettingError, ShapeError

POSITIONS = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)
REDUCTIONS = st.sampled_from(["mean", "sum"])
SEEDS = st.integers(0, 1000)
NAN = float("nan")


def log_p(y):
    return y - np.log(np.exp(y).sum(-1, keepdims=True))


def check_error(cost, y, target, weight=None):
    """The error signal against central differences, in float64; the same in float32, whose dtype stays."""
    J, kept = cost.forward(y, target, weight)
    assert type(J) is float
    assert_close(cost.error(kept), slope(lambda y: cost.forward(y, target, weight)[0], y))
    narrow, kept32 = cost.forward(y.astype(np.float32), target, weight)
    dy32 = cost.error(kept32)
    assert dy32.dtype == np.float32
    assert_close(dy32, cost.error(kept), 1e-6)
    assert abs(narrow - J) <= 1e-5 * max(1, abs(J))


@given(shape=POSITIONS, channels=st.integers(1, 3), reduction=REDUCTIONS, weighted=st.booleans(), seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_squared_error(shape, channels, reduction, weighted, seed):
    random = np.random.default_rng(seed)
    y, target = random.normal(size=(2, *shape, channels))
    weight = random.uniform(0.5, 2, shape[0]) if weighted else None
    cost = SquaredError(reduction=reduction)
    w = np.ones(shape[0]) if weight is None else weight
    terms = [w[n] * 0.5 * np.linalg.norm((y[n] - target[n]).ravel()) ** 2 for n in range(shape[0])]
    expected = sum(terms) / (w.sum() if reduction == "mean" else 1)
    assert abs(cost.forward(y, target, weight)[0] - expected) < 1e-12 * max(1, expected)
    check_error(cost, y, target, weight)


@given(
    shape=POSITIONS,
    classes=st.integers(1, 4),
    reduction=REDUCTIONS,
    weighted=st.sampled_from(["none", "examples", "positions"]),
    by_class=st.booleans(),
    ignore=st.sampled_from([None, -1, 0, 255]),
    seed=SEEDS,
)
@settings(max_examples=60, deadline=None)
def test_cross_entropy_of_labels(shape, classes, reduction, weighted, by_class, ignore, seed):
    random = np.random.default_rng(seed)
    y, labels = random.normal(size=(*shape, classes)), random.integers(0, classes, shape)
    if ignore is not None:
        labels[random.random(shape) < 0.4] = ignore
    class_weights = tuple(random.uniform(0.5, 2, classes).tolist()) if by_class else None
    cost = CrossEntropy(reduction=reduction, class_weights=class_weights, ignore=ignore)
    given = {"none": None, "examples": random.uniform(0, 2, shape[0]), "positions": random.uniform(0, 2, shape)}[
        weighted
    ]
    J = divisor = 0.0
    for at in np.ndindex(shape):
        if labels[at] != ignore:
            w = 1.0 if given is None else given[at[: given.ndim]]
            w *= 1.0 if class_weights is None else class_weights[labels[at]]
            J -= w * log_p(y[at])[labels[at]]
            divisor += w
    total = cost.total(labels, given)
    assert abs(total - (divisor if reduction == "mean" else 1)) < 1e-12 * max(1, divisor)
    assert abs(cost.forward(y, labels, given)[0] - (J / total if divisor else 0)) < 1e-12 * max(1, J)
    check_error(cost, y, labels, given)


@given(shape=POSITIONS, classes=st.integers(1, 4), reduction=REDUCTIONS, by_class=st.booleans(), seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_cross_entropy_of_soft_targets(shape, classes, reduction, by_class, seed):
    random = np.random.default_rng(seed)
    y, target = random.normal(size=(*shape, classes)), random.dirichlet(np.ones(classes), shape)
    class_weights = tuple(random.uniform(0.5, 2, classes).tolist()) if by_class else None
    cost = CrossEntropy(reduction=reduction, class_weights=class_weights)
    wanted = target * (class_weights or 1)
    divisor = wanted.sum() if reduction == "mean" else 1
    assert abs(cost.forward(y, target)[0] + np.sum(wanted * log_p(y)) / divisor) < 1e-12 * max(1, wanted.sum())
    check_error(cost, y, target)


@pytest.mark.parametrize("class_weights", [None, (1.0, 0.0, 2.5)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_one_hot_soft_targets_give_what_labels_give(class_weights, reduction):
    random = np.random.default_rng(0)
    y, labels = random.normal(size=(4, 5, 3)), random.integers(0, 3, (4, 5))
    cost = CrossEntropy(reduction=reduction, class_weights=class_weights)
    hard, soft = (cost.forward(y, target, np.arange(4.0)) for target in (labels, np.eye(3, dtype=np.float32)[labels]))
    assert abs(hard[0] - soft[0]) < 1e-14 * abs(hard[0])
    assert_close(cost.error(hard[1]), cost.error(soft[1]), 1e-15)


@given(shape=POSITIONS, channels=st.integers(1, 3), reduction=REDUCTIONS, axes=st.integers(0, 3), seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_binary_cross_entropy(shape, channels, reduction, axes, seed):
    random = np.random.default_rng(seed)
    y, target = random.normal(size=(*shape, channels)), random.uniform(size=(*shape, channels))
    weight = random.uniform(0.5, 2, y.shape[:axes]) if axes else None
    p = 1 / (1 + np.exp(-y))
    w = np.ones(y.shape) if weight is None else weight.reshape(weight.shape + (1,) * (y.ndim - weight.ndim)) + 0 * y
    expected = -np.sum(w * (target * np.log(p) + (1 - target) * np.log(1 - p)))
    expected /= w.sum() if reduction == "mean" else 1
    cost = BinaryCrossEntropy(reduction=reduction)
    assert abs(cost.forward(y, target, weight)[0] - expected) < 1e-12 * max(1, expected)
    check_error(cost, y, target, weight)


def test_the_mean_of_the_squared_error_is_over_examples_that_of_others_over_positions():
    assert SquaredError().total(np.zeros((4, 5, 3))) == 4
    assert CrossEntropy().total(np.zeros((4, 5), int)) == 20
    assert CrossEntropy().total(np.full((4, 5, 2), 0.5)) == 20
    assert CrossEntropy(ignore=7).total(np.array([[0, 7, 7], [1, 2, 7]])) == 3
    assert BinaryCrossEntropy().total(np.zeros((4, 5, 3))) == 60
    assert SquaredError(reduction="sum").total(np.zeros((4, 5, 3))) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_neither_overflow_nor_lose_digits(dtype):
    y = np.array([[3e4, -3e4], [-3e4, 3e4]], dtype)
    J, kept = CrossEntropy(reduction="sum").forward(y, np.array([1, 1]))
    assert J == 6e4
    assert CrossEntropy().error(kept).tolist() == [[1, -1], [0, 0]]
    J, kept = BinaryCrossEntropy(reduction="sum").forward(y, np.array([[1, 1], [0, 0]], dtype))
    assert J == 6e4
    assert BinaryCrossEntropy().error(kept).tolist() == [[0, -1], [0, 1]]
    J, _ = BinaryCrossEntropy().forward(np.array([[20]], dtype), np.array([[1]], dtype))
    assert abs(J / np.exp(-20.0) - 1) < 1e-6


def test_a_class_that_is_ruled_out_costs_nothing_where_it_is_not_wanted():
    y = np.array([[0.0, -np.inf, np.log(3.0)]])
    J, kept = CrossEntropy().forward(y, np.array([2]))
    assert abs(J - np.log(4 / 3)) < 1e-15
    assert_close(CrossEntropy().error(kept), np.array([[0.25, 0.0, -0.25]]), 1e-15)


def test_j_is_summed_in_float64():
    y = np.full((300_000, 1), 0.1, np.float32)
    J, _ = SquaredError(reduction="sum").forward(y, np.zeros_like(y))
    assert abs(J - 150_000 * float(np.float32(0.1)) ** 2) < 1e-9
    assert SquaredError().forward(np.full((1, 1), 1e30, np.float32), np.zeros((1, 1)))[0] > 4e59


@pytest.mark.parametrize("ignore", [-1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint64])
def test_where_nothing_counts_j_and_dy_are_0(ignore, dtype):
    if np.iinfo(dtype).min <= ignore <= np.iinfo(dtype).max:
        cost, y = CrossEntropy(ignore=ignore, class_weights=(1.0, 2.0)), np.random.default_rng(0).normal(size=(2, 3, 2))
        J, kept = cost.forward(y, np.full((2, 3), ignore, dtype))
        assert J == 0
        assert np.array_equal(cost.error(kept), np.zeros(y.shape))
    else:  # a label of this dtype is never ignored
        assert CrossEntropy(ignore=ignore).total(np.zeros((2, 3), dtype)) == 6


@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy(), BinaryCrossEntropy()])
def test_empty_batches_and_weights_of_0_cost_nothing(cost):
    for n, weight in ((0, None), (2, np.zeros(2))):
        y = np.random.default_rng(0).normal(size=(n, 3, 2))
        target = np.zeros((n, 3), int) if isinstance(cost, CrossEntropy) else np.zeros(y.shape)
        J, kept = cost.forward(y, target, weight)
        assert J == 0
        assert np.array_equal(cost.error(kept), np.zeros(y.shape))


@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy(), BinaryCrossEntropy()])
def test_what_is_kept_can_be_cut_to_one_example(cost):
    random = np.random.default_rng(0)
    y = random.normal(size=(4, 3, 2))
    target = random.integers(0, 2, (4, 3)) if isinstance(cost, CrossEntropy) else random.uniform(size=y.shape)
    _, kept = cost.forward(y, target, np.arange(1.0, 5.0))
    whole = cost.error(kept)
    assert np.array_equal(np.concatenate([cost.error(example(kept, n)) for n in range(4)]), whole)


def test_integer_targets_serve_the_squared_and_the_binary_cost():
    y = np.array([[0.5], [2.0]], np.float32)
    J, kept = SquaredError().forward(y, np.array([[1], [0]]))
    assert (J, SquaredError().error(kept).tolist()) == (1.0625, [[-0.25], [1.0]])
    J, kept = BinaryCrossEntropy().forward(y, np.array([[True], [False]]))
    assert BinaryCrossEntropy().error(kept).dtype == np.float32


@pytest.mark.parametrize("cost", [SquaredError(), BinaryCrossEntropy()])
def test_a_target_is_not_repeated_to_fit(cost):
    with pytest.raises(
        ShapeError, match=r"\(\): got a target of shape \(4,\), expected \(4, 1\), that of y; reshape it"
    ):
        cost.forward(np.zeros((4, 1)), np.zeros(4))


@pytest.mark.parametrize(("label", "shown"), [(3, "3"), (-1, "-1"), (255, "255")])
def test_a_label_out_of_range_is_named_with_its_position(label, shown):
    labels = np.array([[0, 2, 1], [1, label, -7]])
    message = (
        rf"CrossEntropy\(\): got label {shown} at \(1, 1\), expected 0 to 2; count the classes from 0, or set ignore"
    )
    with pytest.raises(DataError, match=message):
        CrossEntropy().forward(np.zeros((2, 3, 3)), labels)


def test_labels_that_are_none_are_refused():
    y = np.zeros((4, 5, 3))
    with pytest.raises(
        DataError, match=r"got a target of float64 \(4, 5\), expected integers \(4, 5\), or floats \(4, 5"
    ):
        CrossEntropy().forward(y, np.zeros((4, 5)))
    with pytest.raises(DataError, match=r"got a target of bool \(4, 5\), expected integers"):
        CrossEntropy().forward(y, np.zeros((4, 5), bool))
    with pytest.raises(
        ShapeError, match=r"got labels of shape \(4, 5, 3\), expected \(4, 5\), one a position of y; give"
    ):
        CrossEntropy().forward(y, np.zeros((4, 5, 3), int))
    with pytest.raises(ShapeError, match=r"got labels of shape \(4,\), expected \(4, 5\)"):
        CrossEntropy().forward(y, np.zeros(4, int))


@pytest.mark.parametrize(("row", "shown"), [([0.25, 0.25], "0.25"), ([1.5, -0.5], "-0.5"), ([NAN, 1.0], "nan")])
def test_soft_targets_that_are_no_probabilities_are_refused(row, shown):
    target = np.array([[1.0, 0.0], row])
    message = (
        rf"got soft target {shown} at \(1, [01]\), expected probabilities from 0 whose sum over the classes is 1; di"
    )
    with pytest.raises(DataError, match=message):
        CrossEntropy().forward(np.zeros((2, 2)), target)


@pytest.mark.parametrize("value", [-0.5, 1.5, NAN])
def test_binary_targets_out_of_range_are_refused(value):
    with pytest.raises(DataError, match=rf"got target {value} at \(1, 0\), expected 0 to 1; scale the targets"):
        BinaryCrossEntropy().forward(np.zeros((2, 1)), np.array([[1.0], [value]]))


@pytest.mark.parametrize("weight", [-1.0, NAN, float("inf")])
def test_bad_weights_are_refused(weight):
    with pytest.raises(
        DataError, match=rf"got weight {weight} at \(1,\), expected a finite number from 0; use 0 to leave"
    ):
        SquaredError().forward(np.zeros((2, 1)), np.zeros((2, 1)), np.array([1.0, weight]))


@pytest.mark.parametrize("shape", [(), (3,), (2, 4), (2, 3, 1)])
def test_weights_that_do_not_fit_are_refused(shape):
    with pytest.raises(
        ShapeError, match=r"got weights of shape .*, expected \(2, 3\) or its first axes; give one weight"
    ):
        CrossEntropy().forward(np.zeros((2, 3, 4)), np.zeros((2, 3), int), np.ones(shape))


def test_bad_settings_are_refused():
    with pytest.raises(
        SettingError, match=r"got reduction='none', expected one of 'mean', 'sum'; choose another value of reduct"
    ):
        SquaredError(reduction="none")
    bad: tuple[Any, ...] = ((), [1.0], 2.0)
    for weights in bad:
        with pytest.raises(SettingError, match=r"got class_weights=.*, expected a tuple of numbers, one a class"):
            CrossEntropy(class_weights=weights)
    with pytest.raises(SettingError, match=r"got class_weights=-1.0, expected a number of at least 0"):
        CrossEntropy(class_weights=(1.0, -1.0))
    with pytest.raises(SettingError, match=r"got ignore=1.0, expected a whole number, the label that does not count"):
        CrossEntropy(ignore=1.0)  # pyright: ignore[reportArgumentType] -- that is the test
    with pytest.raises(
        ShapeError, match=r"got 2 class_weights for 3 classes, expected one a class; give one weight a cl"
    ):
        CrossEntropy(class_weights=(1.0, 2.0)).forward(np.zeros((1, 3)), np.array([0]))


@pytest.mark.parametrize(
    "cost", [SquaredError(), CrossEntropy(reduction="sum", ignore=255), CrossEntropy(class_weights=(1.0, 2.0))]
)
def test_repr_is_the_call(cost):
    assert eval(repr(cost)) == cost
    assert "mean" not in repr(cost)
