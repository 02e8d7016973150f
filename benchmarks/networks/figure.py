"""Lines over logarithmic axes, as SVG: what grows like a power is a straight line.

>>> drawn = figure("Time", "batch", {"ms": {"faltung": [(1, 1.0), (10, 10.0)]}})
>>> [line for line in drawn.splitlines() if "<polyline" in line]
['<polyline points="60.0,214.0 330.0,44.0" stroke="#3f8fd2" fill="none"/>']
"""

import math

from faltung.draw.curve import Axis
from faltung.draw.svg import BLUE, GREEN, GREY, ORANGE, picture, text

WIDTH, HEIGHT, TOP, LEFT, GAP = 270, 170, 44, 60, 190
"""In pixels: of a panel; the margins before the first; and from a panel to the next, where names stand."""
COLOURS = (BLUE, ORANGE, GREEN, GREY)


def figure(title, axis, panels):
    """Panels side by side, each of lines by name, each line of points (size, number)."""
    parts = []
    for number, (unit, lines) in enumerate(panels.items()):
        parts += _panel(unit, axis, lines, LEFT + number * (WIDTH + GAP))
    style = 'font-size="12" stroke-width="1.8" stroke-linejoin="round" stroke-linecap="round"'
    return picture(title, LEFT + len(panels) * (WIDTH + GAP) - 60, TOP + HEIGHT + 50, parts, style)


def _panel(unit, axis, lines, left):
    lines = {name: [(a, b) for a, b in points if b > 0] for name, points in lines.items()}
    points = [point for line in lines.values() for point in line]
    powers = [math.log10(number) for _, number in points]
    low, high = math.floor(min(powers)), max(math.ceil(max(powers)), math.floor(min(powers)) + 1)
    values = sorted({size for size, _ in points})
    x = Axis(math.log(values[0]), math.log(values[-1]), left, left + WIDTH)
    y = Axis(low, high, TOP + HEIGHT, TOP)
    parts = [text(left, TOP - 14, unit, 'font-weight="600"', anchor="start")]
    for power in range(low, high + 1):
        parts.append(f'<path d="M{left} {y(power):.1f}h{WIDTH}" stroke="{GREY}" stroke-width="1" opacity="0.3"/>')
        parts.append(text(left - 8, y(power) + 4, f"{10.0**power:g}", anchor="end"))
    parts += [text(x(math.log(value)), TOP + HEIGHT + 18, str(value)) for value in values]
    parts.append(text(left + WIDTH / 2, TOP + HEIGHT + 38, axis))
    free = -math.inf
    ends = sorted(((y(math.log10(line[-1][1])), name) for name, line in lines.items() if line))
    colours = dict(zip(lines, COLOURS, strict=False))
    for end, name in ends:
        places = [(x(math.log(a)), y(math.log10(b))) for a, b in lines[name]]
        corners = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline points="{corners}" stroke="{colours[name]}" fill="none"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6" fill="{colours[name]}"/>' for a, b in places]
        free = max(end + 4, free + 15)  # a label that would cover the one above it moves down
        label = f"{name} {lines[name][-1][1]:.3g}"
        parts.append(text(left + WIDTH + 9, free, label, f'fill="{colours[name]}" font-weight="600"', anchor="start"))
    return parts
