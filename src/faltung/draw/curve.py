"""The learning curve as SVG: cost, and accuracy where there is one, against the epoch.

>>> history = [{"epoch": 1, "cost": 2.0}, {"epoch": 2, "cost": 1.0}]
>>> drawn = curve(history)
>>> [line for line in drawn.splitlines() if "<polyline" in line]
['<polyline points="60.0,44.0 610.0,214.0" stroke="#3f8fd2" fill="none"/>']
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from faltung.draw.svg import BLUE, GREY, ORANGE, picture, text

Points = list[tuple[float, float]]

WIDTH, PANEL, TOP, LEFT, RIGHT, GAP = 760, 170, 44, 60, 150, 68
"""In pixels: of the picture, each panel's height, its margins, and from the foot of a panel to the next one's head."""
COLOURS = {"training": BLUE, "test": ORANGE}


@dataclass(frozen=True)
class Axis:
    """Maps the numbers from low to high onto the pixels from start to end; ticks are round numbers."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, number: float) -> float:
        return self.start + (self.end - self.start) * (number - self.low) / (self.high - self.low)


def round_step(span: float, least: float = 0.0) -> float:
    """1, 2 or 5 times a power of ten, so that at most six such steps make the span.

    >>> [round_step(span) for span in (0.1, 1.0, 7.0, 30.0)]
    [0.02, 0.2, 2.0, 5.0]
    """
    span = max(span, 1e-300)  # below it, division would overflow
    power = math.floor(math.log10(span / 6))
    return max(least, next(step for k in (1, 2, 5, 10) if span / (step := float(f"{k}e{power}")) <= 6.0001))


def curve(history: Sequence[Mapping[str, Any]]) -> str:
    """The picture of a run, from its rows: epoch, cost, and where they are there, test_cost and test_accuracy."""
    panels = [("cost", {"training": _points(history, "cost"), "test": _points(history, "test_cost")})]
    accuracy = [(epoch, 100 * value) for epoch, value in _points(history, "test_accuracy")]
    if accuracy:
        panels.append(("accuracy, %", {"test": accuracy}))
    height = TOP + len(panels) * (PANEL + GAP) - 16
    parts = []
    for number, (name, series) in enumerate(panels):
        top = TOP + number * (PANEL + GAP)
        parts += _panel(name, {key: points for key, points in series.items() if points}, len(history), top)
    style = 'font-size="12" stroke-width="1.8" stroke-linejoin="round" stroke-linecap="round"'
    return picture("Learning curve", WIDTH, height, parts, style)


def _points(history: Sequence[Mapping[str, Any]], name: str) -> Points:
    return [(row["epoch"], row[name]) for row in history if row.get(name) is not None]


def _panel(name: str, series: Mapping[str, Points], epochs: int, top: float) -> list[str]:
    """Grid, axes, lines, and at the end of each line its name and last value."""
    bottom, right = top + PANEL, WIDTH - RIGHT
    values = [value for points in series.values() for _, value in points]
    low, high = min(values), max(values)
    step = round_step(high - low if high - low > 1e-6 * abs(high) else abs(high) or 1.0)
    first, last = math.floor(low / step), math.ceil(high / step)
    if first == last:
        first, last = first - 1, last + 1
    y = Axis(first * step, last * step, bottom, top)
    x = Axis(1, epochs, LEFT, right) if epochs > 1 else Axis(0.5, 1.5, LEFT, right)
    parts = [text(LEFT, top - 14, name, 'font-weight="600"', anchor="start")]
    for tick in (k * step for k in range(first, last + 1)):
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{right}" stroke="{GREY}" stroke-width="1" opacity="0.3"/>')
        parts.append(text(LEFT - 8, y(tick) + 4, f"{tick:.6g}", anchor="end"))
    stride = int(round_step(max(epochs - 1, 1), least=1))
    for epoch in sorted({1, *range(stride, epochs + 1, stride)}):
        if epoch == 1 or x(epoch) - x(1) > 24:
            parts.append(text(x(epoch), bottom + 18, str(epoch)))
    parts.append(text(right + 26, bottom + 18, "epoch", anchor="start"))
    free = -math.inf
    for key, points in sorted(series.items(), key=lambda item: y(item[1][-1][1])):
        places = [(x(epoch), y(value)) for epoch, value in points]
        corners = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline points="{corners}" stroke="{COLOURS[key]}" fill="none"/>')
        if len(points) <= 30:
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6" fill="{COLOURS[key]}"/>' for a, b in places]
        free = max(places[-1][1] + 4, free + 15)  # a label that would cover the one above it moves down
        label = f"{key} {points[-1][1]:.4g}"
        parts.append(text(places[-1][0] + 9, free, label, f'fill="{COLOURS[key]}" font-weight="600"', anchor="start"))
    return parts
