"""``faltung wavenet train``: what it writes and says, and that a run can stop and go on."""

import json
import re
import shlex
import signal
import sys

import numpy as np
import pytest
import soundfile

from commands import run
from faltung.cli import wavenet_train
from faltung.models.wavenet import SETTINGS, Settings, WaveNet, encode
from faltung.models.wavenet.corpus import read_corpus
from faltung.models.wavenet.windows import EverySample, Windows, training_network

FILES = ["checkpoint.safetensors", "curve.svg", "log.jsonl", "model.safetensors", "samples", "settings.json"]
TINY = Settings((1, 2, 4), residual=8, gate=8, skip=16)


@pytest.fixture
def tiny(monkeypatch):
    """A setting that trains in no time, on short windows."""
    monkeypatch.setitem(SETTINGS, "tiny", TINY)
    for name, value in {"LENGTH": 200, "BATCH": 2, "EVERY": 4, "GLANCE": 3, "SECONDS": 0.05}.items():
        monkeypatch.setattr(wavenet_train, name, value)
    return ("--setting", "tiny")


def recordings(folder, count=11, rate=16000, seconds=0.2):
    """Tones with noise."""
    folder.mkdir()
    for k in range(count):
        random = np.random.default_rng(k)
        time = np.arange(round(rate * seconds)) / rate
        wave = 0.3 * np.sin(2 * np.pi * 100 * (k + 1) * time) + random.normal(0, 0.02, len(time))
        soundfile.write(folder / f"{k:02}.wav", wave, rate)
    return folder


def interrupt_at(monkeypatch, batch):
    """Send this process Ctrl-C when training asks for its batch of this number."""
    fetched = []
    real = Windows.__getitem__

    def fetch(windows, indices):
        fetched.append(len(indices) > 1)  # the rehearsal asks for one
        if sum(fetched) == batch and len(indices) > 1:
            signal.raise_signal(signal.SIGINT)
        return real(windows, indices)

    monkeypatch.setattr(Windows, "__getitem__", fetch)


def test_a_run(capsys, tmp_path, tiny):
    data, out = recordings(tmp_path / "data"), tmp_path / "run"
    outcome = run(capsys, "wavenet", "train", data, *tiny, "--steps", 10, "--out", out)
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert "00.wav      0.2  training" in outcome.out
    assert "08.wav      0.2  validation" in outcome.out
    assert "09.wav      0.2  test" in outcome.out
    assert "receptive field 9 samples" in outcome.out
    lines = outcome.err.splitlines()
    assert len(lines) == 3
    pattern = r"step  ?\d+/12  cost \d\.\d{3}  validation \d\.\d{3} bits per sample  [\d,]+ samples/s  \d+ s left"
    assert all(re.fullmatch(pattern, line) for line in lines), lines
    spoken = sorted((out / "samples").iterdir())
    assert [path.name for path in spoken] == ["step-000004.wav", "step-000008.wav", "step-000012.wav"]
    assert all((info := soundfile.info(path)).frames == 800 and info.samplerate == 16000 for path in spoken)
    model = WaveNet.load(out / "model.safetensors")
    assert model.settings == TINY
    found = float(
        re.findall(r"\nvalidation (\d\.\d{3}) bits per sample, on all 3,191 samples held out\n", outcome.out)[0]
    )
    assert model.about["bits"] == pytest.approx(found, abs=1e-3)
    assert found < 8


def test_bits_per_sample_are_those_of_the_saved_model(capsys, tmp_path, tiny):
    data, out = recordings(tmp_path / "data"), tmp_path / "run"
    run(capsys, "wavenet", "train", data, *tiny, "--steps", 8, "--out", out)
    model = WaveNet.load(out / "model.safetensors")
    (clip,) = read_corpus(data, TINY).clips["validation"]
    logits = model.logits(clip.codes[None].astype(np.int64))[0].astype(float)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    bits = [-np.log2(chances[t - 1, clip.codes[t]]) for t in range(TINY.receptive_field, len(clip.codes))]
    assert model.about["bits"] == pytest.approx(np.mean(bits), rel=1e-5)


