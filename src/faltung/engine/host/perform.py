"""Programs in machine code: lists of kernel calls, done one after the other without any Python between them.

A *call*, in words of 8 bytes: 0 the address of ``call`` for kernels of its kind, 1 the kernel, 2 its tasks, 3 where its
scratch begins in the worker's memory, and from 4 on four words an argument: base, offset, and how much it grows by with
each example and with each slice. The argument is frame[base] + offset + example * each + slice * step. A *frame* holds
numbers: 0 a zero, 1 where the worker's memory begins, 2 whether sums begin anew, from 3 on the places of this run.

A *job*, in 16 words: 0 how often somebody took a part, 1 the parts that are done, 2 and 3 how often they were taken
from the front and from the back; 8 all parts, 9 what to do, 10 who does it. Workers go through a program together
(``walk``): each takes parts of a job while there are any, and then waits until all of them are done, since the next job
may read what they write. Whoever comes late finds jobs done, and goes on. Every second worker takes from the back: so
of two, each finds in its own cache most of what it has written before, where tasks are bands of rows.

An *order* is all that ``perform`` must know: 0 the jobs, 1 how many, 2 the numbers of the frame, how many, 3 ``share``,
4 ``pause``, 5 what the system does for us, 6 and 7 what ``share`` wants to know of posts, 8 how many of them, 9 scratch
for a copy of the jobs and behind it what each worker has, 10 the bytes of that, and then the numbers of the frame. All
is at one place, since each argument costs Python a tenth of a microsecond.

``each`` does calls whose tasks the workers share. What it does, in four words a call: 0 its address, 1 its tasks, 2 how
many of them are a part, 3 the parts of this call and of those before it. ``deep`` does all calls of a list for a few
examples before the next few; its parts are slices of examples. What it does, in words: 0 all examples, 1 those of a
slice, 2 those done together, 3 how many lists follow; a list is for a number of examples (0), lies at an address (1),
and has a length (2).
"""

import ctypes
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from faltung.engine.host.compile import load
from faltung.engine.host.machine import host

EACH, DEEP = "each", "deep"

