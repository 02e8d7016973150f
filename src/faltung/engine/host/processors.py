"""Processors: how many this process may keep busy (those that it may run on, and no more than its container pays for),
and how a thread leaves the one that it runs on.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path


@cache
def usable() -> int:
    """Processors that this process may keep busy, at least 1; asked once."""
    return max(1, min(_allowed(), quota() or _allowed()))


def _allowed() -> int:
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(root: Path = Path("/")) -> int | None:
    """Processors that the Linux control groups of this process allow it, rounded up; None where they do not tell.

    A group may take so much time in each period; the groups around it bind as well. Version 2 says both numbers in
    ``cpu.max``, version 1 in two files. A container may see its own group in the place of the root.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            place = top / group.lstrip("/")
            found += [_share(folder) for folder in (place, *place.parents) if folder.is_relative_to(top)]
    return min((share for share in found if share), default=None)


def _share(folder: Path) -> int | None:
    """The processors that one group may use."""
    try:
        if (folder / "cpu.max").exists():
            time, period = (folder / "cpu.max").read_text().split()
        else:
            time, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return -(-int(time) // int(period)) if int(time) > 0 else None  # -1 in version 1: no limit
    except (OSError, ValueError):  # "max" in version 2: no limit
        return None


def here() -> int | None:
    """The number of the processor that the calling thread runs on, if the system tells it and lets threads choose."""
    ask = _sched_getcpu()
    return ask() if ask else None


@cache
def _sched_getcpu() -> Callable[[], int] | None:
    return ctypes.CDLL(None).sched_getcpu if hasattr(os, "sched_setaffinity") else None


def keep_off(thread: int) -> set[int]:
    """Keep a thread that sleeps off the processor that we run on; these it may run on again when it is awake.

    Linux may wake it here although another processor has nothing to do; then it waits until this one has.
    """
    if (place := here()) is None:
        return set()
    with suppress(OSError):  # a system that lets nobody choose
        allowed = os.sched_getaffinity(thread)
        if len(allowed) > 1 and place in allowed:
            os.sched_setaffinity(thread, allowed - {place})
            return allowed
    return set()


def allow(some: set[int]) -> None:
    """The calling thread may run on these processors."""
    os.sched_setaffinity(0, some)


@contextmanager
def apart() -> Iterator[Callable[[], None]]:
    """Keep the calling thread where it is for a while; it gets what keeps another thread off that processor.

    Both choose from those processors that the calling thread may run on, so that none is kept where it was before.
    """
    if (place := here()) is None:
        yield lambda: None
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {place})
    try:
        yield lambda: os.sched_setaffinity(0, allowed - {place} or allowed)
    finally:
        os.sched_setaffinity(0, allowed)


def leave() -> None:
    """Move the calling thread to another processor, if it may run on another one; it may come back later.

    Linux now and then wakes a worker on the processor of the thread that calls it, and leaves both there for a long
    time although another one has nothing to do.
    """
    allowed, here = os.sched_getaffinity(0), ctypes.CDLL(None).sched_getcpu()
    if others := allowed - {here}:
        os.sched_setaffinity(0, others)
        os.sched_setaffinity(0, allowed)
