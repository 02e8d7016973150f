"""Settling: launches that read parameters alone are done once, where parameters never change.

Packed weights and the constants of normalisations are then arrays like others that follow from nothing, and a program
begins with the first launch that sees an example.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host import arena, dispatch, workers
from faltung.engine.host.recording import Buffer, Later, Launch, NotRecordedError, Place
from faltung.engine.programs.stages import Recorded

Array = NDArray[Any]


class Settled:
    """Parameters by name, and what launches have made of them; recordings for several sizes share it."""

    def __init__(self, params: Mapping[str, Array]):
        self._params = {name: _constant(array, array.dtype) for name, array in params.items()}
        self._made: dict[Any, list[Buffer]] = {}
        self._kept: list[Any] = []

    def without(self, recorded: Recorded) -> Recorded:
        """The recording without the launches that can be done now, which are done."""
        writers = Counter(buffer.address for launch in recorded.launches for buffer in launch.writes)
        known: dict[int, Buffer] = {}
        left = []
        for launch in recorded.launches:
            placed = self._placed(launch, known)
            if any(writers[buffer.address] > 1 for buffer in launch.writes) or not _follows(placed):
                left.append(placed)
                continue
            for buffer, made in zip(placed.writes, self._done(placed), strict=True):
                known[buffer.address] = made
        for name, place in recorded.results.items():
            if place.buffer.address in known or place.buffer.kind == "parameter":
                raise NotRecordedError(f"{name}, which depends on no input")
        return replace(recorded, launches=left)

    def _placed(self, launch: Launch, known: Mapping[int, Buffer]) -> Launch:
        """The launch on what is known."""

        def found(buffer: Buffer) -> Buffer:
            return self._params[buffer.name] if buffer.kind == "parameter" else known.get(buffer.address, buffer)

        return replace(
            launch,
            arguments=tuple(
                replace(a, buffer=found(a.buffer)) if isinstance(a, Place) else a for a in launch.arguments
            ),
            reads=tuple(map(found, launch.reads)),
            writes=tuple(map(found, launch.writes)),
        )

    def _done(self, launch: Launch) -> list[Buffer]:
        """What a launch writes: done, unless the same was done before."""
        key = _key(launch)
        if key not in self._made:
            own = {b.address: _constant(arena.empty((b.size,), np.uint8), b.dtype) for b in launch.writes}
            arguments = [
                (own.get(a.buffer.address, a.buffer).array, a.offset) if isinstance(a, Place) else a
                for a in launch.arguments
            ]
            workers.launch(launch.function, *arguments, tasks=launch.tasks, work=launch.work, scratch=launch.scratch)
            self._made[key] = list(own.values())
            self._kept.append(launch)  # so that nothing else gets the addresses in the key
        return self._made[key]


def _constant(array: Array, dtype: Any) -> Buffer:
    return Buffer(arena.address(array), max(array.nbytes, 1), "constant", "", dtype, array)


def _follows(launch: Launch) -> bool:
    """Does what a launch writes follow from constants alone?"""
    own = {buffer.address for buffer in launch.writes}
    reads = all(buffer.kind == "constant" or buffer.address in own for buffer in launch.reads)
    writes = all(buffer.kind == "memory" for buffer in launch.writes)
    return reads and writes and not any(isinstance(argument, Later) for argument in launch.arguments)


def _key(launch: Launch) -> tuple[Any, ...]:
    """What makes two launches on constants the same."""
    own = {buffer.address for buffer in launch.writes}
    parts: Sequence[Any] = [
        argument
        if not isinstance(argument, Place)
        else (None if argument.buffer.address in own else argument.buffer.address, argument.offset)
        for argument in launch.arguments
    ]
    return dispatch.address(launch.function), launch.tasks, *parts
