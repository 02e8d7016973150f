"""``faltung train``: what it writes and says, and that a run can stop and go on."""

import json
import re
import shlex
import signal
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from commands import run, start, stripes
from faltung.cli.data import balanced, load
from faltung.data import Images, fashion, read_image, write_idx
from faltung.exchange.modelfile import load_model
from faltung.models import find_recipe

FILES = ["checkpoint.safetensors", "curve.svg", "example.png", "log.jsonl", "model.safetensors", "settings.json"]
SMALL = ("--limit", 100, "--batch", 20)


def params(folder):
    return load_model(folder / "model.safetensors")[1]


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_without_options_it_trains_the_ufldl_network_on_clothes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        outcome = run(capsys, "train", "--epochs", 1, "--limit", 100)
        assert outcome.code == 0
        assert sorted(path.name for path in (tmp_path / f"runs/ufldl-{number}").iterdir()) == FILES
        assert re.search(r"test accuracy \d+\.\d\d %, cost \d+\.\d{4}, after epoch 1\n", outcome.out)
        assert "Fashion-MNIST" in outcome.out
        assert "100 training and 100 test images, 28 x 28 x 1" in outcome.out
        assert all(f"runs/ufldl-{number}/{name}" in outcome.out for name in FILES)
    network, _, about = load_model("runs/ufldl-1/model.safetensors")
    assert repr(network) == repr(find_recipe("ufldl").network((28, 28, 1), 10))
    assert about["classes"] == list(fashion()[0].classes)
    assert (about["network"], about["data"], about["seed"]) == ("ufldl", None, 0)


def test_the_commands_that_it_recommends_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = run(capsys, "train", "--epochs", 1, *SMALL, "--out", "a run").out.splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("  faltung ")]
    assert [words[1] for words in commands] == ["predict", "evaluate", "check", "trace", "train"]
    for words in commands:
        outcome = run(capsys, *words[1:])
        assert outcome.code == 0, outcome.err


def test_the_example_is_the_first_test_image(trained):
    assert np.array_equal(read_image(trained / "example.png", 1), fashion()[1].pixels[0])


def test_idx_files(capsys, tmp_path):
    images, _ = fashion()
    for part, count in (("train", 60), ("t10k", 30)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images.pixels[:count, ..., 0])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", images.labels[:count].astype(np.uint8))
    outcome = run(capsys, "train", "--data", tmp_path, "--epochs", 1, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "60 training and 30 test images, 28 x 28 x 1" in outcome.out
    assert load_model(tmp_path / "run/model.safetensors")[2]["classes"] == list("0123456789")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["ufldl", "lenet5", "allconv"])
def test_a_folder_of_images_with_every_network(capsys, tmp_path, name, channels):
    data = stripes(tmp_path / "images", side=16, channels=channels)
    arguments = ("--data", data, "--network", name, "--epochs", 2, "--batch", 6, "--out", tmp_path / "run")
    outcome = run(capsys, "train", *arguments)
    assert outcome.code == 0, outcome.err
    network, _, about = load_model(tmp_path / "run/model.safetensors")
    sides = (None, None) if name == "allconv" else (16, 16)
    assert network.inputs == {"x": (*sides, channels)}
    assert about["classes"] == ["width 1", "width 2"]


def test_it_learns(capsys, tmp_path):
    data = stripes(tmp_path / "images", each=60, classes=3)
    outcome = run(capsys, "train", "--data", data, "--epochs", 12, "--batch", 8, "--out", tmp_path / "run")
    assert "test accuracy 100.00 %" in outcome.out, outcome.out


def test_images_are_resized_in_training_and_after(capsys, tmp_path):
    data = stripes(tmp_path / "images", side=30)
    Image.new("L", (7, 9)).save(data / "width 1" / "odd.png")
    outcome = run(capsys, "train", "--data", data, "--size", "16x14", "--epochs", 1, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "37 training and 4 test images, 16 x 14 x 1" in outcome.out
    assert run(capsys, "predict", tmp_path / "run", data / "width 1" / "odd.png").code == 0
    assert run(capsys, "evaluate", tmp_path / "run").code == 0


def test_the_embedded_images_are_resized_too():
    train, test = load(None, (14, 20))
    assert train.pixels.shape == (10_000, 14, 20, 1)
    assert test.pixels.shape == (2_000, 14, 20, 1)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 45))
