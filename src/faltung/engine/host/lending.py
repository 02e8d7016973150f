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
declare i64 @llvm.ctlz.i64(i64, i1)

define internal i64 @number(i64 %bytes) nounwind {  ; of the smallest size that holds so many, see ``arena.number``
  %small = icmp slt i64 %bytes, 4096
  %count = select i1 %small, i64 4096, i64 %bytes
  %before = sub i64 %count, 1
  %zeros = call i64 @llvm.ctlz.i64(i64 %before, i1 true)
  %shift = sub i64 61, %zeros
  %part = lshr i64 %before, %shift
  %four = mul i64 %shift, 4
  %number = add i64 %four, %part
  %less = sub i64 %number, 3
  ret i64 %less
}

define internal ptr @size(ptr %pool, i64 %number) nounwind {  ; its words
  %before = mul i64 %number, 4
  %n = add i64 %before, 8
  %words = call ptr @from(ptr %pool, i64 %n)
  ret ptr %words
}

define internal void @count(ptr %pool, i64 %n, i64 %bytes) nounwind {  ; so many more are idle or lent
  %old = call i64 @word(ptr %pool, i64 %n)
  %new = add i64 %old, %bytes
  call void @put(i64 %new, ptr %pool, i64 %n)
  ret void
}

define internal void @push(ptr %block) nounwind {  ; from now on it is idle
  %size = call ptr @pointer(ptr %block, i64 1)
  %pool = call ptr @pointer(ptr %block, i64 2)
  %next = call ptr @pointer(ptr %size, i64 0)
  call void @point(ptr %next, ptr %block, i64 0)
  call void @point(ptr %block, ptr %size, i64 0)
  %bytes = call i64 @word(ptr %size, i64 1)
  call void @count(ptr %pool, i64 1, i64 %bytes)
  ret void
}

define internal ptr @pop(ptr %pool, ptr %size) nounwind {  ; an idle block, or null
  %block = call ptr @pointer(ptr %size, i64 0)
  %none = icmp eq ptr %block, null
  br i1 %none, label %end, label %found
found:
  %next = call ptr @pointer(ptr %block, i64 0)
  call void @point(ptr %next, ptr %size, i64 0)
  %bytes = call i64 @word(ptr %size, i64 1)
  %less = sub i64 0, %bytes
  call void @count(ptr %pool, i64 1, i64 %less)
  br label %end
end:
  ret ptr %block
}

define internal ptr @pop_similar(ptr %pool, i64 %number) nounwind {  ; of this size or one of the next three
entry:
  br label %look
look:
  %more = phi i64 [ 0, %entry ], [ %more.up, %next ]
  %n = add i64 %number, %more
  %size = call ptr @size(ptr %pool, i64 %n)
  %block = call ptr @pop(ptr %pool, ptr %size)
  %found = icmp ne ptr %block, null
  br i1 %found, label %end, label %next
next:
  %more.up = add i64 %more, 1
  %again = icmp ult i64 %more.up, 4
  br i1 %again, label %look, label %end
end:
  ret ptr %block
}

define internal void @lent(ptr %block) nounwind {  ; count it
  %size = call ptr @pointer(ptr %block, i64 1)
  %pool = call ptr @pointer(ptr %block, i64 2)
  %bytes = call i64 @word(ptr %size, i64 1)
  call void @count(ptr %pool, i64 2, i64 %bytes)
  %now = call i64 @word(ptr %pool, i64 2)
  %most = call i64 @word(ptr %pool, i64 3)
  %more = icmp sgt i64 %now, %most
  %new = select i1 %more, i64 %now, i64 %most
  call void @put(i64 %new, ptr %pool, i64 3)
  ret void
}

define internal void @take_back(ptr %capsule) nounwind {  ; Python calls it when nobody refers to the block any more
  %block = call ptr @place(ptr %capsule)
  %size = call ptr @pointer(ptr %block, i64 1)
  %pool = call ptr @pointer(ptr %block, i64 2)
  %bytes = call i64 @word(ptr %size, i64 1)
  %less = sub i64 0, %bytes
  call void @count(ptr %pool, i64 2, i64 %less)
  call void @push(ptr %block)
  call void @count(ptr %pool, i64 4, i64 1)
  %time = call i64 @word(ptr %pool, i64 4)
  call void @put(i64 %time, ptr %size, i64 2)
  ret void
}

define internal ptr @new_array(
    ptr %tools, ptr %dtype, i64 %axes, ptr %sizes, ptr %strides, ptr %first, i64 %flags
) nounwind {
  call void @Py_IncRef(ptr %tools, ptr %dtype)
  %kind = call ptr @pointer(ptr %tools, i64 {ndarray})
  %nd = trunc i64 %axes to i32
  %some = trunc i64 %flags to i32
  %array = call ptr @PyArray_NewFromDescr(
    ptr %tools, ptr %kind, ptr %dtype, i32 %nd, ptr %sizes, ptr %strides, ptr %first, i32 %some, ptr null
  )
  ret ptr %array
}

