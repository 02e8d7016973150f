"""Short vectors side by side: where the last vector of outputs is at most half full, several pixels share one.

20 outputs are a vector of 16, and 4 more, of which a second one holds those of 4 pixels: 5 vectors where there were 8.
In its lanes stand the x of each pixel, beside the same weights for all:

    x          x[0] x[0] x[0] x[0]  x[1] x[1] x[1] x[1]  x[2] ...
    weights    w[0] w[1] w[2] w[3]  w[0] w[1] w[2] w[3]  w[0] ...

One load and one shuffle make the former, if these x lie within one vector; so this is for the few channels of images.
In a gradient it is neighbouring x, and the errors take the part of the weights. Every output is summed as ever.

On one core of a Zen 5 (peak 240 GFLOP/s), 9x9 taps on 1 channel to 20 filters run at 205 GFLOP/s, and the gradient at
206; 146 and 147 without it (and forward at 225 with taps that go ``together``, see ``tiles``). 5x5 taps on 1 channel to
6 filters run at 120, and at 70 without it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from faltung.engine.host.machine import Machine
from faltung.engine.loops.language import Function, Type, Value, Variable


@dataclass(frozen=True)
class Shared:
    """A vector of this type that several ``members`` share: ``used`` outputs each, whose x lie ``step`` apart."""

    kind: Type
    members: int
    used: int
    step: int
    masks: bool
    """Does the machine leave lanes out as fast as it takes all?"""

    @property
    def width(self) -> int:
        """The lanes of one member, used or not."""
        return self.kind.lanes // self.members

    @property
    def sizes(self) -> int:
        """Tiles have fewer pixels than this, or a multiple: whole vectors, and not many tiles to compile."""
        return max(4, self.members)

    def groups(self, count: int) -> list[range]:
        """Who shares a vector, of so many pixels."""
        return [range(first, min(first + self.members, count)) for first in range(0, count, self.members)]

    def numbers(self, f: Function, place: Value, offset: int, count: int) -> Value:
        """The x of ``count`` members from place[offset] on; in the lanes of those that are missing, the last one's."""
        lanes, reach = self.kind.lanes, (count - 1) * self.step + 1
        if count == 1:
            return f.broadcast(f.load(place, offset, name="x"), lanes)
        if self.step == 1 or reach.bit_count() == 1 or not self.masks:
            x = f.load(place, offset, reach, name="x")
        else:
            x = f.load(place, offset, lanes, f.first_lanes(reach, lanes), name="x")
        return f.shuffle(x, x, [min(lane // self.width, count - 1) * self.step for lane in range(lanes)])

    def repeated(self, f: Function, place: Value, offset: int, whole: bool = False) -> Value:
        """The ``used`` numbers at place[offset], for every member; where ``whole``, as many as a member has lanes."""
        lanes, count = self.kind.lanes, self.width if whole else self.used
        if count == 1:
            return f.broadcast(f.load(place, offset), lanes)
        if self.masks and count < self.width:
            numbers = f.load(place, offset, self.width, f.first_lanes(count, self.width))
        else:
            numbers = f.load(place, offset, count)
        return f.shuffle(numbers, numbers, [min(lane % self.width, numbers.type.lanes - 1) for lane in range(lanes)])

    def outputs(self, f: Function, vector: Value, members: range) -> Value:
        """The used lanes of these members, one behind the other."""
        return f.shuffle(vector, vector, [m * self.width + lane for m in members for lane in range(self.used)])


def sharing(kind: Type, outputs: int, step: int, machine: Machine) -> Shared | None:
    """How so many outputs share their last vector, where x lie ``step`` apart; None where they cannot.

    >>> from faltung.engine.loops.language import F32
    >>> from faltung.engine.host.machine import AVX2, AVX512
    >>> [shared and shared.members for shared in (sharing(F32, 20, step, AVX512) for step in (1, 3, 16))]
    [4, 4, None]
    >>> sharing(F32, 20, 1, AVX2).members, sharing(F32, 30, 1, AVX512)
    (2, None)
    """
    lanes = machine.lanes(kind.size)
    used = (outputs - 1) % lanes + 1
    members = lanes >> (used - 1).bit_length()
    while members > 1 and (members - 1) * step >= (lanes if machine.masks else members):
        members //= 2
    return Shared(kind.times(lanes), members, used, step, machine.masks) if members > 1 else None


class Tails:
    """The sums of a tile's last outputs: a vector for each group of pixels, which begins with ``start``.

    Behind weights that are ``packed`` lie zeros, up to whole vectors.
    """

    def __init__(self, f: Function, shared: Shared, pixels: int, start: Value, packed: bool):
        self._f, self._shared, self._groups = f, shared, shared.groups(pixels)
        self._packed = packed
        self._sums: list[Variable] = [f.variable(f"tail{group[0]}", start) for group in self._groups]

    def add(self, place: Value, offset: int, w: Value, weights: int) -> None:
        """Add x w: pixel 0 finds its x at place[offset], and all the last weights of this input at w[weights]."""
        vector = self._shared.repeated(self._f, w, weights, self._packed)
        for group, total in zip(self._groups, self._sums, strict=True):
            x = self._shared.numbers(self._f, place, offset + group[0] * self._shared.step, len(group))
            total.set(self._f.fma(x, vector, total.value))

    def add_row(self, place: Value, w: Value, row: int, count: int) -> None:
        """Add x w of inputs side by side, whose weights lie ``row`` apart and stay in registers: so a vector of x that
        serves several of them is made once."""
        weights = [self._shared.repeated(self._f, w, k * row, self._packed) for k in range(count)]
        uses: dict[tuple[int, int], list[tuple[Variable, Value]]] = {}
        for group, total in zip(self._groups, self._sums, strict=True):
            for k, vector in enumerate(weights):
                uses.setdefault((group[0] * self._shared.step + k, len(group)), []).append((total, vector))
        for (offset, members), pairs in sorted(uses.items(), key=lambda item: item[0]):
            x = self._shared.numbers(self._f, place, offset, members)
            for total, vector in pairs:
                total.set(self._f.fma(x, vector, total.value))

    def store(self, y: Value, step: int) -> None:
        """Write the outputs of pixel p to y[p * step ...]."""
        for group, total in zip(self._groups, self._sums, strict=True):
            members = range(len(group))
            together = [members] if step == self._shared.used else [range(m, m + 1) for m in members]
            for some in together:
                self._f.store(self._shared.outputs(self._f, total.value, some), y, group[some[0]] * step)


@dataclass(frozen=True)
class Cut:
    """A row as ``count`` tiles."""

    count: Value
    tile: Callable[[Function, Value], tuple[Value, Value]]
    """Where the tile of this number begins, and its pixels."""


def cut_row(f: Function, shared: Shared | None, most: int, width: Value) -> Cut:
    """Tiles of nearly the same size, of so many pixels at most.

    With shared vectors there are few sizes; the last tile begins so early that it ends with the row, and writes once
    more what it meets there.
    """
    count = (width + (most - 1)) // most
    if shared is None:
        base, longer = width // count, width % count
        return Cut(
            count, lambda f, n: (n * base + f.min(n, longer), base + f.select(n < longer, f.constant(1), f.constant(0)))
        )
    step = shared.sizes
    few, even = width < step, (width + (count * step - 1)) // (count * step) * step
    size = f.select(few, width, f.min(even, width // step * step))

    def tile(f: Function, number: Value) -> tuple[Value, Value]:
        left = width - number * size
        pixels = f.select(few, width, f.min(size, (left + (step - 1)) // step * step))
        return f.min(number * size, width - pixels), pixels

    return Cut((width + (size - 1)) // size, tile)
