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

from faltung.engine.host import dispatch, python
from faltung.engine.host import perform as programs
from faltung.engine.host.compile import load
from faltung.engine.host.machine import host

SCRATCH, ARRAYS = 0, 2
"""Arguments; the arrays of an order come last."""

TEXT = """
define internal ptr @numbers(ptr %array) nounwind {
  %at = getelementptr i8, ptr %array, i64 {head}
  %place = load ptr, ptr %at
  ret ptr %place
}

define internal i64 @word(ptr %words, i64 %n) nounwind {
  %at = getelementptr i64, ptr %words, i64 %n
  %word = load volatile i64, ptr %at  ; LLVM shall not call a library for copies
  ret i64 %word
}

define internal void @put(i64 %word, ptr %words, i64 %n) nounwind {
  %at = getelementptr i64, ptr %words, i64 %n
  store i64 %word, ptr %at
  ret void
}

define ptr @direct(ptr %self, ptr %arguments, i64 %count) nounwind {
entry:
  %words = call ptr @numbers(ptr %self)
  %scratch = load ptr, ptr %arguments
  %order = call ptr @numbers(ptr %scratch)
  %size = call i64 @word(ptr %words, i64 6)
  br label %copy
copy:
  %i = phi i64 [ 0, %entry ], [ %i.up, %copy ]
  %from = add i64 %i, 8
  %known = call i64 @word(ptr %words, i64 %from)
  call void @put(i64 %known, ptr %order, i64 %i)
  %i.up = add i64 %i, 1
  %more = icmp slt i64 %i.up, %size
  br i1 %more, label %copy, label %copied
copied:
  %places = call i64 @word(ptr %words, i64 7)
  %begin = add i64 %size, 8
  br label %place
place:
  %p = phi i64 [ 0, %copied ], [ %p.up, %place ]
  %triple = mul i64 %p, 3
  %p0 = add i64 %begin, %triple
  %p1 = add i64 %p0, 1
  %p2 = add i64 %p0, 2
  %target = call i64 @word(ptr %words, i64 %p0)
  %number = call i64 @word(ptr %words, i64 %p1)
  %offset = call i64 @word(ptr %words, i64 %p2)
  %argument.at = getelementptr ptr, ptr %arguments, i64 %number
  %argument = load ptr, ptr %argument.at
  %base = call ptr @numbers(ptr %argument)
  %found = getelementptr i8, ptr %base, i64 %offset
  %address = ptrtoint ptr %found to i64
  call void @put(i64 %address, ptr %order, i64 %target)
  %p.up = add i64 %p, 1
  %p.more = icmp slt i64 %p.up, %places
  br i1 %p.more, label %place, label %placed
placed:
  %wanted = call i64 @word(ptr %words, i64 5)
  %alone = icmp eq i64 %wanted, 0
  br i1 %alone, label %do, label %team
team:
  %team.at = getelementptr ptr, ptr %arguments, i64 1
  %team.array = load ptr, ptr %team.at
  %team.words = call ptr @numbers(ptr %team.array)
  %there = call i64 @word(ptr %team.words, i64 2)
  %enough = icmp slt i64 %wanted, %there
  %helpers = select i1 %enough, i64 %wanted, i64 %there
  %busy = call i64 @word(ptr %team.words, i64 0)
  %posts = call i64 @word(ptr %team.words, i64 1)
  call void @put(i64 %busy, ptr %order, i64 6)
  call void @put(i64 %posts, ptr %order, i64 7)
  call void @put(i64 %helpers, ptr %order, i64 8)
  br label %do
do:
  %save.at = getelementptr ptr, ptr %words, i64 0
  %save = load ptr, ptr %save.at
  %restore.at = getelementptr ptr, ptr %words, i64 1
  %restore = load ptr, ptr %restore.at
  %refer.at = getelementptr ptr, ptr %words, i64 2
  %refer = load ptr, ptr %refer.at
  %none.at = getelementptr ptr, ptr %words, i64 3
  %none = load ptr, ptr %none.at
  %perform.at = getelementptr ptr, ptr %words, i64 4
  %perform = load ptr, ptr %perform.at
  %thread = call ptr %save()
  call void %perform(ptr %order)
  call void %restore(ptr %thread)
  call void %refer(ptr %none)
  ret ptr %none
}
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
    text, perform = TEXT.replace("{head}", str(python.HEAD)), python.forever(programs.functions()["perform"])
    code = load(text, python.signatures(["direct"]), host())
    called = [getattr(ctypes.pythonapi, name) for name in ("PyEval_SaveThread", "PyEval_RestoreThread", "Py_IncRef")]
    known = *map(dispatch.address, called), id(None), dispatch.address(perform)
    return known, python.method("direct", code.functions["direct"])
