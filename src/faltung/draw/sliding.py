"""A window that slides over a map, in the manner of the guide: convolution and transposed convolution.

The output lies above, green, the input below, blue; padding and inserted zeros are dashed. Each frame marks one unit of
the output and, in orange, the entries that it reads.

A transposed convolution is drawn as the guide explains it: a window of stride 1 over the input with stride - 1 zeros
between its entries. (Faltung computes it without these zeros.) Source: guide, sections 2 and 4.

>>> drawn = sliding(Window(kernel=3, stride=2, padding=1), 5)
>>> drawn.count("<rect"), drawn.count("dash")  # three frames of 7 x 7 cells, 24 of them padding, and 3 x 3 above
(174, 72)
"""

import itertools
from dataclasses import dataclass

from faltung.draw.svg import BLUE, GREEN, ORANGE, cell, heading, picture
from faltung.geometry import Window

CELL, TOP, LEFT, GAP, BETWEEN, FRAMES = 18, 40, 18, 40, 34, 3
"""In pixels: a cell, the margins, from frame to frame, from map to map; and how many units are shown."""


@dataclass(frozen=True)
class Axis:
    """One axis of a picture: which of its cells below are entries, and which of them each unit above reads."""

    entries: tuple[bool, ...]
    output: int
    stride: int
    taps: range

    def read(self, unit: int) -> range:
        """The cells that this unit reads."""
        start = unit * self.stride
        return range(start, start + self.taps.stop, self.taps.step)


def sliding(window: Window, size: int, *, transposed: bool = False) -> str:
    """The first three units of a square window over a square map of this size.

    ``transposed`` draws the transposed convolution, whose input this map is. Raises: ShapeError where window and size
    do not fit each other.
    """
    axis = _transposed(window, size) if transposed else _convolved(window, size)
    units = [(i, j) for i in range(axis.output) for j in range(axis.output)][:FRAMES]
    step = CELL * len(axis.entries) + GAP
    name, numbers = _words(window, size, axis.output, transposed)
    parts = [heading(LEFT, 22, name, numbers)]
    for number, unit in enumerate(units):
        parts += _frame(axis, unit, LEFT + number * step)
    width = 2 * LEFT - GAP + step * len(units)
    height = TOP + CELL * (axis.output + len(axis.entries)) + BETWEEN + LEFT
    return picture(f"{name}, {numbers}", width, height, parts, 'font-size="13"')


def _convolved(window: Window, size: int) -> Axis:
    before, after = window.pads(size)
    entries = (False,) * before + (True,) * size + (False,) * after
    return Axis(entries, window.output(size) or 0, window.stride, range(0, window.span, window.dilation))


def _transposed(window: Window, size: int) -> Axis:
    output = window.transposed_output(size) or 0
    before, _ = window.pads(output)
    lead = window.span - 1 - before
    stretched = {lead + window.stride * t for t in range(size)}
    entries = tuple(place in stretched for place in range(output + window.span - 1))
    return Axis(entries, output, 1, range(0, window.span, window.dilation))


def _words(window: Window, size: int, output: int, transposed: bool) -> tuple[str, str]:
    """The name of the operation, and its numbers in the guide's letters."""
    prime = "'" if transposed else ""
    dilation = f", d = {window.dilation}" if window.dilation > 1 else ""
    padding = 0 if window.padding == "valid" else window.padding
    numbers = f"k = {window.kernel}, s = {window.stride}{dilation}, p = {padding}"
    name = "transposed convolution" if transposed else "convolution"
    return name, f"i{prime} = {size}, {numbers}:  o{prime} = {output}"


def _frame(axis: Axis, unit: tuple[int, int], left: float) -> list[str]:
    """Both maps, and two lines from the unit to the ends of its window."""
    inset = left + CELL * (len(axis.entries) - axis.output) / 2
    below = TOP + CELL * axis.output + BETWEEN
    row, column = (axis.read(place) for place in unit)
    parts = []
    for i, j in itertools.product(range(axis.output), repeat=2):
        parts.append(cell(inset + CELL * j, TOP + CELL * i, CELL, GREEN, 0.85 if (i, j) == unit else 0.2))
    for i, j in itertools.product(range(len(axis.entries)), repeat=2):
        entry, read = axis.entries[i] and axis.entries[j], i in row and j in column
        colour = ORANGE if read else BLUE if entry else ""
        opacity = 0.75 if read and entry else 0.3
        dashed = "" if entry else 'stroke-dasharray="3 2"'
        parts.append(cell(left + CELL * j, below + CELL * i, CELL, colour, opacity, dashed))
    for side, end in enumerate((column[0], column[-1] + 1)):
        x, y = inset + CELL * (unit[1] + side), TOP + CELL * (unit[0] + 1)
        parts.append(f'<path d="M{x:g} {y:g}L{left + CELL * end:g} {below + CELL * row[0]:g}" stroke="{ORANGE}"/>')
    return parts
