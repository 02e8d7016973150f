"""The workers: threads that run compiled kernels side by side.

A kernel's last arguments are a scratch for its worker and the tasks first .. last to do. Tasks write to places of their
own, so it never changes a result who does them, nor how many threads there are: each takes the next few while there are
any.

A worker that has done its share stays awake for a moment, so that the next kernel of a step finds it at its post; then
it sleeps. Measured on 2 cores (Zen 5), with a kernel that does nothing: 2.8 microseconds to launch it on the calling
thread, 3.1 with a worker that is awake, 11 with one that is woken.
"""

import atexit
import ctypes
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from faltung.engine.host import arena, direct, dispatch, processors, python, quick
from faltung.engine.host import perform as programs
from faltung.engine.host.arena import address
from faltung.engine.host.recording import recorder
from faltung.errors import SettingError

SMALL = 200_000
"""Operations below which the calling thread works alone, and as many as a thread takes at once: a few microseconds."""
WAKING = 5 * SMALL
"""Operations for which it pays to wake a worker that sleeps."""
LONG = 5 * SMALL
"""Operations for which it pays to let other threads of Python run meanwhile."""
AWAKE = 200e-6
"""Seconds for which a worker without a job stays at its post; between the kernels of a step lie 20 to 150e-6."""


PATIENCE, OTHER, CROWDED = 4, 5, 6
"""The words of a post that say after how many looks without a job the worker goes, on which processor jobs come from,
and whether the worker has left because it was on the same one."""


class _Worker:
    """A thread that waits for jobs at its post, and sleeps in between."""

    def __init__(self):
        self.post = _words()
        self.post[PATIENCE], self.post[OTHER] = _patience(), -1
        self.place = self.post.ctypes.data
        self._ending = self._sleeps = False
        self._home: set[int] = set()
        """The processors that it may run on, while it is kept off the one that calls it."""
        self._calls: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._live, daemon=True, name="faltung worker")
        self._thread.start()

    def _live(self) -> None:
        while not self._ending:
            dispatch.help(self.place)
            if self.post[CROWDED]:
                processors.leave()
            else:
                self._sleep()

    def _sleep(self) -> None:
        self._sleeps = True
        self._calls.get()
        self._sleeps = False
        if self._home:
            processors.allow(self._home)

    def wake(self) -> None:
        """Send the worker to its post if it sleeps, and back to it if it is just leaving.

        Whether it is there cannot be asked: on its way to sleep it waits for Python's lock, which the caller holds.
        """
        if self._calls.empty():
            if self._sleeps:
                self._home = processors.keep_off(self._thread.native_id or 0)
            self._calls.put(None)

    def end(self) -> None:
        """Wait until the thread is over; a job that it has begun, it ends."""
        self._ending = True
        self.post[PATIENCE] = 0
        self._calls.put(None)
        self._thread.join()


class _Team:
    """The workers of this process: more and more of them, until it ends."""

    def __init__(self):
        self.busy = _words()  # the first is 1 while a job is shared
        self.posts = (ctypes.c_void_p * 0)()
        self._all_posts = [self.posts]  # another thread may just be reading older ones
        self.place = self.busy.ctypes.data
        self.row = np.array([self.place, ctypes.addressof(self.posts), 0])
        """That place, that of the posts, and how many they are."""
        self.workers: list[_Worker] = []
        self._ended = False
        self._lock = threading.Lock()

    def call(self, helpers: int) -> None:
        """Wake so many workers, or start them, if the system lets us."""
        if len(self.workers) < helpers:
            with self._lock:
                while len(self.workers) < helpers and not self._ended:
                    try:
                        self.workers.append(_Worker())
                    except RuntimeError:  # too many threads, or Python is about to end
                        break
                posts = (ctypes.c_void_p * len(self.workers))(*(worker.place for worker in self.workers))
                self._all_posts.append(posts)
                self.row[1] = ctypes.addressof(posts)  # first, so that there are never fewer than said
                self.posts, self.row[2] = posts, len(posts)
        for worker in self.workers[:helpers]:
            worker.wake()

    def end(self) -> None:
        """Stop the workers, for good, before Python takes their code away."""
        with self._lock:
            self._ended = True
        for worker in self.workers:
            worker.end()


