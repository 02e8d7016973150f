"""Each relationship, by its number, against positions that are counted and never computed."""

import itertools
import math
import re

import pytest

from faltung.arithmetic import RELATIONSHIPS, Case
from faltung.errors import SettingError, ShapeError

GRID = [
    Case(i, k, s, p, d)
    for i, k, s, p, d in itertools.product(range(1, 11), range(1, 6), range(1, 5), range(5), range(1, 4))
]

CONDITIONS = {
    1: lambda s, p, d, **_: s == 1 and p == 0 and d == 1,
    2: lambda s, d, **_: s == 1 and d == 1,
    3: lambda k, s, p, d, **_: s == 1 and d == 1 and (k, p) in [(1, 0), (3, 1), (5, 2)],
    4: lambda k, s, p, d, **_: s == 1 and d == 1 and (k, p) in [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)],
    5: lambda p, d, **_: p == 0 and d == 1,
    6: lambda d, **_: d == 1,
    7: lambda p, d, **_: p == 0 and d == 1,
    15: lambda **_: True,
}


def positions(case: Case) -> list[int]:
    """Every start at which the kernel's entries lie between the first zero before and the last zero after."""
    axis = range(-case.p, case.i + case.p)
    return [start for start in axis[:: case.s] if start + (case.k - 1) * case.d in axis]


def convolutions(number: int) -> list[tuple[Case, list[int]]]:
    """The cases of the grid that this relationship is about, each with its positions."""
    cases = [case for case in GRID if CONDITIONS[number](**vars(case))]
    assert len(cases) >= 30
    return [(case, positions(case)) for case in cases]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 7, 15])
def test_convolution_and_pooling_relationships_count_the_positions(number):
    relationship = RELATIONSHIPS[number]
    for case, found in convolutions(number):
        if found:
            assert relationship.size(case) == len(found), case
        else:
            with pytest.raises(ShapeError, match="expected at least 1; use a larger i"):
                relationship.size(case)


@pytest.mark.parametrize("number", range(8, 15))
def test_transposed_relationships_lead_back(number):
    relationship = RELATIONSHIPS[number]
    assert relationship.undoes is not None
    tried = 0
    for case, found in convolutions(relationship.undoes):
        if found:
            unread = case.i + case.p - (found[-1] + case.k)  # what the last window leaves at the end, a of the guide
            back = Case(len(found), case.k, case.s, case.p, a=unread)
            assert relationship.applies(back) == (number == 14 or unread == 0)
            if relationship.applies(back):
                assert relationship.size(back) == case.i, case
                assert RELATIONSHIPS[14].size(back) == case.i, case
                tried += 1
    assert tried >= 30


def test_relationship_14_inverts_6_with_the_remainder():
    for case, found in convolutions(6):
        if found:
            a = (case.i + 2 * case.p - case.k) % case.s
            assert RELATIONSHIPS[14].size(Case(RELATIONSHIPS[6].size(case), case.k, case.s, case.p, a=a)) == case.i


@pytest.mark.parametrize("number", RELATIONSHIPS)
def test_a_relationship_applies_where_its_condition_holds_and_nowhere_else(number):
    relationship = RELATIONSHIPS[number]
    condition = CONDITIONS[relationship.undoes or number]
    for case in GRID:
        assert relationship.applies(case) == condition(**vars(case)), case
    if number != 14:
        message = (
            rf"^relationship {number} holds for .*; got Case\(.*a=1\); use 14 for any transposed, 15 for any other"
        )
        with pytest.raises(SettingError, match=message):
            relationship.size(Case(5, 1, a=1))


@pytest.mark.parametrize("number", [6, 14])
def test_with_dilation_the_effective_kernel_takes_the_place_of_k(number):
    for case in GRID:
        span = len(range(1 + (case.k - 1) * case.d))
        undilated = Case(case.i, span, case.s, case.p)
        found = positions(case)
        if found and number == 6:
            assert RELATIONSHIPS[6].size(undilated) == len(found)
        elif found:
            unread = case.i + case.p - (found[-1] + span)
            assert RELATIONSHIPS[14].size(Case(len(found), span, case.s, case.p, a=unread)) == case.i


def test_relationships_say_the_same_as_windows():
    for case, found in convolutions(15):
        if found:
            assert case.window.output(case.i) == RELATIONSHIPS[15].size(case)
        if case.d == 1 and case.s * (case.i - 1) + case.k > 2 * case.p:
            assert case.window.transposed_output(case.i) == RELATIONSHIPS[13].size(case)


@pytest.mark.parametrize("number", RELATIONSHIPS)
def test_the_printed_formula_is_the_one_that_is_computed(number):
    relationship = RELATIONSHIPS[number]
    formula = relationship.formula.replace("'", "").removeprefix("o = ")
    formula = re.sub(r"(?<=[\ds)]) ?(?=[pk(])", "*", formula)  # 2p, s (i - 1), (k - 1)(d - 1)
    for case in filter(relationship.applies, GRID):
        size = eval(formula, {"floor": math.floor, **vars(case)})
        if size >= 1:
            assert relationship.size(case) == size, formula


def test_the_numbers_run_from_1_to_15():
    assert list(RELATIONSHIPS) == list(range(1, 16))
    assert all(relationship.number == number for number, relationship in RELATIONSHIPS.items())


@pytest.mark.parametrize("a", [2, 5])
def test_relationship_14_adds_less_than_the_stride(a):
    with pytest.raises(SettingError, match=r"^relationship 14 holds for a = \(i \+ 2p - k\) mod s; got Case\("):
        RELATIONSHIPS[14].size(Case(3, 3, 2, 1, a=a))


def test_where_nothing_fits_the_formula_is_shown():
    with pytest.raises(
        ShapeError, match=r"^o = \(i - k\) \+ 1 = -1 for Case\(i=3, k=5, .*\), expected at least 1; use a larger i$"
    ):
        RELATIONSHIPS[1].size(Case(3, 5))


def test_letters_too_small_are_refused():
    with pytest.raises(
        SettingError, match=r"^got Case\(i=0, .*\), expected i >= 1 and a >= 0; use an axis that is not empty$"
    ):
        Case(0, 3)
    with pytest.raises(SettingError, match=r"expected i >= 1 and a >= 0"):
        Case(5, 3, a=-1)
    with pytest.raises(SettingError, match=r"^got stride=0, expected a plain int >= 1"):
        Case(5, 3, s=0)
