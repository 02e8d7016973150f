"""Compiled costs against their NumPy definitions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import BinaryCrossEntropy, CrossEntropy, SquaredError
from faltung.engine.kernels.elementwise import BLOCK
from faltung.engine.lower.costs import LOWERINGS
from faltung.errors import DataError, ShapeError
from guard import copied
from lowered import FLOATS, assert_close

COSTS = [
    SquaredError(), SquaredError(reduction="sum"), BinaryCrossEntropy(), CrossEntropy(), CrossEntropy(reduction="sum"),
    CrossEntropy(ignore=-100), "class weights", "soft", "soft, class weights",
]  # fmt: skip
costs = pytest.mark.parametrize("kind", COSTS, ids=str)


def problem(kind: Any, *shape: int, dtype: Any = np.float64, seed: int = 0) -> tuple[Any, Any, Any]:
    """A cost, y and a target for it."""
    rng, classes = np.random.default_rng(seed), shape[-1]
    y = rng.normal(scale=4, size=shape).astype(dtype)
    weights = tuple(rng.uniform(0, 2, classes).tolist())
    soft = rng.dirichlet(np.ones(classes), shape[:-1]).astype(dtype) if classes > 1 else np.ones(shape, dtype)
    labels = rng.integers(0, classes, shape[:-1])
    if kind == "class weights":
        return CrossEntropy(class_weights=weights), y, labels
    if isinstance(kind, str):
        return CrossEntropy(class_weights=weights if "class weights" in kind else None), y, soft
    if isinstance(kind, CrossEntropy):
        return kind, y, np.where(rng.random(labels.shape) < 0.3, kind.ignore, labels) if kind.ignore else labels
    target = rng.random(shape) if isinstance(kind, BinaryCrossEntropy) else rng.normal(size=shape)
    return kind, y, target.astype(dtype)


def check(cost: Any, y: Any, target: Any, weight: Any = None, end: bool = True, tolerance: float = 20) -> None:
    """J and dy agree with the definition in float64."""
    forward, error = LOWERINGS[type(cost)]
    double = target.astype(np.float64) if target.dtype.kind == "f" else target
    J, kept = cost.forward(y.astype(np.float64), double, weight)
    fast, fast_kept = forward(cost, copied(y, end), copied(target, end), weight)
    assert type(fast) is float
    assert abs(fast - J) <= tolerance * np.finfo(y.dtype).eps * max(1, abs(J))
    assert_close([error(cost, fast_kept)], [cost.error(kept)], y.dtype, tolerance)


@costs
@pytest.mark.parametrize("dtype", FLOATS)
def test_agrees_on_every_machine_between_guards(kind, dtype, machine, end):
    for shape in ((3, 1), (2, 5, 3), (4, 16), (3, 2, 17), (2, 40)):
        check(*problem(kind, *shape, dtype=dtype), end=end)


@costs
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(1, 50), st.sampled_from(FLOATS),
    st.integers(0, 99), st.booleans(),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_any_shape_and_weight(kind, axes, classes, dtype, seed, weighted):
    weight = np.random.default_rng(seed).uniform(0, 3, axes[0]) if weighted else None
    check(*problem(kind, *axes, classes, dtype=dtype, seed=seed), weight)


@costs
def test_several_blocks(kind):
    check(*problem(kind, 3, BLOCK // 5, 7, dtype=np.float32), tolerance=100)
    check(*problem(kind, 2, 3 * BLOCK + 7, dtype=np.float32), tolerance=100)


def test_infinite_logits_are_as_in_the_definition():
    cost, y = CrossEntropy(), np.array([[0, np.inf], [0, -np.inf], [np.nan, 1], [-np.inf, -np.inf]])
    for row in y:
        for label in ([0], [1]):
            target = np.array(label)
            with np.errstate(all="ignore"):
                J, kept = cost.forward(row[None], target)
                expected = cost.error(kept)
            fast, dy = LOWERINGS[CrossEntropy][0](cost, row[None], target)
            np.testing.assert_array_equal(fast, J)
            np.testing.assert_array_equal(dy, expected)


def test_all_labels_ignored_cost_nothing():
    forward, error = LOWERINGS[CrossEntropy]
    cost = CrossEntropy(ignore=0)
    J, kept = forward(cost, np.ones((2, 3)), np.zeros(2, int))
    assert J == 0
    assert error(cost, kept).tolist() == [[0, 0, 0], [0, 0, 0]]


@costs
def test_the_number_of_threads_does_not_change_a_bit(kind, monkeypatch):
    cost, y, target = problem(kind, 50, BLOCK // 10, 10, dtype=np.float32)
    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("FALTUNG_THREADS", threads)
        J, kept = LOWERINGS[type(cost)][0](cost, y, target)
        results.append((J, LOWERINGS[type(cost)][1](cost, kept).tobytes()))
    assert len(set(results)) == 1


@pytest.mark.parametrize(
    ("cost", "target", "error", "message"),
    [
        (SquaredError(), np.zeros((2, 3)), ShapeError, r"got a target of shape \(2, 3\), expected \(2, 4\)"),
        (CrossEntropy(), np.array([0, 4]), DataError, r"got label 4 at \(1,\), expected 0 to 3"),
        (BinaryCrossEntropy(), np.full((2, 4), 2.0), DataError, r"got target 2.0 at \(0, 0\), expected 0 to 1"),
    ],
)
def test_targets_are_refused_as_by_the_definition(cost, target, error, message):
    with pytest.raises(error, match=message):
        LOWERINGS[type(cost)][0](cost, np.zeros((2, 4)), target)