def _words() -> NDArray[np.int64]:
    """Words that share their cache line with nothing else."""
    words = arena.fresh((arena.LINE // 8,), np.dtype(np.int64))
    words[:] = 0
    return words


_team = _Team()


def _forget() -> None:
    """In the child of a fork there are no threads, and locks stay as they were: begin with a new team."""
    global _team
    _team = _Team()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(lambda: _team.end())


def launch(
    function: Callable[..., None],
    *arguments: Any,
    tasks: int,
    work: float,
    scratch: int = 0,
    threads: int | None = None,
) -> None:
    """Do ``function(*arguments, scratch, first, last)`` for all tasks, with subnormal numbers flushed to zero.

    ``function`` is one that ``compile`` has made. A place among the arguments is an array, which stands for its first
    number, an array and how many bytes behind that, or None. ``work`` is an estimate of all operations, ``scratch`` the
    bytes that one thread needs. At most ``threads`` work (by default ``count()``), and the calling thread alone where
    the work is small, or another Python thread uses the workers now. While somebody listens, the launch is noted, not
    done (see ``recording``).
    """
    if (listener := recorder()) is not None:
        listener.launch(function, arguments, tasks, work, scratch)
        return
    kernel = dispatch.kernel(function)
    numbers = [address(a) if type(a) is ndarray else a if type(a) is int else _number(a) for a in arguments]
    if work < SMALL or tasks <= 1 or (threads := min(threads or count(), tasks)) == 1:
        memory = arena.scratch(scratch)
        dispatch.alone(kernel, kernel.job(tasks, max(1, tasks), numbers), memory.address)
        return
    team = _team
    if work >= WAKING:
        team.call(threads - 1)
    helpers = min(threads - 1, len(team.posts))
    few = max(1, min(tasks // (8 * threads), int(tasks * SMALL / work)))
    size = _lines(scratch)
    memory = arena.scratch(size * (helpers + 1))
    dispatch.share(team.place, team.posts, helpers, kernel, kernel.job(tasks, few, numbers), memory.address, size)


def perform(jobs: int, many: int, numbers: bytes, work: float, scratch: int) -> None:
    """Do the jobs of a program; ``work`` is an estimate of all operations, ``scratch`` what one thread needs."""
    team, threads = _team, count() if work >= SMALL else 1
    if threads > 1 and work >= WAKING:
        team.call(threads - 1)
    posts = team.posts
    helpers = min(threads - 1, len(posts))
    size = _lines(scratch)
    memory = arena.scratch(size * (helpers + 1) + programs.overhead(many))
    own = team.place, ctypes.addressof(posts), helpers, memory.address, size
    programs.functions()["perform"](_head.pack(jobs, many, len(numbers) // 8, *_sharing()[0], *own) + numbers)


class Performer:
    """``perform`` for jobs that are done often, as a function of arrays.

    The numbers are 0, 0, 1, and then places, each so many bytes behind the first number of an array; that of number -1
    are ``inside`` bytes which nobody else uses.
    """

    def __init__(
        self, jobs: int, many: int, sources: Sequence[tuple[int, int]], *, work: float, scratch: int, inside: int
    ):
        self._sharing, self._alive = _sharing()  # what is alive has places in the orders
        self._jobs, self._many, self._sources, self._work, self._inside = jobs, many, sources, work, inside
        self._size = _lines(scratch)
        self._known: dict[int, tuple[Callable[..., None], int]] = {}
        self.owner: Any = None
        """What shall live as long as the function."""

    def __call__(self, *arrays: NDArray[Any]) -> None:
        threads = self._threads()
        function, need = self._known.get(threads) or self._made(threads)
        team = _team
        if threads > 1 and self._work >= WAKING:
            team.call(threads - 1)
        function(arena.scratch(need).memory, team.row, *arrays)

    def quick(self) -> tuple[list[int], list[int], Any] | None:
        """Words of an entry (see ``quick``): about threads, and about the order; and what must be kept.

        None where machine code could not find out how many threads are wanted.
        """
        if self._work >= SMALL and not python.TELLS:
            return None
        threads, text, wake = self._threads(), None, None
        if self._work >= SMALL and (found := _environment(b"FALTUNG_THREADS")) is not None:
            text = ctypes.create_string_buffer(found)
        if threads > 1 and self._work >= WAKING:
            wake = partial(_team.call, threads - 1)
        behind = programs.overhead(self._many) + self._size * threads
        memory = quick.scratch(behind + self._inside)
        order = np.array(self._order(), np.int64)
        order[programs.SCRATCH] = memory.address
        places = []
        for word, (number, offset) in enumerate(self._sources, programs.HEAD + 3):
            if number < 0:
                order[word] = memory.address + behind + offset
            else:
                places += [word, number, offset]
        asked = [int(self._work >= SMALL), 0 if text is None else ctypes.addressof(text)]
        row = _team.row if threads > 1 else None
        perform = programs.functions()["perform"]
        words = [
            0 if wake is None else id(wake), dispatch.address(perform), int(self._work >= LONG), order.ctypes.data,
            0 if row is None else row.ctypes.data, threads - 1, len(places) // 3, *places,
        ]  # fmt: skip
        return asked, words, (text, wake, memory, order, row, perform, self)

    def _threads(self) -> int:
        return count() if self._work >= SMALL else 1

    def _order(self) -> list[int]:
        """The order, without what is known only when it is given."""
        words = 3 + len(self._sources)
        return [self._jobs, self._many, words, *self._sharing, 0, 0, 0, 0, self._size, 0, 0, 1, *[0] * (words - 3)]

    def _made(self, threads: int) -> tuple[Callable[..., None], int]:
        """The function for so many threads, and what it needs of a thread's scratch."""
        order = self._order()
        begin = _lines(8 * len(order))
        behind = begin + programs.overhead(self._many) + self._size * threads
        places = [(programs.SCRATCH, direct.SCRATCH, begin)]
        for word, (number, offset) in enumerate(self._sources, programs.HEAD + 3):
            inner = number < 0
            places.append((word, direct.SCRATCH if inner else direct.ARRAYS + number, offset + inner * behind))
        self._known[threads] = direct.function(order, places, threads - 1), behind + self._inside
        return self._known[threads]


def _getenv() -> Callable[[bytes], bytes | None]:
    """A function that reads an environment variable: the system's, since Python's takes five times as long."""
    if sys.platform == "win32":
        return lambda name: os.fsencode(found) if (found := os.environ.get(os.fsdecode(name))) is not None else None
    return ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.c_char_p)(("getenv", ctypes.PyDLL(None)))


_environment = _getenv()
_head = struct.Struct(f"={programs.HEAD}q")
_sharing = cache(dispatch.sharing)


def _lines(count: int) -> int:
    """So many bytes, up to a whole cache line."""
    return -(-count // arena.LINE) * arena.LINE


def _number(argument: Any) -> Any:
    """An argument as machine code takes it."""
    if type(argument) is tuple:
        return address(argument[0]) + argument[1]
    if type(argument) is ndarray:
        return address(argument)
    return 0 if argument is None else argument


def count() -> int:
    """How many threads work: ``FALTUNG_THREADS``, or as many as this process may use processors."""
    asked = _environment(b"FALTUNG_THREADS")
    return processors.usable() if asked is None else _asked(asked)


@cache
def _asked(text: bytes) -> int:
    if not text.isdigit() or int(text) < 1:
        raise SettingError(
            f"got FALTUNG_THREADS={os.fsdecode(text)!r}, expected a whole number of at least 1",
            way_out="unset FALTUNG_THREADS",
        )
    return int(text)


@cache
def _patience() -> int:
    """How many looks take as long as a worker stays awake."""
    post = _words()

    def seconds(looks: int) -> float:
        post[PATIENCE] = looks
        begun = time.perf_counter()
        dispatch.help(post.ctypes.data)
        return time.perf_counter() - begun

    short, long = (min(seconds(looks) for _ in range(10)) for looks in (1, 61))
    return int(AWAKE * 60 / max(long - short, 1e-7))
