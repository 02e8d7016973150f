"""Entries that an array must not hold: which one is wrong, and where."""

import numpy as np

from faltung.elements.element import Array
from faltung.errors import DataError


def refuse_entries(element: object, what: str, array: Array, wrong: Array, expected: str, way_out: str) -> None:
    """Name the first entry that is marked wrong, if there is one, by its value and its position, batch first.

    >>> labels = np.array([3, 10, 11])
    >>> refuse_entries("CrossEntropy()", "label", labels, labels > 9, "0 to 9", "count the classes from 0")
    Traceback (most recent call last):
        ...
    faltung.errors.DataError: CrossEntropy(): got label 10 at (1,), expected 0 to 9; count the classes from 0
    """
    if wrong.any():
        position = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise DataError(
            f"got {what} {array[position]} at {position}, expected {expected}", element=element, way_out=way_out
        )
