"""Model files: what is saved comes back; damage of any kind is one clear error."""

import errno
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from faltung.elements import Affine, BatchNorm, Conv, Flatten, Pool, Sigmoid
from faltung.errors import FileError, ModelFileError
from faltung.exchange import tensorfile
from faltung.exchange.modelfile import load_model, save_model
from faltung.network import Chain

NETWORK = Chain(
    conv=Conv(2, kernel=3), norm=BatchNorm(), sigm=Sigmoid(), pool=Pool(2, "mean(x**2)"), flat=Flatten(), out=Affine(3)
).on((6, 6, 1))
ABOUT = {"classes": ["a", "ö", "😀"], "accuracy": 0.1 + 0.2, "nested": {"list": [1, None, True]}}


def parameters(dtype=np.float32, seed=0):
    random = np.random.default_rng(seed)
    return {name: random.uniform(0.1, 1, w.shape).astype(dtype) for name, w in NETWORK.initial(0).items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, NETWORK, parameters(), ABOUT)
    return path.read_bytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_comes_back(tmp_path, dtype):
    save_model(tmp_path / "m", NETWORK, parameters(dtype), ABOUT)
    network, params, about = load_model(str(tmp_path / "m"))
    assert network.composite == NETWORK.composite
    assert about == ABOUT
    assert list(params) == list(NETWORK.parameters | NETWORK.states)
    for name, w in parameters(dtype).items():
        assert params[name].dtype == dtype
        assert np.array_equal(params[name], w)
        assert params[name].flags.writeable
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 1))
    assert np.array_equal(network.predict(params, x), NETWORK.predict(parameters(dtype), x))


def test_parameters_need_not_be_contiguous(tmp_path):
    params = {name: np.asfortranarray(w[..., ::-1]) for name, w in parameters().items()}
    save_model(tmp_path / "m", NETWORK, params)
    assert all(np.array_equal(w, params[name]) for name, w in load_model(tmp_path / "m")[1].items())


def test_other_readers_of_safetensors_can_open_it(tmp_path):
    save_model(tmp_path / "m", NETWORK, parameters(), ABOUT)
    with safe_open(tmp_path / "m", "np") as file:
        metadata = file.metadata()
        assert np.array_equal(file.get_tensor("conv.w"), parameters()["conv.w"])
    assert (metadata["format"], metadata["version"]) == ("faltung", "1")
    assert json.loads(metadata["about"]) == ABOUT
    assert json.loads(metadata["network"])["inputs"] == {"x": [6, 6, 1]}


def test_arrays_of_any_rank_and_size(tmp_path):
    arrays = {"none": np.array(3.5), "empty": np.zeros((2, 0)), "big": np.arange(4.0).astype(">f8")}
    tensorfile.write(tmp_path / "t", "test", arrays, {"text": "ö"})
    tensors, metadata = tensorfile.read(tmp_path / "t", "test")
    assert metadata["text"] == "ö"
    assert {name: (array.shape, array.tolist()) for name, array in tensors.items()} == {
        name: (array.shape, array.tolist()) for name, array in arrays.items()
    }


def test_a_network_without_parameters(tmp_path):
    save_model(tmp_path / "m", Chain(sigm=Sigmoid()).on((None, 2)), {})
    network, params, about = load_model(tmp_path / "m")
    assert (repr(network), params, about) == ("Chain(sigm=Sigmoid()).on((None, 2))", {}, {})


# What cannot be saved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv.w": None}, r"cannot write .*m: the parameters are not those of the network: missing conv.w; give the"),
        ({"other": np.zeros(2)}, "extra other"),
        ({"conv.b": np.zeros((1, 2), np.float32)}, r"conv.b has the shape \(1, 2\), expected \(2,\)"),
        ({"conv.b": np.zeros(2)}, "float32, float64, expected one floating dtype"),
    ],
)
def test_parameters_that_do_not_fit_are_not_saved(tmp_path, change, message):
    params = {name: w for name, w in (parameters() | change).items() if w is not None}
    with pytest.raises(ModelFileError, match=message):
        save_model(tmp_path / "m", NETWORK, params)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("about", [{"nan": float("nan")}, {"array": np.zeros(2)}, {"bytes": b"x"}])
def test_about_must_be_json(tmp_path, about):
    with pytest.raises(
        ModelFileError, match=r"got about=\{.*\}, expected what JSON can say .*; use text, finite numbers"
    ):
        save_model(tmp_path / "m", NETWORK, parameters(), about)


