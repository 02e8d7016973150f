"""Several curves in one picture."""

import math

from faltung.draw.curve import Axis, round_step
from faltung.draw.svg import BLUE, GREEN, GREY, ORANGE, picture, text

COLOURS = (BLUE, ORANGE, GREEN, GREY)
WIDTH, TOP, BOTTOM, LEFT, RIGHT = 760, 44, 300, 60, 560


def lines(title, x_name, y_name, curves, levels=None, high=None):
    """SVG of ``curves``, points (x, y) by name, and of ``levels``, numbers by name, as dashed lines; up to ``high``."""
    levels = levels or {}
    ys = [y for points in curves.values() for _, y in points] + list(levels.values())
    xs = [x for points in curves.values() for x, _ in points]
    top = min(max(ys), high or math.inf)
    step = round_step(top - min(ys))
    first, last = math.floor(min(ys) / step), math.ceil(top / step)
    x, y = Axis(0, max(xs), LEFT, RIGHT), Axis(first * step, last * step, BOTTOM, TOP)
    parts = [text(LEFT, TOP - 16, y_name, 'font-weight="600"', anchor="start")]
    for tick in (k * step for k in range(first, last + 1)):
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{RIGHT}" stroke="{GREY}" stroke-width="1" opacity="0.3"/>')
        parts.append(text(LEFT - 8, y(tick) + 4, f"{tick:.6g}", anchor="end"))
    stride = round_step(max(xs))
    parts += [text(x(k * stride), BOTTOM + 18, f"{k * stride:,.6g}") for k in range(int(max(xs) / stride) + 1)]
    parts.append(text(RIGHT + 24, BOTTOM + 18, x_name, anchor="start"))
    ends = []
    widths = (5, 1.5) if len(curves) > 1 else (1.5,)  # what lies below another one is to be seen
    for k, (name, points) in enumerate(curves.items()):
        colour, width = COLOURS[k], widths[min(k, len(widths) - 1)]
        corners = " ".join(f"{x(a):.1f},{max(TOP, y(b)):.1f}" for a, b in points)
        parts.append(f'<polyline points="{corners}" stroke="{colour}" stroke-width="{width}" fill="none"/>')
        ends.append((y(points[-1][1]), f"{name} {points[-1][1]:.4g}", colour))
    for name, level in levels.items():
        parts.append(f'<path d="M{LEFT} {y(level):.1f}H{RIGHT}" stroke="{GREY}" stroke-dasharray="5 4"/>')
        ends.append((y(level), f"{name} {level:.4g}", GREY))
    free = -math.inf
    for place, label, colour in sorted(ends):
        free = max(place + 4, free + 15)
        parts.append(text(RIGHT + 9, free, label, f'fill="{colour}" font-weight="600"', anchor="start"))
    return picture(title, WIDTH, BOTTOM + 40, parts, 'font-size="12" stroke-width="1.5" stroke-linejoin="round"')
