"""What all pictures share, as SVG text: the frame around them, words, and cells.

Colours are chosen to be read on white and on black, so pictures have no background of their own.

>>> text(1, 2.5, "cost < 1")
'<text x="1" y="2.5" text-anchor="middle">cost &lt; 1</text>'
"""

from collections.abc import Iterable
from html import escape

GREY, BLUE, ORANGE, GREEN = "#808080", "#3f8fd2", "#dd7a2e", "#4ca64c"


def picture(title: str, width: float, height: float, parts: Iterable[str], more: str = "") -> str:
    """The whole file; ``more`` holds further attributes, for all parts."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" font-family="system-ui, sans-serif" fill="{GREY}" {more}>'
    )
    return "\n".join([head.replace(" >", ">"), f"<title>{escape(title)}</title>", *parts, "</svg>", ""])


def text(x: float, y: float, words: str, more: str = "", *, anchor: str = "middle") -> str:
    """Words at a place, which is their middle, "start" or "end"."""
    place = f'x="{round(x, 1):g}" y="{round(y, 1):g}" text-anchor="{anchor}"'
    return f"<text {place} {more}>{escape(words, quote=False)}</text>".replace(" >", ">", 1)


def heading(x: float, y: float, name: str, rest: str) -> str:
    """A line of text that begins with a name in bold."""
    bold = f'<tspan font-weight="600">{escape(name)}</tspan>'
    return f'<text x="{x:g}" y="{y:g}" text-anchor="start" xml:space="preserve">{bold}   {escape(rest)}</text>'


def cell(x: float, y: float, size: float, colour: str = "", opacity: float = 0.35, more: str = "") -> str:
    """A square with a grey border, filled where a colour is given."""
    fill = f'fill="{colour}" fill-opacity="{opacity:g}"' if colour else 'fill="none"'
    border = f'stroke="{GREY}" stroke-opacity="0.6" {more}'.rstrip()
    return f'<rect x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}" {fill} {border}/>'
