"""Weights packed for ``generation``, and streams that it goes on with, block of samples by block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine import arena
from faltung.engine.generation import Layout, Sizes, generate
from faltung.engine.machine import Machine, host
from faltung.engine.modes import flushed
from faltung.engine.recall import recalled
from faltung.engine.sampling import COLDEST

Array = NDArray[Any]


@dataclass
class Streams:
    """What has been heard, of all streams: the queues, and how many steps were done."""

    queues: Array
    memory: Array
    time: int = 0


class Generator:
    """A network's weights, packed once for so many streams; any number of threads may run it.

    ``weights`` are plain arrays, all float32: "front" (taps, classes + 1, residual), whose last row is that of no code;
    "gate" (layers, kernel, residual, 2, gate), with the oldest tap first; "residual" (layers, gate, residual) and
    "skip" (layers, gate, skip) with "residual.b" (layers, residual) and "skip.b" (layers, skip); "end1" (skip, end),
    "end1.b", "end2" (end, classes), "end2.b".
    """

    def __init__(self, dilations: Sequence[int], weights: Mapping[str, Array], streams: int = 1, half: bool = False):
        front, gate = weights["front"], weights["gate"]
        self.sizes = Sizes(
            kernel=gate.shape[1], residual=gate.shape[2], gate=gate.shape[4], skip=weights["skip"].shape[2],
            end=weights["end1"].shape[1], classes=front.shape[1] - 1, front=front.shape[0], streams=streams, half=half,
        )  # fmt: skip
        self.layers = len(dilations)
        self.layout = Layout(self.sizes, host())
        self._loop = _code(self.layout.machine, self.sizes)
        self._pack(weights)
        entries = np.multiply(dilations, (self.sizes.kernel - 1) * streams * self.layout.residual)
        self._length = int(entries.sum())
        self._table = _own(np.stack([np.cumsum(entries) - entries, dilations], axis=1).astype(np.int64))

    def _pack(self, weights: Mapping[str, Array]) -> None:
        layout = self.layout
        gate, both, end1, end2 = layout.products
        halves = _wide(weights["gate"], layout.gate).reshape(*weights["gate"].shape[:3], 2 * layout.gate)
        widths = {"residual": layout.residual, "skip": layout.skip}
        out, bias = (
            np.concatenate([_wide(weights[name + end], width) for name, width in widths.items()], -1)
            for end in ("", ".b")
        )
        parts = []
        for into, layer in zip(halves, out, strict=True):
            parts += [gate.pack(into), both.pack(layer[None])]
        parts += [end1.pack(weights["end1"][None]), end2.pack(weights["end2"][None])]
        nowhere = _wide(weights["end2.b"], layout.classes, -np.inf)
        self._weights = _own(np.concatenate(parts))
        self._biases = _own(np.concatenate([bias.ravel(), _wide(weights["end1.b"], layout.end), nowhere]))
        self._front = _own(_wide(weights["front"], layout.residual))

    @property
    def bytes(self) -> int:
        """Of the weights and biases that a step reads."""
        return self._weights.nbytes + self._biases.nbytes

    def begin(self) -> Streams:
        """Streams that have heard nothing."""
        return Streams(_own(np.zeros(self._length, np.float32)), _own(np.zeros(self.layout.memory[""][0], np.float32)))

    def run(
        self,
        streams: Streams,
        codes: Array,
        starts: Array,
        numbers: Array,
        *,
        given: int = 0,
        temperature: float = 1.0,
        keep: bool = False,
    ) -> Array | None:
        """Go on by ``count`` steps; with ``keep``, the logits (count, streams, classes).

        ``codes`` (streams, front + count), int32, hold what the first step hears, whose last one is the newest; behind
        it comes what each step draws, but for the first ``given`` steps, after which it is there already. ``starts`` (1
        or streams, 1 or count, layers, 2, gate) is what gates begin with, ``numbers`` (streams, count) is from [0, 1).
        """
        n, layout = self.sizes, self.layout
        count = codes.shape[1] - n.front
        starts = _wide(starts, layout.gate)
        stream, step = (size // starts.itemsize for size in starts.strides[:2])
        numbers = numbers.astype(np.float32) if temperature else np.zeros(numbers.shape, np.float32)
        logits = arena.empty((count if keep else 1, n.streams, layout.classes), np.float32)
        arrays = (
            self._weights, self._biases, self._front, starts, streams.queues, self._table, streams.memory,
            codes, numbers, logits,
        )  # fmt: skip
        steps = (
            codes.strides[0] // codes.itemsize,
            stream if len(starts) > 1 else 0,
            step if starts.shape[1] > 1 else 0,
            logits[0].size if keep else 0,
        )
        scale = 1 / temperature if temperature else COLDEST
        with flushed():
            _code(layout.machine, n)(
                *map(arena.address, arrays), self.layers, streams.time, count, given, *steps, scale
            )
        streams.time += count
        return logits[..., : n.classes] if keep else None


@cache
def _code(machine: Machine, sizes: Sizes) -> Any:
    return recalled(generate, machine, sizes).functions["generate"]


def _own(array: Array) -> Array:
    """A copy that begins a cache line."""
    copy = arena.empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def _wide(array: Array, width: int, value: float = 0) -> Array:
    """The array with its last axis filled up to this width."""
    wide = arena.empty((*array.shape[:-1], width), np.float32)
    wide[..., : array.shape[-1]] = array
    wide[..., array.shape[-1] :] = value
    return wide
