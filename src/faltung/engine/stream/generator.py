"""Weights packed for ``generation``, and streams that it goes on with, block of samples by block."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host import arena, dispatch, processors
from faltung.engine.host.machine import Machine, host
from faltung.engine.host.modes import flushed
from faltung.engine.host.recall import recalled
from faltung.engine.stream.generation import FAR, generate
from faltung.engine.stream.layout import Layout, Sizes
from faltung.engine.stream.sampling import COLDEST, by_number, in_lanes

Array = NDArray[Any]


@dataclass
class Streams:
    """What has been heard, of all streams: the queues, and how many steps were done."""

    queues: Array
    memory: Array
    time: int = 0
    helper: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "faltung generator"), repr=False)
    """The thread of a second worker, which begins with its first work."""


class Generator:
    """A network's weights, packed once for so many streams; any number of threads may run it.

    ``weights`` are plain arrays, all float32: "front" (taps, classes + 1, residual), whose last row is that of no code;
    "gate" (layers, kernel, residual, 2, gate), with the oldest tap first; "residual" (layers, gate, residual) and
    "skip" (layers, gate, skip) with "residual.b" (layers, residual) and "skip.b" (layers, skip); "end1" (skip, end),
    "end1.b", "end2" (end, classes), "end2.b".
    """

    def __init__(
        self,
        dilations: Sequence[int],
        weights: Mapping[str, Array],
        streams: int = 1,
        half: bool = False,
        workers: int = 1,
    ):
        front, gate = weights["front"], weights["gate"]
        self.sizes = Sizes(
            kernel=gate.shape[1], residual=gate.shape[2], gate=gate.shape[4], skip=weights["skip"].shape[2],
            end=weights["end1"].shape[1], classes=front.shape[1] - 1, front=front.shape[0], streams=streams, half=half,
            workers=workers,
        )  # fmt: skip
        self.layers = len(dilations)
        self.layout = Layout(self.sizes, host())
        self._loops = _loops(self.layout.machine, self.sizes)
        self._packed = self._pack(weights)
        self._front = _own(_wide(front, self.layout.residual))
        entries = np.multiply(dilations, (self.sizes.kernel - 1) * streams * self.layout.residual)
        self._length = int(entries.sum())
        table = np.stack([np.cumsum(entries) - entries, dilations], axis=1).astype(np.int64)
        self._table = _own(np.concatenate([table, table[:1]]))  # behind the last layer comes the first one

    def _pack(self, weights: Mapping[str, Array]) -> list[tuple[Array, Array]]:
        """The weights and biases of each worker, in the order in which it reads them."""
        layout, lanes = self.layout, self.layout.lanes
        gate, both, end1, end2 = layout.products
        into = _wide(weights["gate"], layout.gate).reshape(*weights["gate"].shape[:3], 2 * layout.gate)
        widths = {"residual": layout.residual, "skip": layout.skip}
        out, bias = (
            np.concatenate([_wide(weights[name + end], width) for name, width in widths.items()], -1)
            for end in ("", ".b")
        )
        ends = [(end1, weights["end1"], _wide(weights["end1.b"], layout.end))]
        classes = _wide(weights["end2"], layout.classes), _wide(weights["end2.b"], layout.classes, -np.inf)
        ends += [(end2, *(in_lanes(array, lanes) for array in classes))]
        packed = []
        for number, share in enumerate(layout.shares):
            some = slice(share.both[0] * lanes, share.both[1] * lanes)
            words, biases = [], [bias[:, some].ravel()]
            for layer in range(self.layers):
                taps = slice(None) if self.sizes.workers == 1 else (slice(-1, None), slice(-1))[number]
                words.append(gate.some(len(into[layer, taps])).pack(into[layer, taps]))
                words.append(both.part(*share.both).pack(out[layer][None, :, some]))
            for (matrix, w, b), part in zip(ends, (share.end1, share.end2), strict=True):
                some = slice(part[0] * lanes, part[1] * lanes)
                words.append(matrix.part(*part).pack(w[None, :, some]))
                biases.append(b[some])
            packed.append((_own(np.concatenate(words)), _own(np.concatenate(biases))))
        return packed

    @property
    def bytes(self) -> int:
        """Of the weights and biases that a step reads."""
        return sum(array.nbytes for arrays in self._packed for array in arrays)

    def begin(self) -> Streams:
        """Streams that have heard nothing."""
        sizes = self._length, self.layout.remembered(self.layers)
        queues, memory = (_own(np.zeros(size, np.float32)) for size in sizes)
        return Streams(queues, memory)

    def heard(self, streams: Streams) -> tuple[int, list[Array]]:
        """How many steps were done, and what each layer has heard: (entries, streams, channels)."""
        parts = np.split(streams.queues, self._table[1:-1, 0])
        return streams.time, [part.reshape(-1, self.sizes.streams, self.layout.residual) for part in parts]

    def hear(self, streams: Streams, time: int, queues: Sequence[Array]) -> None:
        """Go on from what others have ``heard``."""
        streams.time = time
        for own, theirs in zip(self.heard(streams)[1], queues, strict=True):
            own[...] = theirs

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
        arrays = (self._front, starts, streams.queues, self._table, streams.memory, codes, numbers, logits)
        steps = (
            codes.strides[0] // codes.itemsize,
            stream if len(starts) > 1 else 0,
            step if starts.shape[1] > 1 else 0,
            logits[0].size if keep else 0,
        )
        scale = 1 / temperature if temperature else COLDEST
        clocks = _own(np.zeros(2 * FAR, np.int64))
        tail = (
            self.layers,
            streams.time,
            count,
            given,
            *steps,
            scale,
            arena.address(clocks),
            *dispatch.sharing()[0][1:],
        )
        together(
            streams.helper,
            *(
                partial(_run, loop, *map(arena.address, (*packed, *arrays)), *tail)
                for loop, packed in zip(self._loops, self._packed, strict=True)
            ),
        )
        streams.time += count
        return by_number(logits, layout.lanes)[..., : n.classes] if keep else None


@cache
def _loops(machine: Machine, sizes: Sizes) -> list[Any]:
    """The machine code of each worker."""
    return [*recalled(generate, machine, sizes).functions.values()]


def _run(loop: Any, *arguments: Any) -> None:
    with flushed():
        loop(*arguments)


def together(helper: ThreadPoolExecutor, first: Callable[[], Any], *others: Callable[[], Any]) -> list[Any]:
    """What they give: the first one is done here, the others meanwhile by the helper, on other processors."""
    if not others:
        return [first()]
    with processors.apart() as elsewhere:
        shared = [helper.submit(_elsewhere, elsewhere, other) for other in others]
        done = first()
    return [done, *(part.result() for part in shared)]


def _elsewhere(move: Callable[[], None], run: Callable[[], Any]) -> Any:
    """Run on another processor than the caller's."""
    move()
    return run()


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