def test_the_command_that_it_recommends_runs(capsys, tmp_path, tiny):
    data, out = recordings(tmp_path / "data"), tmp_path / "a run"
    for extra in ((), ("--mel",)):
        said = run(capsys, "wavenet", "train", data, *tiny, *extra, "--steps", 1, "--out", f"{out}{len(extra)}").out
        words = shlex.split(said.splitlines()[-1].replace("RECORDING", str(data / "00.wav")))
        outcome = run(capsys, *words[1:-1], tmp_path / "speech.wav")
        assert outcome.code == 0, outcome.err
        assert soundfile.info(tmp_path / "speech.wav").frames == (3200 if extra else 48000)


def test_without_the_libraries_it_says_what_to_install(capsys, tmp_path, tiny, monkeypatch):
    data = recordings(tmp_path / "data")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    outcome = run(capsys, "wavenet", "train", data, *tiny)
    assert outcome.code == 2
    assert outcome.err.endswith("soundfile, which is not installed; pip install 'faltung[audio]'\n")


def test_it_learns(capsys, tmp_path, tiny):
    data, out = recordings(tmp_path / "data"), tmp_path / "run"
    assert run(capsys, "wavenet", "train", data, *tiny, "--steps", 120, "--out", out).code == 0
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["test_cost"] < rows[0]["test_cost"] - 0.5