define internal ptr @lent_array(ptr %pool, i64 %number, ptr %dtype, i64 %axes, ptr %sizes) nounwind {
  %tools = load ptr, ptr %pool  ; null without an error means that no block is idle
  %block = call ptr @pop_similar(ptr %pool, i64 %number)
  %none = icmp eq ptr %block, null
  br i1 %none, label %fail, label %wrap
wrap:
  %capsule = call ptr @PyCapsule_New(ptr %tools, ptr %block, ptr null, ptr @take_back)
  %refused = icmp eq ptr %capsule, null
  br i1 %refused, label %undo, label %make
undo:
  call void @push(ptr %block)
  br label %fail
make:
  call void @lent(ptr %block)
  %first = getelementptr i8, ptr %block, i64 64
  %array = call ptr @new_array(
    ptr %tools, ptr %dtype, i64 %axes, ptr %sizes, ptr null, ptr %first, i64 1281
  )  ; in C's order, aligned, may be written
  %failed = icmp eq ptr %array, null
  br i1 %failed, label %back, label %refer
back:
  call void @Py_DecRef(ptr %tools, ptr %capsule)
  br label %fail
refer:
  %code = call i32 @PyArray_SetBaseObject(ptr %tools, ptr %array, ptr %capsule)
  %bad = icmp ne i32 %code, 0
  br i1 %bad, label %drop, label %end
drop:
  call void @Py_DecRef(ptr %tools, ptr %array)
  br label %fail
fail:
  ret ptr null
end:
  ret ptr %array
}
"""

CALLED = """
define internal ptr @none(ptr %tools) nounwind {
  %none = call ptr @pointer(ptr %tools, i64 {None})
  call void @Py_IncRef(ptr %tools, ptr %none)
  ret ptr %none
}

define ptr @lend(ptr %self, ptr %arguments, i64 %count) nounwind {  ; lend(dtype, its bytes, *sizes): an array, or None
  %pool = call ptr @place(ptr %self)
  %tools = load ptr, ptr %pool
  %sizes = alloca [64 x i64]
  %dtype = load ptr, ptr %arguments
  %bytes.object = call ptr @pointer(ptr %arguments, i64 1)
  %bytes = call i64 @PyLong_AsSsize_t(ptr %tools, ptr %bytes.object)
  %axes = sub i64 %count, 2
  %few = icmp ult i64 %axes, 64
  %read = select i1 %few, i64 %axes, i64 64  ; NumPy refuses more
  br label %more
more:
  %n = phi i64 [ 0, %0 ], [ %n.up, %size ]
  %whole = phi i64 [ %bytes, %0 ], [ %product, %size ]
  %left = icmp slt i64 %n, %read
  br i1 %left, label %size, label %sized
size:
  %at = add i64 %n, 2
  %size.object = call ptr @pointer(ptr %arguments, i64 %at)
  %size.n = call i64 @PyLong_AsSsize_t(ptr %tools, ptr %size.object)
  call void @put(i64 %size.n, ptr %sizes, i64 %n)
  %product = mul i64 %whole, %size.n
  %n.up = add i64 %n, 1
  br label %more
sized:
  %number = call i64 @number(i64 %whole)
  %array = call ptr @lent_array(ptr %pool, i64 %number, ptr %dtype, i64 %axes, ptr %sizes)
  %there = icmp ne ptr %array, null
  br i1 %there, label %end, label %why
why:
  %error = call ptr @PyErr_Occurred(ptr %tools)
  %wrong = icmp ne ptr %error, null
  br i1 %wrong, label %end, label %missing
missing:
  %none = call ptr @none(ptr %tools)
  ret ptr %none
end:
  ret ptr %array
}

define ptr @add(ptr %self, ptr %arguments, i64 %count) nounwind {  ; add(number, memory): one more idle block
  %pool = call ptr @place(ptr %self)
  %tools = load ptr, ptr %pool
  %number.object = load ptr, ptr %arguments
  %number = call i64 @PyLong_AsSsize_t(ptr %tools, ptr %number.object)
  %memory = call ptr @pointer(ptr %arguments, i64 1)
  call void @Py_IncRef(ptr %tools, ptr %memory)
  %bytes = call ptr @place(ptr %memory)
  %begin = ptrtoint ptr %bytes to i64
  %above = add i64 %begin, 63
  %line = and i64 %above, -64
  %block = inttoptr i64 %line to ptr
  %size = call ptr @size(ptr %pool, i64 %number)
  call void @point(ptr %size, ptr %block, i64 1)
  call void @point(ptr %pool, ptr %block, i64 2)
  call void @point(ptr %memory, ptr %block, i64 3)
  call void @push(ptr %block)
  %none = call ptr @none(ptr %tools)
  ret ptr %none
}

define ptr @drop(ptr %self, ptr %arguments, i64 %count) nounwind {  ; drop(number): the memory of an idle block, or None
  %pool = call ptr @place(ptr %self)
  %tools = load ptr, ptr %pool
  %number.object = load ptr, ptr %arguments
  %number = call i64 @PyLong_AsSsize_t(ptr %tools, ptr %number.object)
  %size = call ptr @size(ptr %pool, i64 %number)
  %block = call ptr @pop(ptr %pool, ptr %size)
  %there = icmp ne ptr %block, null
  br i1 %there, label %found, label %missing
found:
  %memory = call ptr @pointer(ptr %block, i64 3)
  ret ptr %memory
missing:
  %none = call ptr @none(ptr %tools)
  ret ptr %none
}
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
    place = "lend", "add", "drop"
    code = load(python.with_python(POOL + CALLED), python.signatures(place), host())
    return [python.method(name, code.functions[name]) for name in place]
