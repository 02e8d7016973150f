"""One job for several threads, in machine code: none of them needs Python's lock to begin, to go on, or to end.

A *job* is a kernel, its arguments, and a counter of the tasks that somebody has taken; ``do`` takes the next few and
does them, until none is left. A *post* is a worker's place: ``share`` puts a job there, does it too, takes it back from
the posts that nobody came to, and waits for the others. A worker at its post (``help``) looks out for jobs; after some
time without any it goes. So a worker that comes late, or never, costs nothing; after ``share`` nobody reads the job.
Where another thread shares a job at this moment, ``share`` does all by itself.

A job, in words of 8 bytes: 0 the tasks taken so far, alone in its cache line; 8 all tasks, 9 how many to take at once,
10 the kernel, from 11 on its arguments. A post: 0 its state (0 empty, 1 a job waits there, 2 it is being done),
1 ``do``, 2 the job, 3 the worker's scratch, 4 its patience: after so many looks without a job it goes; 5 the processor
of whoever put the last job there, and 6 whether the worker has left because it runs on the same one: a job that is then
half done by two threads in turn takes longer than one thread needs for it.

What the system does for us, as the places of its functions: 0 let another thread use this processor, 1 tell its number
(0 where the system does not tell).
"""

import ctypes
import os
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from faltung.engine.host import modes, words
from faltung.engine.host.compile import load
from faltung.engine.host.machine import host

TEXT = """
def pause(n, system):
    spin()
    if n & 63 == 0:  # now and then another thread may need this processor more
        give_way = system[0]
        give_way()

def processor(system):
    ask = system[1]
    return half(ask()) if ask else -1

def alone(do, job, scratch):
    mode = local(1)
    flush(mode)
    do(job, scratch)
    restore(mode)

def share(busy, posts, helpers, do, job, scratch, size, system):
    mode = local(1)
    flush(mode)
    shared = helpers > 0 and exchanged(busy, 0, 1)  # unless somebody else is sharing a job
    if shared:
        put(posts, helpers, do, job, scratch, size, processor(system))
    do(job, scratch)  # as much of it as the others leave
    if shared:
        take_back(posts, helpers, system)
        store_release(busy, 0)
    restore(mode)

def put(posts, helpers, do, job, scratch, size, processor):  # the job on each post
    n = 0
    while n < helpers:
        post = posts[n]
        n += 1
        post[1] = do
        post[2] = job
        post[3] = scratch + n * size
        store_relaxed(post[5:], processor)
        store_release(post, 1)

def take_back(posts, helpers, system):  # the job from each post; who has begun must end
    n = 0
    while n < helpers:
        post = posts[n]
        if not exchanged(post, 1, 0):
            looks = 1
            while load_acquire(post) != 0:
                pause(looks, system)
                looks += 1
        n += 1

def help(post, system):
    mode = local(1)
    flush(mode)
    post[6] = n = 0
    while n < load_relaxed(post[4:]) or n == 0:
        if load_acquire(post) == 1 and exchanged(post, 1, 2):
            do = post[1]
            do(post[2], post[3])
            store_release(post, 0)
            n = 0
            continue
        if n & 63 == 0:
            other = load_relaxed(post[5:])
            if other >= 0 and processor(system) == other:
                post[6] = 1
                store_relaxed(post[5:], -1)
                break
        n += 1
        pause(n, system)
    restore(mode)
"""

DO = """
def do(job, scratch):
    first = add_relaxed(job, job[9])
    while first < job[8]:
        last = first + job[9]
        kernel(job, {arguments}scratch, first, last if last < job[8] else job[8])
        first = add_relaxed(job, job[9])
"""

OUTSIDE: dict[str, tuple[str, None]] = {
    "flush": ("void (ptr)", None),
    "restore": ("void (ptr)", None),
    "spin": ("void ()", None),
}
SPIN = """
declare void @{name}({kind})

define internal void @spin() nounwind {{
  call void @{name}({argument})
  ret void
}}
"""
PAUSES = {
    modes.X86: ("llvm.x86.sse2.pause", "", ""),
    modes.ARM: ("llvm.aarch64.hint", "i32", "1"),
    modes.OTHER: ("llvm.donothing", "", ""),
}
"""How a processor is told that a thread only waits: LLVM's name for it, the type of its argument, and the argument."""

