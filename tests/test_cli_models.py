"""``faltung predict``, ``evaluate``, ``describe``, ``check`` and ``trace``: they say what the library computes."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from commands import run, stripes
from faltung.cli.evaluate import _table
from faltung.data import fashion, write_idx
from faltung.elements import CrossEntropy, MeanPool, Run, Softmax
from faltung.exchange.modelfile import load_model
from faltung.models import RECIPES
from faltung.training import evaluate


@pytest.fixture(scope="module")
def model(trained):
    return load_model(trained / "model.safetensors")


@pytest.fixture(scope="module")
def x():
    """The first test image: what the example of the trained run shows."""
    return fashion()[1][np.array([0])][0]


def test_predict_names_the_three_most_probable_classes(capsys, trained, model, x):
    network, params, about = model
    (p,) = Softmax().forward({}, network.predict(params, x))[0]
    outcome = run(capsys, "predict", trained, trained / "example.png", trained / "example.png")
    best = ", ".join(f"{about['classes'][k]} {100 * p[k]:.2f} %" for k in np.argsort(-p)[:3])
    assert outcome.out == f"{trained / 'example.png'}: {best}\n" * 2


def test_predict_as_json_holds_every_class(capsys, trained, model, x):
    network, params, about = model
    (p,) = Softmax().forward({}, network.predict(params, x))[0]
    found = json.loads(run(capsys, "predict", "--json", trained, trained / "example.png").out)
    assert found["image"] == str(trained / "example.png")
    assert found["class"] == about["classes"][p.argmax()]
    assert found["probabilities"] == dict(zip(about["classes"], p.astype(float), strict=True))
    assert list(found["probabilities"].values()) == sorted(found["probabilities"].values(), reverse=True)


def test_a_colour_image_is_taken_as_grey_where_the_network_takes_grey(capsys, tmp_path, trained):
    Image.open(trained / "example.png").convert("RGB").save(tmp_path / "colour.png")
    grey = run(capsys, "predict", trained, trained / "example.png").out.split(": ")[1]
    assert run(capsys, "predict", trained, tmp_path / "colour.png").out.split(": ")[1] == grey


def test_images_of_any_size_where_the_network_takes_them(capsys, tmp_path):
    data = stripes(tmp_path / "images")
    assert (
        run(capsys, "train", "--data", data, "--network", "allconv", "--epochs", 1, "--out", tmp_path / "run").code == 0
    )
    for width, height in ((12, 12), (31, 9), (1, 1)):
        Image.new("L", (width, height), 99).save(tmp_path / "image.png")
        assert run(capsys, "predict", tmp_path / "run", tmp_path / "image.png").code == 0
    assert run(capsys, "evaluate", tmp_path / "run", "--data", stripes(tmp_path / "larger", side=20)).code == 0
    assert run(capsys, "check", tmp_path / "run").code == 0


def test_evaluate_says_cost_accuracy_and_what_is_taken_for_what(capsys, trained, model):
    network, params, about = model
    _, test = fashion()
    found = evaluate(network, params, test, cost=CrossEntropy())
    outcome = run(capsys, "evaluate", trained)
    assert outcome.code == 0
    assert "2,000 test images of the part of Fashion-MNIST that comes with the package" in outcome.out
    assert f"cost {found['cost']:.4f}, accuracy {100 * found['accuracy']:.2f} %" in outcome.out
    y = np.concatenate([network.predict(params, test[k : k + 500][0]) for k in range(0, 2000, 500)])
    rows = outcome.out.splitlines()[-10:]
    for k, (row, name) in enumerate(zip(rows, about["classes"], strict=True)):
        counts = np.bincount(y[test.labels == k].argmax(-1), minlength=10)
        right = f"{100 * counts[k] / 200:.2f} %"
        assert re.sub(" +", " ", row) == " ".join([str(k), name, "200", right, *map(str, counts)])


def test_evaluate_takes_labels_without_names(capsys, tmp_path, trained):
    """IDX files name their classes "0", "1", ...; there may be fewer of them than the model knows."""
    _, test = fashion()
    chosen = np.flatnonzero(test.labels < 7)[:50]
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", test.pixels[chosen, ..., 0])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", test.labels[chosen].astype(np.uint8))
    outcome = run(capsys, "evaluate", trained, "--data", tmp_path)
    assert outcome.code == 0, outcome.err
    assert f"50 test images of {tmp_path}" in outcome.out
    assert re.search(r"9 +Ankle boot +0 +- ", outcome.out)


def test_many_classes_make_a_narrow_table():
    confusion = np.eye(13, dtype=np.int64) * 3
    confusion[2, 5] = 1
    lines = _table(confusion, tuple("abcdefghijklm")).splitlines()
    assert lines[0].split() == ["class", "images", "right", "most", "taken", "for"]
    assert lines[4].split() == ["2", "c", "4", "75.00", "%", "f", "(1)"]
    assert lines[5].split() == ["3", "d", "3", "100.00", "%"]


def test_describe_shows_the_table_and_how_it_was_made(capsys, trained, model):
    network, _, about = model
    outcome = run(capsys, "describe", trained)
    assert outcome.code == 0
    assert outcome.out.startswith(str(network))
    facts = dict(re.split(" {2,}", line) for line in outcome.out.split("\n\n")[1].splitlines())
    assert facts["parameters"] == "21,650 float32"
    assert facts["file"].startswith(str(trained / "model.safetensors"))
    assert facts["network"] == "ufldl"
    assert facts["classes"] == ", ".join(about["classes"])
    assert facts["history"].startswith("epoch 1, step 15, cost ")
    assert "data" not in facts


@pytest.mark.parametrize("name", RECIPES)
def test_check_passes_for_every_network(capsys, tmp_path, name):
    data = stripes(tmp_path / "images", side=12)
    arguments = ("--data", data, "--network", name, "--batch", 4, "--epochs", 2)
    assert run(capsys, "train", *arguments, "--out", tmp_path / "run").code == 0
    outcome = run(capsys, "check", tmp_path / "run")
    assert outcome.code == 0, outcome.out
    assert outcome.out.endswith("PASS\n")
    assert "conv1.w" in outcome.out


def test_check_fails_where_a_derivative_is_wrong(capsys, monkeypatch, trained):
    monkeypatch.setenv("FALTUNG_EXECUTOR", "reference")  # which runs the definition that is made wrong here
    monkeypatch.setattr(MeanPool, "slopes", lambda self, u, inside: np.full(u.shape, 0.25 * 1.001))
    outcome = run(capsys, "check", trained)
    assert outcome.code == 1
    assert outcome.out.endswith("FAIL\n")


def test_trace_writes_every_value_error_and_gradient(capsys, tmp_path, trained, model, x):
    network, params, about = model
    file = tmp_path / "trace.npz"
    predicted = int(network.predict(params, x).argmax())
    for more, label, said in (
        ((), predicted, "the predicted class"),
        (("--label", "Bag"), 8, "predicted: "),
        (("--label", "1"), 1, "predicted: "),
    ):
        outcome = run(capsys, "trace", trained, trained / "example.png", "--out", file, *more)
        assert outcome.code == 0, outcome.err
        assert f"label {about['classes'][label]} ({said}" in outcome.out
        back = network.backpropagate(params, x, np.array([label]), cost=CrossEntropy(), run=Run(training=False))
        with np.load(file) as found:
            expected = {f"value/{name}": value for name, value in back.values.items()}
            expected |= {f"error/{name}": error for name, error in back.errors.items()}
            expected |= {f"gradient/{name}": gradient for name, gradient in back.gradients.items()}
            assert found.keys() == expected.keys()
            assert {"value/conv1", "error/conv1", "gradient/conv1.w"} < expected.keys()
            for name, array in expected.items():
                assert np.array_equal(found[name], array)
                assert found[name].dtype == np.float32
                assert f"  {name}  {' x '.join(map(str, array.shape))}\n" in outcome.out
