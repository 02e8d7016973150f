"""Draw the figures of the documentation; run it with ``python tools/draw_figures.py`` after a change."""

from pathlib import Path

import numpy as np

from faltung.draw.products import products

FIGURES = Path(__file__).parent.parent / "docs" / "figures"


def three_products() -> str:
    """The figure of the README."""
    x = np.array([[3, 1, 0, 2], [0, 2, 1, 1], [1, 0, 3, 2], [2, 1, 0, 1]], float)
    w = np.array([[1, 0], [-1, 2]], float)
    dy = np.array([[1, 0, -2], [0, 3, 1], [2, -1, 0]], float)
    return products(x, w, dy, position=(1, 1), tap=(1, 0))


DRAWN = {"three-products.svg": three_products}

if __name__ == "__main__":
    for name, draw in DRAWN.items():
        (FIGURES / name).write_text(draw(), encoding="utf-8")