FORMATS = {"ptr": "q", "i64": "q", "i32": "i4x", "float": "f4x", "double": "d"}
"""How ``struct`` puts an argument into a word."""


@dataclass(frozen=True)
class Kernel:
    """A compiled function whose last arguments are a scratch and the tasks first .. last; it makes jobs."""

    address: int
    do: int
    layout: struct.Struct
    memory: type[ctypes.Array[ctypes.c_char]]
    """Of a job."""
    owner: Any
    """Keeps the machine code of ``do`` in memory."""

    def job(self, tasks: int, few: int, arguments: Sequence[Any]) -> Any:
        """A job that nobody has begun, where machine code can write."""
        job = self.memory()
        self.layout.pack_into(job, 0, 0, tasks, few, self.address, *arguments)
        return job


def kernel(function: Any) -> Kernel:
    """The kernel of a function that ``compile`` has made; the function remembers it."""
    try:
        return function.kernel
    except AttributeError:
        do, layout = _do(function.argtypes[:-3])
        function.kernel = Kernel(address(function), address(do), layout, ctypes.c_char * layout.size, do)
        return function.kernel


@cache
def _do(kinds: tuple[Any, ...]) -> tuple[Any, struct.Struct]:
    """``do`` for kernels whose other arguments are of these kinds, and the layout of their jobs."""
    types = [words.C[kind] for kind in kinds]
    text = DO.format(arguments="".join(f"job[{11 + number}], " for number in range(len(kinds))))
    text = words.module(["do"], text, outside={"kernel": (f"void ({', '.join(types)}, ptr, i64, i64)", 10)})
    layout = struct.Struct("=q56xqqq" + "".join(FORMATS[kind] for kind in types))
    return load(text, (("do", ctypes.c_void_p, ctypes.c_void_p),), host()).functions["do"], layout


def alone(kernel: Kernel, job: Any, scratch: int) -> None:
    """Do a job here."""
    _code()["alone"](kernel.do, job, scratch)


def share(busy: int, posts: Any, helpers: int, kernel: Kernel, job: Any, scratch: int, size: int) -> None:
    """Do a job here, and at the first ``helpers`` of the posts (a C array of addresses) if somebody comes.

    At ``busy`` lies a word that is 0 while nobody uses these posts; at ``scratch`` a scratch of this size for each.
    """
    _code()["share"](busy, posts, helpers, kernel.do, job, scratch, size, _system())


def help(post: int) -> None:
    """Do the jobs that come to a post, until patience ends, or the worker turns out to be where jobs come from."""
    _code()["help"](post, _system())


def text(processor: str | None = None) -> str:
    """The text of ``alone``, ``share``, ``help`` and ``pause``."""
    mode = modes.text(processor)
    name, kind, argument = PAUSES[mode]
    spin = SPIN.format(name=name, kind=kind, argument=f"{kind} {argument}")
    return words.module(["alone", "share", "help", "pause"], TEXT, outside=OUTSIDE, before=mode + spin)


@cache
def _code() -> Mapping[str, Callable[..., None]]:
    place, number = ctypes.c_void_p, ctypes.c_int64
    share = ("share", place, place, number, place, place, place, number, place)
    alone = ("alone", place, place, place)
    return load(text(), (alone, share, ("help", place, place), ("pause", number, place)), host()).functions


def sharing() -> tuple[tuple[int, int, int], Any]:
    """Where ``share`` and ``pause`` lie, and what the system does for us, for other machine code; and what must live as
    long as somebody knows these places.
    """
    code, system = _code(), _system()
    return (address(code["share"]), address(code["pause"]), ctypes.addressof(system)), (code, system)


def address(function: Any) -> int:
    """Where the machine code of a function lies."""
    return ctypes.cast(getattr(function, "made", function), ctypes.c_void_p).value or 0


@cache
def _system() -> Any:
    """The places of the system's functions."""
    if sys.platform == "win32":
        return (ctypes.c_void_p * 2)(address(ctypes.WinDLL("kernel32").SwitchToThread), 0)
    library = ctypes.CDLL(None)
    tell = getattr(library, "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None
    return (ctypes.c_void_p * 2)(address(library.sched_yield), address(tell) if tell else 0)
