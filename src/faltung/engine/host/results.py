"""Patterns of results: how machine code composes a result of arrays and of what was known before.

A pattern is a word and what belongs to it, as in ``patterns``, but an ``ARRAY`` has its number in the list of arrays,
and a ``DICT`` its names themselves.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from faltung.engine.host.patterns import ARRAY, DICT, SAME, TUPLE


def composed(thing: Any, numbers: Mapping[int, int], kept: list[Any]) -> list[int]:
    """The pattern of a result; ``numbers`` are those of its arrays, by their identity."""
    if isinstance(thing, np.ndarray):
        return [ARRAY, numbers[id(thing)]]
    if isinstance(thing, tuple):
        return [TUPLE, len(thing), *(word for part in thing for word in composed(part, numbers, kept))]
    if isinstance(thing, dict):
        kept += thing
        pairs = ([id(name), *composed(part, numbers, kept)] for name, part in thing.items())
        return [DICT, len(thing), *(word for pair in pairs for word in pair)]
    kept.append(thing)
    return [SAME, id(thing)]


MADE = """
def next(cursor):  # the word that it points to; from now on it points to the next one
    here = cursor[0]
    cursor[0] = here[1:]
    return here[0]

def made_tuple(tools, cursor, arrays):
    length = next(cursor)
    made_of = PyTuple_New(tools, length)
    n = 0
    while made_of and n < length:
        item = made(tools, cursor, arrays)
        if not item:
            Py_DecRef(tools, made_of)
            return 0
        PyTuple_SetItem(tools, made_of, n, item)
        n += 1
    return made_of

def made_dict(tools, cursor, arrays):
    length = next(cursor)
    made_of = PyDict_New(tools)
    n = 0
    while made_of and n < length:
        name = next(cursor)
        item = made(tools, cursor, arrays)
        failed = 1
        if item:
            failed = PyDict_SetItem(tools, made_of, name, item)
            Py_DecRef(tools, item)
        if failed:
            Py_DecRef(tools, made_of)
            return 0
        n += 1
    return made_of

def made(tools, cursor, arrays):  # what the pattern says, or 0
    kind = next(cursor)
    if kind == TUPLE:
        return made_tuple(tools, cursor, arrays)
    if kind == DICT:
        return made_dict(tools, cursor, arrays)
    thing = next(cursor)
    if kind == ARRAY:
        thing = noted(arrays, thing)
    Py_IncRef(tools, thing)
    return thing
"""
