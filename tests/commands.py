"""Running the command line in tests."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faltung.cli import main


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Run a command in this process."""
    capsys.readouterr()
    code = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return Outcome(code, captured.out, captured.err)


def start(*arguments: object, before: str = "pass") -> "subprocess.Popen[str]":
    """Start a command in a process of its own, after a line of Python."""
    program = f"{before}\nimport sys\nfrom faltung.cli import main\nsys.exit(main())"
    words = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def stripes(folder: Path, *, side: int = 12, channels: int = 1, classes: int = 2, each: int = 20) -> Path:
    """A folder of images: class k has stripes of the width k + 1, and noise."""
    random = np.random.default_rng(0)
    for k in range(classes):
        (folder / f"width {k + 1}").mkdir(parents=True)
        wave = np.arange(side) // (k + 1) % 2 * 120
        for i in range(each):
            pixels = wave[:, None, None] + random.integers(0, 120, (side, side, channels))
            image = Image.fromarray(pixels.astype(np.uint8).squeeze())
            image.save(folder / f"width {k + 1}" / f"{i:02}.png")
    return folder
