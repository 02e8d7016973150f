"""Calls of known products in machine code: from Python's call to its result, no Python runs.

A *product* is a function of Python's that has an *entry* for each call that it knows: a pattern of the arguments, what
is to be done, and a pattern of the result. It looks for an entry that fits; if there is none, or something is in the
way (somebody listens, no block of memory is idle, another thread performs an order), it calls a function in Python.

Words of a product: 0 the table of Python's functions, 1 the pool, 2 the function in Python; then ``SLOTS`` first
arguments (elements, by identity), and for each of them an entry. Those of an *entry* are read from the first to the
last:

    what owns all that the entry knows, and how many arguments there are
    a pattern for each argument but the first
    the number of threads as FALTUNG_THREADS must say it: 0 any, or 1 and the place of that text (0: not set)
    how many arrays are made, and for each its size's number in the pool (-1: NumPy's memory), dtype, axes, sizes
    a function of Python's that wakes workers, or 0
    the place of ``perform``, or 0 where nothing is computed; and then only:
        whether other threads of Python may run meanwhile, the order, three words of a team (see ``workers``) or 0,
        how many helpers are wanted, how many places belong into the order, and for each
        where in the order, which array, and how many bytes behind its beginning
    how many views are made, and for each the array, bytes behind its beginning, dtype, axes, sizes, strides
    a pattern of the result

Arrays are numbered as they come: in the arguments, made ones, views. For patterns see there.
"""

import os
from functools import cache
from typing import Any

import numpy as np

from faltung.engine.host import arena, doing, lending, patterns, python, results
from faltung.engine.host.compile import load
from faltung.engine.host.machine import host

FIRST, SLOTS = 3, 32
"""Where the slots of a product begin, and how many it has."""
MOST = 60
"""Arrays of one call."""

PRODUCT = """
def same_text(one, other):  # 0 is the same as 0 only
    n = 0
    while one and other and byte(one, n) == byte(other, n):
        if byte(one, n) == 0:
            return 1
        n += 1
    return one == other

def admits(tools, entry, arguments, count, arrays):  # what follows the patterns of an entry, or 0
    arrays[0] = 0
    here = entry[2:]
    n = 1
    if count != entry[1]:
        return 0
    while n < count:
        here = fits(tools, arguments[n], here, arrays)
        if not here:
            return 0
        n += 1
    if here[0] and not same_text(getenv(tools, text("FALTUNG_THREADS")), here[1]):
        return 0
    return here[2:]

def refer(tools, arrays):  # count a reference more
    n = 0
    while n < arrays[0]:
        Py_IncRef(tools, noted(arrays, n))
        n += 1

def let_go(tools, arrays):
    n = 0
    while n < arrays[0]:
        Py_DecRef(tools, noted(arrays, n))
        n += 1

def quickly(tools, pool, entry, rest, arrays):  # what the entry and the arguments know stays while it is used
    cursor = local(1)
    cursor[0] = rest
    owner = entry[0]
    Py_IncRef(tools, owner)
    refer(tools, arrays)
    found = result(tools, pool, cursor, arrays)
    let_go(tools, arrays)
    Py_DecRef(tools, owner)
    return found

def product(self, arguments, count):
    words = self[PLACE]
    tools = words[0]
    arrays = local(64)
    n = FIRST
    while n < BEHIND and count and not tools[listeners][0]:
        if words[n] == arguments[0]:
            entry = words[n + SLOTS]
            rest = admits(tools, entry, arguments, count, arrays)
            if rest:
                found = quickly(tools, words[1], entry, rest, arrays)
                if found or PyErr_Occurred(tools):
                    return found
                n = BEHIND  # not now
        n += 1
    return PyObject_Vectorcall(tools, words[2], arguments, count, 0)
"""


class Product:
    """A function of Python's that knows some calls by heart, and calls another one for all others."""

    def __init__(self, slowly: Any):
        table = python.tools()
        assert table is not None
        assert arena.pool.words is not None
        self._words = np.zeros(FIRST + 2 * SLOTS, np.int64)
        self._words[:FIRST] = table.ctypes.data, arena.pool.words.ctypes.data, id(slowly)
        self._kept: list[Any] = [None] * SLOTS
        self._last = 0
        self._slowly = slowly
        self.function = python.function(python.method(slowly.__name__, _code(), slowly.__doc__), self._words)
        _products.append(python.forever(self))  # the function may be called when all modules are gone

    def add(self, element: Any, program: Any, entry: list[int], kept: Any) -> bool:
        """From now on a call that begins with this element and fits the entry's patterns needs no Python.

        What the entry knows by its place is kept, as long as it is used. It takes the place of the element's older one
        for the same program, or, if there is none, that of the oldest one; is it the latter?
        """
        words = np.array([0, *entry], np.int64)
        owner = (words, element, program, kept)
        words[0] = id(owner)
        olds = (n for n, old in enumerate(self._kept) if old and old[1] is element and old[2] is program)
        old = next(olds, None)
        slot = self._last = (self._last + 1) % SLOTS if old is None else old
        self._words[FIRST + slot] = 0
        self._kept[slot] = owner
        self._words[FIRST + SLOTS + slot] = words.ctypes.data
        self._words[FIRST + slot] = id(element)
        return old is None

    def clear(self) -> None:
        """Forget all."""
        self._words[FIRST : FIRST + SLOTS] = 0
        self._kept[:] = [None] * SLOTS


_products: list[Product] = []
_held: list[arena.Scratch] = []


def forget() -> None:
    """All products forget what they know."""
    for product in _products:
        product.clear()


def scratch(count: int) -> arena.Scratch:
    """At least so many bytes, which belong to whoever performs an order quickly."""
    if not _held or _held[0].size < count:
        _held[:] = [arena.Scratch(max(1 << 16, 2 * count))]
    return _held[0]


def possible() -> bool:
    """Can products know calls here?"""
    return python.tools() is not None


def busy() -> bool:
    """Does a thread perform an order just now?"""
    table = python.tools()
    return table is not None and bool(table[python.NUMBERS["busy"]])


def _alone() -> None:
    """In the child of a fork nobody else performs an order, and there are no workers."""
    if _products:
        table = python.tools()
        assert table is not None
        table[python.NUMBERS["busy"]] = 0
        forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_alone)


@cache
def _code() -> Any:
    parts = lending.POOL, patterns.FITS, results.MADE, doing.DOING, PRODUCT
    numbers = {"FIRST": FIRST, "BEHIND": FIRST + SLOTS, "SLOTS": SLOTS, **patterns.KINDS, **patterns.LAYOUT}
    text = python.text(["product"], *parts, **numbers)
    return load(text, python.signatures(["product"]), host()).functions["product"]
