"""Checks of the settings that elements are made with, each with a message that shows the way out."""

import math
import sys
from typing import Any

import numpy as np

from faltung.errors import SettingError
from faltung.geometry import whole, whole_per_axis
from faltung.initial import RULES

LARGEST = sys.float_info.max


def check_count(element: Any, **counts: Any) -> None:
    """Refuse whatever is not a whole number of at least 1."""
    for name, value in counts.items():
        if not whole(value, least=1):
            refuse(element, name, value, "a whole number of at least 1")


def check_sizes(element: Any, size: Any) -> None:
    """Refuse what is neither a whole number of at least 1 nor one an axis."""
    if not whole_per_axis(size, least=1):
        refuse(element, "size", size, "a whole number of at least 1, or one an axis")


def check_choice(element: Any, name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuse whatever is not one of the choices."""
    if value not in choices:
        refuse(element, name, value, f"one of {', '.join(map(repr, choices))}")


def check_flag(element: Any, **flags: Any) -> None:
    """Refuse whatever is neither True nor False."""
    for name, value in flags.items():
        check_choice(element, name, value, (True, False))


def check_number(
    element: Any, name: str, value: Any, low: float, high: float = math.inf, *, open_end: bool = False
) -> None:
    """Refuse whatever is not a finite number from low to high (``open_end``: below high)."""
    number = type(value) in (int, float) and abs(value) <= LARGEST
    if not number or value < low or value > high or (open_end and value == high):
        below = "" if high == math.inf else (f" and below {high:g}" if open_end else f" and at most {high:g}")
        refuse(element, name, value, f"a number of at least {low:g}{below}")


def check_rule(element: Any, rule: Any) -> None:
    """Refuse a rule of initial parameters that ``faltung.initial`` does not know."""
    check_choice(element, "initial", rule, tuple(RULES))


def refuse(element: Any, name: str, value: Any, expected: str) -> None:
    """Say which setting of which element is wrong.

    Numbers of NumPy are refused too: they would change the dtype of what they are multiplied with.
    """
    way_out = (
        "make it a plain number, by .item() or .tolist()"
        if isinstance(value, np.generic)
        else f"choose another value of {name}"
    )
    raise SettingError(f"got {name}={value!r}, expected {expected}", element=element, way_out=way_out)
