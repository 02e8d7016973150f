"""How fast one thread reads memory: the roof for whatever reads its weights once a step."""

import numpy as np

from faltung.engine.host.arena import address, empty
from faltung.engine.host.compile import compile
from faltung.engine.host.machine import host
from faltung.engine.loops.language import F32, INDEX, Function, pointer

SUMS = 16
TIMES = 20
"""As often a call reads everything."""


def reading(size):
    """A call that reads so many bytes, from a cache if they fit; ``TIMES`` of them take the time of one."""
    lanes = host().lanes(F32.size)
    kind, step = F32.times(lanes), SUMS * lanes
    f = Function("reading", x=pointer(F32), y=pointer(F32), count=INDEX, times=INDEX)
    x, y, count, times = f.arguments
    with f.loop("again", times):
        sums = [f.variable("sum", 0.0, kind) for _ in range(SUMS)]
        with f.loop("i", count, step=step) as i:
            for k, held in enumerate(sums):
                held.set(held.value + f.load(x, i + k * lanes, lanes))
        for k, held in enumerate(sums):
            f.store(held.value, y, k * lanes)
    read = compile([f], {"reading"}, host()).functions["reading"]
    numbers = empty((size // F32.size // step * step,), np.float32)
    numbers.fill(1)
    result = empty((step,), np.float32)
    return lambda: read(address(numbers), address(result), len(numbers), TIMES)
