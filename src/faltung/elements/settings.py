"""Checks of the settings that elements are made with, each with a message that shows the way out."""

import math
from typing import Any

from faltung.errors import SettingError
from faltung.initial import RULES


def check_count(element: Any, **counts: Any) -> None:
    """Refuse whatever is not a whole number of at least 1."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            refuse(element, name, value, "a whole number of at least 1")


def check_choice(element: Any, name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse whatever is not one of the choices."""
    if value not in choices:
        refuse(element, name, value, f"one of {', '.join(map(repr, choices))}")


def check_number(
    element: Any, name: str, value: Any, low: float, high: float = math.inf, *, open_end: bool = False
) -> None:
    """Refuse whatever is not a finite number from low to high (``open_end``: below high)."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < low or value > high or (open_end and value == high):
        below = "" if high == math.inf else (f" and below {high:g}" if open_end else f" and at most {high:g}")
        refuse(element, name, value, f"a number of at least {low:g}{below}")


def check_rule(element: Any, rule: Any) -> None:
    """Refuse a rule of initial parameters that ``faltung.initial`` does not know."""
    check_choice(element, "initial", rule, tuple(RULES))


def refuse(element: Any, name: str, value: Any, expected: str) -> None:
    """Say which setting of which element is wrong."""
    raise SettingError(f"got {name}={value!r}, expected {expected}", element=element, way_out=f"choose another {name}")
