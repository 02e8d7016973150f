"""``faltung train``: a network learns to tell images apart."""

import io
import itertools
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from faltung.cli import settings as settings_file
from faltung.cli.data import EMBEDDED, balanced, load, parse_size
from faltung.cli.settings import Settings
from faltung.data import Images
from faltung.elements.costs import CrossEntropy
from faltung.elements.settings import check_count
from faltung.errors import DataError, SettingError, ShapeError
from faltung.exchange import atomic
from faltung.models import find_recipe
from faltung.text import percent
from faltung.training import Interrupted, fit
from faltung.training.checkpoint import epochs_done

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
EXAMPLE = "example.png"
FILES = {
    MODEL: "the trained network",
    CHECKPOINT: "where training can go on",
    "settings.json": "what was asked for",
    "log.jsonl": "cost and accuracy of each epoch",
    "curve.svg": "the same as a picture",
    EXAMPLE: "the first test image",
}


def begin(given: dict[str, Any], out: Path | None) -> int:
    """Start a new run, with these settings, in a folder of its own; the exit code."""
    recipe = find_recipe(given.get("network", Settings.network))
    defaults: dict[str, Any] = {"epochs": recipe.epochs, "batch": recipe.batch}
    settings = Settings(**(defaults | given))
    out = out or _next_free(recipe.name)
    if (out / CHECKPOINT).exists():
        raise SettingError(
            f"got --out {out}, where a run lies already",
            way_out=f"choose another folder, or go on with: {_resume(out)}",
        )
    return _run(settings, out, resume=False)


def go_on(given: dict[str, Any], out: Path) -> int:
    """Resume the run in a folder, which has all settings; only the number of epochs may be another. The exit code."""
    if others := [f"--{name}" for name in given if name != "epochs"]:
        raise SettingError(
            f"got --resume with {', '.join(others)}, expected --epochs at most", way_out="leave the others out"
        )
    if not (out / CHECKPOINT).exists():
        raise DataError(f"{out} holds no checkpoint", way_out="name the folder of a run, such as runs/ufldl-1")
    settings = replace(settings_file.load(out), **given)
    done = epochs_done(out / CHECKPOINT)
    if settings.epochs < done:
        raise SettingError(
            f"got --epochs {settings.epochs}, but the run in {out} has done {done}", way_out=f"ask for at least {done}"
        )
    return _run(settings, out, resume=True)


def _run(settings: Settings, out: Path, *, resume: bool) -> int:
    recipe = find_recipe(settings.network)
    check_count("faltung train", epochs=settings.epochs, batch=settings.batch)
    size = None if settings.size is None else parse_size(settings.size)
    data = None if settings.data is None else Path(settings.data)
    train, test = (balanced(images, settings.limit) for images in load(data, size))
    try:
        network = recipe.network(train.pixels.shape[1:], len(train.classes))
    except ShapeError as error:
        error.way_out = "enlarge all images, as --size 28x28 does, or choose --network allconv"
        raise
    optimiser = recipe.optimiser(len(train), settings.batch, rate=settings.rate, momentum=settings.momentum)
    params = network.initial(settings.seed)
    settings_file.save(settings, out)
    atomic.write(out / EXAMPLE, _png(test))
    shape = " x ".join(map(str, train.pixels.shape[1:]))
    print(f"data      {data or EMBEDDED}: {len(train):,} training and {len(test):,} test images, {shape}")
    print(f"network   {recipe.name}: {recipe.summary}")
    print(f"training  epochs {settings.epochs}, batch {settings.batch}, {optimiser}, seed {settings.seed}")
    print(f"folder    {out}\n\n{network}\n", flush=True)
    try:
        fitted = fit(
            network,
            params,
            train,
            cost=CrossEntropy(),
            optimiser=optimiser,
            epochs=settings.epochs,
            batch=settings.batch,
            seed=settings.seed,
            test=test,
            drop_last=recipe.drop_last,
            out=out,
            resume=resume,
            about=asdict(settings) | {"size": size, "classes": train.classes, "optimiser": repr(optimiser)},
        )
    except Interrupted as stop:
        epoch = f"epoch {len(stop.history) + 1} of {settings.epochs}"
        print(f"faltung: stopped in {epoch}; go on with: {_resume(out)}", file=sys.stderr)
        return 128 + stop.signal
    _report(fitted.history[-1], out, test)
    return 0


def _report(row: dict[str, float], out: Path, test: Images) -> None:
    """How it ended, what was written, and what to do next."""
    print(f"\ntest accuracy {percent(row['test_accuracy'])}, cost {row['test_cost']:.4f}, after epoch {row['epoch']}")
    print("\nfiles")
    for name, meaning in FILES.items():
        print(f"  {out / name!s:{len(str(out)) + 24}}  {meaning}")
    model, image = (shlex.quote(str(out / name)) for name in (MODEL, EXAMPLE))
    print(f"\nnext ({image} is a test image of the class {test.classes[test.labels[0]]})")
    print(f"  faltung predict {model} {image}")
    print(f"  faltung evaluate {model}")
    print(f"  faltung check {model}")
    print(f"  faltung trace {model} {image} --out trace.npz")
    print(f"  {_resume(out)} --epochs {row['epoch'] * 2}")


def _resume(out: Path) -> str:
    return f"faltung train --resume {shlex.quote(str(out))}"


def _next_free(network: str) -> Path:
    """runs/ufldl-1, or the first such folder that does not exist."""
    paths = (Path("runs", f"{network}-{number}") for number in itertools.count(1))
    return next(path for path in paths if not path.exists())


def _png(images: Images) -> bytes:
    pixels = images.pixels[0]
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()
