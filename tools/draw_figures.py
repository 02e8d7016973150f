"""Draw the figures of the documentation; run it with ``python tools/draw_figures.py`` after a change."""

import json
from pathlib import Path

import numpy as np

from faltung.draw.curve import curve
from faltung.draw.products import products
from faltung.draw.sliding import sliding
from faltung.draw.sound import Sound, sounds
from faltung.draw.tree import tree
from faltung.geometry import Window

FIGURES = Path(__file__).parent.parent / "docs" / "figures"


def three_products() -> str:
    """The figure of the README."""
    x = np.array([[3, 1, 0, 2], [0, 2, 1, 1], [1, 0, 3, 2], [2, 1, 0, 1]], float)
    w = np.array([[1, 0], [-1, 2]], float)
    dy = np.array([[1, 0, -2], [0, 3, 1], [2, -1, 0]], float)
    return products(x, w, dy, position=(1, 1), tap=(1, 1))


def learning_curve() -> str:
    """The run of docs/training.md, from its log: ``faltung train`` without options."""
    log = (FIGURES / "learning-curve.jsonl").read_text(encoding="utf-8")
    return curve([json.loads(line) for line in log.splitlines()])


def speech() -> str:
    """The sounds of docs/wavenet.md, from what ``draw_speech.py`` has seen."""
    return sounds([Sound(**row) for row in json.loads((FIGURES / "speech.json").read_text(encoding="utf-8"))])


STRIDED = Window(kernel=3, stride=2, padding=1)
DRAWN = {
    "three-products.svg": three_products,
    "convolution.svg": lambda: sliding(STRIDED, 5),
    "transposed.svg": lambda: sliding(STRIDED, 3, transposed=True),
    "dilated.svg": lambda: sliding(Window(kernel=3, dilation=2), 7),
    "receptive-field.svg": lambda: tree((1, 2, 4, 8), 20),
    "learning-curve.svg": learning_curve,
    "speech.svg": speech,
}

if __name__ == "__main__":
    for name, draw in DRAWN.items():
        (FIGURES / name).write_text(draw(), encoding="utf-8")
