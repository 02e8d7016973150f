"""The three products of a convolution as one picture, with their numbers.

    forward    y  = x * w          each output looks at the inputs under the kernel
    error      dx = dy passed back each input gathers from the outputs that looked at it
    gradient   dw = x * dy         each weight gathers from all outputs

One tap of one position is marked in the same colour everywhere: x[t + k] w[k] goes into y[t], dy[t] w[k] into
dx[t + k], and x[t + k] dy[t] into dw[k]. The numbers are computed by ``Conv``.

>>> import numpy as np
>>> drawn = products(np.arange(9.0).reshape(3, 3), np.ones((2, 2)), np.eye(2))
>>> drawn.startswith("<svg"), drawn.count("<rect")
(True, 51)
"""

from collections.abc import Mapping, Sequence

import numpy as np

from faltung.draw.svg import BLUE, GREEN, ORANGE, cell, heading, picture, text
from faltung.elements import Conv
from faltung.elements.element import Array

CELL, GAP, TOP, LEFT = 34, 30, 64, 18
INPUT, WEIGHT, OUTPUT = BLUE, ORANGE, GREEN
Cell = tuple[int, int]


def products(x: Array, w: Array, dy: Array, *, position: Cell = (0, 0), tap: Cell = (0, 0)) -> str:
    """The picture for an input x (i, j), a kernel w and an error signal dy at the output, all of two axes, stride 1."""
    conv = Conv(1, kernel=w.shape, bias=False)
    params = {"w": w[:, :, None, None]}
    y, kept = conv.forward(params, x[None, :, :, None])
    signal = dy[None, :, :, None]
    dx = conv.error(params, kept, signal)[0, :, :, 0]
    dw = conv.gradient(params, kept, signal)["w"][:, :, 0, 0]
    read = (position[0] + tap[0], position[1] + tap[1])
    rows = (
        (
            "forward",
            "y[t] += x[t+k] w[k]",
            (("x", x, read, INPUT), ("w", w, tap, WEIGHT)),
            ("y", y[0, :, :, 0], position, OUTPUT),
        ),
        (
            "error",
            "dx[t+k] += dy[t] w[k]",
            (("dy", dy, position, OUTPUT), ("w", w, tap, WEIGHT)),
            ("dx", dx, read, INPUT),
        ),
        (
            "gradient",
            "dw[k] += x[t+k] dy[t]",
            (("x", x, read, INPUT), ("dy", dy, position, OUTPUT)),
            ("dw", dw, tap, WEIGHT),
        ),
    )
    parts: list[str] = []
    width = LEFT
    for name, formula, factors, result in rows:
        block, right = _product(factors, result, width, max(len(x), len(dx)))
        parts += [heading(width, 22, name, formula), *block]
        width = right + 2 * GAP
    height = TOP + CELL * len(x) + LEFT
    return picture("The three products of a convolution", width - GAP, height, parts, 'font-size="13"')


def _product(
    factors: Sequence[tuple[str, Array, Cell, str]],
    result: tuple[str, Array, Cell, str],
    left: int,
    rows: int,
) -> tuple[list[str], int]:
    """One product: its factors, an equals sign, the result; and where it ends."""
    parts: list[str] = []
    signs = ("·", "=", "")
    for (label, values, marked, colour), sign in zip((*factors, result), signs, strict=True):
        top = TOP + CELL * (rows - len(values)) // 2
        parts.append(text(left + CELL * values.shape[1] / 2, top - 8, label, f'fill="{colour}" font-style="italic"'))
        parts += _grid(values, left, top, {marked: colour})
        left += CELL * values.shape[1]
        if sign:
            parts.append(text(left + GAP / 2, TOP + CELL * rows / 2 + 5, sign, 'font-size="18"'))
            left += GAP
    return parts, left


def _grid(values: Array, left: int, top: int, marked: Mapping[Cell, str]) -> list[str]:
    parts = []
    for i, j in np.ndindex(*values.shape):
        x, y = left + CELL * j, top + CELL * i
        colour = marked.get((i, j), "")
        number = f"{values[i, j]:g}".replace("-", "\u2212")
        parts.append(cell(x, y, CELL, colour))
        parts.append(text(x + CELL / 2, y + CELL / 2 + 5, number, 'font-weight="700"' if colour else ""))
    return parts
