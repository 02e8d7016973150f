"""Recording: the launches that a function would make, and the memory that it would ask for, instead of doing them.

Kernels are told by their arguments alone what to do: places in memory, and numbers. So what an element does with
arrays of given shapes is a list of launches, the same whatever the arrays hold. While a ``Recorder`` listens, lowerings
run as ever, but on memory that nobody fills; afterwards the list can be done on other memory, again and again, without
Python (see ``program``).

That holds only where NumPy computes nothing on the way. So NumPy cannot write recorded arrays, and a launch that reads
an array of unknown origin is refused with ``NotRecordedError``. Arrays that follow from shapes alone are made read-only
by those who make them (``constant``).
"""

import ctypes
import math
import mmap
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.errors import node

Array = NDArray[Any]


class NotRecordedError(Exception):
    """What was to be recorded depends on more than shapes."""


class Fresh(int):
    """A number of a launch: does it begin its sums at 0? Only the first of several that add to the same sums does."""


class Slices(int):
    """A number of a launch: so many sums there are, one behind the other."""


class Later:
    """A number that is known only when a recorded launch is done: a function of what it is done for.

    It grows by ``each`` from one example to the next.

    >>> step = Later(lambda run: run["step"])
    >>> ((step & 7) ^ 1).of({"step": 12})
    5
    """

    def __init__(self, of: Callable[[Any], Any], each: int = 0):
        self.of, self.each = of, each

    def __and__(self, other: int) -> "Later":
        return Later(lambda run: self.of(run) & other)

    def __xor__(self, other: "int | Later") -> "Later":
        return Later(lambda run: self.of(run) ^ (other.of(run) if isinstance(other, Later) else other))

    def __rshift__(self, other: int) -> "Later":
        return Later(lambda run: self.of(run) >> other)


@dataclass(frozen=True)
class Buffer:
    """Recorded memory: its first address while recording, its bytes, and what it is."""

    address: int
    size: int
    kind: str
    """"input" or "parameter", which come from outside; "memory"; "sums"; or "constant"."""
    name: str
    dtype: Any
    array: Array | None
    """Of a constant."""

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + self.size


@dataclass(frozen=True)
class Place:
    """An argument that is a place in memory."""

    buffer: Buffer
    offset: int


Argument = Place | Later | int | float


@dataclass(frozen=True)
class Launch:
    """One recorded launch: what ``workers.launch`` was asked for."""

    function: Any
    arguments: tuple[Argument, ...]
    tasks: int
    work: float
    scratch: int
    node: str
    """The node of the network that it is for."""
    reads: tuple[Buffer, ...]
    """What the kernel may read."""
    writes: tuple[Buffer, ...]
    """What it may write."""


