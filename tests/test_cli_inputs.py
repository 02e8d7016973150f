"""``faltung describe``, ``check`` and ``explain`` take networks of any kind: codes, one axis, several inputs."""

from dataclasses import replace

import numpy as np
import pytest

import faltung as ft
from commands import run
from faltung.exchange.modelfile import save_model
from faltung.models.wavenet import Context, WaveNet
from wavenets import KINDS


@pytest.fixture
def wavenet(tmp_path):
    path = tmp_path / "wavenet.safetensors"
    WaveNet.initial(replace(KINDS["plain"], dilations=(1, 2))).save(path)
    return path


def test_describe_shows_the_dilations_of_a_wavenet(capsys, wavenet):
    outcome = run(capsys, "describe", wavenet)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"\n{WaveNet.load(wavenet)}\n\nfile " in outcome.out
    assert "\nwavenet " not in outcome.out


@pytest.mark.parametrize("kind", ["scalar", "everything"])
def test_check_draws_codes_and_speakers_and_as_many_inputs_as_there_are(capsys, tmp_path, kind):
    path = tmp_path / "wavenet.safetensors"
    context = Context((1,), pool=3, residual=2, gate=2, skip=3) if kind == "everything" else None
    model = WaveNet.initial(replace(KINDS[kind], dilations=(1, 2), context=context))
    model.save(path)
    outcome = run(capsys, "check", path)
    assert outcome.code == 0, outcome.out
    assert outcome.out.endswith("PASS\n")
    assert all(name in outcome.out for name in model.params)


def test_a_network_of_two_outputs_is_not_checked(capsys, tmp_path):
    net = ft.Graph(a=ft.Node(ft.Affine(2), "x"), b=ft.Node(ft.Affine(2), "x")).on((3,))
    save_model(tmp_path / "two.safetensors", net, net.initial())
    outcome = run(capsys, "check", tmp_path / "two.safetensors")
    assert outcome.code == 2
    assert "two.safetensors: got 2 outputs, expected one; use faltung.check.gradient_check in Python" in outcome.err


def test_explain_takes_one_axis(capsys, wavenet):
    outcome = run(capsys, "explain", wavenet, "--size", "100", "--batch", 2)
    assert outcome.code == 0, outcome.err
    assert "gate1.conv" in outcome.out
    refused = run(capsys, "explain", wavenet, "--size", "100x")
    assert refused.code == 2
    assert "got --size 100x, expected HxW, or one number an axis; give such as 28x28 or 100" in refused.err


def test_indices_are_such_as_all_readers_have():
    from faltung.cli.inputs import random_inputs

    net = ft.Graph(a=ft.Node(ft.Embedding(9, 2), "x"), b=ft.Node(ft.Embedding(3, 2), "x")).on((None,))
    found = random_inputs(net, {"x": (50,)}, 4, np.random.default_rng(0))
    assert found["x"].shape == (4, 50)
    assert sorted(set(found["x"].ravel().tolist())) == [0, 1, 2]


def test_a_vocoder_hears_at_generation_what_it_heard_in_training(tmp_path):
    from faltung.cli.wavenet_generate import Asked, read_conditions
    from faltung.data.audio import read_wave, write_wav
    from faltung.models.wavenet.windows import clip

    wave = 0.3 * np.sin(np.arange(4000) / 7)
    write_wav(tmp_path / "said.wav", wave, 16_000)
    model = WaveNet.initial(replace(KINDS["plain"], local=20, upsample=(10, 20)))
    given = read_conditions(model, Asked(tmp_path / "speech.wav", condition=tmp_path / "said.wav"))["local"]
    trained = clip(read_wave(tmp_path / "said.wav", 16_000), model.settings).local
    assert trained is not None
    assert np.array_equal(given[0], trained)
