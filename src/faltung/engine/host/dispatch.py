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

from faltung.engine.host import modes
from faltung.engine.host.compile import load
from faltung.engine.host.machine import host

TEXT = """
define void @pause(i64 %n, ptr %system) nounwind {
  {pause}
  %low = and i64 %n, 63
  %long = icmp eq i64 %low, 0
  br i1 %long, label %pass, label %end
pass:  ; now and then another thread may need this processor more
  %yield = load ptr, ptr %system
  call void %yield()
  br label %end
end:
  ret void
}

define internal i64 @processor(ptr %system) nounwind {
  %ask.at = getelementptr ptr, ptr %system, i64 1
  %ask = load ptr, ptr %ask.at
  %none = icmp eq ptr %ask, null
  br i1 %none, label %end, label %tell
tell:
  %found = call i32 %ask()
  %number = sext i32 %found to i64
  br label %end
end:
  %answer = phi i64 [ -1, %0 ], [ %number, %tell ]
  ret i64 %answer
}

define void @alone(ptr %do, ptr %job, ptr %scratch) nounwind {
  %mode = alloca i64
  call void @flush(ptr %mode)
  call void %do(ptr %job, ptr %scratch)
  call void @restore(ptr %mode)
  ret void
}

define void @share(
    ptr %busy, ptr %posts, i64 %helpers, ptr %do, ptr %job, ptr %scratch, i64 %size, ptr %system
) nounwind {
entry:
  %mode = alloca i64
  call void @flush(ptr %mode)
  %several = icmp sgt i64 %helpers, 0
  br i1 %several, label %enter, label %own
enter:  ; unless somebody else is sharing a job
  %was = cmpxchg ptr %busy, i64 0, i64 1 acq_rel acquire, align 8
  %free = extractvalue { i64, i1 } %was, 1
  br i1 %free, label %here, label %own
here:
  %processor = call i64 @processor(ptr %system)
  br label %put
put:  ; the job on each post
  %p = phi i64 [ 0, %here ], [ %p.up, %put ]
  %p.up = add i64 %p, 1
  %p.at = getelementptr ptr, ptr %posts, i64 %p
  %p.post = load ptr, ptr %p.at
  %p.do = getelementptr i64, ptr %p.post, i64 1
  store ptr %do, ptr %p.do
  %p.job = getelementptr i64, ptr %p.post, i64 2
  store ptr %job, ptr %p.job
  %p.offset = mul i64 %p.up, %size
  %p.scratch = getelementptr i8, ptr %scratch, i64 %p.offset
  %p.scratch.at = getelementptr i64, ptr %p.post, i64 3
  store ptr %p.scratch, ptr %p.scratch.at
  %p.processor = getelementptr i64, ptr %p.post, i64 5
  store atomic i64 %processor, ptr %p.processor monotonic, align 8
  store atomic i64 1, ptr %p.post release, align 8
  %p.more = icmp slt i64 %p.up, %helpers
  br i1 %p.more, label %put, label %own
own:  ; as much of it as the others leave
  %shared = phi i1 [ false, %entry ], [ false, %enter ], [ true, %put ]
  call void %do(ptr %job, ptr %scratch)
  br i1 %shared, label %back, label %end
back:  ; the job from each post; who has begun must end
  %b = phi i64 [ 0, %own ], [ %b.up, %empty ]
  %b.at = getelementptr ptr, ptr %posts, i64 %b
  %b.post = load ptr, ptr %b.at
  %b.taken = cmpxchg ptr %b.post, i64 1, i64 0 acq_rel acquire, align 8
  %b.idle = extractvalue { i64, i1 } %b.taken, 1
  br i1 %b.idle, label %empty, label %wait
wait:
  %n = phi i64 [ 1, %back ], [ %n.up, %wait ]
  call void @pause(i64 %n, ptr %system)
  %n.up = add i64 %n, 1
  %state = load atomic i64, ptr %b.post acquire, align 8
  %ended = icmp eq i64 %state, 0
  br i1 %ended, label %empty, label %wait
empty:
  %b.up = add i64 %b, 1
  %b.more = icmp slt i64 %b.up, %helpers
  br i1 %b.more, label %back, label %leave
leave:
  store atomic i64 0, ptr %busy release, align 8
  br label %end
end:
  call void @restore(ptr %mode)
  ret void
}

define void @help(ptr %post, ptr %system) nounwind {
entry:
  %mode = alloca i64
  call void @flush(ptr %mode)
  %other.at = getelementptr i64, ptr %post, i64 5
  %crowded.at = getelementptr i64, ptr %post, i64 6
  store i64 0, ptr %crowded.at
  %patience.at = getelementptr i64, ptr %post, i64 4
  br label %look
look:
  %n = phi i64 [ 0, %entry ], [ %n.up, %stay ], [ 0, %do ]
  %state = load atomic i64, ptr %post acquire, align 8
  %there = icmp eq i64 %state, 1
  br i1 %there, label %take, label %pause
take:
  %taken = cmpxchg ptr %post, i64 1, i64 2 acq_rel acquire, align 8
  %mine = extractvalue { i64, i1 } %taken, 1
  br i1 %mine, label %do, label %pause
do:
  %do.at = getelementptr i64, ptr %post, i64 1
  %do.it = load ptr, ptr %do.at
  %job.at = getelementptr i64, ptr %post, i64 2
  %job = load ptr, ptr %job.at
  %scratch.at = getelementptr i64, ptr %post, i64 3
  %scratch = load ptr, ptr %scratch.at
  call void %do.it(ptr %job, ptr %scratch)
  store atomic i64 0, ptr %post release, align 8
  br label %look
pause:
  %n.up = add i64 %n, 1
  %low = and i64 %n, 63
  %ask = icmp eq i64 %low, 0
  br i1 %ask, label %where, label %wait
where:
  %processor = call i64 @processor(ptr %system)
  %other = load atomic i64, ptr %other.at monotonic, align 8
  %known = icmp sge i64 %other, 0
  %same = icmp eq i64 %processor, %other
  %crowded = and i1 %known, %same
  br i1 %crowded, label %leave, label %wait
leave:
  store i64 1, ptr %crowded.at
  store atomic i64 -1, ptr %other.at monotonic, align 8
  br label %end
wait:
  call void @pause(i64 %n.up, ptr %system)
  br label %stay
stay:
  %patience = load atomic i64, ptr %patience.at monotonic, align 8
  %patient = icmp slt i64 %n.up, %patience
  br i1 %patient, label %look, label %end
end:
  call void @restore(ptr %mode)
  ret void
}
"""

