"""The everyday object: it does what network, fit, evaluate and model files do, and changes nothing in place."""

import numpy as np
import pytest

from faltung.elements import Affine, CrossEntropy, Identity, Sum
from faltung.errors import ModelFileError, SettingError
from faltung.exchange.modelfile import load_model
from faltung.model import Model
from faltung.network import Graph, Node
from faltung.training import evaluate, fit
from tiny_training import NETWORK, images, settings, without_times

TRAIN, TEST = images(20), images(12, seed=1)
MODEL = Model(NETWORK, NETWORK.initial(0), {"classes": ["lies", "stands"]})


def test_fit_returns_a_new_model_with_its_history():
    before = {name: w.copy() for name, w in MODEL.params.items()}
    trained = MODEL.fit(TRAIN, **settings(test=TEST))
    fitted = fit(NETWORK, MODEL.params, TRAIN, **settings(test=TEST))
    assert all(np.array_equal(w, fitted.params[name]) for name, w in trained.params.items())
    assert without_times(trained.about["history"]) == without_times(fitted.history)
    assert trained.about["classes"] == ["lies", "stands"]
    assert MODEL.about == {"classes": ["lies", "stands"]}
    assert all(np.array_equal(w, before[name]) for name, w in MODEL.params.items())


def test_training_can_go_on_from_a_trained_model(tmp_path):
    twice = MODEL.fit(TRAIN, **settings()).fit(TRAIN, **settings(epochs=2, out=tmp_path))
    assert len(twice.about["history"]) == 2
    assert load_model(tmp_path / "model.safetensors")[2] == twice.about


def test_save_and_load(tmp_path):
    trained = MODEL.fit(TRAIN, **settings())
    trained.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert again.about == trained.about
    assert np.array_equal(again.predict(TEST.x), trained.predict(TEST.x))
    with pytest.raises(ModelFileError, match="cannot read"):
        Model.load(tmp_path / "other")


@pytest.mark.parametrize("batch", [1, 5, 12, 100])
def test_predict_joins_the_batches(batch):
    whole = NETWORK.predict(MODEL.params, TEST.x)
    np.testing.assert_allclose(MODEL.predict(TEST.x, batch=batch), whole, rtol=1e-5, atol=1e-6)


def test_predict_without_examples():
    assert MODEL.predict(TEST.x[:0]).shape == (0, 2)


def test_predict_several_inputs_and_outputs():
    graph = Graph(a=Node(Affine(2), "left"), s=Node(Sum(), "a", "right"), copy=Node(Identity(), "a"))
    network = graph.on(left=(3,), right=(2,))
    model = Model(network, network.initial(0))
    x = {"left": np.ones((5, 3)), "right": np.arange(10.0).reshape(5, 2)}
    whole, parts = network.predict(model.params, x), model.predict(x, batch=2)
    assert parts.keys() == whole.keys() == {"s", "copy"}
    assert all(np.array_equal(parts[name], whole[name]) for name in whole)


def test_evaluate():
    found = MODEL.evaluate(TEST, cost=CrossEntropy(), batch=5)
    assert found == evaluate(NETWORK, MODEL.params, TEST, cost=CrossEntropy(), batch=5)
    with pytest.raises(SettingError, match="predict: got batch=0, expected a whole number of at least 1"):
        MODEL.predict(TEST.x, batch=0)
