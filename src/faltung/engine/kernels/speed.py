"""How fast this processor can be at most: multiply-adds in registers, which touch no memory."""

import time
from functools import cache
from typing import Any

import numpy as np

from faltung.engine.host.machine import host
from faltung.engine.kernels.elementwise import TASK, code
from faltung.engine.loops.language import INDEX, Function, Type, pointer

SUMS, TASKS = 12, 64
"""Independent sums, which hide the latency of a multiply-add and fit into 16 registers; and tasks, as many as a kernel
may have."""


def multiply_adds(kind: Type) -> Function:
    """``SUMS`` vectors of multiply-adds, ``count`` times a task."""
    f = Function("multiply_adds", y=pointer(kind), count=INDEX, **TASK)
    y, count, _, first, last = f.arguments
    with f.loop("task", last, first) as task:
        factor = f.broadcast(f.load(y, 0), kind.lanes)
        acc = [f.variable(f"acc{n}", float(n), kind) for n in range(SUMS)]
        with f.loop("i", count):
            for total in acc:
                total.set(f.fma(factor, factor, total.value))
        total = acc[0].value
        for other in acc[1:]:
            total = total + other.value
        f.store(total, y, task * kind.lanes)
    return f


@cache
def peak(dtype: Any) -> float:
    """Multiply-adds a second of one thread: the best of some runs, a few milliseconds in all."""
    kernel = code(multiply_adds, dtype)
    y, count = np.zeros(TASKS * 64, dtype), 500
    times = []
    for _ in range(7):
        began = time.perf_counter()
        kernel(y.ctypes.data, count, 0, 0, TASKS)
        times.append(time.perf_counter() - began)
    return TASKS * SUMS * count * host().lanes(y.itemsize) / min(times)