class Recorder:
    """What listens; and what it heard: ``launches``."""

    def __init__(self, sliced: bool, settled: bool, exact: bool, strips: bool, parts: bool):
        self.sliced, self.settled, self.exact, self.strips, self.parts = sliced, settled, exact, strips, parts
        self._arrays: list[Array] = []  # so that no address is given out twice
        self.launches: list[Launch] = []
        self._buffers: dict[int, Buffer] = {}
        self._addresses: list[int] = []

    def array(self, shape: tuple[int, ...], dtype: Any, kind: str = "memory", name: str = "") -> Array:
        """An array to record with; its numbers mean nothing, and NumPy may not write them."""
        dtype = np.dtype(dtype)
        memory = mmap.mmap(-1, max(math.prod(shape) * dtype.itemsize, 1))  # pages that nobody touches take no memory
        array = np.ndarray(shape, dtype, memory)
        array.flags.writeable = False
        self._keep(array, kind, name)
        return array

    def launch(self, function: Any, arguments: tuple[Any, ...], tasks: int, work: float, scratch: int) -> None:
        """Note a launch."""
        pairs = zip(arguments, function.argtypes, strict=False)
        noted = tuple(self._argument(argument, kind is ctypes.c_void_p) for argument, kind in pairs)
        reads, writes = (
            tuple(place.buffer for n, place in enumerate(noted) if n in touched and isinstance(place, Place))
            for touched in function.effects
        )
        self.launches.append(Launch(function, noted, tasks, work, scratch, node(), reads, writes))

    def place(self, array: Array) -> Place:
        """Where an array lies."""
        if not array.flags.c_contiguous:
            raise NotRecordedError(f"a view of shape {array.shape} whose numbers do not lie side by side")
        address = array.__array_interface__["data"][0]
        number = bisect_right(self._addresses, address) - 1
        buffer = self._buffers[self._addresses[number]] if number >= 0 else None
        if buffer is None or address >= buffer.end:
            if array.flags.writeable:
                raise NotRecordedError(f"an array of {array.dtype} and shape {array.shape} that NumPy has made")
            buffer = self._keep(array, "constant")
        return Place(buffer, address - buffer.address)

    def _argument(self, argument: Any, is_place: bool) -> Argument:
        if not is_place:
            return argument
        if argument is None:
            return 0
        array, offset = argument if isinstance(argument, tuple) else (argument, 0)
        if not isinstance(array, np.ndarray):
            raise NotRecordedError("an address without its array")
        place = self.place(array)
        return Place(place.buffer, place.offset + offset)

    def _keep(self, array: Array, kind: str, name: str = "") -> Buffer:
        self._arrays.append(array)
        kept = array if kind == "constant" else None
        buffer = Buffer(array.__array_interface__["data"][0], max(array.nbytes, 1), kind, name, array.dtype, kept)
        self._buffers[buffer.address] = buffer
        self._addresses.insert(bisect_right(self._addresses, buffer.address), buffer.address)
        return buffer


class _Local(threading.local):
    recorder: Recorder | None = None


_local = _Local()
listeners = np.zeros(1, np.int64)
"""How many listen in all threads, where machine code can read it."""
_lock = threading.Lock()


def _count(more: int) -> None:
    with _lock:
        listeners[0] += more


def _forget() -> None:
    """In the child of a fork only this thread is left."""
    global _lock
    _lock = threading.Lock()
    listeners[0] = _local.recorder is not None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def recorder() -> Recorder | None:
    """Who listens in this thread, if somebody does."""
    return _local.recorder


def sliced() -> bool:
    """Is a part of one slice being recorded, so that all sums are this slice's?"""
    listener = recorder()
    return listener is not None and listener.sliced


def whole() -> bool:
    """Are arrays those of a single product, whole ones, that begin cache lines if they are large?"""
    listener = recorder()
    return listener is None or not listener.parts


def packs_once() -> bool:
    """Is what follows from parameters alone made once for many uses? In a slice, or where they never change."""
    listener = recorder()
    return listener is not None and (listener.sliced or listener.settled)


def exact() -> bool:
    """Must everything have the bits that single elements give it? Else rounding may differ."""
    listener = recorder()
    return listener is None or listener.exact


@contextmanager
def recording(
    *, sliced: bool, settled: bool = False, exact: bool = True, strips: bool = False, parts: bool = False
) -> Iterator[Recorder]:
    """Within it, launches of this thread are noted and not done.

    ``sliced``: they are part of one slice. ``settled``: they are a prediction whose parameters never change.
    ``exact``: all have the bits of single elements. ``strips``: what sees one position only may be done for a few
    positions at a time. ``parts``: arrays may be parts of others when it is done, such as one example of many.
    """
    before, _local.recorder = recorder(), Recorder(sliced, settled, exact, strips, parts)
    _count(1)
    try:
        yield _local.recorder
    finally:
        _local.recorder = before
        _count(-1)


def constant(array: Array) -> Array:
    """The array, of numbers that follow from shapes alone; from now on it cannot be written."""
    array.flags.writeable = False
    return array
