"""The documentation: what its terminal sessions show is what the commands print, and no element is left out.

Its Python examples are doctests, which pytest collects by itself.
"""

import inspect
import re
import shlex
import subprocess
import sys
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import faltung as ft
from faltung.data.audio import write_wav
from faltung.data.embedded import CLASSES

ROOT = Path(__file__).parents[1]
PAGES = sorted((*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")))
SMALL = ("--limit", "60", "--batch", "20")
"""What makes a training run of the documentation fast; the numbers that it prints are then other ones."""
CHECKER = OutputChecker()


def sessions(page: Path) -> list[tuple[str, str]]:
    """Each command of the page's terminal sessions, and what is shown below it."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).removeprefix("$ ").split("\n$ ")
    pairs = (command.partition("\n") for command in lines if command)
    return [(command, shown) for command, _, shown in pairs]


def masked(text: str) -> str:
    """The text without what another run may print otherwise: numbers, names of classes, the length of rules."""
    text = re.sub("|".join(CLASSES), "CLASS", text)
    text = re.sub(r"(?<![a-z])-?\d[\d,.]*(e[-+]\d+)?", "N", text)
    return re.sub("--+", "---", text)


def agree(shown: str, printed: str) -> bool:
    """Whether the output of a command is that of the page; "..." stands for anything."""
    return CHECKER.check_output(masked(shown), masked(printed), ELLIPSIS | NORMALIZE_WHITESPACE)


def run(command: str, folder: Path) -> str:
    """What a command prints in this folder, as in a terminal."""
    program, *arguments = shlex.split(command)
    if program == "faltung":
        start = [sys.executable, "-c", "import sys; from faltung.cli import main; sys.exit(main())"]
        if arguments[0] == "train" and "--resume" not in arguments:
            arguments += SMALL
        if arguments[:2] == ["wavenet", "train"]:
            arguments += ["--steps", "2"]
    else:
        start = [sys.executable]
        arguments = [str(ROOT / arguments[0]), *arguments[1:]]
    done = subprocess.run([*start, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout


def pets(folder: Path) -> None:
    """Some images of one's own."""
    for shade, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (40, 30), (90 * shade, 5 * i, 90)).save(folder / name / f"{i:02}.png")


def recordings(folder: Path) -> None:
    """Some sounds of one's own."""
    folder.mkdir()
    for number in range(10):
        write_wav(folder / f"{number:02}.wav", 0.4 * np.sin(np.arange(12_000) / (7 + number)), 16_000)


@pytest.mark.parametrize("page", [page for page in PAGES if sessions(page)], ids=lambda page: page.name)
def test_terminal_sessions(page, tmp_path):
    pets(tmp_path / "images")
    recordings(tmp_path / "recordings")
    for command, shown in sessions(page):
        printed = run(command, tmp_path)
        assert agree(shown, printed), f"$ {command}\n{printed}"
        assert ("error: " in shown) == ("error: " in printed), f"$ {command}\n{printed}"


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("cost 0.4274 of Bag", "cost  11.5 of\nSandal", True),
        ("worst: ...", "worst: x[0, 14]: 1e-05", True),
        ("cost 0.4274", "price 0.4274", False),
        ("conv1.w  20", "conv2.w  20", False),
        ("error: a", "error: a\nand more", False),
    ],
)
def test_a_session_that_has_changed_is_seen(shown, printed, same):
    assert agree(f"{shown}\n", f"{printed}\n") is same


def test_every_element_and_cost_has_its_formula_on_the_page():
    page = (ROOT / "docs" / "elements.md").read_text(encoding="utf-8")
    for name in ft.elements.__all__:
        part = getattr(ft.elements, name)
        if issubclass(part, ft.Element | ft.Cost) and not inspect.isabstract(part):
            assert f"{name} " in page, name
            assert str(part.__doc__).splitlines()[0] in page, name


def test_every_link_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_on_training_quotes_the_run_of_its_picture():
    rows = (ROOT / "docs" / "figures" / "learning-curve.jsonl").read_text(encoding="utf-8").splitlines()
    accuracy = float(re.findall(r'"test_accuracy": ([\d.]+)', rows[-1])[0])
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert f"test accuracy {accuracy:.2%}".replace("%", " %") + ", cost" in page
    assert f"after epoch {len(rows)}" in page
