"""``faltung wavenet generate``: what it writes and says, and what it refuses."""

import re
import signal
import wave
from dataclasses import replace

import numpy as np
import pytest

from commands import run
from faltung.cli import wavenet_generate
from faltung.data.audio import write_wav
from faltung.elements import Affine
from faltung.exchange.modelfile import save_model
from faltung.models.wavenet import WaveNet, generate
from faltung.network import Chain
from test_cli_errors import refused
from wavenets import TINY

RATE = 3200
PLAIN = replace(TINY, rate=RATE)
VOCODER = replace(TINY, rate=RATE, local=3, upsample=(4, 8))


@pytest.fixture
def saved(tmp_path):
    """Saves a model of these settings; gives it and where it lies."""

    def save(settings):
        model = WaveNet.initial(settings, seed=0)
        model.save(tmp_path / "model.safetensors")
        return model, tmp_path / "model.safetensors"

    return save


def read(path):
    """The samples of a WAV file, and its rate."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2"), file.getframerate()


def spoken(model, samples, **settings):
    """What Python speaks, as 16-bit numbers."""
    return np.rint(np.concatenate(list(generate(model, samples, **settings)), axis=1) * 32767).astype(int)


def test_it_speaks_into_a_file(capsys, tmp_path, saved):
    model, path = saved(PLAIN)
    out = tmp_path / "new" / "speech.wav"
    outcome = run(
        capsys, "wavenet", "generate", path, "--seconds", 0.5, "--out", out, "--seed", 4, "--temperature", 0.8
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert re.match(
        r"0\.50 s at 3,200 Hz in [\d.]+ s: [\d,]+ samples/s, real-time factor [\d.]+\n  .*speech.wav\n$", outcome.out
    )
    samples, rate = read(out)
    assert rate == RATE
    assert np.array_equal(samples, spoken(model, 1600, seed=4, temperature=0.8)[0])


def test_the_folder_of_a_run_will_do_and_three_seconds_are_usual(capsys, tmp_path, saved):
    model, path = saved(PLAIN)
    options = ("--bfloat16", "--workers", 2, "--out", tmp_path / "speech.wav")
    assert run(capsys, "wavenet", "generate", path.parent, *options).code == 0
    assert np.array_equal(read(tmp_path / "speech.wav")[0], spoken(model, 3 * RATE, bfloat16=True)[0])


def test_each_stream_has_a_file(capsys, tmp_path, saved):
    model, path = saved(PLAIN)
    outcome = run(capsys, "wavenet", "generate", path, "--streams", 3, "--seconds", 0.1, "--out", tmp_path / "a.wav")
    assert outcome.out.startswith("3 streams of 0.10 s")
    expected = spoken(model, 320, streams=3)
    for number in (1, 2, 3):
        assert np.array_equal(read(tmp_path / f"a-{number}.wav")[0], expected[number - 1])


def test_a_vocoder_says_a_recording_again(capsys, tmp_path, saved):
    model, path = saved(VOCODER)
    tone = np.sin(np.arange(1000.0))
    write_wav(tmp_path / "tone.wav", tone, RATE)
    outcome = run(
        capsys, "wavenet", "generate", path, "--condition", tmp_path / "tone.wav", "--out", tmp_path / "again.wav"
    )
    assert outcome.code == 0, outcome
    samples, _ = read(tmp_path / "again.wav")
    asked = wavenet_generate.Asked(tmp_path / "again.wav", condition=tmp_path / "tone.wav")
    conditions = wavenet_generate.read_conditions(model, asked)
    assert conditions["local"].shape == (1, 32, 3)
    assert np.array_equal(samples, spoken(model, 32 * 32, **conditions)[0])
    np.save(tmp_path / "mel.npy", conditions["local"][0])
    run(capsys, "wavenet", "generate", path, "--condition", tmp_path / "mel.npy", "--out", tmp_path / "numbers.wav")
    assert (tmp_path / "numbers.wav").read_bytes() == (tmp_path / "again.wav").read_bytes()


def test_vectors_and_speakers(capsys, tmp_path, saved):
    np.save(tmp_path / "h.npy", [1.0, -1.0])
    for settings, options, conditions in (
        (replace(PLAIN, condition=2), ("--condition", tmp_path / "h.npy"), {"h": [[1.0, -1.0]]}),
        (replace(PLAIN, condition=2, speakers=3), ("--speaker", 2), {"speaker": [2]}),
    ):
        model, path = saved(settings)
        assert (
            run(capsys, "wavenet", "generate", path, *options, "--seconds", 0.1, "--out", tmp_path / "a.wav").code == 0
        )
        assert np.array_equal(read(tmp_path / "a.wav")[0], spoken(model, 320, **conditions)[0])


def test_ctrl_c_keeps_what_was_said(capsys, tmp_path, saved, monkeypatch):
    model, path = saved(PLAIN)

    def interrupted(*arguments, **settings):
        for number, block in enumerate(generate(*arguments, **settings)):
            if number == 2:
                signal.raise_signal(signal.SIGINT)
            yield block

    monkeypatch.setattr(wavenet_generate, "generate", interrupted)
    outcome = run(capsys, "wavenet", "generate", path, "--seconds", 1000, "--out", tmp_path / "part.wav")
    assert outcome.code == 130
    assert outcome.err == "faltung: stopped after 0.09 s of 1000.00\n"
    assert np.array_equal(read(tmp_path / "part.wav")[0], spoken(model, 300)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seconds", 0), "got --seconds 0, expected a number above 0"),
        (("--seconds", -1), "got --seconds -1, expected a number above 0"),
        (("--seconds", "nan"), "got --seconds nan, expected a number above 0"),
        (("--seconds", "inf"), "got --seconds inf, expected a number above 0"),
        (("--temperature", -0.5), "got temperature=-0.5, expected a number of at least 0"),
        (("--temperature", "nan"), "got temperature=nan, expected a number of at least 0"),
        (("--streams", 0), "got streams=0, expected a whole number of at least 1"),
        (("--seed", -1), "got seed=-1, expected a whole number from 0"),
        (("--speaker", 0), "got the conditions speaker, expected none"),
        (("--out", "speech.mp3"), "got --out speech.mp3, expected the name of a WAV file"),
        (("--condition", "tone.wav"), "got --condition tone.wav, but the model listens to no recording"),
    ],
)
def test_bad_options(capsys, tmp_path, saved, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    _, path = saved(PLAIN)
    given = dict([("--out", "a.wav"), options])
    words = [word for option in given.items() for word in option]
    refused(run(capsys, "wavenet", "generate", path, *words), message)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_bad_conditions(capsys, tmp_path, saved, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, path = saved(VOCODER)
    write_wav("slow.wav", np.sin(np.arange(1000.0)), 1600)
    write_wav("tone.wav", np.sin(np.arange(1000.0)), RATE)
    np.save("wide.npy", np.zeros((40, 4)))
    np.save("nan.npy", np.full((100, 3), np.nan))
    np.save("words.npy", np.array(["a", "b"]))
    np.savez("several.npz", a=np.zeros(1))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.wav").write_text("no sound")
    for name, *message in (
        ("slow.wav", "slow.wav: has 1,600 samples a second, expected the model's 3,200; resample it"),
        (
            "tone.wav",
            "got a local condition of 32 frames of 32 samples each, expected at least 100 frames for 3200 sam",
        ),
        ("wide.npy", "got local of shape (1, 40, 4), expected (1, frames, 3)"),
        ("nan.npy", "got local nan at (0, 0, 0), expected finite numbers"),
        ("words.npy", "got local of <U1, expected numbers"),
        ("several.npz", "several.npz: holds several arrays, expected one"),
        ("text.npy", "text.npy: is neither WAV, FLAC nor .npy"),
        ("text.wav", "text.wav: cannot be read"),
        ("none.wav", "none.wav: cannot be read"),
        ("none.npy", "none.npy: No such file or directory"),
    ):
        outcome = run(capsys, "wavenet", "generate", path, "--condition", name, "--seconds", 1, "--out", "a.wav")
        refused(outcome, *message)
    refused(run(capsys, "wavenet", "generate", path, "--out", "a.wav"), "got the conditions none, expected local")
    assert not (tmp_path / "a.wav").exists()


def test_bad_models(capsys, tmp_path, saved):
    network = Chain(dense=Affine(1)).on((2,))
    save_model(tmp_path / "line.safetensors", network, network.initial())
    (tmp_path / "text.safetensors").write_text("no model")
    broken, path = saved(PLAIN)
    broken.params["end2.w"][0, 0, 0] = np.inf
    broken.save(path)
    for name, message in (
        ("line.safetensors", "line.safetensors: got a model that is no WaveNet"),
        ("text.safetensors", "text.safetensors"),
        ("none.safetensors", "none.safetensors"),
        ("model.safetensors", "the parameter end2.w holds NaN or infinity"),
    ):
        refused(run(capsys, "wavenet", "generate", tmp_path / name, "--out", tmp_path / "a.wav"), message)
