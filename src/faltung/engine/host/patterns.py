"""Patterns of arguments: what is told of them, as words that machine code compares with other arguments.

A pattern is a word and what belongs to it: ``ARRAY`` (dtype, axes, sizes; its numbers lie side by side), ``TUPLE`` (how
many, and patterns), ``DICT`` (how many, and for each a pattern of its name and one of what it names), ``ATTRIBUTE``
(type, name, value), ``SAME`` (an object), ``EQUAL`` (an object that is compared without calling Python). Arrays are
noted in a list as they come: how many, and then each.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from faltung.engine.host.python import PLACE

SAME, ARRAY, TUPLE, DICT, ATTRIBUTE, EQUAL = range(6)
KINDS = {"ARRAY": ARRAY, "TUPLE": TUPLE, "DICT": DICT, "ATTRIBUTE": ATTRIBUTE, "EQUAL": EQUAL}
LAYOUT = {
    "AXES": PLACE + 1,
    "SIZES": PLACE + 2,
    "DTYPE": PLACE + 5,
    "FLAGS": PLACE + 6,
    "LENGTH": PLACE,
    "ITEMS": tuple.__basicsize__ // 8,
}
"""Words of an array and of a tuple."""


class StrangeError(Exception):
    """Something of which no pattern tells."""


def told(thing: Any, attributes: Mapping[type, str], kept: list[Any]) -> list[int]:
    """The pattern of an argument; what it knows by its place is added to what must be kept.

    Of objects of some types, all that counts is an attribute.
    """
    kind = type(thing)
    if kind is np.ndarray:
        if not (thing.flags.c_contiguous and thing.flags.aligned):
            raise StrangeError
        kept.append(thing.dtype)
        return [ARRAY, id(thing.dtype), thing.ndim, *thing.shape]
    if kind is tuple:
        return [TUPLE, len(thing), *(word for part in thing for word in told(part, attributes, kept))]
    if kind is dict:
        return [
            DICT,
            len(thing),
            *(word for pair in thing.items() for part in pair for word in told(part, attributes, kept)),
        ]
    kept.append(thing)
    if kind in attributes:
        found = getattr(thing, attributes[kind])
        kept += [kind, attributes[kind], found]
        return [ATTRIBUTE, *map(id, kept[-3:])]
    if isinstance(thing, np.ndarray | tuple | Mapping):
        raise StrangeError
    return [EQUAL if kind in (str, int) else SAME, id(thing)]


FITS = """
def note(array, arrays):  # arrays: how many, and then each
    arrays[0] += 1
    arrays[arrays[0]] = array

def noted(arrays, number):
    return arrays[number + 1]

def fits_array(tools, thing, pattern, arrays):
    plain = thing[TYPE] == tools[ndarray] and thing[FLAGS] & 257 == 257  # in C's order, aligned
    if not plain or thing[DTYPE] != pattern[0] or half(thing[AXES]) != pattern[1]:
        return 0
    n = 0
    while n < pattern[1]:
        if thing[SIZES][n] != pattern[n + 2]:
            return 0
        n += 1
    note(thing, arrays)
    return pattern[n + 2:]

def fits_tuple(tools, thing, pattern, arrays):
    if thing[TYPE] != tools[tuple] or thing[LENGTH] != pattern[0]:
        return 0
    n = 0
    here = pattern[1:]
    while n < pattern[0] and here:
        here = fits(tools, thing[ITEMS + n], here, arrays)
        n += 1
    return here

def fits_dict(tools, thing, pattern, arrays):
    if thing[TYPE] != tools[dict] or PyDict_Size(tools, thing) != pattern[0]:
        return 0
    position = local(1)
    name = local(1)
    value = local(1)
    position[0] = n = 0
    here = pattern[1:]
    while n < pattern[0] and here:
        PyDict_Next(tools, thing, position, name, value)
        here = fits(tools, name[0], here, arrays)
        if here:
            here = fits(tools, value[0], here, arrays)
        n += 1
    return here

def has_attribute(tools, thing, pattern):
    if thing[TYPE] != pattern[0]:
        return 0
    value = PyObject_GetAttr(tools, thing, pattern[1])
    if not value:
        PyErr_Clear(tools)
        return 0
    Py_DecRef(tools, value)
    return value == pattern[2]  # only its place counts

def equals(tools, thing, other):
    if thing == other:
        return 1
    return thing[TYPE] == other[TYPE] and PyObject_RichCompareBool(tools, thing, other, 2) == 1

def fits(tools, thing, pattern, arrays):  # what follows the pattern, or 0
    kind = pattern[0]
    about = pattern[1:]
    if kind == ARRAY:
        return fits_array(tools, thing, about, arrays)
    if kind == TUPLE:
        return fits_tuple(tools, thing, about, arrays)
    if kind == DICT:
        return fits_dict(tools, thing, about, arrays)
    if kind == ATTRIBUTE:
        return about[3:] if has_attribute(tools, thing, about) else 0
    if kind == EQUAL:
        return about[1:] if equals(tools, thing, about[0]) else 0
    return about[1:] if thing == about[0] else 0
"""
