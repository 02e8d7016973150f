"""Receptive fields: which inputs a unit sees along one axis.

>>> field = Field().through(Window(3, stride=2)).through(Window(3))
>>> field.size, field.jump == 2, field.start, field.of(1)
(7, True, 0, range(2, 9))
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faltung.errors import ShapeError
from faltung.geometry import Window

if TYPE_CHECKING:
    from fractions import Fraction  # few ask for one, and it takes long to load


@dataclass(frozen=True)
class Field:
    """The receptive field: which inputs a unit sees along one axis.

    Without upsampling, unit u sees the ``size`` inputs from ``start + u * jump`` on. After upsampling, units differ: n
    of them are listed, the ``phases``, and unit u sees what unit u - n sees, ``step`` inputs further. A field is an
    interval: the holes of dilated kernels belong to it, and so does the padding, below 0 and beyond the last input.

    ``Field()`` is that of the input itself; ``through`` and ``through_transposed`` put one more layer on top.

    >>> field = Field().through(Window(kernel=3, stride=2)).through(Window(kernel=3))
    >>> field.size, str(field.jump), field.start, field.of(1)
    (7, '2', 0, range(2, 9))
    >>> doubled = Field().through_transposed(Window(kernel=3, stride=2))
    >>> doubled.size, str(doubled.jump), [list(doubled.of(unit)) for unit in range(4)]
    (2, '1/2', [[-1, 0], [0], [0, 1], [1]])
    """

    phases: tuple[range, ...] = (range(1),)
    step: int = 1
    anchored: bool = True
    """False where the start depends on a size that was left open."""

    @property
    def size(self) -> int:
        """How many inputs a unit sees; the most, where units differ."""
        return max(map(len, self.phases))

    @property
    def jump(self) -> "Fraction":
        """How many inputs the fields of neighbouring units lie apart; the mean, where units differ."""
        from fractions import Fraction

        return Fraction(self.step, len(self.phases))

    @property
    def start(self) -> int | None:
        """The first input that unit 0 sees; None where it sees none, or it depends on a size left open."""
        return self.phases[0].start if self.anchored and self.phases[0] else None

    def of(self, unit: int) -> range:
        """Return the inputs that this unit sees."""
        turns, phase = divmod(unit, len(self.phases))
        seen = self.phases[phase]
        return range(seen.start + turns * self.step, seen.stop + turns * self.step)

    def through(self, window: Window, size: int | None = None) -> "Field":
        """Return the field after a convolution or pooling: size + (k^-1)*jump, jump*s, start - before*jump.

        ``size`` is that of its input, and matters for ``same`` with a stride only, where the pads depend on it. Left
        open, it is taken to be a multiple of the stride, and ``start`` is None.
        """
        before, _ = window.pads(window.stride if size is None else size)
        period = math.lcm(len(self.phases), window.stride) // window.stride
        phases = []
        for unit in range(period):
            read = (unit * window.stride - before + j * window.dilation for j in range(window.kernel))
            phases.append(_hull(map(self.of, read)))
        step = self.step * period * window.stride // len(self.phases)
        adrift = size is None and window.padding == "same" and window.stride > 1
        return Field(tuple(phases), step, self.anchored and not adrift)

    def through_transposed(self, window: Window, size: int | None = None) -> "Field":
        """Return the field after a transposed convolution, where a unit reads each input whose window holds it.

        These are at most ceil(k^/s), and the jump becomes jump/s. ``size`` is that of its output, and matters as in
        ``through``; left open, it is the one that ``transposed_output`` gives.
        """
        before, _ = window.pads(window.stride if size is None else size)
        phases = []
        for unit in range(len(self.phases) * window.stride):
            starts = (unit + before - j * window.dilation for j in range(window.kernel))
            phases.append(_hull(self.of(at // window.stride) for at in starts if at % window.stride == 0))
        return Field(tuple(phases), self.step, self.anchored)

    def shifted(self, start: int | None) -> "Field":
        """Return the field whose unit u sees what unit u + start saw: that of a crop; None is an unknown start."""
        phases = tuple(self.of(unit + (start or 0)) for unit in range(len(self.phases)))
        return Field(phases, self.step, self.anchored and start is not None)

    def join(self, other: "Field") -> "Field":
        """Return the smallest field that holds both, that of a sum, product or concatenation of two branches.

        Raises: ShapeError where the jumps differ: the branches drift apart, and no field holds both.

        >>> Field().join(Field().through(Window(kernel=3, padding=1))).of(0)
        range(-1, 2)
        """
        if self.jump != other.jump:
            raise ShapeError(
                f"got branches whose fields jump by {self.jump} and {other.jump} inputs, expected equal jumps",
                way_out="give both branches the same product of strides",
            )
        period = math.lcm(len(self.phases), len(other.phases))
        phases = tuple(_hull((self.of(unit), other.of(unit))) for unit in range(period))
        return Field(phases, self.step * period // len(self.phases), self.anchored and other.anchored)


def receptive_field(windows: Iterable[Window], size: int | None = None) -> Field:
    """Return the field of a chain, input first; its size is 1 + the sum of (k-1) * d * (all strides before).

    ``size`` is that of the chain's input, see ``Field.through``.

    >>> wavenet = [Window(kernel=2, dilation=2**n, padding="causal") for n in range(10)]
    >>> receptive_field(wavenet).size, receptive_field(wavenet).start
    (1024, -1023)
    """
    field = Field()
    for window in windows:
        field = field.through(window, size)
        size = window.output(size)
    return field


def _hull(ranges: Iterable[range]) -> range:
    """Return the smallest range that holds all of them."""
    seen = [each for each in ranges if each]
    return range(min(each.start for each in seen), max(each.stop for each in seen)) if seen else range(0)
