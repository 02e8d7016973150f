"""Memory: outputs that begin a cache line and whose pages are already there, and one scratch a thread.

Memory that is fresh from the system is filled with zeros, page by page, as it is touched first; that takes many times
longer than most kernels need to write it. So the memory of an array goes back to a pool when nobody refers to the array
any more, and is lent again.
"""

import ctypes
import math
import os
import threading
from collections import OrderedDict
from functools import cache
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from faltung.engine.host.recording import recorder

Array = NDArray[Any]
LINE = 64
PAGE = 4096
MALLOC = 1 << 16
"""Bytes up to which fresh memory costs less than memory that was used before."""
_word = ctypes.c_size_t.from_address


class _Bytes(np.ndarray[Any, Any]):
    """Bytes of a block. Were it a plain array, those made of a loan would refer to it instead of the loan."""


class Block:
    """Bytes from the system, the first of them at the beginning of a cache line."""

    __slots__ = ("address", "memory", "number", "size")

    def __init__(self, number: int):
        self.number, self.size = number, _size(number)
        memory = np.empty(self.size + LINE, np.uint8)
        before = -memory.ctypes.data % LINE
        self.memory = memory[before : before + self.size].view(_Bytes)
        self.address = address(self.memory)


@cache
def _number(count: int) -> int:
    """The number of the smallest size that holds so many bytes; sizes are 4, 5, 6, 7 times a power of 2.

    >>> [_size(_number(count)) for count in (1, 4096, 4097, 5120, 5121, 7000, 7169, 8193)]
    [4096, 4096, 5120, 5120, 6144, 7168, 8192, 10240]
    """
    count = max(count, PAGE)
    shift = (count - 1).bit_length() - 3
    return 4 * shift + -(-count >> shift) - 4


def _size(number: int) -> int:
    return 4 + number % 4 << number // 4


class Pool:
    """Blocks that nobody uses, of few sizes, so that similar arrays share them.

    A block is lent for as little as half of its size. Never more lies idle than was once lent at the same time; beyond
    that, the sizes used least recently go.
    """

    def __init__(self):
        self.idle_bytes = self.lent_bytes = self.most_bytes = 0
        self._idle: OrderedDict[int, list[Block]] = OrderedDict()
        self.lock = threading.RLock()  # another array's memory may come back in the midst of a call

    def lend(self, count: int) -> Block:
        """A block of at least so many bytes; their content is arbitrary."""
        number = _number(count)
        with self.lock:
            if blocks := self._idle.get(number) or self._similar(number):
                block = blocks.pop()
                self.idle_bytes -= block.size
            else:
                block = Block(number)
            self.lent_bytes += block.size
            if self.lent_bytes > self.most_bytes:
                self.most_bytes = self.lent_bytes
        return block

    def _similar(self, number: int) -> list[Block] | None:
        """Idle blocks of the next sizes, if there are any."""
        return next((blocks for more in (1, 2, 3) if (blocks := self._idle.get(number + more))), None)

    def take_back(self, block: Block) -> None:
        """Keep a block for whoever needs one next."""
        number, size = block.number, block.size
        with self.lock:
            self.lent_bytes -= size
            self.idle_bytes += size
            if number in self._idle:
                self._idle[number].append(block)
                self._idle.move_to_end(number)
            else:
                self._idle[number] = [block]
            while self.idle_bytes > self.most_bytes:
                number, blocks = next(iter(self._idle.items()))
                if blocks:
                    self.idle_bytes -= blocks.pop(0).size
                else:
                    del self._idle[number]


class _Loan(np.ndarray[Any, Any]):
    """The bytes that an array owns; they go back with the last view of it."""

    __slots__ = ("block", "pool")
    block: Block
    pool: Pool

    def __del__(self):
        self.pool.take_back(self.block)


pool = Pool()
_local = threading.local()

if hasattr(os, "register_at_fork"):  # the child of a fork gets a pool that no other thread is just using
    os.register_at_fork(before=pool.lock.acquire, after_in_child=pool.lock.release, after_in_parent=pool.lock.release)


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array whose first number begins a cache line; its content is arbitrary."""
    dtype, lender = np.dtype(dtype), pool
    if (listener := recorder()) is not None:
        return listener.array(shape, dtype)
    block = lender.lend(math.prod(shape) * dtype.itemsize)
    loan = block.memory.view(_Loan)
    loan.block, loan.pool = block, lender
    return ndarray(shape, dtype, loan)


def sums(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array for what is summed over examples, in slices: one behind the other; its content is arbitrary."""
    listener = recorder()
    return empty(shape, dtype) if listener is None else listener.array(shape, dtype, "sums")


HEAD = object.__basicsize__
"""Bytes at the beginning of every object of Python's; in an array the address of its first number comes next."""


def address(array: Array) -> int:
    """Where the first number of an array lies, by NumPy's interface for C: its own answer takes ten times as long."""
    return _word(id(array) + HEAD).value


def scratch(count: int) -> Block:
    """At least so many bytes for the calling thread, until its next call; hold the block as long as they are used."""
    held = getattr(_local, "scratch", None)
    if held is None or held.size < count:
        held = _local.scratch = Block(_number(max(count, 1 << 16)))
    return held
