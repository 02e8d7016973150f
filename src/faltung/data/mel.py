"""The log-mel spectrogram: how loud a sound is, moment by moment, in bands as the ear hears them.

>>> tone = np.sin(2 * np.pi * 1000 / 16000 * np.arange(4000)).astype(np.float32)
>>> spectrogram = log_mel(tone, rate=16000, hop=200)
>>> band = int(spectrogram[10].argmax())
>>> spectrogram.shape, band, round(float(centres(80, 16000)[band]))
((20, 80), 28, 1026)
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.errors import SettingError

FLOOR = 1e-5
"""What is quieter (100 dB below a full sine wave, about) counts as this."""

Floats = NDArray[np.floating[Any]]


def log_mel(samples: Floats, *, rate: int, hop: int, mels: int = 80) -> NDArray[np.float32]:
    """log10 max(bands |F|, 1e-5), F the Fourier transform of Hann windows of 4 hop samples, one each hop samples.

    Frame j has its middle at that of the samples j hop to (j + 1) hop, which it belongs to; there are as many as cover
    all samples. Beyond the ends lies silence.
    Shapes: samples (n,), result (ceil(n / hop), mels).
    Raises: SettingError where hop or mels do not fit the rate.
    Source: Tacotron 2 (Shen et al. 2018), section 2.1, but for the base of the logarithm.
    """
    bands = filters(mels, rate, fft_size(hop))
    return np.log10(np.maximum(abs(spectrum(samples, hop)) @ bands, FLOOR)).astype(np.float32)


def fft_size(hop: int) -> int:
    """Points of a Fourier transform: a power of two, at least 4 hop."""
    return 1 << (4 * hop - 1).bit_length()


def hann(hop: int) -> NDArray[np.float64]:
    """sin^2, one period over 4 hop samples, divided by its sum, which is 2 hop; so a full sine wave has |F| = 1/2."""
    return np.sin(np.pi * (np.arange(4 * hop) + 0.5) / (4 * hop)) ** 2 / (2 * hop)


def spectrum(samples: Floats, hop: int) -> NDArray[np.complexfloating[Any]]:
    """The Fourier transforms of the windows, (frames, fft_size(hop) // 2 + 1)."""
    frames = -(-len(samples) // hop)
    before = (4 * hop - hop) // 2
    padded = np.pad(samples, (before, frames * hop + 4 * hop - before - len(samples)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 4 * hop)[: frames * hop : hop]
    return np.fft.rfft(windows * hann(hop), fft_size(hop))


@lru_cache(maxsize=8)
def filters(mels: int, rate: int, size: int) -> NDArray[np.float64]:
    """Triangles over the frequencies of a transform, (size // 2 + 1, mels), from one centre to the next but one.

    Raises: SettingError where a triangle is too narrow to hold a frequency.
    """
    frequencies = np.fft.rfftfreq(size, 1 / rate)[:, None]
    low, middle, high = (
        part[None] for part in (_corners(mels, rate)[:-2], centres(mels, rate), _corners(mels, rate)[2:])
    )
    bands = np.maximum(0, np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle)))
    if not bands.any(axis=0).all():
        raise SettingError(
            f"got {mels} mel bands for {size} points of a Fourier transform at {rate} Hz, which leaves some empty",
            way_out="use fewer bands or a larger hop",
        )
    return bands


def centres(mels: int, rate: int) -> NDArray[np.float64]:
    """The frequency in Hz at the middle of each band, on O'Shaughnessy's scale, 2595 log10(1 + f / 700)."""
    return _corners(mels, rate)[1:-1]


def _corners(mels: int, rate: int) -> NDArray[np.float64]:
    top = np.log10(1 + rate / 2 / 700)
    return 700 * (10 ** np.linspace(0, top, mels + 2) - 1)