def test_a_limit_takes_the_first_images_evenly_from_all_classes(labels, limit):
    labels = np.array(labels)
    pixels = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    chosen = balanced(Images(pixels, labels, tuple("abcd")), limit)
    assert len(chosen) == min(limit, len(labels))
    places = chosen.pixels.ravel()
    assert (np.diff(places) > 0).all()
    taken = np.bincount(chosen.labels, minlength=4)
    had = np.bincount(labels, minlength=4)
    for k in range(4):
        assert np.array_equal(places[chosen.labels == k], np.flatnonzero(labels == k)[: taken[k]])
        assert taken[k] == had[k] or taken[k] >= taken.max() - 1


def test_the_options_reach_the_training(capsys, tmp_path):
    options = ("--rate", 0.03, "--momentum", 0.6, "--seed", 4)
    outcome = run(capsys, "train", *SMALL, "--epochs", 3, *options, "--out", tmp_path / "run")
    assert "epochs 3, batch 20, SGD(0.03, momentum=0.6), seed 4" in outcome.out
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    assert settings == {
        "network": "ufldl",
        "data": None,
        "size": None,
        "limit": 100,
        "epochs": 3,
        "batch": 20,
        "rate": 0.03,
        "momentum": 0.6,
        "seed": 4,
    }
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 3


def test_a_seed_fixes_the_result(capsys, tmp_path):
    for name, seed in (("one", 5), ("same", 5), ("other", 6)):
        run(capsys, "train", *SMALL, "--epochs", 1, "--seed", seed, "--out", tmp_path / name)
    assert same(params(tmp_path / "one"), params(tmp_path / "same"))
    assert not same(params(tmp_path / "one"), params(tmp_path / "other"))


def test_a_run_goes_on_to_more_epochs_as_if_it_had_never_stopped(capsys, tmp_path):
    assert run(capsys, "train", *SMALL, "--epochs", 3, "--out", tmp_path / "whole").code == 0
    assert run(capsys, "train", *SMALL, "--epochs", 1, "--out", tmp_path / "parts").code == 0
    outcome = run(capsys, "train", "--resume", tmp_path / "parts", "--epochs", 3)
    assert outcome.code == 0, outcome.err
    assert "after epoch 3" in outcome.out
    assert same(params(tmp_path / "whole"), params(tmp_path / "parts"))
    assert json.loads((tmp_path / "parts/settings.json").read_text())["epochs"] == 3


@pytest.mark.skipif(sys.platform == "win32", reason="signals as on POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_says_how_to_go_on(capsys, tmp_path, number, code):
    """The signal comes after the first epoch's line; going on gives what an undisturbed run gives."""
    arguments = ("train", "--data", stripes(tmp_path / "images"), "--epochs", 500, "--batch", 6)
    process = start(*arguments, "--out", tmp_path / "run")
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert first.startswith("epoch   1/500  cost ")
    assert process.returncode == code, err
    message = rf"faltung: stopped in epoch (\d+) of 500; go on with: faltung (train --resume {tmp_path}/run)"
    found = re.fullmatch(message, err.splitlines()[-1])
    assert found, err
    epochs = found[1]
    assert run(capsys, *shlex.split(found[2]), "--epochs", epochs).code == 0
    assert run(capsys, *arguments, "--epochs", epochs, "--out", tmp_path / "whole").code == 0
    assert same(params(tmp_path / "whole"), params(tmp_path / "run"))


def test_a_log_holds_no_control_characters(tmp_path):
    process = start("train", *SMALL, "--epochs", 2, "--out", tmp_path / "run")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [line.split("  ")[0] for line in err.split("\n") if line] == ["epoch 1/2", "epoch 2/2"]
    assert not [c for c in out + err if ord(c) < 32 and c != "\n"]
