"""The register tile of a convolution: how many pixels, vectors of outputs and taps its innermost loop holds.

P pixels times V vectors of outputs stay in registers while taps and channels pass by. One channel of one tap takes V
loads of weights, P broadcasts of x and P*V fused multiply-adds. Two loads and two multiply-adds run in a cycle, so
P*V >= P + V keeps the multiply-adds busy; 4 cycles of latency ask for P*V >= 8; and P*V + V + 1 registers are needed.

Where outputs are few, V is 1, and loads take as long as multiply-adds: either is late when the other is. Then K
neighbouring taps of a row go ``together``. What one of them reads for a pixel, the next one reads for its neighbour, so
P + K - 1 broadcasts and K*V loads serve K*P*V multiply-adds, and P*V + K*V + 1 registers are needed. On a Zen 5 core,
5x5 taps on 1 channel to 16 filters rise from 74 to 93 % of the peak, 3x3 on 64 to 16 from 83 to 90.
"""

from dataclasses import dataclass

from faltung.engine.host.machine import Machine
from faltung.engine.kernels.shared import Shared, sharing
from faltung.engine.loops.language import Type

STREAM = 24
"""Bytes that one can count on from the L2 cache in a cycle."""

PIXELS = 16, 12
"""The most pixels of a tile: with one vector, whose multiply-adds read x themselves, and with more, where the places of
so many just fit into the general registers."""

SHARED = 28
"""The most pixels of a tile with shared vectors, whose x lie side by side at places of known distance."""

TOGETHER, FEW = 8, 16
"""Taps that go together at most; and fewer channels than this make so short a loop that taps of several vectors go
together, too: 3x3 taps on 1 channel to 32 filters rise from 69 to 87 % of the peak, on 32 channels they lose 1 %."""


@dataclass(frozen=True)
class Rows:
    """What is compiled in: channels and outputs of one group, and the last axis.

    ``x_pixel`` and ``y_pixel`` are the numbers from one pixel to the next.
    """

    kind: Type
    inputs: int
    outputs: int
    taps: int
    stride: int
    dilation: int
    x_pixel: int
    y_pixel: int
    padded: bool
    """Does a row reach beyond the input?"""
    depthwise: bool = False
    """Does every channel go by itself? Then the kernels are those of ``depthwise``."""
    across: bool = False
    """Does the row run across the batch? Then its steps are run-time numbers, and it has one tap."""
    ordered: bool = False
    """Is one tap added after the other, as where the rows of a larger batch run across it?"""

    @property
    def ends(self) -> bool:
        """Are only the ends of a padded row copied? The rest is read in place, where that has the steps of a copy."""
        return self.padded and self.x_pixel == self.inputs

    @property
    def pixel(self) -> int:
        """Numbers from one pixel of x to the next as tiles see them: padded rows are copies of one group's channels."""
        return self.inputs if self.padded else self.x_pixel

    def joined(self, channels: int) -> bool:
        """Do the taps of a row and so many channels lie side by side?"""
        return self.dilation == 1 and self.pixel == channels


@dataclass(frozen=True)
class Tile:
    """The schedule of a ``Rows``."""

    lanes: int
    vectors: int
    pixels: int
    channels: int
    """Inputs in one sweep, so that the weights of a block stay in the L2 cache."""
    filters: int = 0
    """Numbers of w from one input to the next, where weights are read in place; 0 where they are packed."""
    shared: Shared | None = None
    """How pixels share the last vector, if they do."""
    kept: bool = False
    """Do the weights of a row of taps stay in registers? All vectors are shared then."""
    together: int = 1
    """Taps of a row that go together, and read each x once."""
    apart: bool = False
    """Is each tap a pass of its own? Then the driver is that of ``apart``."""

    @property
    def block(self) -> int:
        """Outputs in one block."""
        return self.lanes * self.vectors

    @property
    def sizes(self) -> list[int]:
        """The pixels of the tiles that there are."""
        step = self.shared.sizes if self.shared else 1
        return [pixels for pixels in range(1, self.pixels + 1) if pixels < step or pixels % step == 0]

    @property
    def row(self) -> int:
        """Weights from one input to the next."""
        return self.filters or self.block


