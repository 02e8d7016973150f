"""Kernels whose results show who did what, for tests of the workers."""

from functools import cache
from typing import Any

import numpy as np

from faltung.engine.host import workers
from faltung.engine.host.compile import compile
from faltung.engine.host.machine import host
from faltung.engine.loops.language import I64, INDEX, Function, pointer

LARGE = 1e12
"""Work that is worth any number of threads."""


@cache
def counting() -> Any:
    """done[i] += 1 for each task i."""
    f = Function("counting", done=pointer(I64), scratch=pointer(I64), first=INDEX, last=INDEX)
    done, _, first, last = f.arguments
    with f.loop("i", last, first) as i:
        f.store(f.load(done, i) + 1, done, i)
    return compile([f], {"counting"}, host()).functions["counting"]


@cache
def scribbling() -> Any:
    """y[i] = the sum of i + j over j < size, by way of the scratch, where then 4321 stands at ``size``."""
    f = Function("scribbling", y=pointer(I64), size=INDEX, scratch=pointer(I64), first=INDEX, last=INDEX)
    y, size, scratch, first, last = f.arguments
    with f.loop("i", last, first) as i:
        with f.loop("j", size) as j:
            f.store(f.convert("bits", i + j, I64), scratch, j)
        total = f.variable("total", f.constant(0, I64))
        with f.loop("j", size) as j:
            total.set(total.value + f.load(scratch, j))
        f.store(total.value, y, i)
        f.store(f.constant(4321, I64), scratch, size)
    return compile([f], {"scribbling"}, host()).functions["scribbling"]


def scribbled(tasks: int, size: int, threads: int) -> bool:
    """Launch ``scribbling``: is the result right?"""
    y = np.full(tasks, -1, np.int64)
    scratch = 8 * (size + 1)
    workers.launch(scribbling(), y.ctypes.data, size, tasks=tasks, work=LARGE, scratch=scratch, threads=threads)
    return np.array_equal(y, size * np.arange(tasks) + size * (size - 1) // 2)