CALL = """
define void @{name}(ptr %call, ptr %frame, i64 %example, i64 %slice, i64 %first, i64 %last) nounwind {
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
define internal void @copy(ptr %to, ptr %from, i64 %count) nounwind {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i.up, %next ]
  %from.at = getelementptr i64, ptr %from, i64 %i
  %word = load volatile i64, ptr %from.at  ; LLVM shall not call a library for it
  %to.at = getelementptr i64, ptr %to, i64 %i
  store i64 %word, ptr %to.at
  %i.up = add i64 %i, 1
  %more = icmp slt i64 %i.up, %count
  br i1 %more, label %next, label %end
end:
  ret void
}

define internal void @walk(ptr %order, ptr %frame) nounwind {
entry:  ; the frame: the worker's own memory lies behind it
  %length.at = getelementptr i64, ptr %order, i64 1
  %length = load i64, ptr %length.at
  %count.at = getelementptr i64, ptr %order, i64 2
  %count = load i64, ptr %count.at
  %pause.at = getelementptr i64, ptr %order, i64 4
  %pause = load ptr, ptr %pause.at
  %system.at = getelementptr i64, ptr %order, i64 5
  %system = load ptr, ptr %system.at
  %jobs.at = getelementptr i64, ptr %order, i64 9
  %jobs = load ptr, ptr %jobs.at
  %numbers = getelementptr i64, ptr %order, i64 11
  call void @copy(ptr %frame, ptr %numbers, i64 %count)
  %bytes = mul i64 %count, 8
  %up = add i64 %bytes, 63
  %size = and i64 %up, -64
  %memory = getelementptr i8, ptr %frame, i64 %size
  %memory.at = getelementptr i64, ptr %frame, i64 1
  store ptr %memory, ptr %memory.at
  %words = mul i64 %length, 16
  %frames = getelementptr i64, ptr %jobs, i64 %words
  %here = ptrtoint ptr %frame to i64
  %begin = ptrtoint ptr %frames to i64
  %behind = sub i64 %here, %begin
  %each.at = getelementptr i64, ptr %order, i64 10
  %each = load i64, ptr %each.at
  %worker = udiv i64 %behind, %each
  %side = and i64 %worker, 1
  br label %next
next:
  %j = phi i64 [ 0, %entry ], [ %j.up, %done ]
  %place = mul i64 %j, 16
  %job = getelementptr i64, ptr %jobs, i64 %place
  %tasks.at = getelementptr i64, ptr %job, i64 8
  %tasks = load i64, ptr %tasks.at
  %do.at = getelementptr i64, ptr %job, i64 10
  %do = load ptr, ptr %do.at
  call void %do(ptr %job, ptr %frame, i64 %side)
  %ended.at = getelementptr i64, ptr %job, i64 1
  br label %look
look:
  %n = phi i64 [ 0, %next ], [ %n.up, %wait ]
  %ended = load atomic i64, ptr %ended.at acquire, align 8
  %missing = icmp slt i64 %ended, %tasks
  br i1 %missing, label %wait, label %done
wait:
  %n.up = add i64 %n, 1
  call void %pause(i64 %n.up, ptr %system)
  br label %look
done:
  %j.up = add i64 %j, 1
  %more = icmp slt i64 %j.up, %length
  br i1 %more, label %next, label %end
end:
  ret void
}

define void @each(ptr %job, ptr %frame, i64 %side) nounwind {
entry:
  %ended.at = getelementptr i64, ptr %job, i64 1
  %parts.at = getelementptr i64, ptr %job, i64 8
  %parts = load i64, ptr %parts.at
  %what.at = getelementptr i64, ptr %job, i64 9
  %what = load ptr, ptr %what.at
  %end.part = sub i64 %parts, 1
  %word = add i64 %side, 2
  %taken.at = getelementptr i64, ptr %job, i64 %word
  %back = icmp ne i64 %side, 0
  br label %take
take:  ; some are left: the next one from our side
  %any = atomicrmw add ptr %job, i64 1 monotonic
  %left = icmp slt i64 %any, %parts
  br i1 %left, label %some, label %end
some:
  %k = atomicrmw add ptr %taken.at, i64 1 monotonic
  %far = sub i64 %end.part, %k
  %part = select i1 %back, i64 %far, i64 %k
  br label %look
look:  ; whose part is it?
  %entry.at = phi ptr [ %what, %some ], [ %entry.next, %look ]
  %begin = phi i64 [ 0, %some ], [ %stop, %look ]
  %stop.at = getelementptr i64, ptr %entry.at, i64 3
  %stop = load i64, ptr %stop.at
  %entry.next = getelementptr i64, ptr %entry.at, i64 4
  %found = icmp slt i64 %part, %stop
  br i1 %found, label %do.it, label %look
do.it:
  %call = load ptr, ptr %entry.at
  %tasks.at = getelementptr i64, ptr %entry.at, i64 1
  %tasks = load i64, ptr %tasks.at
  %few.at = getelementptr i64, ptr %entry.at, i64 2
  %few = load i64, ptr %few.at
  %number = sub i64 %part, %begin
  %first = mul i64 %number, %few
  %next = add i64 %first, %few
  %within = icmp slt i64 %next, %tasks
  %last = select i1 %within, i64 %next, i64 %tasks
  %do = load ptr, ptr %call
  call void %do(ptr %call, ptr %frame, i64 0, i64 0, i64 %first, i64 %last)
  atomicrmw add ptr %ended.at, i64 1 release
  br label %take
end:
  ret void
}

define void @deep(ptr %job, ptr %frame, i64 %side) nounwind {
entry:
  %ended.at = getelementptr i64, ptr %job, i64 1
  %fresh.at = getelementptr i64, ptr %frame, i64 2
  %slices.at = getelementptr i64, ptr %job, i64 8
  %slices = load i64, ptr %slices.at
  %what.at = getelementptr i64, ptr %job, i64 9
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
  br i1 %again, label %few, label %complete
complete:
  atomicrmw add ptr %ended.at, i64 1 release
  br label %take
end:
  store i64 1, ptr %fresh.at
  ret void
}

define void @perform(ptr %order) nounwind {
  %jobs = load ptr, ptr %order
  %length.at = getelementptr i64, ptr %order, i64 1
  %length = load i64, ptr %length.at
  %share.at = getelementptr i64, ptr %order, i64 3
  %share = load ptr, ptr %share.at
  %system.at = getelementptr i64, ptr %order, i64 5
  %system = load ptr, ptr %system.at
  %busy.at = getelementptr i64, ptr %order, i64 6
  %busy = load ptr, ptr %busy.at
  %posts.at = getelementptr i64, ptr %order, i64 7
  %posts = load ptr, ptr %posts.at
  %helpers.at = getelementptr i64, ptr %order, i64 8
  %helpers = load i64, ptr %helpers.at
  %scratch.at = getelementptr i64, ptr %order, i64 9
  %scratch = load ptr, ptr %scratch.at
  %size.at = getelementptr i64, ptr %order, i64 10
  %size = load i64, ptr %size.at
  %words = mul i64 %length, 16
  call void @copy(ptr %scratch, ptr %jobs, i64 %words)
  %frames = getelementptr i64, ptr %scratch, i64 %words
  call void %share(
    ptr %busy, ptr %posts, i64 %helpers, ptr @walk, ptr %order, ptr %frames, i64 %size, ptr %system
  )
  ret void
}
"""