def schedule(rows: Rows, outer_taps: int, machine: Machine) -> Tile:
    """Choose the tile: fewest padded outputs, then the most multiply-adds a load; one vector is shared if it can be.

    >>> from faltung.engine.host.machine import AVX512
    >>> from faltung.engine.loops.language import F32
    >>> few = Rows(F32, inputs=6, outputs=16, taps=5, stride=1, dilation=1, x_pixel=6, y_pixel=16, padded=False)
    >>> tile = schedule(few, 5, AVX512)
    >>> tile.pixels, tile.vectors, tile.together
    (16, 1, 5)
    """
    needed = -(-rows.outputs // machine.lanes(rows.kind.size))
    shared = None if rows.across else sharing(rows.kind, rows.outputs, rows.stride * rows.pixel, machine)
    if shared and needed <= 8:
        tile = _sharing(rows, needed, shared, machine)
        if tile.pixels:
            return tile
    return _whole(rows, needed, outer_taps, machine)


def _whole(rows: Rows, needed: int, outer_taps: int, machine: Machine) -> Tile:
    """The tile of vectors that belong to one pixel each; so many would hold all outputs."""
    lanes = machine.lanes(rows.kind.size)

    def pixels(vectors: int, together: int) -> int:
        return min((machine.registers - 1) // vectors - together, PIXELS[vectors > 1])

    def quality(vectors: int, together: int = 1) -> tuple[float, float]:
        count = pixels(vectors, together)
        work, loads = count * vectors * together, count + together - 1 + vectors * together
        read = vectors * machine.vector + count * rows.kind.size
        busy = min(1.0, count * vectors / 8, 0.8 * work / loads, count * vectors / 2 * STREAM / read)
        waste = -(-needed // vectors) * vectors / needed
        return (busy / waste, work / loads)

    vectors = max(range(1, min(8, needed) + 1), key=quality)
    counts = _counts(rows) if vectors == 1 or rows.inputs < FEW else [1]
    together = max(counts, key=lambda n: (quality(vectors, n)[0], pixels(vectors, n), n))
    bytes_a_channel = outer_taps * rows.taps * vectors * lanes * rows.kind.size
    most = max(1, machine.l2 // 2 // bytes_a_channel)
    channels = max(c for c in range(1, rows.inputs + 1) if rows.inputs % c == 0 and (c <= most or c == 1))
    return Tile(lanes, vectors, pixels(vectors, together), channels, together=together)


def _sharing(rows: Rows, needed: int, shared: Shared, machine: Machine) -> Tile:
    """The tile of so many vectors, of which pixels share the last one; it has no pixels where that does not fit.

    Each group of pixels takes so many sums. Beside them are weights, a vector of x, and how it is shuffled; and what
    taps that go together read of x must not meet in one vector: LLVM would keep it, and spill sums.
    """
    row, whole = rows.taps * rows.inputs, needed - 1
    kept = not whole and rows.joined(rows.inputs) and row <= machine.registers // 2
    room = (machine.registers - (row + 6 if kept else needed + 2)) // (whole * shared.members + 1)
    pixels = min(room * shared.members, SHARED)
    pixels -= pixels % shared.sizes if pixels > shared.sizes else 0
    free = machine.registers - pixels * whole - -(-pixels // shared.members) - 4
    fit = [n for n in _counts(rows) if n == 1 or (whole and n <= shared.members and n * whole <= free)]
    return Tile(machine.lanes(rows.kind.size), needed, pixels, rows.inputs, shared=shared, kept=kept, together=max(fit))


def _counts(rows: Rows) -> list[int]:
    """How many taps of a row may go together: parts of nearly the same size, where neighbours read the same x.

    Not two parts of one channel, without a loop that keeps them apart: LLVM would take them as one, and spill sums.
    """
    if rows.across or rows.ordered or rows.stride > 1 or rows.dilation > 1:
        return [1]
    counts = [n for n in range(1, TOGETHER + 1) if n == even(rows.taps, n)]
    return [n for n in counts if rows.inputs > 1 or rows.taps % n == 0 or rows.taps > 2 * n]


def even(count: int, most: int) -> int:
    """The size of the fewest parts of at most this size, as even as they can be."""
    return -(-count // -(-count // most))
