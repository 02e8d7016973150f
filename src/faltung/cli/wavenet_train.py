"""``faltung wavenet train``: a network learns to tell what comes next in recordings."""

import itertools
import json
import math
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from faltung.data.audio import write_wav
from faltung.elements.costs import CrossEntropy
from faltung.elements.element import Array
from faltung.elements.settings import check_count
from faltung.errors import DataError, SettingError
from faltung.exchange import atomic
from faltung.models.wavenet import WaveNet, find_settings, generate
from faltung.models.wavenet.corpus import TRAINING, VALIDATION, Corpus, read_corpus
from faltung.models.wavenet.settings import Settings
from faltung.models.wavenet.windows import IGNORED, Clip, EverySample, Windows, countable, training_network
from faltung.text import aligned
from faltung.training import Adam, Averaged, Cosine, Interrupted, Optimiser, WarmUp, evaluate, fit
from faltung.training.job import State

BATCH = 4
LENGTH = 2400
"""Counted samples of a window; a multiple of ``HOP``."""
HOP = (5, 5, 8)
"""The upsampling of the vocoder, by 200: a frame is 12.5 ms at 16 kHz."""
MELS = 80
RATE = 2e-3
DECAY = 0.999
"""Of the moving average of the parameters."""
EVERY = 250
"""Steps between two validations, about."""
GLANCE = 64
"""Windows of a validation on the way, about."""
SECONDS = 2.0
"""Of what is spoken after each validation."""
PRIME = 0.25
"""Seconds of a recording that it goes on from."""
CHECKPOINT, MODEL, NAME, SAMPLES = "checkpoint.safetensors", "model.safetensors", "settings.json", "samples"
FILES = {
    MODEL: "the trained network",
    CHECKPOINT: "where training can go on",
    NAME: "what was asked for",
    "log.jsonl": "costs of each part of the run (in nats)",
    "curve.svg": "the same as a picture",
    SAMPLES: "what it said after each part",
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of ``faltung wavenet train``, but for the folder of the run."""

    data: str
    setting: str = "nv"
    steps: int = 10_000
    seed: int = 0
    mel: bool = False

    def __post_init__(self):
        check_count("faltung wavenet train", steps=self.steps)
        if self.seed < 0:
            raise SettingError(f"got --seed {self.seed}, expected at least 0", way_out="choose another seed")

    @property
    def network(self) -> Settings:
        """The settings of the network."""
        found = find_settings(self.setting)
        return replace(found, local=MELS, upsample=HOP) if self.mel else found

    @property
    def epochs(self) -> int:
        """Parts of the run, each followed by a validation."""
        return math.ceil(self.steps / EVERY)

    @property
    def every(self) -> int:
        """Steps of each part."""
        return math.ceil(self.steps / self.epochs)

    @property
    def optimiser(self) -> Optimiser:
        """Adam with a rate that rises at first and then falls along a cosine, and the average of its parameters."""
        rate = WarmUp(min(200, math.ceil(self.steps / 10)), Cosine(RATE, steps=self.steps, final=RATE / 100))
        return Averaged(Adam(rate), decay=DECAY)


def begin(given: dict[str, Any], out: Path | None) -> int:
    """Start a new run in a folder of its own; the exit code."""
    if "data" not in given:
        raise SettingError("got no folder of recordings", way_out="write: faltung wavenet train DIR")
    asked = Asked(**given)
    out = out or _next_free(asked.setting + ("-mel" if asked.mel else ""))
    if (out / CHECKPOINT).exists():
        raise SettingError(
            f"got --out {out}, where a run lies already",
            way_out=f"choose another folder, or go on with: {_resume(out)}",
        )
    return _run(asked, out, resume=False)


def go_on(given: list[str], out: Path) -> int:
    """Resume the run in a folder, which has all settings; the exit code."""
    if given:
        raise SettingError(f"got --resume with {', '.join(given)}, expected it alone", way_out="leave the others out")
    if not (out / CHECKPOINT).exists():
        raise DataError(f"{out} holds no checkpoint", way_out="name the folder of a run, such as runs/nv-1")
    return _run(_load(out), out, resume=True)


def _run(asked: Asked, out: Path, *, resume: bool) -> int:
    settings, optimiser = asked.network, asked.optimiser
    corpus = read_corpus(asked.data, settings)
    train = Windows(corpus.clips[TRAINING], settings, LENGTH, asked.every * BATCH, asked.seed)
    held_out = EverySample(corpus.clips[VALIDATION], settings, LENGTH)
    glance = replace(held_out, step=math.ceil(len(held_out) / GLANCE))
    network, cost = training_network(settings, LENGTH), CrossEntropy(ignore=IGNORED)
    first = WaveNet.initial(settings, asked.seed)
    atomic.make_folder(out)
    atomic.write(out / NAME, json.dumps(asdict(asked), indent=2).encode(), b"\n")
    print(f"{_listed(corpus)}\n\n{first}\n")
    minutes = [sum(countable(clip, settings) for clip in clips) / settings.rate / 60 for clips in corpus.clips.values()]
    print("data      " + ", ".join(f"{part} {m:.1f} min" for part, m in zip(corpus.clips, minutes, strict=True)))
    print(f"training  {asked.epochs * asked.every:,} steps of {BATCH} x {LENGTH:,} samples, {optimiser}")
    print(f"folder    {out}\n", flush=True)
    view = Progress(asked, corpus.clips[VALIDATION][0], out / SAMPLES)
    try:
        fitted = fit(
            network,
            first.params,
            train,
            cost=cost,
            optimiser=optimiser,
            epochs=asked.epochs,
            batch=BATCH,
            seed=asked.seed,
            test=glance,
            out=out,
            resume=resume,
            progress=view,
        )
    except Interrupted as stop:
        after = f" after step {view.steps:,}" if view.steps else ""
        print(f"faltung: stopped{after}; go on with: {_resume(out)}", file=sys.stderr)
        return 128 + stop.signal
    about = asdict(asked) | {"optimiser": repr(optimiser), "history": list(fitted.history)}
    WaveNet(settings, fitted.params, about).save(out / MODEL)
    bits = evaluate(network, fitted.params, held_out, cost=cost, batch=BATCH)["cost"] / math.log(2)
    WaveNet(settings, fitted.params, about | {"bits": bits}).save(out / MODEL)
    count = sum(countable(clip, settings) for clip in corpus.clips[VALIDATION])
    print(f"\nvalidation {bits:.3f} bits per sample, on all {count:,} samples held out\n\nfiles")
    for name, meaning in FILES.items():
        print(f"  {out / name!s:{len(str(out)) + 24}}  {meaning}")
    again = " --condition RECORDING" if asked.mel else " --seconds 3"
    print(f"\nnext\n  faltung wavenet generate {shlex.quote(str(out))}{again} --out speech.wav")
    return 0


class Progress:
    """A line after each part of the run, in bits per sample, and in a terminal a bar below; on the standard error."""

    def __init__(self, asked: Asked, heard: Clip, samples: Path):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.asked, self.heard, self.samples, self.steps = asked, heard, samples, 0
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (BarColumn(), TextColumn("{task.description}"))
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=asked.epochs * asked.every)

    def __enter__(self) -> None:
        if not self.bar.disable:
            self.bar.start()

    def __exit__(self, *error: object) -> None:
        if not self.bar.disable:
            self.bar.stop()

    def step(self, state: State) -> None:
        self.steps = state.step
        done = state.step - len(state.history) * self.asked.every
        text = f"{self._bits('cost', state.tally.mean)}  {self._speed(done, state.seconds)}"
        self.bar.update(self.task, completed=state.step, description=text)

    def epoch(self, state: State) -> None:
        row, total = state.history[-1], self.asked.epochs * self.asked.every
        costs = f"{self._bits('cost', row['cost'])}  {self._bits('validation', row['test_cost'])} bits per sample"
        speed = self._speed(self.asked.every, row["seconds"])
        self.console.print(f"step {state.step:>{len(f'{total:,}')},}/{total:,}  {costs}  {speed}")
        params = self.asked.optimiser.result(state.params, state.slots, state.step)
        atomic.make_folder(self.samples)
        spoken = speak(WaveNet(self.asked.network, params), self.heard)
        write_wav(self.samples / f"step-{state.step:06}.wav", spoken, self.asked.network.rate)

    def _bits(self, name: str, cost: float | None) -> str:
        return f"{name} {math.nan if cost is None else cost / math.log(2):.3f}"

    def _speed(self, steps: int, seconds: float) -> str:
        """The rate, and the time left as it is now."""
        rate = steps / max(seconds, 1e-9)
        left = (self.asked.epochs * self.asked.every - self.steps) / rate
        text = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
        return f"{rate * BATCH * LENGTH:,.0f} samples/s  {text} left"


def speak(model: WaveNet, heard: Clip) -> Array:
    """What a model says: a vocoder the recording that it is given, from its spectrogram; any other how it goes on."""
    samples, begin = round(SECONDS * model.settings.rate), round(PRIME * model.settings.rate)
    if heard.local is None:
        blocks = generate(model, samples, prime=heard.codes[None, :begin].astype(np.int64))
    else:
        blocks = generate(model, min(samples, len(heard.codes)), local=heard.local[None])
    return np.concatenate(list(blocks), axis=1)[0]


def _listed(corpus: Corpus) -> str:
    """All files, and what was done with them."""
    rows = [(entry.name, f"{entry.seconds:.1f}", entry.part, entry.note) for entry in corpus.entries]
    return aligned(("file", "seconds", "part", ""), rows, left=(0, 2, 3))


def _load(folder: Path) -> Asked:
    """What was asked for in the run that lies in a folder. Raises: DataError where that is missing or damaged."""
    path = folder / NAME
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", way_out="begin a new run") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error})", way_out="begin a new run") from error
    kinds = get_type_hints(Asked)
    known: dict[str, Any] = {name: found.get(name) for name in kinds} if isinstance(found, dict) else {}
    if not known or not all(type(known[name]) is kind for name, kind in kinds.items()):
        raise DataError(f"{path} is damaged, or of another command", way_out="begin a new run")
    return Asked(**known)


def _resume(out: Path) -> str:
    return f"faltung wavenet train --resume {shlex.quote(str(out))}"


def _next_free(name: str) -> Path:
    """runs/nv-1, or the first such folder that does not exist."""
    paths = (Path("runs", f"{name}-{number}") for number in itertools.count(1))
    return next(path for path in paths if not path.exists())
