"""Programs in machine code: lists of kernel calls, done one after the other without any Python between them.

A *call*, in words of 8 bytes: 0 the address of ``call`` for kernels of its kind, 1 the kernel, 2 its tasks, 3 where its
scratch begins in the worker's memory, and from 4 on four words an argument: base, offset, and how much it grows by with
each example and with each slice. The argument is frame[base] + offset + example * each + slice * step. A *frame* holds
numbers: 0 a zero, 1 where the worker's memory begins, 2 whether sums begin anew, from 3 on the places of this run.

A *job* is as in ``dispatch``: 0 the tasks taken so far, 8 all tasks, 9 how many to take at once; then 10 what to do, 11
the numbers of the frame, 12 how many these are, 13 who does it, 14 the workers that may help.

``each`` does one call, whose tasks the workers share. ``deep`` does all calls of a list for a few examples before the
next few; its tasks are slices of examples. What it does, in words: 0 all examples, 1 those of a slice, 2 those done
together, 3 how many lists follow; a list is for a number of examples (0), lies at an address (1), and has a length (2).
"""

import ctypes
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from faltung.engine.compile import load
from faltung.engine.machine import host

EACH, DEEP = "each", "deep"

CALL = """
define void @call(ptr %call, ptr %frame, i64 %example, i64 %slice, i64 %first, i64 %last) nounwind {
  %kernel.at = getelementptr i64, ptr %call, i64 1
  %kernel = load ptr, ptr %kernel.at
  %memory.at = getelementptr i64, ptr %frame, i64 1
  %memory = load ptr, ptr %memory.at
  %scratch.at = getelementptr i64, ptr %call, i64 3
  %scratch.offset = load i64, ptr %scratch.at
  %scratch = getelementptr i8, ptr %memory, i64 %scratch.offset
{arguments}
  call void %kernel({list}ptr %scratch, i64 %first, i64 %last)
  ret void
}
"""

ARGUMENT = """
  %base{n}.at = getelementptr i64, ptr %call, i64 {base}
  %base{n} = load i64, ptr %base{n}.at
  %from{n}.at = getelementptr i64, ptr %frame, i64 %base{n}
  %from{n} = load i64, ptr %from{n}.at
  %offset{n}.at = getelementptr i64, ptr %call, i64 {offset}
  %offset{n} = load i64, ptr %offset{n}.at
  %each{n}.at = getelementptr i64, ptr %call, i64 {each}
  %each{n} = load i64, ptr %each{n}.at
  %step{n}.at = getelementptr i64, ptr %call, i64 {step}
  %step{n} = load i64, ptr %step{n}.at
  %examples{n} = mul i64 %each{n}, %example
  %slices{n} = mul i64 %step{n}, %slice
  %within{n} = add i64 %examples{n}, %slices{n}
  %begin{n} = add i64 %from{n}, %offset{n}
  %word{n} = add i64 %begin{n}, %within{n}
"""

WORDS = {
    ctypes.c_void_p: ("ptr", "%a{n} = inttoptr i64 %word{n} to ptr"),
    ctypes.c_int64: ("i64", "%a{n} = add i64 %word{n}, 0"),
    ctypes.c_int32: ("i32", "%a{n} = trunc i64 %word{n} to i32"),
    ctypes.c_float: ("float", "%bits{n} = trunc i64 %word{n} to i32\n  %a{n} = bitcast i32 %bits{n} to float"),
    ctypes.c_double: ("double", "%a{n} = bitcast i64 %word{n} to double"),
}
"""What LLVM calls a C type, and how a word becomes one."""