@cache
def shims(kinds: frozenset[tuple[Any, ...]]) -> Mapping[tuple[Any, ...], Any]:
    """``call`` for kernels whose arguments, scratch and tasks left out, are of these C types, for each of several."""
    place, number = ctypes.c_void_p, ctypes.c_int64
    names = {some: _name(some) for some in kinds}
    signatures = tuple((name, place, place, *[number] * 4) for name in sorted(names.values()))
    found = load(shims_text(kinds), signatures, host()).functions
    return {some: found[name] for some, name in names.items()}


def shims_text(kinds: frozenset[tuple[Any, ...]]) -> str:
    """What LLVM makes ``shims`` from."""
    return "".join(sorted(_shim(_name(some), some) for some in kinds))


def _name(kinds: tuple[Any, ...]) -> str:
    return ".".join(["call", *(WORDS[kind][0] for kind in kinds)])


def _shim(name: str, kinds: tuple[Any, ...]) -> str:
    arguments, names = [], []
    for n, kind in enumerate(kinds):
        word, convert = WORDS[kind]
        words = {part: 4 + 4 * n + k for k, part in enumerate(("base", "offset", "each", "step"))}
        arguments.append(ARGUMENT.format(n=n, **words) + "  " + convert.format(n=n))
        names.append(f"{word} %a{n}, ")
    text = CALL.replace("{arguments}", "\n".join(arguments)).replace("{list}", "".join(names))
    return text.replace("{name}", name)


@cache
def functions() -> Mapping[str, Callable[..., None]]:
    """``each``, ``deep`` and ``perform``, which does the jobs of an order here and at the posts."""
    place, number = ctypes.c_void_p, ctypes.c_int64
    signatures = (
        ("each", place, place, number),
        ("deep", place, place, number),
        ("perform", place),
    )
    return load(TEXT, signatures, host()).functions


HEAD, SCRATCH = 11, 9
"""Words of an order before the numbers of the frame; which of them says where the scratch is."""


def overhead(jobs: int) -> int:
    """Bytes that so many jobs take in the scratch, before what workers have."""
    return 128 * jobs