@pytest.mark.parametrize("extra", [(), ("--mel",)])
@pytest.mark.parametrize("stop", [2, 7])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(capsys, tmp_path, tiny, monkeypatch, extra, stop):
    data = recordings(tmp_path / "data")
    arguments = ("wavenet", "train", data, *tiny, *extra, "--steps", 8, "--seed", 3, "--out")
    assert run(capsys, *arguments, tmp_path / "whole").code == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, stop)
        outcome = run(capsys, *arguments, tmp_path / "parts")
    assert outcome.code == 130
    assert f"stopped after step {stop}; go on with: faltung wavenet train --resume {tmp_path / 'parts'}" in outcome.err
    assert not (tmp_path / "parts/model.safetensors").exists()
    outcome = run(capsys, "wavenet", "train", "--resume", tmp_path / "parts")
    assert outcome.code == 0, outcome.err
    whole, parts = (WaveNet.load(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.params.keys() == parts.params.keys()
    assert all(np.array_equal(w, parts.params[name]) for name, w in whole.params.items())
    assert whole.about["bits"] == parts.about["bits"]


def test_the_vocoder_is_conditioned_on_spectrograms(capsys, tmp_path, tiny):
    data, out = recordings(tmp_path / "data", seconds=0.5), tmp_path / "run"
    outcome = run(capsys, "wavenet", "train", data, *tiny, "--mel", "--steps", 4, "--out", out)
    assert outcome.code == 0, outcome.err
    model = WaveNet.load(out / "model.safetensors")
    assert (model.settings.local, model.settings.hop) == (80, 200)
    assert "upsample.up1.w" in model.params
    assert soundfile.info(out / "samples/step-000004.wav").frames == 800


def test_what_is_skipped_is_named(capsys, tmp_path, tiny):
    data = recordings(tmp_path / "data", rate=22050)
    soundfile.write(data / "10b.wav", np.zeros((400, 2)), 16000)
    soundfile.write(data / "10c.wav", np.stack([np.ones(8) / 2] * 2, 1), 16000)
    (data / "10d.flac").write_bytes(b"nonsense")
    outcome = run(capsys, "wavenet", "train", data, *tiny, "--steps", 1, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert re.search(r"10b\.wav +0\.0  training +skipped: is silent", outcome.out)
    assert re.search(r"10c\.wav +0\.0  training +2 channels, skipped: too short for what the network sees", outcome.out)
    assert re.search(r"10d\.flac +0\.0  training +skipped: cannot be read \(.*\)", outcome.out)
    assert re.search(r"00\.wav +0\.2  training +22,050 Hz", outcome.out)


def test_default_folders_are_numbered(capsys, tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recordings(tmp_path / "data")
    for _ in range(2):
        assert run(capsys, "wavenet", "train", "data", *tiny, "--steps", 1).code == 0
    assert run(capsys, "wavenet", "train", "data", *tiny, "--mel", "--steps", 1).code == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["tiny-1", "tiny-2", "tiny-mel-1"]


def test_bad_input_is_one_line(capsys, tmp_path, tiny):
    (tmp_path / "nothing").mkdir()
    short = recordings(tmp_path / "short", count=3, seconds=0.0005)
    one = recordings(tmp_path / "one", count=1)
    good, run_folder = recordings(tmp_path / "good"), tmp_path / "run"
    assert run(capsys, "wavenet", "train", good, *tiny, "--steps", 1, "--out", run_folder).code == 0
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/checkpoint.safetensors").write_bytes(b"")
    (tmp_path / "odd/settings.json").write_text('{"network": "ufldl"}')
    cases = {
        (): r"got no folder of recordings; write: faltung wavenet train DIR",
        (tmp_path / "nothing",): r"there is no WAV or FLAC file; name a folder of recordings",
        (tmp_path / "missing",): r"missing is no folder",
        (
            short,
            *tiny,
        ): r"of 3 recordings, none is left for training \(01\.wav: skipped: too short .*\); add recordings",
        (one, *tiny): r"of 1 recordings, none is left for training; add recordings, or cut a long one into several",
        (good, "--setting", "huge"): r"got the setting 'huge', expected one of small, ibab, nv, paper240, tiny",
        (good, *tiny, "--steps", 0): r"faltung wavenet train: .*steps=0",
        (good, *tiny, "--seed", -1): r"got --seed -1, expected at least 0",
        (good, *tiny, "--out", run_folder): r"where a run lies already; .*faltung wavenet train --resume",
        ("--resume", run_folder, "--steps", 9): r"got --resume with steps, expected it alone; leave the others out",
        ("--resume", tmp_path / "nothing"): r"nothing holds no checkpoint; name the folder of a run",
        ("--resume", tmp_path / "odd"): r"settings\.json is damaged, or of another command; begin a new run",
    }
    for arguments, message in cases.items():
        outcome = run(capsys, "wavenet", "train", *arguments)
        assert outcome.code == 2, (arguments, outcome)
        assert outcome.err.startswith("faltung: error: ")
        assert outcome.err.count("\n") == 1
        assert re.search(message, outcome.err), (message, outcome.err)


def test_settings_that_are_missing_or_damaged(capsys, tmp_path, tiny):
    run_folder = tmp_path / "run"
    assert (
        run(capsys, "wavenet", "train", recordings(tmp_path / "data"), *tiny, "--steps", 1, "--out", run_folder).code
        == 0
    )
    (run_folder / "settings.json").write_text("{")
    assert "is damaged" in run(capsys, "wavenet", "train", "--resume", run_folder).err
    (run_folder / "settings.json").unlink()
    assert re.search(
        r"cannot read .*settings\.json: No such file", run(capsys, "wavenet", "train", "--resume", run_folder).err
    )


def test_ten_files_are_split_as_told(tmp_path):
    corpus = read_corpus(recordings(tmp_path / "data", count=20), TINY)
    assert [entry.part for entry in corpus.entries] == (["training"] * 8 + ["validation", "test"]) * 2
    assert {part: len(clips) for part, clips in corpus.clips.items()} == {"training": 16, "validation": 2, "test": 2}


@pytest.mark.slow
def test_speech_becomes_less_surprising(full_data, tmp_path):
    """A minute of training already beats what the last sample alone tells of the next (4.86 bits)."""
    from faltung.elements.costs import CrossEntropy
    from faltung.training import Adam, Averaged, evaluate, fit

    settings = SETTINGS["nv"]
    corpus = read_corpus(full_data / "speech", settings)
    assert {part: len(clips) for part, clips in corpus.clips.items()} == {"training": 451, "validation": 56, "test": 56}
    network, cost = training_network(settings, 2400), CrossEntropy(ignore=-1)
    train = Windows(corpus.clips["training"], settings, 2400, count=1200)
    test = EverySample(corpus.clips["validation"], settings, 2400, step=16)
    fitted = fit(
        network,
        network.initial(0),
        train,
        cost=cost,
        optimiser=Averaged(Adam(2e-3), decay=0.98),
        epochs=1,
        batch=4,
        progress=False,
    )
    found = evaluate(network, fitted.params, test, cost=cost, batch=4)
    assert found["cost"] / np.log(2) < 4.8
    assert encode(0.0) == 128
