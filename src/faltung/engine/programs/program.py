"""Programs: kernel calls as words in memory, which machine code (``perform``) goes through without any Python.

A program knows all but what is new in each run: where the arrays of a run lie, and the numbers that the run gives. So
it is built once for sizes, and every run fills in a *frame*: the zero, the worker's memory, whether sums begin anew,
and then one word for each array and number.
"""

import ctypes
import itertools
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host import arena, dispatch, perform, promise, workers
from faltung.engine.host.recording import Buffer, Fresh, Later, Launch, Place, Slices

Array = NDArray[Any]
ZERO, MEMORY, FRESH, FIRST = 0, 1, 2, 3
"""Words of a frame; from ``FIRST`` on lies what is new in each run."""
WORDS = 16
"""Of a job."""
LAYOUT = {ctypes.c_float: "f4x", ctypes.c_double: "d", ctypes.c_int64: "q", ctypes.c_int32: "q"}
"""How ``struct`` makes a word of a number of this C type; of whole ones machine code takes what it needs."""
PAGE = 4096
"""Bytes. Workers have whole pages each, so that their numbers lie alike beside those that all read: where the second
one's lay otherwise, by half a kilobyte, a step of VGG took 2 % longer with two workers, and no longer with one."""


@dataclass(frozen=True)
class Where:
    """Where a buffer lies: behind the place of this name, in bytes, and so many further for each example and slice.

    The name "" stands for the worker's own memory.
    """

    name: str
    offset: int = 0
    each: int = 0
    step: int = 0


@dataclass(frozen=True)
class Call:
    """A launch, where its buffers lie, and where in the worker's memory its scratch begins."""

    launch: Launch
    where: Callable[[Buffer], Where]
    scratch: int = 0
    slices: int = 0
    """The sums that every gradient has, where calls in lists add to them, else 0."""


