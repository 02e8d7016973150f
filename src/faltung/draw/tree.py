"""Dilated causal layers as a tree, in the manner of WaveNet's figure: what one unit sees, layer by layer.

The input lies at the bottom; each unit of a layer reads two units of the layer below, the dilation apart. Marked are
the last unit at the top and all that it sees. Source: van den Oord et al. 2016, figure 3; slides, "Dilated
convolutions: WaveNet".

>>> drawn = tree((1, 2, 4, 8), 20)
>>> drawn.count("<circle"), drawn.count(f'fill="{ORANGE}"')  # 5 rows of 20 units; 16 + 8 + 4 + 2 + 1 of them marked
(100, 31)
"""

from collections.abc import Sequence

from faltung.draw.svg import GREY, ORANGE, picture, text
from faltung.geometry import Window

COLUMN, ROW, LEFT, TOP, RIGHT, RADIUS = 34, 58, 24, 24, 120, 6
"""In pixels: from unit to unit, from layer to layer, the margins, and half a unit."""


def tree(dilations: Sequence[int], size: int) -> str:
    """Layers with these dilations, lowest first, of kernel 2, over an input of this size."""
    lines: dict[bool, list[str]] = {False: [], True: []}
    units: list[str] = []
    seen = {size - 1}
    for layer, dilation in reversed(list(enumerate((0, *dilations)))):  # layer 0 is the input
        y = TOP + ROW * (len(dilations) - layer)
        words = f"layer {layer}, d = {dilation}" if layer else "input"
        units.append(text(LEFT + COLUMN * size - 10, y + 4, words, anchor="start"))
        units += [_unit(unit, y, unit in seen) for unit in range(size)]
        edges = [(unit, read) for unit in range(size) for read in _read(unit, dilation)] if layer else []
        for unit, read in edges:
            lines[unit in seen].append(f"M{_x(unit)} {y}L{_x(read)} {y + ROW}")
        seen = {read for unit, read in edges if unit in seen}
    paths = [
        f'<path d="{"".join(lines[False])}" stroke="{GREY}" opacity="0.3"/>',
        f'<path d="{"".join(lines[True])}" stroke="{ORANGE}" stroke-width="2"/>',
    ]
    width, height = LEFT + COLUMN * size + RIGHT, 2 * TOP + ROW * len(dilations)
    return picture("Receptive field of dilated causal layers", width, height, [*paths, *units], 'font-size="13"')


def _read(unit: int, dilation: int) -> list[int]:
    """The units below that this one reads; what lies before the first one is padding."""
    window = Window(kernel=2, dilation=dilation, padding="causal")
    before, _ = window.pads(unit + 1)
    return [read for k in range(window.kernel) if (read := unit - before + k * dilation) >= 0]


def _unit(unit: int, y: float, marked: bool) -> str:
    colour, opacity = (ORANGE, 1) if marked else (GREY, 0.4)
    return f'<circle cx="{_x(unit)}" cy="{y:g}" r="{RADIUS}" fill="{colour}" opacity="{opacity}"/>'


def _x(unit: int) -> int:
    return LEFT + COLUMN * unit
