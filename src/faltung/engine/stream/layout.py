"""Where everything lies that ``generation`` reads and writes, and how the outputs of a step are shared by two workers.

All numbers of a stream lie in whole vectors; what fills the last one is 0.
"""

from dataclasses import dataclass
from functools import cached_property

from faltung.engine.host.machine import Machine
from faltung.engine.loops.language import F32
from faltung.engine.stream.columns import Columns, columns


@dataclass(frozen=True)
class Sizes:
    """Channels and taps, how many streams share the weights, and how many workers a step; layers are data."""

    kernel: int
    residual: int
    gate: int
    """Of each half of a gate."""
    skip: int
    end: int
    classes: int
    front: int
    """Taps of the first convolution."""
    streams: int = 1
    half: bool = False
    """Are the weights bfloat16?"""
    workers: int = 1
    """1 or 2."""


Part = tuple[int, int]
"""From which vector of a product's outputs to which one."""


@dataclass(frozen=True)
class Share:
    """What one worker does: of the products out of the gates, and of the two of the end."""

    both: Part
    end1: Part
    end2: Part


@dataclass(frozen=True)
class Layout:
    """The sizes on a machine, in whole vectors."""

    sizes: Sizes
    machine: Machine

    @property
    def lanes(self) -> int:
        """Of a vector."""
        return self.machine.lanes(F32.size)

    def _full(self, count: int) -> int:
        return -(-count // self.lanes) * self.lanes

    @cached_property
    def residual(self) -> int:
        return self._full(self.sizes.residual)

    @cached_property
    def gate(self) -> int:
        return self._full(self.sizes.gate)

    @cached_property
    def skip(self) -> int:
        return self._full(self.sizes.skip)

    @cached_property
    def end(self) -> int:
        return self._full(self.sizes.end)

    @cached_property
    def classes(self) -> int:
        return self._full(self.sizes.classes)

    @property
    def both(self) -> int:
        """The stream that layers add to, and the skips."""
        return self.residual + self.skip

    @cached_property
    def products(self) -> tuple[Columns, Columns, Columns, Columns]:
        """Those into the gates, out of them, and the two of the end."""
        n = self.sizes
        matrices = (
            (n.kernel, n.residual, 2 * self.gate),
            (1, n.gate, self.both),
            (1, n.skip, self.end),
            (1, n.end, self.classes),
        )
        gate, both, end1, end2 = (columns(*matrix, n.streams, n.half, self.machine) for matrix in matrices)
        return gate, both, end1, end2

    @cached_property
    def shares(self) -> list[Share]:
        """Of each worker. The first one has all residuals, so that only z goes to the other one.

        >>> from faltung.engine.host.machine import AVX512
        >>> [share.both for share in Layout(Sizes(2, 32, 32, 512, 512, 256, 2, workers=2), AVX512).shares]
        [(0, 17), (17, 34)]
        """
        gate, both, end1, end2 = self.products
        if self.sizes.workers == 1:
            return [Share((0, both.vectors), (0, end1.vectors), (0, end2.vectors))]
        vector = both.words // both.vectors
        tap = gate.words // gate.taps
        even = (both.words + gate.words - 2 * tap) // (2 * vector)  # so that both read as many weights in each layer
        cut = min(max(even, self.residual // self.lanes), both.vectors)
        halves = end1.vectors // 2, end2.vectors // 2
        first = Share((0, cut), (0, halves[0]), (0, halves[1]))
        return [first, Share((cut, both.vectors), (halves[0], end1.vectors), (halves[1], end2.vectors))]

    @cached_property
    def memory(self) -> dict[str, tuple[int, int]]:
        """What a step remembers for itself: where it begins, and the numbers of one stream; see ``remembered``."""
        widths = {
            "u": self.both,
            "inside": 2 * self.gate,
            "heard": self.skip,
            "heard_too": self.skip,
            "said": self.end,
            "sums": self.classes,
            "layers": self.gate if self.sizes.workers == 1 else 3 * self.gate,
        }
        parts, at = {}, 0
        for name, width in widths.items():
            parts[name] = at, width
            at += width * self.sizes.streams
        return parts

    def remembered(self, layers: int) -> int:
        """Numbers of all that: with two workers, each layer's z and what the past gives to its gate have a place."""
        begin, width = self.memory["layers"]
        return begin + width * self.sizes.streams * (layers if self.sizes.workers > 1 else 1)