def test_a_full_disk_leaves_the_old_model(tmp_path, monkeypatch):
    save_model(tmp_path / "m", NETWORK, parameters(), {"old": 1})

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        FileError, match=r"cannot write .*m: No space left on device \(the previous file is untouched\)"
    ):
        save_model(tmp_path / "m", NETWORK, parameters(seed=1), {"new": 1})
    assert load_model(tmp_path / "m")[2] == {"old": 1}


# What cannot be loaded


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match=r"cannot read .*nowhere: No such file or directory; check the name"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelFileError, match="Is a directory"):
        load_model(tmp_path)


def test_a_file_that_is_no_safetensors_file(tmp_path):
    for content in (b"", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(8), b"\x02\0\0\0\0\0\0\0[]", b"[" * 100_000):
        (tmp_path / "m").write_bytes(content)
        with pytest.raises(
            ModelFileError, match=r"m: the file is damaged, or not a faltung file; take an undamaged copy"
        ):
            load_model(tmp_path / "m")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_safetensors_file_of_others(tmp_path, metadata):
    (tmp_path / "m").write_bytes(save({"w": np.zeros(2)}, metadata))
    with pytest.raises(
        ModelFileError, match=r"m: got a file of the format .*, expected 'faltung'; name a file written by"
    ):
        load_model(tmp_path / "m")


def test_a_file_of_a_newer_version(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorfile, "VERSION", "2")
    save_model(tmp_path / "m", NETWORK, parameters())
    monkeypatch.undo()
    message = r"m: the file was written by a newer version \('2', this one reads '1'\); upgrade faltung$"
    with pytest.raises(ModelFileError, match=message):
        load_model(tmp_path / "m")


def test_a_checkpoint_is_no_model(tmp_path):
    tensorfile.write(tmp_path / "c", "faltung checkpoint", {}, {})
    with pytest.raises(ModelFileError, match="got a file of the format 'faltung checkpoint', expected 'faltung'"):
        load_model(tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "texts", "message"),
    [
        (
            {"conv.w": None, "conv.b": None},
            {},
            r"not those of the network: missing conv.b, conv.w\); take an undamaged",
        ),
        ({"more": np.zeros(1)}, {}, "extra more"),
        ({"conv.b": np.zeros(3, np.float32)}, {}, r"conv.b has the shape \(3,\), expected \(2,\)"),
        ({"conv.b": np.zeros(2, np.int64)}, {}, "float32, int64, expected one floating dtype"),
        ({}, {"network": "{"}, "JSONDecodeError"),
        ({}, {"network": "[" * 100_000}, "RecursionError"),
        ({}, {"network": "{}"}, r"m: the description of the network is damaged \(KeyError"),
        ({}, {"network": '{"inputs": {"x": [1' + "0" * 5000 + "]}}"}, "ValueError"),
        ({}, {"about": "[]"}, "about is no object"),
        ({}, {"about": "nonsense"}, "JSONDecodeError"),
    ],
)
def test_a_file_whose_parts_do_not_fit(tmp_path, saved, change, texts, message):
    (tmp_path / "good").write_bytes(saved)
    tensors, metadata = tensorfile.read(tmp_path / "good", "faltung")
    good = {name: metadata[name] for name in ("network", "about")}
    tensors = {name: w for name, w in (tensors | change).items() if w is not None}
    tensorfile.write(tmp_path / "m", "faltung", tensors, good | texts)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(tmp_path / "m")
    assert "m: " in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_damaged(tmp_path_factory, saved, cut):
    path = tmp_path_factory.mktemp("cut") / "m"
    path.write_bytes(saved[: int(cut * len(saved))])
    with pytest.raises(ModelFileError, match="m: the file is damaged"):
        load_model(path)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_is_found(tmp_path_factory, saved, place, flip):
    damaged = bytearray(saved)
    damaged[int(place * len(saved))] ^= flip
    path = tmp_path_factory.mktemp("flip") / "m"
    path.write_bytes(damaged)
    with pytest.raises(ModelFileError, match="m: "):
        load_model(path)


def test_a_flipped_bit_within_the_weights_is_found(tmp_path, saved):
    damaged = bytearray(saved)
    damaged[-5] ^= 1
    (tmp_path / "m").write_bytes(damaged)
    with pytest.raises(
        ModelFileError, match=r"m: the file is damaged \(its checksum does not agree\); take an undamaged"
    ):
        load_model(tmp_path / "m")