TEXT = """
define internal void @enter(ptr %job, ptr %frame) nounwind {
entry:  ; the frame: its own memory lies behind it
  %numbers.at = getelementptr i64, ptr %job, i64 11
  %numbers = load ptr, ptr %numbers.at
  %count.at = getelementptr i64, ptr %job, i64 12
  %count = load i64, ptr %count.at
  br label %copy
copy:
  %i = phi i64 [ 0, %entry ], [ %i.up, %copy ]
  %from = getelementptr i64, ptr %numbers, i64 %i
  %number = load i64, ptr %from
  %to = getelementptr i64, ptr %frame, i64 %i
  store i64 %number, ptr %to
  %i.up = add i64 %i, 1
  %more = icmp slt i64 %i.up, %count
  br i1 %more, label %copy, label %end
end:
  %bytes = mul i64 %count, 8
  %up = add i64 %bytes, 63
  %size = and i64 %up, -64
  %memory = getelementptr i8, ptr %frame, i64 %size
  %memory.at = getelementptr i64, ptr %frame, i64 1
  store ptr %memory, ptr %memory.at
  ret void
}

define void @each(ptr %job, ptr %frame) nounwind {
entry:
  call void @enter(ptr %job, ptr %frame)
  %tasks.at = getelementptr i64, ptr %job, i64 8
  %tasks = load i64, ptr %tasks.at
  %few.at = getelementptr i64, ptr %job, i64 9
  %few = load i64, ptr %few.at
  %what.at = getelementptr i64, ptr %job, i64 10
  %what = load ptr, ptr %what.at
  %do = load ptr, ptr %what
  br label %take
take:
  %first = atomicrmw add ptr %job, i64 %few monotonic
  %left = icmp slt i64 %first, %tasks
  br i1 %left, label %do.it, label %end
do.it:
  %next = add i64 %first, %few
  %within = icmp slt i64 %next, %tasks
  %last = select i1 %within, i64 %next, i64 %tasks
  call void %do(ptr %what, ptr %frame, i64 0, i64 0, i64 %first, i64 %last)
  br label %take
end:
  ret void
}

define void @deep(ptr %job, ptr %frame) nounwind {
entry:
  call void @enter(ptr %job, ptr %frame)
  %fresh.at = getelementptr i64, ptr %frame, i64 2
  %slices.at = getelementptr i64, ptr %job, i64 8
  %slices = load i64, ptr %slices.at
  %what.at = getelementptr i64, ptr %job, i64 10
  %what = load ptr, ptr %what.at
  %all = load i64, ptr %what
  %share.at = getelementptr i64, ptr %what, i64 1
  %share = load i64, ptr %share.at
  %together.at = getelementptr i64, ptr %what, i64 2
  %together = load i64, ptr %together.at
  br label %take
take:
  %slice = atomicrmw add ptr %job, i64 1 monotonic
  %left = icmp slt i64 %slice, %slices
  br i1 %left, label %begin, label %end
begin:
  %first = mul i64 %slice, %share
  %whole = add i64 %first, %share
  %fits = icmp slt i64 %whole, %all
  %stop = select i1 %fits, i64 %whole, i64 %all
  store i64 1, ptr %fresh.at
  br label %few
few:  ; the next examples, and the list for so many
  %example = phi i64 [ %first, %begin ], [ %after, %done ]
  %rest = sub i64 %stop, %example
  %many = icmp sgt i64 %rest, %together
  %n = select i1 %many, i64 %together, i64 %rest
  br label %look
look:
  %k = phi i64 [ 4, %few ], [ %k.up, %look ]
  %for.at = getelementptr i64, ptr %what, i64 %k
  %for = load i64, ptr %for.at
  %k.up = add i64 %k, 3
  %found = icmp eq i64 %for, %n
  br i1 %found, label %list, label %look
list:
  %calls.k = add i64 %k, 1
  %calls.at = getelementptr i64, ptr %what, i64 %calls.k
  %calls = load ptr, ptr %calls.at
  %length.k = add i64 %k, 2
  %length.at = getelementptr i64, ptr %what, i64 %length.k
  %length = load i64, ptr %length.at
  br label %next
next:
  %c = phi i64 [ 0, %list ], [ %c.up, %next ]
  %call.at = getelementptr ptr, ptr %calls, i64 %c
  %call = load ptr, ptr %call.at
  %do = load ptr, ptr %call
  %tasks.at = getelementptr i64, ptr %call, i64 2
  %tasks = load i64, ptr %tasks.at
  call void %do(ptr %call, ptr %frame, i64 %example, i64 %slice, i64 0, i64 %tasks)
  %c.up = add i64 %c, 1
  %more = icmp slt i64 %c.up, %length
  br i1 %more, label %next, label %done
done:
  store i64 0, ptr %fresh.at
  %after = add i64 %example, %n
  %again = icmp slt i64 %after, %stop
  br i1 %again, label %few, label %take
end:
  ret void
}

define void @perform(
    ptr %jobs, i64 %count, ptr %numbers, ptr %share, ptr %busy, ptr %posts, i64 %helpers, ptr %scratch, i64 %size,
    ptr %yield
) nounwind {
entry:
  br label %next
next:
  %j = phi i64 [ 0, %entry ], [ %j.up, %next ]
  %place = mul i64 %j, 16
  %job = getelementptr i64, ptr %jobs, i64 %place
  %numbers.at = getelementptr i64, ptr %job, i64 11
  store ptr %numbers, ptr %numbers.at
  %do.at = getelementptr i64, ptr %job, i64 13
  %do = load ptr, ptr %do.at
  %wanted.at = getelementptr i64, ptr %job, i64 14
  %wanted = load i64, ptr %wanted.at
  %enough = icmp slt i64 %wanted, %helpers
  %many = select i1 %enough, i64 %wanted, i64 %helpers
  call void %share(ptr %busy, ptr %posts, i64 %many, ptr %do, ptr %job, ptr %scratch, i64 %size, ptr %yield)
  %j.up = add i64 %j, 1
  %more = icmp slt i64 %j.up, %count
  br i1 %more, label %next, label %end
end:
  ret void
}
"""


@cache
def shim(kinds: tuple[Any, ...]) -> Any:
    """``call`` for kernels whose arguments, scratch and tasks left out, are of these C types."""
    arguments, names = [], []
    for n, kind in enumerate(kinds):
        name, convert = WORDS[kind]
        words = {word: 4 + 4 * n + k for k, word in enumerate(("base", "offset", "each", "step"))}
        arguments.append(ARGUMENT.format(n=n, **words) + "  " + convert.format(n=n))
        names.append(f"{name} %a{n}, ")
    text = CALL.replace("{arguments}", "\n".join(arguments)).replace("{list}", "".join(names))
    place, number = ctypes.c_void_p, ctypes.c_int64
    return load(text, (("call", place, place, number, number, number, number),), host()).functions["call"]


@cache
def functions() -> Mapping[str, Callable[..., None]]:
    """``each``, ``deep`` and ``perform``."""
    place, number = ctypes.c_void_p, ctypes.c_int64
    signatures = (
        ("each", place, place),
        ("deep", place, place),
        ("perform", place, number, place, place, place, place, number, place, number, place),
    )
    return load(TEXT, signatures, host()).functions
