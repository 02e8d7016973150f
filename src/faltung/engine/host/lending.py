"""The pool of memory (``arena``) in machine code, which lends a block in a tenth of a microsecond.

A lent array refers to a capsule of Python's that stands for the block. The last view of the array lets go of the
capsule, and Python calls ``take_back``: so no block comes back while somebody can still read it. Whoever calls these
functions holds Python's lock, and they call nothing that gives it away while a list is being changed.

The *words* of a pool: 0 the table of Python's functions, 1 bytes that are idle, 2 bytes that are lent, 3 the most that
were ever lent at once, 4 how often a block came back; from 8 on four words for each size: the first idle block, the
size, and when (by the count of 4) a block of this size came back last. A *block* begins with a line that says 0 the
next idle block, 1 its size's words, 2 the pool's, 3 the object of Python's that owns the memory; behind it lie the
bytes that are lent.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host import python
from faltung.engine.host.compile import load
from faltung.engine.host.machine import host

IDLE, LENT, MOST = 1, 2, 3
SIZES, WORDS = 8, 4
"""Where the words of the sizes begin, and how many each has."""
NUMBERS = 244
"""Sizes, by their numbers (see ``arena``): so that all are below 2^63."""
LINE = 64

POOL = """
def number(bytes):  # of the smallest size that holds so many, see ``arena.number``
    before = (bytes if bytes > 4096 else 4096) - 1
    shift = 61 - leading_zeros(before)
    return 4 * shift + (before >> shift) - 3

def size(pool, number):  # its words
    return pool[4 * number + 8:]

def push(block):  # from now on it is idle
    size = block[1]
    pool = block[2]
    block[0] = size[0]
    size[0] = block
    pool[1] += size[1]

def pop(pool, size):  # an idle block, or 0
    block = size[0]
    if block:
        size[0] = block[0]
        pool[1] -= size[1]
    return block

def pop_similar(pool, number):  # of this size or one of the next three
    n = number
    while n < number + 4:
        block = pop(pool, size(pool, n))
        if block:
            return block
        n += 1

def lent(block):  # count it
    pool = block[2]
    pool[2] += block[1][1]
    if pool[2] > pool[3]:
        pool[3] = pool[2]

def take_back(capsule):  # Python calls it when nobody refers to the block any more
    block = capsule[PLACE]
    size = block[1]
    pool = block[2]
    pool[2] -= size[1]
    push(block)
    pool[4] += 1
    size[2] = pool[4]

def new_array(tools, dtype, axes, sizes, strides, first, flags):
    Py_IncRef(tools, dtype)
    return PyArray_NewFromDescr(tools, tools[ndarray], dtype, axes, sizes, strides, first, flags, 0)

def lent_array(pool, number, dtype, axes, sizes):  # 0 without an error means that no block is idle
    tools = pool[0]
    block = pop_similar(pool, number)
    if not block:
        return 0
    capsule = PyCapsule_New(tools, block, 0, take_back)
    if not capsule:
        push(block)
        return 0
    lent(block)
    array = new_array(tools, dtype, axes, sizes, 0, block[8:], 1281)  # in C's order, aligned, may be written
    if not array:
        Py_DecRef(tools, capsule)
        return 0
    if PyArray_SetBaseObject(tools, array, capsule):
        Py_DecRef(tools, array)
        return 0
    return array
"""

CALLED = """
def nothing(tools):
    Py_IncRef(tools, tools[none])
    return tools[none]

def lend(self, arguments, count):  # lend(dtype, its bytes, *sizes): an array, or None
    pool = self[PLACE]
    tools = pool[0]
    sizes = local(64)
    whole = PyLong_AsSsize_t(tools, arguments[1])
    n = 0
    while n < count - 2 and n < 64:  # NumPy refuses more
        sizes[n] = PyLong_AsSsize_t(tools, arguments[n + 2])
        whole = whole * sizes[n]
        n += 1
    array = lent_array(pool, number(whole), arguments[0], count - 2, sizes)
    if array or PyErr_Occurred(tools):
        return array
    return nothing(tools)

def add(self, arguments, count):  # add(number, memory): one more idle block
    pool = self[PLACE]
    tools = pool[0]
    memory = arguments[1]
    Py_IncRef(tools, memory)
    block = memory[PLACE] + 63 & -64
    block[1] = size(pool, PyLong_AsSsize_t(tools, arguments[0]))
    block[2] = pool
    block[3] = memory
    push(block)
    return nothing(tools)

def drop(self, arguments, count):  # drop(number): the memory of an idle block, or None
    pool = self[PLACE]
    tools = pool[0]
    block = pop(pool, size(pool, PyLong_AsSsize_t(tools, arguments[0])))
    return block[3] if block else nothing(tools)
"""


def words(sizes: Any) -> NDArray[np.int64] | None:
    """The words of a new pool, which has nothing yet, with these sizes; None where Python has no such pool."""
    table = python.tools()
    if table is None:
        return None
    pool = np.zeros(SIZES + WORDS * (NUMBERS + WORDS), np.int64)
    pool[0] = table.ctypes.data
    pool[SIZES + 1 :: WORDS][: len(sizes)] = sizes
    return python.forever(pool)


def functions(words: NDArray[np.int64]) -> list[Any]:
    """``lend``, ``add`` and ``drop`` of a pool."""
    return [python.function(method, words) for method in _methods()]


@cache
def _methods() -> Any:
    names = "lend", "add", "drop"
    code = load(python.text(names, POOL, CALLED), python.signatures(names), host())
    return [python.method(name, code.functions[name]) for name in names]
