"""Schedules: their values, their limits, and their messages."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.errors import SettingError
from faltung.training import Cosine, Piecewise, StepDecay, WarmUp
from faltung.training.schedules import at_step

STEPS = st.integers(0, 10**6)


def test_a_number_is_a_constant():
    assert [at_step(0.1, step) for step in (0, 7)] == [0.1, 0.1]
    assert isinstance(at_step(1, 0), float)


@settings(max_examples=60, deadline=None)
@given(step=STEPS, every=st.integers(1, 1000), factor=st.floats(0, 1))
def test_step_decay_multiplies_once_for_each_whole_stretch(step, every, factor):
    expected = 0.3
    for _ in range(min(step // every, 50)):
        expected *= factor
    if step // every <= 50:
        assert StepDecay(0.3, factor, every)(step) == pytest.approx(expected, rel=1e-12, abs=1e-300)


def test_the_ufldl_rate_is_halved_after_each_epoch():
    rate = StepDecay(0.1, 0.5, 234)
    assert {rate(step) for step in range(234)} == {0.1}
    assert {rate(step) for step in range(234, 468)} == {0.05}
    assert rate(701) == 0.025


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 1000), initial=st.floats(0.01, 1), final=st.floats(0, 1))
def test_cosine_goes_from_initial_to_final(steps, initial, final):
    cosine = Cosine(initial, steps, final)
    assert cosine(0) == pytest.approx(initial)
    assert cosine(steps) == final == cosine(steps + 999)
    values = [cosine(step) for step in range(steps + 1)]
    down = [a - b if initial >= final else b - a for a, b in pairwise(values)]
    assert min(down) >= -1e-15
    if steps % 2 == 0:
        assert cosine(steps // 2) == pytest.approx((initial + final) / 2)


def test_cosine_by_hand():
    assert Cosine(1.0, 3)(1) == pytest.approx((1 + math.cos(math.pi / 3)) / 2) == 0.75


def test_warm_up_rises_along_a_straight_line_to_what_follows():
    assert [WarmUp(4, 0.8)(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    then = Cosine(0.8, 10)
    assert [WarmUp(4, then)(step) for step in range(3, 12)] == [then(step) for step in range(3, 12)]
    assert WarmUp(4, then)(1) == then(1) / 2


@settings(max_examples=60, deadline=None)
@given(step=st.integers(0, 40))
def test_piecewise_is_the_value_of_the_last_start(step):
    expected = 0.5 if step < 7 else 0.9 if step < 19 else 0.95
    assert Piecewise(((0, 0.5), (7, 0.9), (19, 0.95)))(step) == expected


def test_schedules_are_values():
    assert WarmUp(3, StepDecay(0.1, 0.5, 9)) == WarmUp(3, StepDecay(0.1, 0.5, 9))
    assert repr(Piecewise(((0, 0.5), (19, 0.95)))) == "Piecewise(pairs=((0, 0.5), (19, 0.95)))"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepDecay(-0.1, 0.5, 9), r"StepDecay\(.*: got initial=-0.1, expected a number of at least 0; choose"),
        (lambda: StepDecay(0.1, 2, 9), "got factor=2, expected a number of at least 0 and at most 1"),
        (lambda: StepDecay(0.1, 0.5, 0), "got every=0, expected a whole number of at least 1"),
        (lambda: Cosine(0.1, 2.5), "got steps=2.5, expected a whole number of at least 1"),  # pyright: ignore[reportArgumentType] -- the mistake
        (lambda: Cosine(0.1, 2, math.nan), "got final=nan, expected a number of at least 0"),
        (lambda: WarmUp(0, 0.1), "got steps=0, expected a whole number of at least 1"),
        (lambda: WarmUp(1, math.inf), "got then=inf, expected a number of at least 0"),
        (lambda: Piecewise(()), r"got pairs=\(\), expected a tuple of pairs \(start, value\), such as"),
        (lambda: Piecewise((0, 0.5)), "expected a tuple of pairs"),  # pyright: ignore[reportArgumentType] -- the mistake
        (lambda: Piecewise(((1, 0.5),)), "expected rising starts, the first one 0"),
        (lambda: Piecewise(((0, 0.5), (0, 0.6))), "expected rising starts"),
        (lambda: Piecewise(((0, -0.5),)), "got pairs=-0.5, expected a number of at least 0"),
    ],
)
def test_settings_that_make_no_sense(make, message):
    with pytest.raises(SettingError, match=message):
        make()
