"""The files of a run: checkpoint.safetensors, log.jsonl, curve.svg, and at the end model.safetensors."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faltung.draw.curve import curve
from faltung.errors import SettingError
from faltung.exchange import atomic
from faltung.exchange.modelfile import about_text, save_model
from faltung.training.checkpoint import load_checkpoint, save_checkpoint
from faltung.training.job import Job, State

SECONDS_BETWEEN_CHECKPOINTS = 600.0
"""Within an epoch; at its end there is always one."""


class Folder:
    """Where one run writes. Every file is written whole or not at all, so the folder is valid at any moment."""

    def __init__(self, out: str | os.PathLike[str], job: Job, about: Mapping[str, Any]):
        self.out = Path(out)
        self.job = job
        self.about = dict(about)
        self.settings = job.settings()
        about_text(self.about)
        self.checkpoint = self.out / "checkpoint.safetensors"
        self.model = self.out / "model.safetensors"
        self.log = self.out / "log.jsonl"
        self.picture = self.out / "curve.svg"
        self._saved = time.monotonic()

    def open(self, begin: State, resume: bool, epochs: int) -> State:
        """The state to go on from: that of the checkpoint, or the first one.

        A new run writes its first checkpoint at once, so what cannot be written is said before any work is done.
        Raises: SettingError where the folder holds a run, or where the one to resume has done more epochs; FileError
        where it cannot be written, and the errors of ``load_checkpoint``.
        """
        if resume:
            if not self.checkpoint.exists():
                raise SettingError(
                    f"got resume=True, but there is no checkpoint in {self.out}", way_out="leave resume out to begin"
                )
            state = load_checkpoint(self.checkpoint, begin, self.settings)
            done = len(state.history)
            if done > epochs:
                raise SettingError(
                    f"got epochs={epochs}, but the run in {self.out} has done {done}",
                    way_out=f"ask for at least {done}",
                )
            self._report(state)
            return state
        held = [file.name for file in (self.checkpoint, self.model, self.log, self.picture) if file.exists()]
        if held:
            raise SettingError(
                f"got out={str(self.out)!r}, which already holds a run ({', '.join(held)})",
                way_out="use resume=True, or another folder",
            )
        atomic.make_folder(self.out)
        self.save(begin)
        return begin

    def save(self, state: State) -> None:
        """Write the checkpoint."""
        save_checkpoint(self.checkpoint, state, self.settings)
        self._saved = time.monotonic()

    def save_if_due(self, state: State) -> None:
        """Write the checkpoint if the last one is old."""
        if time.monotonic() - self._saved > SECONDS_BETWEEN_CHECKPOINTS:
            self.save(state)

    def close_epoch(self, state: State) -> None:
        """Write the checkpoint, the log and the picture."""
        self.save(state)
        self._report(state)

    def finish(self, state: State) -> None:
        """Write the model, with the history among what is known about it."""
        save_model(self.model, self.job.network, self.job.result(state), self.about | {"history": list(state.history)})

    def _report(self, state: State) -> None:
        """The log and the picture, anew from the history: no line is lost or doubled when a run is resumed."""
        atomic.write(self.log, *(f"{json.dumps(row)}\n".encode() for row in state.history))
        if state.history:
            atomic.write(self.picture, curve(state.history).encode())
