"""Checkpoints: the state of a training run in one safetensors file, from which it goes on bit for bit.

Tensors are named ``params/conv1.w`` and ``slots/velocity/conv1.w``. The metadata holds, as JSON, the settings of the
run (which must be the same when it is resumed), the step, the partial sums of the running epoch and the history. Python
writes a float into JSON so that reading it gives the same bits. There is no random state: all that is random follows
from the seed.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, replace
from typing import Any

from faltung.elements.element import Array
from faltung.errors import ModelFileError
from faltung.exchange import tensorfile
from faltung.training.job import State
from faltung.training.metrics import Tally

FORMAT = "faltung checkpoint"


def save_checkpoint(path: str | os.PathLike[str], state: State, settings: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all. Raises: FileError where it cannot be written."""
    progress = {
        "step": state.step,
        "tally": astuple(state.tally),
        "seconds": state.seconds,
        "history": state.history,
    }
    texts = {"settings": json.dumps(settings), "progress": json.dumps(progress)}
    tensorfile.write(path, FORMAT, _tensors(state), texts)


def load_checkpoint(path: str | os.PathLike[str], begin: State, settings: Mapping[str, Any]) -> State:
    """The state in a checkpoint of the run that has these settings and this first state.

    Raises: ModelFileError where the file is missing or damaged, or belongs to another run; then it names what differs.
    """
    tensors, texts = tensorfile.read(path, FORMAT)
    with _undamaged(path):
        saved, progress = json.loads(texts["settings"]), json.loads(texts["progress"])
        state = replace(
            begin,
            step=int(progress["step"]),
            tally=Tally(*progress["tally"]),
            seconds=float(progress["seconds"]),
            history=tuple(row | {"cost": float(row["cost"])} for row in progress["history"]),
        )
    sizes = {name: f"{array.dtype} {array.shape}" for name, array in tensors.items()}
    expected = {name: f"{array.dtype} {array.shape}" for name, array in _tensors(begin).items()}
    differs = _difference(saved, json.loads(json.dumps(settings)), "") or _difference(sizes, expected, "")
    if differs:
        name, there, here = differs
        raise ModelFileError(
            f"{path}: the checkpoint is of another run: {name} is {there} there, and {here} here",
            way_out="resume with the same settings, or train in another folder",
        )
    params = {name: tensors[f"params/{name}"] for name in begin.params}
    slots = {slot: {name: tensors[f"slots/{slot}/{name}"] for name in own} for slot, own in begin.slots.items()}
    return replace(state, params=params, slots=slots)


def epochs_done(path: str | os.PathLike[str]) -> int:
    """How many epochs of the run in a checkpoint are over. Raises: ModelFileError where it is missing or damaged."""
    _, texts = tensorfile.read(path, FORMAT)
    with _undamaged(path):
        return len(json.loads(texts["progress"])["history"])


@contextmanager
def _undamaged(path: str | os.PathLike[str]) -> Iterator[None]:
    """What reading the texts of a checkpoint raises is said as what it means."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path}: the checkpoint is damaged ({type(error).__name__}: {error})", way_out=tensorfile.COPY
        ) from error


def _tensors(state: State) -> dict[str, Array]:
    slots = {f"slots/{slot}/{name}": array for slot, own in state.slots.items() for name, array in own.items()}
    return {f"params/{name}": array for name, array in state.params.items()} | slots


def _difference(there: Any, here: Any, name: str) -> tuple[str, str, str] | None:
    """The name and both values of the first thing that differs in two pieces of plain data."""
    if isinstance(there, dict) and isinstance(here, dict):
        pairs = {key: (there.get(key, "missing"), here.get(key, "missing")) for key in here | there}
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = dict(enumerate(zip(there, here, strict=True)))
    else:
        return None if there == here else (name, _short(there), _short(here))
    parts = (_difference(*pair, f"{name}.{key}" if name else str(key)) for key, pair in pairs.items())
    return next((part for part in parts if part), None)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
