"""Arrays directly beside memory that nobody may touch, so that a kernel that reaches outside its buffers is caught.

``guarded(shape, dtype)`` ends where an inaccessible page begins: a read or write of the very next byte stops the
process with a segmentation fault. ``guarded(..., end=False)`` begins where such a page ends, for kernels that reach too
far to the left. Test with both. Numbers are NaN at first (the smallest ones of their kind, if whole), so that an output
that was not written shows; ``copied(array, end)`` is filled with the numbers of another array.

    for end in (True, False):
        x, y = copied(numbers, end), guarded((3, 5), np.float32, end)
        kernel(x.ctypes.data, y.ctypes.data)
        np.testing.assert_array_equal(y, expected)      # fails where y still holds NaN

An array keeps its pages alive; when it goes, they go. Arrays with the guard behind them are aligned to their numbers
only (as slices of a batch may be), those with the guard before them to a page. On Windows the arrays are plain ones.
"""

import ctypes
import math
import mmap
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, DTypeLike, NDArray


def guarded(shape: tuple[int, ...] | int, dtype: DTypeLike = np.float32, end: bool = True) -> NDArray[Any]:
    """An array of this shape with an inaccessible page directly behind it or (``end=False``) before it."""
    dtype = np.dtype(dtype)
    size = math.prod(np.atleast_1d(shape).tolist()) * dtype.itemsize
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + mmap.PAGESIZE)  # the guard is the last page, or the first
    offset = pages - size if end else mmap.PAGESIZE
    array = np.ndarray(shape, dtype, memory, offset)
    array.fill(np.nan if dtype.kind in "fc" else np.iinfo(dtype).min if dtype.kind in "iu" else 0)
    if hasattr(mmap, "PROT_READ"):
        guard = array.ctypes.data + size if end else array.ctypes.data - mmap.PAGESIZE
        no_access = 0
        if ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(mmap.PAGESIZE), no_access):
            raise OSError("mprotect failed")
    return array


def copied(array: ArrayLike, end: bool = True) -> NDArray[Any]:
    """The same numbers between guards."""
    array = np.asarray(array)
    copy = guarded(array.shape, array.dtype, end)
    copy[...] = array
    return copy


def surround(patch: pytest.MonkeyPatch, end: bool) -> None:
    """From now on outputs, packed weights, sums and scratch of kernels lie between guards, to the byte, full of NaN."""
    from faltung.engine.host import arena
    from faltung.engine.programs import program

    def scratch(count: int) -> SimpleNamespace:
        memory = guarded(count, np.uint8, end)
        memory.fill(255)
        return SimpleNamespace(address=memory.ctypes.data, size=count, memory=memory)

    patch.setenv("FALTUNG_THREADS", "1")
    patch.setattr(arena, "LINE", 1)  # to which a worker's share of the scratch is rounded up
    patch.setattr(program, "PAGE", 1)  # and that of a program's
    patch.setattr(arena, "empty", lambda shape, dtype: guarded(shape, dtype, end))
    patch.setattr(arena, "scratch", scratch)
