"""How numbers that lie side by side fall into vectors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from faltung.engine.kernels.elementwise import sweep
from faltung.engine.loops.language import Function, Type, Value


@dataclass(frozen=True)
class Part:
    """One vector: ``count`` numbers from ``begin`` on, in its first lanes; nothing is read or written beyond them.

    Where the machine has no masks, fewer numbers than lanes are moved by smaller vectors.
    """

    begin: int
    lanes: int
    count: int
    masks: bool
    """Does the machine leave lanes out as fast as it takes all?"""

    @property
    def _masked(self) -> bool:
        """Are lanes left out by a mask? Not all but one: then LLVM 22 stores a narrowed number unnarrowed."""
        return self.masks and 1 < self.count < self.lanes

    def load(self, f: Function, place: Value, offset: Any = 0, name: str = "") -> Value:
        """The numbers at place[offset + begin]; what is in the other lanes does not matter."""
        if self._masked:
            return f.load(place, offset + self.begin, self.lanes, f.first_lanes(self.count, self.lanes), name)
        value = f.load(place, offset + self.begin, self.count, name=name)
        if self.count in (1, self.lanes):
            return f.broadcast(value, self.lanes)
        return f.shuffle(value, value, [min(lane, self.count - 1) for lane in range(self.lanes)])

    def store(self, f: Function, value: Value, place: Value, offset: Any = 0) -> None:
        """place[offset + begin ...] = the numbers in the first lanes."""
        if self._masked:
            f.store(value, place, offset + self.begin, f.first_lanes(self.count, self.lanes))
        else:
            some = value if self.count == self.lanes else f.shuffle(value, value, range(self.count))
            f.store(some, place, offset + self.begin)


def parts(count: int, kind: Type, masks: bool) -> list[Part]:
    """So many numbers as vectors of this type, of which the last may be a short one.

    >>> from faltung.engine.loops.language import F32
    >>> [(part.begin, part.count) for part in parts(40, F32.times(16), masks=True)]
    [(0, 16), (16, 16), (32, 8)]
    """
    return [Part(begin, kind.lanes, min(kind.lanes, count - begin), masks) for begin in range(0, count, kind.lanes)]


def blocks(f: Function, vectors: list[Part], most: int, write: Callable[[Value, list[Part]], None]) -> None:
    """Write ``write(offset, vectors)`` for all vectors, ``most`` at a time: a loop over full blocks, and the rest."""
    numbers = sum(part.count for part in vectors)
    block = most * vectors[0].lanes
    full = numbers // block * block
    if full:
        with f.loop("c", full, step=block) as c:
            write(c, vectors[:most])
    if rest := [part for part in vectors if part.begin >= full]:
        write(f.constant(0), rest)


def pitches(f: Function, channels: int, sizes: Sequence[Value]) -> list[Value]:
    """The numbers from one example to the next, and from one place along each axis of these sizes to the next.

    >>> from faltung.engine.loops.language import INDEX
    >>> f = Function("f", height=INDEX, width=INDEX)
    >>> [pitch.name for pitch in pitches(f, 3, f.arguments)]
    ['example', 'pitch0', '']
    """
    steps: list[Value] = [f.constant(channels)]
    for axis in reversed(range(len(sizes))):
        steps.insert(0, (steps[0] * sizes[axis]).named(f"pitch{axis - 1}" if axis else "example"))
    return steps


def fill(f: Function, place: Value, count: Value, value: float, kind: Type) -> None:
    """place[:count] = value, by vectors of this type."""
    values = f.constant(value, kind)
    sweep(f, count, kind.lanes, lambda i, mask: f.store(values, place, i, mask))


def copy(f: Function, target: Value, source: Value, count: Value, kind: Type, stream: bool = False) -> None:
    """target[:count] = source[:count], by vectors of this type."""

    def move(i: Value, mask: Value | None) -> None:
        f.store(f.load(source, i, kind.lanes, mask), target, i, mask, streamed=stream)

    sweep(f, count, kind.lanes, move)
