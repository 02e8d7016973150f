"""Programs as functions of Python's own kind: they take arrays, and find by themselves where these lie.

Through ctypes, each array costs 0.13 microseconds for its address, an order 0.4 to be put into bytes, and the call 0.3;
around a kernel that takes 3, all that counts. Python's own functions in C are called by less than a tenth of it.

A function has *words*: 0 and 1 Python's functions that give its lock away and take it back, 2 the one that counts a
reference, 3 the object None, 4 ``perform``, 5 how many helpers are wanted, 6 the words of the order, 7 how many of them
are places, 8 the order (see ``perform``), and behind it three words for each place: where in the order it belongs, in
which argument it lies, and how many bytes behind its beginning. The first two arguments are the scratch of the calling
thread, at the beginning of which the order of this call is made, and three words about a team (``workers``): the place
that says whether it is busy, where its posts are, and how many.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from faltung.engine.host import dispatch, python, words
from faltung.engine.host import perform as programs
from faltung.engine.host.compile import load
from faltung.engine.host.machine import host

SCRATCH, ARRAYS = 0, 2
"""Arguments; the arrays of an order come last."""

CALLED = "PyEval_SaveThread", "PyEval_RestoreThread", "Py_IncRef"
"""The first words of a function."""

TEXT = """
def direct(self, arguments, count):
    words = self[PLACE]
    order = arguments[0][PLACE]
    n = 0
    while n < words[6]:
        order[n] = words[n + 8]
        n += 1
    place = words[n + 8:]
    n = 0
    while n < words[7]:
        order[place[0]] = arguments[place[1]][PLACE] + place[2]
        place = place[3:]
        n += 1
    wanted = words[5]
    if wanted:
        team = arguments[1][PLACE]
        order[6] = team[0]
        order[7] = team[1]
        order[8] = wanted if wanted < team[2] else team[2]
    perform = words[4]
    thread = PyEval_SaveThread(words)
    perform(order)
    PyEval_RestoreThread(words, thread)
    Py_IncRef(words, words[3])
    return words[3]
"""


def function(order: Sequence[int], places: Sequence[tuple[int, int, int]], helpers: int) -> Callable[..., None]:
    """The function that performs this order, whose places (word, argument, offset) are found anew in each call.

    Nobody may free what the order knows by address while the function is used.
    """
    known, method = _made()
    flat = [word for place in places for word in place]
    return python.function(method, np.array([*known, helpers, len(order), len(places), *order, *flat], np.int64))


@cache
def _made() -> tuple[tuple[int, ...], python.Method]:
    """The first words of all functions, and how Python knows their code."""
    perform = python.forever(programs.functions()["perform"])
    outside = {name: (python.SIGNATURES[name], number) for number, name in enumerate(CALLED)}
    text = words.module(["direct"], TEXT, numbers={"PLACE": python.PLACE}, outside=outside)
    code = load(text, python.signatures(["direct"]), host())
    called = [getattr(ctypes.pythonapi, name) for name in CALLED]
    known = *map(dispatch.address, called), id(None), dispatch.address(perform)
    return known, python.method("direct", code.functions["direct"])
