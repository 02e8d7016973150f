"""``faltung wavenet generate``: a model speaks, sample by sample."""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faltung.data.audio import SUFFIXES, rate_of, read_wave, write_wav
from faltung.elements.element import Array
from faltung.errors import DataError, SettingError
from faltung.exchange import atomic
from faltung.models.wavenet import WaveNet, generate
from faltung.models.wavenet.windows import condition as mel_condition
from faltung.training.interrupt import Signals, Stop

SECONDS = 3.0
"""Of speech, where neither their number nor a condition is given."""


@dataclass(frozen=True)
class Asked:
    """The options of ``faltung wavenet generate``."""

    out: Path
    seconds: float | None = None
    condition: Path | None = None
    speaker: int | None = None
    temperature: float = 1.0
    seed: int = 0
    streams: int = 1
    bfloat16: bool = False
    workers: int | None = None

    def __post_init__(self):
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise SettingError(
                f"got --seconds {self.seconds:g}, expected a number above 0", way_out="choose another length"
            )
        if self.out.suffix.lower() != ".wav" or self.out.is_dir():
            raise SettingError(
                f"got --out {self.out}, expected the name of a WAV file", way_out="choose one, as speech.wav"
            )

    def files(self) -> list[Path]:
        """One for each stream: speech.wav, or speech-1.wav, speech-2.wav, ..."""
        if self.streams == 1:
            return [self.out]
        return [self.out.with_stem(f"{self.out.stem}-{number}") for number in range(1, self.streams + 1)]


def speak(path: Path, asked: Asked) -> int:
    """Speak into files, all of it or until Ctrl-C; the exit code."""
    model = WaveNet.load(path)
    conditions = read_conditions(model, asked)
    samples = _samples(model, asked, conditions)
    blocks = generate(
        model,
        samples,
        streams=asked.streams,
        temperature=asked.temperature,
        seed=asked.seed,
        bfloat16=asked.bfloat16,
        workers=asked.workers,
        **conditions,
    )
    atomic.make_folder(asked.out.parent)
    rate = model.settings.rate
    made: list[Array] = []
    begun, code = time.perf_counter(), 0
    with Signals() as signals:  # until all is written
        try:
            for block in _shown(blocks, samples, rate):
                made.append(block)
                signals.heed()
        except Stop as stop:
            code, signals.received = 128 + stop.signal, None  # so it is not delivered again
        seconds = time.perf_counter() - begun
        waves = np.concatenate(made, axis=1)
        for file, wave in zip(asked.files(), waves, strict=True):
            write_wav(file, wave, rate)
    _report(asked, waves, rate, seconds)
    if code:
        print(f"faltung: stopped after {waves.shape[1] / rate:.2f} s of {samples / rate:.2f}", file=sys.stderr)
    return code


def read_conditions(model: WaveNet, asked: Asked) -> dict[str, Any]:
    """What the options condition the model on, by the names that it has for it; all streams share it.

    Raises: DataError where the file cannot be read, or is of another rate than the model.
    """
    conditions: dict[str, Any] = {}
    if asked.speaker is not None:
        conditions["speaker"] = np.array([asked.speaker])
    if asked.condition is None:
        return conditions
    settings = model.settings
    if asked.condition.suffix.lower() in SUFFIXES:
        if not settings.local:
            raise SettingError(
                f"got --condition {asked.condition}, but the model listens to no recording",
                way_out="train one with: faltung wavenet train --mel",
            )
        rate = rate_of(asked.condition)
        if rate != settings.rate:
            raise DataError(
                f"{asked.condition}: has {rate:,} samples a second, expected the model's {settings.rate:,}",
                way_out="resample it",
            )
        wave = read_wave(asked.condition, rate)
        return conditions | {"local": mel_condition(wave, settings)[None]}
    return conditions | {"local" if settings.local else "h": _numbers(asked.condition)[None]}


def _numbers(path: Path) -> Array:
    """The array of an .npy file."""
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", way_out="name a WAV, FLAC or .npy file") from error
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: is neither WAV, FLAC nor .npy", way_out="name one of these") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path}: holds several arrays, expected one", way_out="write it with numpy.save")
    return array


def _samples(model: WaveNet, asked: Asked, conditions: dict[str, Any]) -> int:
    """As many as are asked for; or as many as the local condition has."""
    if asked.seconds is not None:
        return max(1, round(asked.seconds * model.settings.rate))
    local = conditions.get("local")
    return round(SECONDS * model.settings.rate) if local is None else max(1, local.shape[1] * model.settings.hop)


def _shown(blocks: Iterator[Array], samples: int, rate: int) -> Iterator[Array]:
    """The blocks, and in a terminal a bar with rate and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from blocks
        return
    columns = (TextColumn("{task.fields[said]}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    begun = time.perf_counter()
    with Progress(*columns, console=console, transient=True) as bar:
        task, done = bar.add_task("", total=samples, said="", rate=""), 0
        for block in blocks:
            done += block.shape[1]
            made = len(block) * done / (time.perf_counter() - begun)
            bar.update(task, completed=done, said=f"{done / rate:.1f} s", rate=f"{made:,.0f} samples/s")
            yield block


def _report(asked: Asked, waves: Array, rate: int, seconds: float) -> None:
    """How long it took, and where it lies."""
    length = waves.shape[1] / rate
    streams = f"{len(waves)} streams of " if len(waves) > 1 else ""
    speed = f"{waves.size / seconds:,.0f} samples/s, real-time factor {seconds / length:.2f}"
    print(f"{streams}{length:.2f} s at {rate:,} Hz in {seconds:.2f} s: {speed}")
    for file in asked.files():
        print(f"  {file}")