@dataclass(frozen=True)
class Lists:
    """What workers do for a few examples at a time: calls by how many examples they are for.

    There are ``examples`` in all, ``share`` in a slice, and ``together`` are done together.
    """

    calls: Mapping[int, Sequence[Call]]
    examples: int
    share: int
    together: int

    @property
    def slices(self) -> int:
        """How many slices there are."""
        return -(-self.examples // self.share)


Job = Sequence[Call] | Lists
"""Calls of which none writes what another one touches, and whose tasks workers share; or lists, of which they share
slices."""


def together(jobs: Iterable[Call | Lists]) -> list[Job]:
    """The same in fewer jobs: for what is small, and follows for many parameters, one after the other would take long.

    Calls that follow one another are together where that changes nothing.
    """
    groups: list[Job] = []
    touched: list[_Touched] = []
    for job in jobs:
        if isinstance(job, Lists):
            groups.append(job)
            touched = []
            continue
        here = _touched(job)
        if touched and not any(one.meets(here) for one in touched):
            groups[-1] = [*groups[-1], job]  # pyright: ignore[reportGeneralTypeIssues] -- these are calls
            touched.append(here)
        else:
            groups.append([job])
            touched = [here]
    return groups


class Program:
    """Jobs that follow one another."""

    def __init__(self, jobs: Sequence[Job]):
        self._words: dict[Any, int] = {}
        self._kept: list[Any] = []
        self._scratch = 0
        self._work = 0.0
        kinds = frozenset(map(_kinds, _launches(jobs)))
        others = {
            perform.shims_text(kinds): lambda: perform.shims(kinds),
            perform.TEXT: perform.functions,
            dispatch.text(): dispatch.sharing,
        }
        promise.keep((launch.function for launch in _launches(jobs)), others, workers.count())
        self._shims = perform.shims(kinds)
        words = [word for job in jobs for word in (self._lists(job) if isinstance(job, Lists) else self._calls(job))]
        self._count = len(jobs)
        self._jobs = self._place(words)
        self._found = [(word, None) if type(word) is str else (word, word[0].of) for word in self._words]
        self._layout = struct.Struct(
            "=3q" + "".join("q" if of is None else LAYOUT[word[1]] for word, of in self._found)
        )

    def run(self, places: Mapping[str, int], run: Any) -> None:
        """Do all jobs in memory at these addresses, by name; ``run`` is what numbers are made from."""
        if not self._count:
            return
        numbers = [places[word] if of is None else of(run) for word, of in self._found]
        workers.perform(
            self._jobs, self._count, self._layout.pack(0, 0, 1, *numbers), work=self._work,
            scratch=self._memory,
        )  # fmt: skip

    @property
    def _memory(self) -> int:
        """Bytes that a worker has."""
        return -(-(_lines(self._layout.size) + self._scratch) // PAGE) * PAGE

    @property
    def fixed(self) -> bool:
        """Is it the same in every run? Then it wants no numbers of a run."""
        return all(type(name) is str for name in self._words)

    def bound(self, names: Sequence[str], inside: Mapping[str, int]) -> Callable[..., None]:
        """``run``, if it is fixed, as a function of arrays in the order of these names.

        ``inside`` are bytes that nobody sees.
        """
        if not self._count:
            return lambda *arrays: None
        sources, size = {name: (number, 0) for number, name in enumerate(names)}, 0
        for name, count in inside.items():
            sources[name], size = (-1, size), size + _lines(count)
        perform = workers.Performer(
            self._jobs, self._count, [sources[name] for name in self._words], work=self._work,
            scratch=self._memory, inside=size,
        )  # fmt: skip
        perform.owner = self  # so that the jobs live as long
        return perform

    def _calls(self, calls: Sequence[Call]) -> list[int]:
        """The words of a job that is calls."""
        words, parts = [], 0
        for call in calls:
            launch = call.launch
            part = min(max(launch.work, workers.SMALL) / 16, workers.SMALL)
            few = max(1, int(launch.tasks * part / max(launch.work, 1)))
            parts += -(-launch.tasks // few)
            words += [self._call(call), launch.tasks, few, parts]
        return self._job(perform.EACH, self._place(words), parts, sum(call.launch.work for call in calls))

    def _lists(self, lists: Lists) -> list[int]:
        """The words of a job that is lists of calls."""
        words = [lists.examples, lists.share, lists.together, len(lists.calls)]
        for examples, calls in lists.calls.items():
            words += [examples, self._place([self._call(call) for call in calls]), len(calls)]
        examples, calls = next(iter(lists.calls.items()))
        work = sum(call.launch.work for call in calls) * lists.examples / examples
        return self._job(perform.DEEP, self._place(words), lists.slices, work)

    def _job(self, do: str, what: int, parts: int, work: float) -> list[int]:
        self._work += work
        doer = perform.functions()[do]
        self._kept.append(doer)
        return [*[0] * 8, parts, what, dispatch.address(doer), *[0] * 5]

    def _call(self, call: Call) -> int:
        launch, function = call.launch, call.launch.function
        kinds = _kinds(launch)
        shim = self._shims[kinds]
        self._kept += [function, shim]  # whose machine code is called by address
        self._scratch = max(self._scratch, _lines(call.scratch + launch.scratch))
        words = [dispatch.address(shim), dispatch.address(function), launch.tasks, call.scratch]
        for kind, argument in zip(kinds, launch.arguments, strict=True):
            words += self._argument(kind, argument, call)
        return self._place(words)

    def _argument(self, kind: Any, argument: Any, call: Call) -> list[int]:
        match argument:
            case Place(buffer, offset) if buffer.kind == "constant":
                self._kept.append(buffer.array)
                return [ZERO, buffer.address + offset, 0, 0]
            case Place(buffer, offset):
                at = call.where(buffer)
                return [self._word(at.name) if at.name else MEMORY, at.offset + offset, at.each, at.step]
            case Later():
                return [self._word((argument, kind)), 0, argument.each, 0]
            case Fresh() if call.slices:
                return [FRESH, 0, 0, 0]
            case Slices() if call.slices:
                return [ZERO, call.slices, 0, 0]
        return [ZERO, _bits(argument, kind), 0, 0]

    def _word(self, name: Any) -> int:
        """The word of a frame for what has this name."""
        return self._words.setdefault(name, FIRST + len(self._words))

    def _place(self, words: Sequence[int]) -> int:
        """Where these words lie from now on."""
        memory = np.array(words, np.int64)
        self._kept.append(memory)
        return memory.__array_interface__["data"][0]


@dataclass(frozen=True)
class _Touched:
    """Where a call reads and writes: behind a place of this name, from a byte to another."""

    reads: Sequence[tuple[str, float, float]]
    writes: Sequence[tuple[str, float, float]]

    def meets(self, other: "_Touched") -> bool:
        """Does one of both write what the other one touches?"""
        pairs = itertools.chain(
            itertools.product(self.writes, (*other.reads, *other.writes)), itertools.product(self.reads, other.writes)
        )
        return any(a[0] == b[0] and a[1] < b[2] and b[1] < a[2] for a, b in pairs)


def _touched(call: Call) -> _Touched:
    def places(buffers: Iterable[Buffer]) -> list[tuple[str, float, float]]:
        found = [(call.where(buffer), buffer.size) for buffer in buffers if buffer.kind != "constant"]
        return [(at.name, at.offset, math.inf if at.each or at.step else at.offset + size) for at, size in found]

    return _Touched(places(call.launch.reads), places(call.launch.writes))


def _launches(jobs: Sequence[Job]) -> Iterator[Launch]:
    """All that is launched."""
    for job in jobs:
        calls = [call for some in job.calls.values() for call in some] if isinstance(job, Lists) else job
        yield from (call.launch for call in calls)


def _kinds(launch: Launch) -> tuple[Any, ...]:
    """The C types of a kernel's arguments, scratch and tasks left out."""
    return tuple(launch.function.argtypes[:-3])


def _lines(count: int) -> int:
    """So many bytes, up to a whole cache line."""
    return -(-count // arena.LINE) * arena.LINE


def _bits(number: Any, kind: Any) -> int:
    """A number as the word that machine code makes this C type of."""
    if kind is ctypes.c_float:
        return struct.unpack("=i", struct.pack("=f", number))[0]
    return struct.unpack("=q", struct.pack("=d", number))[0] if kind is ctypes.c_double else int(number)
