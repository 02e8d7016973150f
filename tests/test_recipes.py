"""The recipes are the networks that they claim to be, and train as they say."""

import math

import numpy as np
import pytest

from faltung.check import gradient_check
from faltung.elements import Affine, CrossEntropy, Flatten
from faltung.errors import SettingError, ShapeError
from faltung.models import RECIPES, find_recipe
from faltung.training import SGD
from faltung.training.schedules import at_step


def count(network):
    return sum(math.prod(parameter.shape) for parameter in network.parameters.values())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_ends_in_one_logit_a_class(name):
    recipe = find_recipe(name)
    assert recipe.name == name
    network = recipe.network((28, 28, 3), 7)
    y = network.predict(network.initial(seed=0), np.random.default_rng(0).random((2, 28, 28, 3)))
    assert y.shape == (2, 7)
    assert y.dtype == np.float32


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_passes_the_gradient_check(name):
    network = find_recipe(name).network((16, 16, 1), 3)
    x = np.random.default_rng(1).random((3, 16, 16, 1))
    report = gradient_check(network, network.initial(seed=1), x, np.array([0, 2, 1]), cost=CrossEntropy(), entries=20)
    assert report.passed(1e-7), report


def test_the_ufldl_network_is_that_of_the_exercise():
    network = find_recipe("ufldl").network((28, 28, 1), 10)
    assert count(network) == 21650
    assert network.shapes["conv1"] == (20, 20, 20)
    assert network.shapes["flat"] == (2000,)
    params = network.initial(seed=3)
    limit = math.sqrt(6 / (10 + 2000 + 1))
    assert abs(params["conv1.w"].std() - 0.1) < 0.01
    assert 0.98 * limit < abs(params["dense.w"]).max() <= limit
    assert not params["conv1.b"].any()
    assert not params["dense.b"].any()


def test_the_tutorial_halves_the_rate_each_epoch_and_raises_the_momentum_at_its_20th_update():
    recipe = find_recipe("ufldl-tutorial")
    assert (recipe.epochs, recipe.batch, recipe.drop_last) == (3, 256, True)
    sgd = recipe.optimiser(60_000, recipe.batch)
    assert [at_step(sgd.rate, step) for step in (0, 233, 234, 467, 468, 701)] == [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    assert [at_step(sgd.momentum, step) for step in (0, 18, 19, 701)] == [0.5, 0.5, 0.95, 0.95]


def test_what_is_given_takes_the_place_of_what_the_recipe_says():
    recipe = find_recipe("ufldl-tutorial")
    sgd = recipe.optimiser(99, 10, rate=0.4, momentum=0.0)
    assert [at_step(sgd.rate, step) for step in (0, 8, 9)] == [0.4, 0.4, 0.2]
    assert sgd.momentum == 0.0
    assert find_recipe("ufldl").optimiser(99, 10, rate=0.3) == SGD(0.3, momentum=0.9)


@pytest.mark.parametrize("batch", [0, -3])
def test_a_batch_that_is_not_positive_is_refused(batch):
    with pytest.raises(SettingError, match=f"ufldl: got batch={batch}, expected a whole number of at least 1"):
        find_recipe("ufldl").optimiser(100, batch)


def test_lenet5_has_the_paper_sizes():
    network = find_recipe("lenet5").network((28, 28, 1), 10)
    shapes = [network.shapes[name] for name in ("conv1", "pool1", "conv2", "pool2", "dense1", "dense2", "dense3")]
    assert shapes == [(28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (120,), (84,), (10,)]
    # 156 and 48120 and 10164 are the paper's C1, C5 and F6; its C3 has 1516, for it leaves connections out.
    assert count(network) == 156 + (25 * 6 + 1) * 16 + 48120 + 10164 + 850


def test_allconv_has_no_dense_layer_and_takes_any_size():
    recipe = find_recipe("allconv")
    network = recipe.network((28, 28, 1), 10)
    assert not any(isinstance(step.element, Affine | Flatten) for step in network.steps)
    params = network.initial(seed=0)
    for height, width in ((1, 1), (9, 28), (33, 17)):
        assert network.predict(params, np.ones((2, height, width, 1))).shape == (2, 10)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ShapeError, match=r"Conv\(20, kernel=9, .*\) 'conv1': the kernel spans 9"):
        find_recipe("ufldl").network((8, 8, 1), 10)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(
        SettingError, match="got the network 'vgg', expected one of ufldl, ufldl-tutorial, lenet5, allconv"
    ):
        find_recipe("vgg")
