"""Cost and accuracy over data: by the definition, whatever the batches."""

import numpy as np
import pytest

from faltung.data import Arrays
from faltung.elements import Affine, BinaryCrossEntropy, Conv, CrossEntropy, Dropout, SquaredError
from faltung.errors import DataError, SettingError
from faltung.network import Chain
from faltung.training import evaluate

RNG = np.random.default_rng(5)
NETWORK = Chain(dense=Affine(3), drop=Dropout(0.5)).on((4,))
PARAMS = NETWORK.initial(0, np.float64)
X = RNG.normal(size=(17, 4))
Y = NETWORK.predict(PARAMS, X)
LABELS = RNG.integers(0, 3, 17)


@pytest.mark.parametrize(
    ("cost", "target"),
    [
        (CrossEntropy(), LABELS),
        (CrossEntropy(ignore=1), LABELS),
        (CrossEntropy(class_weights=(1.0, 0.5, 3.0)), LABELS),
        (CrossEntropy(), RNG.dirichlet(np.ones(3), 17)),
        (BinaryCrossEntropy(), RNG.uniform(size=(17, 3))),
        (SquaredError(), RNG.normal(size=(17, 3))),
    ],
    ids=repr,
)
def test_the_batches_do_not_matter(cost, target):
    data = Arrays(X, target)
    whole = evaluate(NETWORK, PARAMS, data, cost=cost, batch=17)
    assert whole["cost"] == pytest.approx(cost.forward(Y, target)[0], rel=1e-12)
    for batch in (1, 5, 16, 100):
        assert evaluate(NETWORK, PARAMS, data, cost=cost, batch=batch) == pytest.approx(whole, rel=1e-12)


def test_the_cost_of_a_sum_is_that_of_one_example():
    data = Arrays(X, RNG.normal(size=(17, 3)))
    found = evaluate(NETWORK, PARAMS, data, cost=SquaredError(reduction="sum"), batch=5)
    assert found == {"cost": pytest.approx(evaluate(NETWORK, PARAMS, data, cost=SquaredError())["cost"], rel=1e-12)}


def test_accuracy_by_hand():
    def accuracy(cost, target):
        return evaluate(NETWORK, PARAMS, Arrays(X, target), cost=cost, batch=4)["accuracy"]

    assert accuracy(CrossEntropy(), LABELS) == np.mean(Y.argmax(1) == LABELS)
    assert accuracy(CrossEntropy(ignore=2), LABELS) == np.mean((Y.argmax(1) == LABELS)[LABELS != 2])
    soft = RNG.dirichlet(np.ones(3), 17)
    assert accuracy(CrossEntropy(), soft) == np.mean(Y.argmax(1) == soft.argmax(1))
    assert accuracy(BinaryCrossEntropy(), np.eye(3)[LABELS]) == np.mean((Y > 0) == np.eye(3)[LABELS])


def test_every_position_counts():
    network = Chain(conv=Conv(3, kernel=1)).on((None, 2))
    params, x, labels = network.initial(0), RNG.normal(size=(4, 5, 2)), RNG.integers(0, 3, (4, 5))
    found = evaluate(network, params, Arrays(x, labels), cost=CrossEntropy(), batch=3)
    assert found["accuracy"] == np.mean(network.predict(params, x).argmax(-1) == labels)


def test_where_everything_is_ignored_nothing_is_right_or_wrong():
    assert evaluate(NETWORK, PARAMS, Arrays(X, np.full(17, -1)), cost=CrossEntropy(ignore=-1)) == {"cost": 0.0}


def test_labels_and_batches_that_do_not_fit():
    with pytest.raises(DataError, match="label"):
        evaluate(NETWORK, PARAMS, Arrays(X, LABELS + 1), cost=CrossEntropy())
    with pytest.raises(SettingError, match="the batch size is 0, expected at least 1"):
        evaluate(NETWORK, PARAMS, Arrays(X, LABELS), cost=CrossEntropy(), batch=0)
