"""The learning curve: valid SVG that shows every epoch, inside its frame, whatever the numbers."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.draw.curve import COLOURS, LEFT, RIGHT, WIDTH, curve, round_step

SVG = "{http://www.w3.org/2000/svg}"


def rows(costs, **more):
    return [
        {"epoch": k, "cost": cost} | {name: values[k - 1] for name, values in more.items()}
        for k, cost in enumerate(costs, start=1)
    ]


def lines(text):
    """The points of each line, by colour and panel."""
    root = ElementTree.fromstring(text)
    found = [
        (line.get("stroke"), [tuple(map(float, point.split(","))) for point in (line.get("points") or "").split()])
        for line in root.iter(f"{SVG}polyline")
    ]
    return root, found


def texts(root):
    return [element.text for element in root.iter(f"{SVG}text")]


def test_lines_are_the_numbers():
    history = rows([1.0, 0.5, 0.0], test_cost=[1.0, 0.75, 0.5], test_accuracy=[0.5, 0.75, 0.875])
    root, found = lines(curve(history))
    by_colour = {}
    for colour, points in found:
        by_colour.setdefault(colour, []).append(points)
    ((training,), (test, accuracy)) = by_colour[COLOURS["training"]], by_colour[COLOURS["test"]]
    middle, right = (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT
    top, bottom = training[0][1], training[2][1]
    assert training == [(LEFT, top), (middle, (top + bottom) / 2), (right, bottom)]
    assert test == [(LEFT, top), (middle, (3 * top + bottom) / 4), (right, (top + bottom) / 2)]
    assert [x for x, _ in accuracy] == [LEFT, middle, right]
    assert accuracy[0][1] > accuracy[1][1] > accuracy[2][1] > bottom
    assert {"cost", "accuracy, %", "training 0", "test 0.5", "test 87.5", "1", "3", "epoch"} <= set(texts(root))


def test_without_a_test_there_is_one_line():
    root, found = lines(curve(rows([3.0, 2.0])))
    assert [colour for colour, _ in found] == [COLOURS["training"]]
    assert "accuracy, %" not in texts(root)


def test_an_epoch_whose_test_cost_is_not_finite_is_left_out():
    _, found = lines(curve(rows([3.0, 2.0, 1.0], test_cost=[2.0, None, 1.0])))
    assert sorted(len(points) for _, points in found) == [2, 3]


def test_labels_do_not_cover_each_other():
    root, _ = lines(curve(rows([1.0, 0.5], test_cost=[1.0, 0.5])))
    heights = [float(element.get("y") or 0) for element in root.iter(f"{SVG}text") if element.get("fill")]
    assert len(heights) == 2
    assert abs(heights[0] - heights[1]) >= 15


@settings(max_examples=60, deadline=None)
@given(
    costs=st.lists(st.floats(0, 1e30) | st.just(0.0) | st.floats(1e-30, 1e-20), min_size=1, max_size=40),
    accuracy=st.floats(0, 1),
)
def test_everything_stays_in_the_picture(costs, accuracy):
    text = curve(rows(costs, test_cost=costs[::-1], test_accuracy=[accuracy] * len(costs)))
    root, found = lines(text)
    assert not re.search("nan|inf", text)
    assert len(found) == 3
    height = float(root.get("height") or 0)
    for _, points in found:
        assert len(points) == len(costs)
        assert all(LEFT <= x <= WIDTH - RIGHT and 0 <= y <= height for x, y in points)


@pytest.mark.parametrize("epochs", [1, 2, 7, 30, 31, 500])
def test_ticks_are_few_and_whole_epochs(epochs):
    root, _ = lines(curve(rows([1.0 / (k + 1) for k in range(epochs)])))
    middle = [element.text for element in root.iter(f"{SVG}text") if element.get("text-anchor") == "middle"]
    assert 1 <= len(middle) <= 8
    assert middle[0] == "1"
    assert all(1 <= int(text or 0) <= epochs for text in middle)


@settings(max_examples=60, deadline=None)
@given(span=st.floats(1e-300, 1e300))
def test_steps_are_round(span):
    step = round_step(span)
    assert span / step <= 6.001
    assert span / step >= 2 or span < 1e-11
