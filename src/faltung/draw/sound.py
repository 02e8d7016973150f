"""Sounds as SVG: the wave, and below it the spectrogram, how loud each frequency is at each moment.

>>> tone = np.sin(2 * np.pi * 2000 / 16000 * np.arange(16000))
>>> seen = summary("a tone of 2 kHz", tone, 16000)
>>> seen.high[0], seen.low[0], [row[100] for row in seen.levels].index("6")  # in rows of 200 Hz, the lowest first
(100, -100, 9)
>>> "a tone of 2 kHz" in sounds([seen])
True
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.draw.curve import Axis, round_step
from faltung.draw.svg import BLUE, GREY, heading, picture, text
from faltung.errors import DataError

COLUMNS, BANDS, LEVELS = 220, 40, 7
"""Of a spectrogram; level 0 is what is not drawn."""
STEP = 9.0
"""Decibels between levels; the loudest of all is in the highest one, unless all is as quiet as ``QUIET``."""
QUIET = 0.0
"""In the same decibels; a full sine wave has about 34."""
LEFT, WIDTH, RIGHT, TOP, WAVE, BAND, GAP = 60, 660, 20, 30, 60, 3, 52
"""In pixels; WAVE is the height of a wave, BAND that of a row of a spectrogram."""


@dataclass(frozen=True)
class Sound:
    """What a picture shows of a sound: ``COLUMNS`` moments of equal length."""

    name: str
    rate: int
    seconds: float
    low: Sequence[int]
    high: Sequence[int]
    """The lowest and the highest sample of each moment, in percent of the loudest that can be."""
    levels: Sequence[str]
    """For each of ``BANDS`` bands, the lowest first, how loud it is at each moment: a digit below ``LEVELS``."""


def summary(name: str, wave: NDArray[Any], rate: int) -> Sound:
    """What is to be seen of a wave, samples from -1 to 1.

    Raises: DataError where it is too short, or not finite.
    """
    wave = np.asarray(wave, np.float64)
    if wave.ndim != 1 or len(wave) < COLUMNS or not np.isfinite(wave).all():
        raise DataError(
            f"got a wave of shape {wave.shape}, expected at least {COLUMNS} finite samples in a row",
            element=repr(name),
            way_out="give one channel of a longer sound",
        )
    parts = np.array_split(wave, COLUMNS)
    low, high = ([round(100 * float(extreme(part))) for part in parts] for extreme in (np.min, np.max))
    size = rate // 50  # 20 ms: harmonics of a low voice run together, its formants do not
    middles = (np.arange(COLUMNS) + 0.5) * len(wave) / COLUMNS
    padded = np.pad(wave, size)
    windows = np.stack([padded[int(middle + size / 2) :][:size] for middle in middles]) * np.hanning(size)
    power = abs(np.fft.rfft(windows)) ** 2
    bands = np.stack([part.mean(1) for part in np.array_split(power[:, 1:], BANDS, axis=1)], 1)
    decibels = 10 * np.log10(np.maximum(bands, 1e-12))
    levels = np.clip(LEVELS - 1 - (max(decibels.max(), QUIET) - decibels) // STEP, 0, LEVELS - 1).astype(int)
    return Sound(name, rate, len(wave) / rate, low, high, ["".join(map(str, row)) for row in levels.T])


def sounds(shown: Sequence[Sound]) -> str:
    """The picture of sounds, one below the other, in one scale of time; levels count from each one's loudest moment."""
    seconds = max(sound.seconds for sound in shown)
    parts = []
    for number, sound in enumerate(shown):
        top = TOP + number * (WAVE + BANDS * BAND + GAP)
        parts += _panel(sound, top, seconds)
    height = TOP + len(shown) * (WAVE + BANDS * BAND + GAP) - 6
    return picture("Sounds and their spectrograms", LEFT + WIDTH + RIGHT, height, parts, 'font-size="12"')


def _panel(sound: Sound, top: float, seconds: float) -> list[str]:
    """One wave, its spectrogram, and their axes."""
    x = Axis(0, seconds, LEFT, LEFT + WIDTH)
    column = (x(sound.seconds) - LEFT) / COLUMNS
    foot = top + WAVE + BANDS * BAND
    parts = [heading(LEFT, top - 10, sound.name, f"{sound.seconds:.2f} s")]
    middle, scale = top + WAVE / 2, WAVE / 2 / 100
    ends = zip(sound.low, sound.high, strict=True)
    lines = (f"M{LEFT + (i + 0.5) * column:.1f} {middle - b * scale:.1f}V{middle - a * scale + 0.5:.1f}"
             for i, (a, b) in enumerate(ends))  # fmt: skip
    parts.append(f'<path d="{"".join(lines)}" stroke="{BLUE}" stroke-width="{column:.2f}"/>')
    for level in range(1, LEVELS):
        runs = "".join(_runs(sound.levels, str(level), column, foot))
        if runs:
            style = f'stroke="{BLUE}" stroke-width="{BAND}" stroke-opacity="{level / (LEVELS - 1):.2f}"'
            parts.append(f'<path d="{runs}" {style}/>')
    y = Axis(0, sound.rate / 2, foot, top + WAVE)
    for kilohertz in range(0, sound.rate // 2000 + 1, 2):
        parts.append(text(LEFT - 8, y(1000 * kilohertz) + 4, f"{kilohertz} kHz", anchor="end"))
    step = round_step(seconds)
    for tick in (k * step for k in range(int(sound.seconds / step) + 1)):
        parts.append(f'<path d="M{x(tick):.1f} {foot}v4" stroke="{GREY}"/>')
        parts.append(text(x(tick), foot + 17, f"{tick:.4g}" + " s" * (tick == 0)))
    return parts


def _runs(levels: Sequence[str], level: str, column: float, foot: float) -> list[str]:
    """Strokes where the neighbours in a row are of this level."""
    strokes = []
    for number, row in enumerate(levels):
        y, i = foot - (number + 0.5) * BAND, 0
        while (i := row.find(level, i)) >= 0:
            length = len(row[i:]) - len(row[i:].lstrip(level))
            strokes.append(f"M{LEFT + i * column:.1f} {y:g}h{length * column:.1f}")
            i += length
    return strokes
