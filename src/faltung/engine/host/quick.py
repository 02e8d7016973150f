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

ADMISSION = """
@asked = private constant [16 x i8] c"FALTUNG_THREADS\\00"

define internal i1 @same_text(ptr %one, ptr %other) nounwind {  ; null is the same as null only
  %same = icmp eq ptr %one, %other
  %none = icmp eq ptr %one, null
  %none.other = icmp eq ptr %other, null
  %no.text = or i1 %none, %none.other
  %known = or i1 %same, %no.text
  br i1 %known, label %end, label %letter
letter:
  %n = phi i64 [ 0, %0 ], [ %n.up, %next ]
  %one.at = getelementptr i8, ptr %one, i64 %n
  %other.at = getelementptr i8, ptr %other, i64 %n
  %a = load i8, ptr %one.at
  %b = load i8, ptr %other.at
  %alike = icmp eq i8 %a, %b
  br i1 %alike, label %next, label %end
next:
  %n.up = add i64 %n, 1
  %last = icmp eq i8 %a, 0
  br i1 %last, label %end, label %letter
end:
  %answer = phi i1 [ %same, %0 ], [ false, %letter ], [ true, %next ]
  ret i1 %answer
}

define internal ptr @admits(ptr %tools, ptr %entry, ptr %arguments, i64 %count, ptr %arrays) nounwind {
  store i64 0, ptr %arrays  ; an entry: what follows its patterns, or null
  %wanted = call i64 @word(ptr %entry, i64 1)
  %so.many = icmp eq i64 %count, %wanted
  %begin = call ptr @from(ptr %entry, i64 2)
  br i1 %so.many, label %argument, label %no
argument:
  %n = phi i64 [ 1, %0 ], [ %n.up, %next ]
  %here = phi ptr [ %begin, %0 ], [ %there, %next ]
  %left = icmp slt i64 %n, %count
  br i1 %left, label %next, label %threads
next:
  %thing = call ptr @pointer(ptr %arguments, i64 %n)
  %there = call ptr @fits(ptr %tools, ptr %thing, ptr %here, ptr %arrays)
  %n.up = add i64 %n, 1
  %fits = icmp ne ptr %there, null
  br i1 %fits, label %argument, label %no
threads:
  %any.word = load i64, ptr %here
  %any = icmp eq i64 %any.word, 0
  %rest = call ptr @from(ptr %here, i64 2)
  br i1 %any, label %yes, label %ask
ask:
  %text = call ptr @getenv(ptr %tools, ptr @asked)
  %expected = call ptr @pointer(ptr %here, i64 1)
  %is = call i1 @same_text(ptr %text, ptr %expected)
  br i1 %is, label %yes, label %no
yes:
  ret ptr %rest
no:
  ret ptr null
}

define internal void @refer(ptr %tools, ptr %arrays, i64 %one) nounwind {  ; count a reference more, or less
  %count = load i64, ptr %arrays
  %more = icmp ne i64 %one, 0
  br label %array
array:
  %n = phi i64 [ 0, %0 ], [ %n.up, %up ], [ %n.up, %down ]
  %left = icmp slt i64 %n, %count
  br i1 %left, label %next, label %end
next:
  %thing = call ptr @noted(ptr %arrays, i64 %n)
  %n.up = add i64 %n, 1
  br i1 %more, label %up, label %down
up:
  call void @Py_IncRef(ptr %tools, ptr %thing)
  br label %array
down:
  call void @Py_DecRef(ptr %tools, ptr %thing)
  br label %array
end:
  ret void
}
"""

PRODUCT = """
define ptr @product(ptr %self, ptr %arguments, i64 %count) nounwind {
  %cursor = alloca ptr
  %arrays = alloca [64 x ptr]
  %words = call ptr @place(ptr %self)
  %tools = load ptr, ptr %words
  %listeners.at = call ptr @pointer(ptr %tools, i64 {listeners})
  %listeners = load i64, ptr %listeners.at
  %heard = icmp ne i64 %listeners, 0
  %none = icmp eq i64 %count, 0
  %no = or i1 %heard, %none
  br i1 %no, label %slowly, label %begin
begin:
  %element = load ptr, ptr %arguments
  br label %slot
slot:
  %n = phi i64 [ {first}, %begin ], [ %n.up, %again ]
  %end = icmp eq i64 %n, {behind}
  br i1 %end, label %slowly, label %look
look:
  %known = call ptr @pointer(ptr %words, i64 %n)
  %same = icmp eq ptr %known, %element
  br i1 %same, label %try, label %again
try:
  %entry.n = add i64 %n, {slots}
  %entry = call ptr @pointer(ptr %words, i64 %entry.n)
  %rest = call ptr @admits(ptr %tools, ptr %entry, ptr %arguments, i64 %count, ptr %arrays)
  %fits = icmp ne ptr %rest, null
  br i1 %fits, label %quickly, label %again
again:
  %n.up = add i64 %n, 1
  br label %slot
quickly:  ; what the entry and the arguments know stays while it is used
  %owner = load ptr, ptr %entry
  call void @Py_IncRef(ptr %tools, ptr %owner)
  call void @refer(ptr %tools, ptr %arrays, i64 1)
  store ptr %rest, ptr %cursor
  %pool = call ptr @pointer(ptr %words, i64 1)
  %result = call ptr @result(ptr %tools, ptr %pool, ptr %cursor, ptr %arrays)
  call void @refer(ptr %tools, ptr %arrays, i64 0)
  call void @Py_DecRef(ptr %tools, ptr %owner)
  %there = icmp ne ptr %result, null
  br i1 %there, label %done, label %why
why:
  %error = call ptr @PyErr_Occurred(ptr %tools)
  %wrong = icmp ne ptr %error, null
  br i1 %wrong, label %done, label %slowly
done:
  ret ptr %result
slowly:
  %function = call ptr @pointer(ptr %words, i64 2)
  %answer = call ptr @PyObject_Vectorcall(ptr %tools, ptr %function, ptr %arguments, i64 %count, ptr null)
  ret ptr %answer
}
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
    text = lending.POOL + patterns.FITS + results.MADE + doing.DOING + ADMISSION + PRODUCT
    numbers = {"first": FIRST, "behind": FIRST + SLOTS, "slots": SLOTS}
    text = python.filled(text, numbers | patterns.LAYOUT)
    return load(python.with_python(text), python.signatures(["product"]), host()).functions["product"]
