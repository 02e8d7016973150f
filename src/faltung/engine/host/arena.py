"""Memory: outputs that begin a cache line and whose pages are already there, and one scratch a thread.

Memory that is fresh from the system is filled with zeros, page by page, as it is touched first; that takes many times
longer than most kernels need to write it. So the memory of an array goes back to a pool when nobody refers to the array
any more, and is lent again. Machine code does that (``lending``); where it cannot, all memory is fresh.
"""

import ctypes
import math
import threading
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from faltung.engine.host import lending
from faltung.engine.host.lending import LINE, NUMBERS
from faltung.engine.host.python import HEAD
from faltung.engine.host.recording import recorder

Array = NDArray[Any]
PAGE = 4096
MALLOC = 1 << 16
"""Bytes up to which fresh memory costs less than memory that was used before."""
_word = ctypes.c_size_t.from_address


def address(array: Array) -> int:
    """Where the first number of an array lies, by NumPy's interface for C: its own answer takes ten times as long."""
    return _word(id(array) + HEAD).value


def fresh(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of memory from the system, whose first number begins a cache line; its content is arbitrary."""
    memory = np.empty(math.prod(shape) * dtype.itemsize + LINE, np.uint8)
    return ndarray(shape, dtype, memory, -address(memory) % LINE)


@cache
def number(count: int) -> int:
    """The number of the smallest size that holds so many bytes; sizes are 4, 5, 6, 7 times a power of 2.

    >>> [size(number(count)) for count in (1, 4096, 4097, 5120, 5121, 7000, 7169, 8193)]
    [4096, 4096, 5120, 5120, 6144, 7168, 8192, 10240]
    """
    count = max(count, PAGE)
    shift = (count - 1).bit_length() - 3
    return 4 * shift + -(-count >> shift) - 4


def size(number: int) -> int:
    """The bytes of the size of this number."""
    return 4 + number % 4 << number // 4


class Pool:
    """Blocks that nobody uses, of few sizes, so that similar arrays share them.

    A block is lent for as little as half of its size. What is idle and lent together is never more than twice of what
    was once lent at the same time: before a new block is made, those of the sizes used least recently go.
    """

    def __init__(self):
        self.words = lending.words([size(number) for number in range(NUMBERS)])
        self.lend: Callable[..., Array | None] = lambda *asked: None
        """``lend(dtype, itemsize, *shape)``: an array, if a block for it is idle; nothing is when all begins."""

    @cached_property
    def functions(self) -> Any:
        """``lend``, ``add`` and ``drop``."""
        assert self.words is not None
        return lending.functions(self.words)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array whose first number begins a cache line; its content is arbitrary."""
        if self.words is None:
            return fresh(shape, dtype)
        wanted, self.lend = number(math.prod(shape) * dtype.itemsize), self.functions[0]
        while (array := self.lend(dtype, dtype.itemsize, *shape)) is None:  # another thread may be faster than we are
            self.add(wanted)
        return array

    def add(self, number: int) -> None:
        """Make a block of this size, and room for it."""
        if number >= NUMBERS:
            raise MemoryError
        count = size(number)
        lent = self.lent_bytes + count
        most = 2 * max(self.most_bytes, lent)
        while self.idle_bytes and self.idle_bytes + lent > most:
            self.functions[2](self._oldest())
        self.functions[1](number, np.empty(count + 2 * LINE, np.uint8))

    def _oldest(self) -> int:
        """The size used least recently of those that have idle blocks."""
        assert self.words is not None
        first, _, used, _ = self.words[lending.SIZES :].reshape(-1, lending.WORDS).T
        return int(np.where(first != 0, used, np.iinfo(used.dtype).max).argmin())

    @property
    def idle_bytes(self) -> int:
        """The bytes of blocks that nobody uses."""
        return self._account(lending.IDLE)

    @property
    def lent_bytes(self) -> int:
        """The bytes of blocks that somebody uses."""
        return self._account(lending.LENT)

    @property
    def most_bytes(self) -> int:
        """The most bytes that were ever used at once."""
        return self._account(lending.MOST)

    def _account(self, word: int) -> int:
        return 0 if self.words is None else int(self.words[word])


pool = Pool()
_local = threading.local()


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array whose first number begins a cache line; its content is arbitrary."""
    listener, dtype = recorder(), np.dtype(dtype)
    if listener is not None:
        return listener.array(shape, dtype)
    array = pool.lend(dtype, dtype.itemsize, *shape)
    return pool.empty(shape, dtype) if array is None else array


def sums(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array for what is summed over examples, in slices: one behind the other; its content is arbitrary."""
    listener = recorder()
    return empty(shape, dtype) if listener is None else listener.array(shape, dtype, "sums")


class Scratch:
    """Bytes, the first of them at the beginning of a cache line."""

    def __init__(self, size: int):
        self.size = size
        self.memory = fresh((size,), np.dtype(np.uint8))
        self.address = address(self.memory)


def scratch(count: int) -> Scratch:
    """At least so many bytes for the calling thread, until its next call; hold them as long as they are used."""
    held = getattr(_local, "scratch", None)
    if held is None or held.size < count:
        held = _local.scratch = Scratch(size(number(max(count, 1 << 16))))
    return held
