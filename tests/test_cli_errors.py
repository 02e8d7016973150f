"""Bad input on the command line: one line that says what is wrong and the way out, and exit code 2."""

import gzip
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from commands import run, start, stripes
from faltung.data import write_idx
from faltung.elements import Affine
from faltung.exchange import tensorfile
from faltung.exchange.modelfile import load_model, save_model
from faltung.network import Chain


def refused(outcome, *parts):
    """Whether the command ended with one line that holds these parts."""
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("faltung: error: "), outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    for part in parts:
        assert part in outcome.err
    assert "; " in outcome.err, "there is no way out"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epochs", 0), "got epochs=0, expected a whole number of at least 1"),
        (("--batch", 0), "got batch=0, expected a whole number of at least 1"),
        (("--batch", -64), "got batch=-64, expected"),
        (("--rate", 0), "got rate=0.0, expected a number above 0"),
        (("--rate", -0.1), "got rate=-0.1, expected a number of at least 0"),
        (("--rate", "nan"), "got rate=nan, expected"),
        (("--momentum", 1), "got momentum=1.0, expected a number of at least 0 and below 1"),
        (("--seed", -1), "got --seed -1, expected at least 0"),
        (("--limit", 0), "got --limit 0, expected at least 1"),
        (("--size", "28"), "got --size 28, expected HxW"),
        (("--size", "0x28"), "got --size 0x28, expected HxW"),
        (
            ("--size", "8x8"),
            "the kernel spans 9, the padded input only 8 (8 + 0 + 0) on axis 0; enlarge all images, as --size",
        ),
        (("--network", "vgg"), "got the network 'vgg', expected one of ufldl, "),
        (("--network", "ufldl-tutorial", "--limit", 100), "100 examples do not fill one batch of 256"),
        (("--data", "nowhere"), "nowhere: No such file or directory"),
    ],
)
def test_options_of_train(capsys, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    refused(run(capsys, "train", *options), message)
    assert not list(tmp_path.iterdir()), "a run that cannot begin leaves nothing behind"


def test_an_output_folder_that_cannot_be_made(capsys, tmp_path):
    (tmp_path / "file").touch()
    refused(run(capsys, "train", "--limit", 100, "--out", tmp_path / "file" / "run"), "cannot make the folder")
    refused(run(capsys, "train", "--limit", 100, "--out", tmp_path / "file"), "cannot make the folder")


def test_an_output_folder_that_holds_a_run(capsys, trained):
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    refused(run(capsys, "train", "--out", trained), "where a run lies already", f"faltung train --resume {trained}")
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_resuming(capsys, tmp_path, trained):
    refused(run(capsys, "train", "--resume", tmp_path), "holds no checkpoint; name the folder of a run")
    refused(run(capsys, "train", "--resume", trained, "--batch", 3, "--out", "x"), "got --resume with --batch, --out")
    copy = shutil.copytree(trained, tmp_path / "copy")
    wrong = json.dumps(json.loads((copy / "settings.json").read_text()) | {"rate": "high"})
    for damage in ("", "[]", "{}", "{", "[" * 100_000, wrong):
        (copy / "settings.json").write_text(damage)
        refused(run(capsys, "train", "--resume", copy), "settings.json is damaged")
    (copy / "settings.json").unlink()
    refused(run(capsys, "train", "--resume", copy), "settings.json: No such file or directory")


def test_resuming_with_fewer_epochs_than_are_done(capsys, tmp_path, trained):
    copy = shutil.copytree(trained, tmp_path / "copy")
    assert run(capsys, "train", "--resume", copy, "--epochs", 2).code == 0
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    outcome = run(capsys, "train", "--resume", copy, "--epochs", 1)
    refused(outcome, f"got --epochs 1, but the run in {copy} has done 2; ask for at least 2")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_resuming_with_a_damaged_checkpoint(capsys, tmp_path, trained):
    copy = shutil.copytree(trained, tmp_path / "copy")
    data = (trained / "checkpoint.safetensors").read_bytes()
    (copy / "checkpoint.safetensors").write_bytes(data[:-100])
    refused(run(capsys, "train", "--resume", copy), "checkpoint.safetensors: the file is damaged")


def test_resuming_with_other_settings(capsys, tmp_path, trained):
    copy = shutil.copytree(trained, tmp_path / "copy")
    settings = json.loads((copy / "settings.json").read_text())
    (copy / "settings.json").write_text(json.dumps(settings | {"limit": 200}))
    refused(
        run(capsys, "train", "--resume", copy), "the checkpoint is of another run", "examples is 300 there, and 200"
    )


@pytest.fixture
def idx(tmp_path):
    """A folder of 40 + 20 small images as IDX files."""
    folder = tmp_path / "idx"
    folder.mkdir()
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 20)):
        write_idx(folder / f"{part}-images-idx3-ubyte", random.integers(0, 256, (count, 12, 12)).astype(np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte", random.integers(0, 4, count).astype(np.uint8))
    return folder


def test_idx_files_as_they_should_be(capsys, tmp_path, idx):
    outcome = run(capsys, "train", "--data", idx, "--epochs", 1, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err


def test_a_missing_idx_file(capsys, idx):
    (idx / "t10k-labels-idx1-ubyte").unlink()
    refused(run(capsys, "train", "--data", idx), "t10k-labels-idx1-ubyte is missing")


def test_a_truncated_idx_file(capsys, idx):
    path = idx / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    refused(run(capsys, "train", "--data", idx), "train-images-idx3-ubyte: its header promises 5760", "got only 5755")


def test_a_corrupt_idx_file(capsys, idx):
    path = idx / "train-images-idx3-ubyte"
    data = bytearray(gzip.compress(path.read_bytes()))
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    refused(run(capsys, "train", "--data", idx), "train-images-idx3-ubyte")
    path.write_bytes(b"not an IDX file")
    refused(run(capsys, "train", "--data", idx), "train-images-idx3-ubyte")


def test_labels_and_images_of_different_count(capsys, idx):
    write_idx(idx / "train-labels-idx1-ubyte", np.zeros(39, np.uint8))
    refused(run(capsys, "train", "--data", idx), "40 images but 39 labels")


def test_folders_of_images(capsys, tmp_path):
    refused(run(capsys, "train", "--data", tmp_path), "got no folders")
    data = stripes(tmp_path / "images")
    Image.new("L", (5, 5)).save(data / "width 2" / "z.png")
    refused(run(capsys, "train", "--data", data), "z.png is 5 x 5, but", "one size; resize all images", "--size 12x12")
    (data / "width 2" / "z.png").write_bytes(b"no image")
    refused(run(capsys, "train", "--data", data), "z.png: no known kind of image")


@pytest.mark.parametrize("command", ["predict", "trace"])
def test_images(capsys, tmp_path, trained, command):
    more = ("--out", tmp_path / "t.npz") if command == "trace" else ()
    refused(run(capsys, command, trained, tmp_path / "nowhere.png", *more), "nowhere.png: No such file or directory")
    (tmp_path / "text.png").write_text("no image")
    refused(run(capsys, command, trained, tmp_path / "text.png", *more), "text.png: no known kind of image")
    (tmp_path / "short.png").write_bytes((trained / "example.png").read_bytes()[:-60])
    refused(run(capsys, command, trained, tmp_path / "short.png", *more), "cannot read", "short.png")
    Image.new("L", (30, 20)).save(tmp_path / "other.png")
    refused(
        run(capsys, command, trained, tmp_path / "other.png", *more),
        f"other.png is 20 x 30 x 1, but {trained / 'model.safetensors'} takes 28 x 28 x 1; resize the images",
    )
    assert not (tmp_path / "t.npz").exists()


@pytest.mark.parametrize("command", ["predict", "evaluate", "describe", "check", "trace", "explain"])
def test_model_files(capsys, tmp_path, trained, command):
    more = {"predict": (trained / "example.png",)}.get(command, ())
    more = (trained / "example.png", "--out", tmp_path / "t.npz") if command == "trace" else more
    path = tmp_path / "model.safetensors"
    refused(run(capsys, command, path, *more), "model.safetensors: No such file or directory")
    data = (trained / "model.safetensors").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(run(capsys, command, path, *more), "model.safetensors: the file is damaged")
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused(run(capsys, command, path, *more), "its checksum does not agree")
    refused(run(capsys, command, trained / "checkpoint.safetensors", *more), "format 'faltung checkpoint'")
    tensorfile.write(path, "faltung", {"w": np.ones(1)}, {"version": "2"})
    refused(run(capsys, command, path, *more), "newer version", "upgrade faltung")


@pytest.mark.parametrize("about", [{}, {"classes": 3}, {"classes": ["a"]}, {"classes": ["a", 1]}])
def test_a_model_that_does_not_tell_images_apart(capsys, tmp_path, trained, about):
    path = tmp_path / "line.safetensors"
    network = Chain(dense=Affine(2)).on((4,))
    save_model(path, network, network.initial(seed=0), about)
    refused(run(capsys, "predict", path, trained / "example.png"), "expected one from images")
    network, params, known = load_model(trained / "model.safetensors")
    save_model(path, network, params, about)
    refused(run(capsys, "predict", path, trained / "example.png"), "expected one from images")
    save_model(path, network, params, known | {"size": [28]})
    refused(run(capsys, "predict", path, trained / "example.png"), "expected one from images")


def test_evaluating_on_other_images(capsys, tmp_path, trained, idx):
    refused(
        run(capsys, "evaluate", trained, "--data", idx), "the test images are 12 x 12 x 1, but", "takes 28 x 28 x 1"
    )
    data = stripes(tmp_path / "images", side=28)
    refused(run(capsys, "evaluate", trained, "--data", data), "got images of the classes width 1, width 2, but")
    refused(run(capsys, "evaluate", trained, "--data", tmp_path / "no"), "no: No such file or directory")


def test_tracing(capsys, tmp_path, trained):
    arguments = ("trace", trained, trained / "example.png", "--out")
    refused(run(capsys, *arguments, tmp_path / "no" / "t.npz"), "cannot write", "make the folder first")
    refused(run(capsys, *arguments, tmp_path), "it is not a file")
    refused(run(capsys, *arguments, tmp_path / "t.npz", "--label", "Hat"), "got --label Hat", "8 Bag, 9 Ankle boot")
    refused(run(capsys, *arguments, tmp_path / "t.npz", "--label", "10"), "got --label 10")


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE as on Linux")
def test_a_full_disk_during_a_checkpoint_leaves_the_old_one(capsys, tmp_path, trained):
    copy = shutil.copytree(trained, tmp_path / "copy")
    checkpoint = (copy / "checkpoint.safetensors").read_bytes()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    process = start("train", "--resume", copy, "--epochs", 2, before=limit)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    *_, last = err.splitlines()
    assert last.startswith("faltung: error: cannot write")
    assert "checkpoint.safetensors: File too large (the previous file is untouched); " in last
    assert "Traceback" not in err
    assert (copy / "checkpoint.safetensors").read_bytes() == checkpoint
    assert run(capsys, "train", "--resume", copy).code == 0
