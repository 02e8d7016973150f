"""Recordings as sound waves: WAV and FLAC files, any rate and number of channels, mono of one rate in memory.

Files are read by soundfile and resampled by SciPy, the packages of ``pip install 'faltung[audio]'``.
"""

import io
import os
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.errors import DataError, MissingExtraError, SettingError
from faltung.exchange import atomic

SUFFIXES = (".flac", ".wav")
SILENT = 1e-4
"""A recording that never goes above it (80 dB below full scale) is silent."""
QUIET = 0.01
"""Silence at both ends is what lies 40 dB below the loudest 20 ms."""

Wave = NDArray[np.float32]
"""Samples from -1 to 1, (length,)."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One file: its wave, mono, of the rate that was asked for, without the silence at its ends."""

    name: str
    """Its path within the folder."""
    wave: Wave
    rate: int
    """Samples a second in the file."""
    channels: int
    """Of the file."""


@dataclass(frozen=True)
class Skipped:
    """A file that was passed over, and why."""

    name: str
    why: str


def read_wave(path: str | os.PathLike[str], rate: int) -> Wave:
    """The samples of a WAV or FLAC file, mixed down to mono and resampled.

    Raises: DataError where the file is missing, damaged, cut off, empty, silent, or holds numbers that are not finite;
    MissingExtraError where a library is missing.
    """
    return _read(Path(path), rate)[0]


def rate_of(path: str | os.PathLike[str]) -> int:
    """Samples a second in a WAV or FLAC file. Raises: as ``read_wave``, but for what its samples are."""
    with _opened(Path(path)) as file:
        return file.samplerate


def audio_files(folder: str | os.PathLike[str]) -> list[str]:
    """The names of all WAV and FLAC files in a folder and the folders in it, sorted; hidden ones are passed over.

    Raises: DataError where there is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", way_out="name a folder of WAV or FLAC files")
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    names = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    if not names:
        raise DataError(f"{folder}: there is no WAV or FLAC file", way_out="name a folder of recordings")
    return names


def read_recordings(
    folder: str | os.PathLike[str], names: Sequence[str], *, rate: int
) -> Iterator[Recording | Skipped]:
    """The files of these names one after the other; what cannot be read is said instead. Silent ends are cut off."""
    for name in names:
        try:
            samples, original, channels = _read(Path(folder, name), rate)
        except DataError as error:
            yield Skipped(name, error.problem.removeprefix(f"{Path(folder, name)}: "))
        else:
            yield Recording(name, trim(samples, rate), original, channels)


def trim(samples: Wave, rate: int) -> Wave:
    """Without what is quiet at both ends: 20 ms by 20 ms, 40 dB below the loudest (in mean power).

    >>> tone = np.sin(np.arange(1000.0)).astype(np.float32)
    >>> len(trim(np.concatenate([np.zeros(5000, np.float32), tone, tone / 1000]), rate=16000))
    1280
    """
    size = max(1, rate // 50)
    whole = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    power = np.mean(np.square(whole, dtype=np.float64), axis=1)
    loud = np.flatnonzero(power >= QUIET**2 * power.max())
    return samples[loud[0] * size : (loud[-1] + 1) * size]


def write_wav(path: str | os.PathLike[str], samples: NDArray[np.floating[Any]], rate: int) -> None:
    """Write samples from -1 to 1 (what lies beyond is cut off) as 16-bit mono WAV. Raises: FileError."""
    pcm = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2")
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    atomic.write(path, held.getvalue())


def _read(path: Path, rate: int) -> tuple[Wave, int, int]:
    """Samples, and rate and channels of the file."""
    if type(rate) is not int or rate < 1:
        raise SettingError(f"got rate={rate!r}, expected a whole number of samples a second", way_out="use rate=16000")
    with _opened(path) as file:
        promised, original, channels = file.frames, file.samplerate, file.channels
        samples = file.read(dtype="float32", always_2d=True)
    if len(samples) < promised:
        problem = f"is cut off after {len(samples):,} of {promised:,} samples"
        raise DataError(f"{path}: {problem}", way_out="fetch or convert it again")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        first = int(np.flatnonzero(~np.isfinite(mono))[0])
        raise DataError(f"{path}: sample {first:,} is {mono[first]}, no finite number", way_out="convert it again")
    if not np.any(abs(mono) > SILENT):
        raise DataError(f"{path}: is {'silent' if len(mono) else 'empty'}", way_out="leave it out")
    return _resampled(mono, original, rate), original, channels


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file of soundfile's. Raises: DataError where it cannot be read."""
    soundfile = _library("soundfile")
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        why = str(getattr(error, "error_string", None) or error).removeprefix("Error : ").rstrip(".")
        raise DataError(f"{path}: cannot be read ({why})", way_out="fetch or convert it again") from error


def _resampled(samples: Wave, original: int, rate: int) -> Wave:
    if original == rate:
        return samples
    common = gcd(original, rate)
    return _library("scipy.signal").resample_poly(samples, rate // common, original // common).astype(np.float32)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # OSError: soundfile without its libsndfile
        raise MissingExtraError(
            f"reading audio needs {name.partition('.')[0]}, which is not installed",
            way_out="pip install 'faltung[audio]'",
        ) from error
