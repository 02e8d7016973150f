"""Pictures of convolution arithmetic: what they mark is what the elements read."""

from xml.etree import ElementTree

import numpy as np
import pytest

from faltung.draw.sliding import sliding
from faltung.draw.svg import BLUE, GREEN, ORANGE, heading, picture, text
from faltung.draw.tree import tree
from faltung.elements import Conv, ConvTranspose
from faltung.errors import ShapeError
from faltung.geometry import Window
from faltung.receptive import receptive_field

SVG = "{http://www.w3.org/2000/svg}"


def frames(drawn):
    """For each frame the cells of its two maps, as {(row, column): cell}: the output above, the input below."""
    cells = list(ElementTree.fromstring(drawn).iter(f"{SVG}rect"))
    starts = [n for n, cell in enumerate(cells) if is_above(cell) and (n == 0 or not is_above(cells[n - 1]))]
    for begin, end in zip(starts, [*starts[1:], None], strict=True):
        frame = cells[begin:end]
        yield tuple(grid([cell for cell in frame if is_above(cell) is above]) for above in (True, False))


def is_above(cell):
    return cell.get("fill") == GREEN


def grid(cells):
    columns = sorted({float(cell.get("x")) for cell in cells})
    rows = sorted({float(cell.get("y")) for cell in cells})
    return {(rows.index(float(cell.get("y"))), columns.index(float(cell.get("x")))): cell for cell in cells}


def marked(output):
    return next(place for place, cell in output.items() if cell.get("fill-opacity") == "0.85")


def is_entry(cell):
    return cell.get("stroke-dasharray") is None


WINDOWS = [
    (Window(kernel=3, stride=2, padding=1), 5),
    (Window(kernel=3, stride=2, padding=1), 6),
    (Window(kernel=3, dilation=2), 7),
    (Window(kernel=2, stride=3, padding="same"), 7),
    (Window(kernel=4, padding=(3, 0)), 5),
    (Window(kernel=3, padding="full"), 3),
]


@pytest.mark.parametrize(("window", "size"), WINDOWS)
def test_a_frame_marks_what_the_unit_reads(window, size):
    conv = Conv(1, kernel=window.kernel, stride=window.stride, dilation=window.dilation, padding=window.padding)
    w = {"w": np.ones((window.kernel, window.kernel, 1, 1)), "b": np.zeros(1)}
    y, kept = conv.forward(w, np.zeros((1, size, size, 1)))
    seen = list(frames(sliding(window, size)))
    assert [marked(output) for output, _ in seen] == [(0, 0), (0, 1), (0, 2)][: len(seen)]
    before, _ = window.pads(size)
    for output, below in seen:
        assert max(output)[0] + 1 == y.shape[1]
        assert {(i - before, j - before) for (i, j), cell in below.items() if is_entry(cell)} == set(
            np.ndindex(size, size)
        )
        dy = np.zeros_like(y)
        dy[(0, *marked(output), 0)] = 1
        reads = {tuple(map(int, place)) for place in np.argwhere(conv.error(w, kept, dy)[0, ..., 0])}
        shown = {(i - before, j - before) for (i, j), cell in below.items() if cell.get("fill") == ORANGE}
        assert shown & set(np.ndindex(size, size)) == reads
        assert len(shown) == window.kernel**2


@pytest.mark.parametrize(("window", "size"), WINDOWS)
def test_a_frame_of_a_transposed_convolution_marks_the_entries_that_reach_the_unit(window, size):
    settings = {"stride": window.stride, "dilation": window.dilation, "padding": window.padding}
    up = ConvTranspose(1, kernel=window.kernel, **settings)
    w = {"w": np.ones((window.kernel, window.kernel, 1, 1)), "b": np.zeros(1)}
    y, kept = up.forward(w, np.zeros((1, size, size, 1)))
    for output, below in frames(sliding(window, size, transposed=True)):
        assert max(output)[0] + 1 == y.shape[1]
        dy = np.zeros_like(y)
        dy[(0, *marked(output), 0)] = 1
        reached = up.error(w, kept, dy)[0, ..., 0] != 0
        entries = [cell for _, cell in sorted(below.items()) if is_entry(cell)]
        assert [cell.get("fill") == ORANGE for cell in entries] == reached.ravel().tolist()


def test_inputs_are_blue_and_nothing_is_drawn_that_does_not_fit():
    ((_, below),) = frames(sliding(Window(kernel=3), 3))
    assert all(cell.get("fill") == ORANGE for cell in below.values())
    *_, (_, below) = frames(sliding(Window(kernel=3), 5))
    assert sum(cell.get("fill") == BLUE for cell in below.values()) == 16
    with pytest.raises(ShapeError, match="the kernel spans 3, the padded input only 2"):
        sliding(Window(kernel=3), 2)


@pytest.mark.parametrize("dilations", [(1,), (1, 2, 4), (3, 1)])
def test_the_tree_marks_the_receptive_field(dilations):
    size = 12
    root = ElementTree.fromstring(tree(dilations, size))
    circles = list(root.iter(f"{SVG}circle"))
    rows = [circles[row * size : (row + 1) * size] for row in range(len(dilations) + 1)]
    windows = [Window(kernel=2, dilation=dilation, padding="causal") for dilation in dilations]
    for layer, row in enumerate(reversed(rows)):
        units = [unit for unit, circle in enumerate(row) if circle.get("fill") == ORANGE]
        field = receptive_field(windows[layer:])
        assert (units[0], units[-1]) == (field.of(size - 1).start, size - 1)
        assert len(units) == 2 ** (len(dilations) - layer)
    assert [each.text for each in root.iter(f"{SVG}text")][-1] == "input"


def test_words_are_escaped():
    drawn = picture("a < b & c", 10, 20, [text(1, 2.04, "d < e", anchor="end"), heading(1, 2, "f", "g & h")])
    root = ElementTree.fromstring(drawn)
    title, words, line = root
    assert (title.text, words.text, words.get("y"), "".join(line.itertext())) == (
        "a < b & c",
        "d < e",
        "2",
        "f   g & h",
    )
