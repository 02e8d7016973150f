"""Windows of recordings: what counts has seen only true samples, each counts once, and all follows from the seed."""

from dataclasses import replace

import numpy as np
import pytest

from faltung.data import Redrawn
from faltung.elements import CrossEntropy
from faltung.errors import DataError
from faltung.models.wavenet import Context, Settings, WaveNet, encode
from faltung.models.wavenet.windows import (
    IGNORED,
    Clip,
    EverySample,
    Windows,
    clip,
    condition,
    countable,
    grid,
    training_network,
    warmup,
)
from faltung.training import evaluate

PLAIN = Settings((1, 2, 4), residual=4, gate=4, skip=8)
SCALAR = replace(PLAIN, input="scalar")
VOCODER = replace(PLAIN, local=6, upsample=(5, 2), rate=500)
NEAREST = replace(VOCODER, upsampling="nearest")
CONTEXT = replace(PLAIN, context=Context((1, 2), pool=6, residual=4, gate=4, skip=4))
ALL = pytest.mark.parametrize("settings", [PLAIN, SCALAR, VOCODER, NEAREST, CONTEXT])


def noise(count, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, count).astype(np.float32)


def clips(settings, *counts):
    return [clip(noise(count, seed), settings) for seed, count in enumerate(counts)]


def everything(settings, recording, params):
    """The logits of a whole recording, from the model as it is used."""
    model = WaveNet(settings, params)
    local = {} if recording.local is None else {"local": recording.local[None]}
    return model.logits(recording.codes[None].astype(np.int64), **local)[0]


@ALL
def test_a_window_gives_what_the_whole_recording_gives(settings):
    (recording,) = clips(settings, 200)
    length = 30
    params = WaveNet.initial(settings, seed=1, dtype=np.float64).params
    network = training_network(settings, length)
    whole = everything(settings, recording, params)
    codes = recording.codes.astype(np.int64)
    for data in (Windows([recording], settings, length, count=8), EverySample([recording], settings, length)):
        x, target = data[:]
        y = network.predict(params, x)
        assert y.shape == (*target.shape, 256)
        for logits, labels in zip(y, target, strict=True):
            labels = labels[labels != IGNORED]
            starts = range(0, countable(recording, settings), grid(settings))
            first = next(
                s for s in starts if np.array_equal(codes[(b := s + warmup(settings) + 1) : b + len(labels)], labels)
            )
            begin = first + warmup(settings)
            assert logits[: len(labels)] == pytest.approx(whole[begin : begin + len(labels)], abs=1e-9)


@ALL
def test_no_fewer_samples_are_spared_than_needed(settings):
    assert warmup(settings) >= settings.receptive_field - 1
    if not settings.local:
        assert warmup(settings) == settings.receptive_field - 1
    else:
        assert settings.frames(warmup(settings)).start >= 0
        assert warmup(settings) < settings.receptive_field + 2 * settings.hop


@ALL
def test_every_sample_counts_once(settings):
    recordings = clips(settings, 200, 13, 61, 100)
    data = EverySample(recordings, settings, 30)
    found = np.concatenate([labels[labels != IGNORED] for _, target in (data[:],) for labels in target])
    expected = np.concatenate([recording.codes[warmup(settings) + 1 :] for recording in recordings])
    assert np.array_equal(found, expected)
    assert sum(countable(recording, settings) for recording in recordings) == len(expected)


def test_the_cost_is_the_mean_over_all_samples_that_count():
    recordings = clips(PLAIN, 95, 41)
    params = WaveNet.initial(PLAIN, seed=1, dtype=np.float64).params
    found = evaluate(
        training_network(PLAIN, 30),
        params,
        EverySample(recordings, PLAIN, 30),
        cost=CrossEntropy(ignore=IGNORED),
        batch=2,
    )
    costs = []
    for recording in recordings:
        logits, codes = everything(PLAIN, recording, params), recording.codes
        logits = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        costs += [-logits[t - 1, codes[t]] for t in range(PLAIN.receptive_field, len(codes))]
    assert found["cost"] == pytest.approx(np.mean(costs), rel=1e-9)


def test_each_nth_window():
    data = EverySample(clips(PLAIN, 200), PLAIN, 30)
    few = replace(data, step=3)
    assert np.array_equal(few[:][1], data[:][1][::3])


def test_windows_are_a_function_of_seed_epoch_and_index():
    recordings = clips(VOCODER, 200, 300)
    data = Windows(recordings, VOCODER, 30, count=16, seed=3)
    assert isinstance(data, Redrawn)
    x, target = data.epoch(2)[np.array([5, 11])]
    alone = data.epoch(2)[np.array([11])]
    assert np.array_equal(alone[1][0], target[1])
    assert all(np.array_equal(alone[0][name][0], x[name][1]) for name in ("x", "local"))
    others = [data, data.epoch(1), replace(data, seed=4)]
    assert len({data[:][1].tobytes() for data in others}) == 3


def test_a_recording_is_drawn_as_often_as_it_is_long():
    recordings = [Clip(np.full(40, 1)), Clip(np.full(309, 2)), Clip(np.full(9, 3))]  # 31, 300 and 0 can count
    _, target = Windows(recordings, PLAIN, 4, count=3000)[:]
    counts = np.bincount(target[:, 0], minlength=4)
    assert counts[3] == 0
    assert counts[2] / 3000 == pytest.approx(300 / 331, abs=0.02)


def test_all_places_are_drawn():
    (recording,) = [Clip(np.arange(30))]
    _, target = Windows([recording], PLAIN, 5, count=400)[:]
    assert set(target[:, 0]) == set(range(9, 26))
    _, target = Windows([Clip(np.arange(12))], PLAIN, 5, count=3)[:]
    assert target.tolist() == [[9, 10, 11, IGNORED, IGNORED]] * 3


def test_the_condition_is_0_in_silence_and_about_1_for_a_loud_tone():
    settings = replace(PLAIN, local=20, upsample=(10, 10))
    tone = np.sin(2 * np.pi * 1000 / 16000 * np.arange(4000))
    found = condition(np.concatenate([np.zeros(4000), tone]), settings)
    assert found.shape == (80, 20)
    assert found.dtype == np.float32
    assert np.all(found[:30] == 0)
    assert 0.8 < found[50:70].max() < 1.1


def test_clips_hold_codes_in_bytes():
    (recording,) = clips(PLAIN, 50)
    assert recording.codes.dtype == np.uint8
    assert np.array_equal(recording.codes, encode(noise(50)))
    assert recording.local is None


def test_recordings_that_are_too_short():
    message = r"the longest of 2 recordings has 9 samples, expected more than the 9 .*; give longer recordings"
    for kind in (Windows, EverySample):
        with pytest.raises(DataError, match=message):
            kind(clips(PLAIN, 9, 5), PLAIN, 10, 1)


def test_windows_that_are_no_multiple_of_a_frame():
    with pytest.raises(DataError, match=r"got windows of 35 samples, expected a multiple of 10, as frames are"):
        EverySample(clips(VOCODER, 200), VOCODER, 35)
