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

from faltung.engine.host import words
from faltung.engine.host.compile import load
from faltung.engine.host.machine import host

EACH, DEEP = "each", "deep"

CALL = """
def {name}(call, frame, example, slice, first, last):
    kernel_{name}(call, {arguments}frame[1] + call[3], first, last)
"""
ARGUMENT = "frame[call[{0}]] + call[{0} + 1] + call[{0} + 2] * example + call[{0} + 3] * slice, "

FUNCTIONS = """
def copy(target, source, count):
    n = 0
    while n < count:
        target[n] = source[n]
        n += 1

def walk(order, frame):  # the worker's own memory lies behind the frame
    length = order[1]
    pause = order[4]
    job = order[9]
    copy(frame, order[11:], order[2])
    frame[1] = frame + (8 * order[2] + 63 & -64)
    worker = (frame - job[16 * length:]) // order[10]
    end = job[16 * length:]
    while job < end:
        do = job[10]
        do(job, frame, worker & 1)
        n = 0
        while load_acquire(job[1:]) < job[8]:
            n += 1
            pause(n, order[5])
        job = job[16:]

def each(job, frame, side):
    parts = job[8]
    while add_relaxed(job, 1) < parts:  # some are left: the next one from our side
        part = add_relaxed(job[side + 2:], 1)
        if side:
            part = parts - 1 - part
        entry = job[9]
        begin = 0
        while part >= entry[3]:  # whose part is it?
            begin = entry[3]
            entry = entry[4:]
        call = entry[0]
        tasks = entry[1]
        first = (part - begin) * entry[2]
        last = first + entry[2]
        do = call[0]
        do(call, frame, 0, 0, first, last if last < tasks else tasks)
        add_release(job[1:], 1)

def several(calls, length, frame, example, slice):
    n = 0
    while n < length:
        call = calls[n]
        do = call[0]
        do(call, frame, example, slice, 0, call[2])
        n += 1

def deep(job, frame, side):
    what = job[9]
    slice = add_relaxed(job, 1)
    while slice < job[8]:
        example = slice * what[1]
        stop = example + what[1] if example + what[1] < what[0] else what[0]
        frame[2] = 1
        while example < stop:  # the next examples, and the list for so many
            count = what[2] if what[2] < stop - example else stop - example
            calls = what[4:]
            while calls[0] != count:
                calls = calls[3:]
            several(calls[1], calls[2], frame, example, slice)
            frame[2] = 0
            example += count
        add_release(job[1:], 1)
        slice = add_relaxed(job, 1)
    frame[2] = 1

def perform(order):
    scratch = order[9]
    size = 16 * order[1]
    share = order[3]
    copy(scratch, order[0], size)
    share(order[6], order[7], order[8], walk, order, scratch[size:], order[10], order[5])
"""
TEXT = words.module(["each", "deep", "perform"], FUNCTIONS)


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
    shims, kernels = [], {}
    for name, some in sorted((_name(some), some) for some in kinds):
        arguments = "".join(ARGUMENT.format(4 + 4 * n) for n in range(len(some)))
        shims.append(CALL.format(name=name, arguments=arguments))
        kernels[f"kernel_{name}"] = f"void ({', '.join(words.C[kind] for kind in some)}, ptr, i64, i64)", 1
    return words.module(sorted(map(_name, kinds)), *shims, outside=kernels)


def _name(kinds: tuple[Any, ...]) -> str:
    return "_".join(["call", *(words.C[kind] for kind in kinds)])


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
