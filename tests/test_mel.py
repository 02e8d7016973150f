"""The log-mel spectrogram: its formula written out, its frames, its bands."""

import numpy as np
import pytest

from faltung.data.mel import FLOOR, centres, fft_size, filters, hann, log_mel, spectrum
from faltung.errors import SettingError


def test_it_is_its_formula():
    rng = np.random.default_rng(0)
    samples, hop, rate = rng.normal(0, 0.1, 730), 100, 8000
    found = log_mel(samples, rate=rate, hop=hop, mels=20)
    assert found.shape == (8, 20)
    assert found.dtype == np.float32
    size = fft_size(hop)
    assert size == 512
    padded = np.concatenate([np.zeros(150), samples, np.zeros(1000)])
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 22) / 2595) - 1)
    for frame in range(8):
        window = padded[frame * hop : frame * hop + 400]
        shape = np.sin(np.pi * (np.arange(400) + 0.5) / 400) ** 2
        loudness = abs(np.fft.rfft(window * shape / shape.sum(), size))
        for band in range(20):
            low, middle, high = corners[band : band + 3]
            total = sum(
                a * max(0, min((f - low) / (middle - low), (high - f) / (high - middle)))
                for a, f in zip(loudness, np.arange(257) * rate / size, strict=True)
            )
            assert found[frame, band] == pytest.approx(np.log10(max(total, FLOOR)), abs=1e-5)


def test_a_click_is_in_the_frames_around_it():
    samples = np.zeros(2000)
    samples[1050] = 1  # the middle of the samples of frame 10
    loudness = abs(spectrum(samples, 100)).max(1)
    assert loudness.argmax() == 10
    assert np.flatnonzero(loudness > 0.001 * loudness.max()).tolist() == [9, 10, 11]
    assert loudness[9] == pytest.approx(loudness[11], rel=0.1)


def test_a_full_sine_wave_has_half_its_height():
    assert hann(50).sum() == pytest.approx(1)
    wave = np.sin(2 * np.pi * 1000 / 16000 * np.arange(4000))
    assert abs(spectrum(wave, 200))[8].max() == pytest.approx(0.5, abs=0.01)


def test_silence_is_the_floor():
    assert np.all(log_mel(np.zeros(1000), rate=16000, hop=200) == np.float32(np.log10(FLOOR)))


def test_bands_overlap_by_half_and_hold_each_frequency():
    bands = filters(40, 16000, 1024)
    inside = (np.fft.rfftfreq(1024, 1 / 16000) > centres(40, 16000)[0]) & (
        np.fft.rfftfreq(1024, 1 / 16000) < centres(40, 16000)[-1]
    )
    assert bands[inside].sum(1) == pytest.approx(1)


def test_too_many_bands():
    with pytest.raises(SettingError, match=r"got 200 mel bands for 128 points .* leaves some empty; use fewer bands"):
        log_mel(np.zeros(100), rate=16000, hop=32, mels=200)