DO = """
define void @do(ptr %job, ptr %scratch) nounwind {
entry:
  %tasks.at = getelementptr i64, ptr %job, i64 8
  %tasks = load i64, ptr %tasks.at
  %few.at = getelementptr i64, ptr %job, i64 9
  %few = load i64, ptr %few.at
  %kernel.at = getelementptr i64, ptr %job, i64 10
  %kernel = load ptr, ptr %kernel.at
{loads}
  br label %take
take:
  %first = atomicrmw add ptr %job, i64 %few monotonic
  %left = icmp slt i64 %first, %tasks
  br i1 %left, label %do, label %end
do:
  %next = add i64 %first, %few
  %within = icmp slt i64 %next, %tasks
  %last = select i1 %within, i64 %next, i64 %tasks
  call void %kernel({arguments}ptr %scratch, i64 %first, i64 %last)
  br label %take
end:
  ret void
}
"""

PAUSES = {
    modes.X86: ("llvm.x86.sse2.pause", "", ""),
    modes.ARM: ("llvm.aarch64.hint", "i32", "1"),
    modes.OTHER: ("llvm.donothing", "", ""),
}
"""How a processor is told that a thread only waits: LLVM's name for it, the type of its argument, and the argument."""

KINDS = {
    ctypes.c_void_p: ("ptr", "q"),
    ctypes.c_int64: ("i64", "q"),
    ctypes.c_int32: ("i32", "i4x"),
    ctypes.c_float: ("float", "f4x"),
    ctypes.c_double: ("double", "d"),
}
"""What LLVM calls a C type, and how ``struct`` puts one into a word."""


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
    loads, arguments = [], []
    for number, kind in enumerate(kinds):
        name, a = KINDS[kind][0], f"%a{number}"
        loads += [f"  {a}.at = getelementptr i64, ptr %job, i64 {11 + number}", f"  {a} = load {name}, ptr {a}.at"]
        arguments.append(f"{name} {a}, ")
    text = DO.replace("{loads}", "\n".join(loads)).replace("{arguments}", "".join(arguments))
    layout = struct.Struct("=q56xqqq" + "".join(KINDS[kind][1] for kind in kinds))
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
    """``alone``, ``share``, ``help`` and ``pause`` in LLVM's language."""
    mode = modes.text(processor)
    name, kind, argument = PAUSES[mode]
    pause = f"call void @{name}({kind} {argument})"
    return f"{mode}\ndeclare void @{name}({kind})\n" + TEXT.replace("{pause}", pause)


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
