"""Kernels that do the same to every number of arrays, which lie flat in memory; and what other kernels share with them.

A task is a block of ``BLOCK`` numbers. What becomes of a number does not depend on where it lies: full vectors, and the
lanes of a last, short one, pass through the same operations.

>>> from faltung.engine.loops.printer import text
>>> print(text(elementwise(F32.times(16), 2, lambda a, b: [a * b])))
elementwise(x0: f32*, x1: f32*, y0: f32*, count: index, scratch: index*, first: index, last: index)
    for task in first .. last
        begin = task * 16384
        x0.1 = x0 + begin
        x1.1 = x1 + begin
        y0.1 = y0 + begin
        length = min(count - begin, 16384)
        whole = length - length % 16
        mask = first_lanes(length - whole, 16)
        for i in 0 .. whole step 16
            y0.1[i : i + 16] = x0.1[i : i + 16] * x1.1[i : i + 16]
        if whole < length
            mul.2 = (x0.1[whole : whole + 16] where mask) * (x1.1[whole : whole + 16] where mask)
            y0.1[whole : whole + 16] = mul.2 where mask
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host import arena, workers
from faltung.engine.host.machine import Machine, host
from faltung.engine.host.recall import recalled
from faltung.engine.host.recording import whole
from faltung.engine.loops.language import F32, F64, INDEX, Function, Type, Value, pointer

KINDS = {np.dtype(np.float32): F32, np.dtype(np.float64): F64}
TASK = {"scratch": pointer(INDEX), "first": INDEX, "last": INDEX}
"""The last arguments of a kernel that workers run."""
BLOCK = 16 * 1024
"""Numbers: with two inputs and an output of float32, 192 KB, which lie in an L2 cache; some microseconds of work."""
COST = 16
"""Operations of a kernel of full speed in the time that a number takes, be it for memory or for an exponential."""


AHEAD = 8192
"""Bytes. Large arrays are fetched so far ahead of their use, beyond the page at whose end the processor stops to guess.

On one core of a Zen 5, a copy reads 25 GB/s with it, and 15 to 19 without; 4096 are as good, 2048 and 16384 are not.
"""
STREAMED = 32 << 20
"""Bytes of arrays above which outputs are streamed past the caches. They could not stay there; and a line that is not
streamed is read before it is written. On one core of a Zen 5, a rectifier of 28 MB takes 0.85 ms instead of 1.04.
"""


Visit = Callable[[Callable[..., None]], None]
"""Calls a body for each vector: where it begins, perhaps more, and last the mask of its lanes, or None for all."""


def code(kernel: Callable[..., Function], dtype: Any, *settings: Any) -> Callable[..., None]:
    """kernel(vectors of this dtype, as long as this machine's, *settings), compiled; the kernel is a plain function."""
    return _compiled(kernel, dtype, host(), *settings)


@cache
def _compiled(kernel: Callable[..., Function], dtype: Any, machine: Machine, *settings: Any) -> Callable[..., None]:
    code = recalled(_written, machine, kernel, KINDS[np.dtype(dtype)], *settings)
    return next(iter(code.functions.values()))


def _written(machine: Machine, kernel: Callable[..., Function], kind: Type, *settings: Any) -> list[Function]:
    return [kernel(kind.times(machine.lanes(kind.size)), *settings)]


def vectors(f: Function, count: Value, lanes: int) -> Visit:
    """To visit i = 0, lanes, ... below count. What that needs is computed here, before the loops that it is used in."""
    whole = (count - count % lanes).named("whole")
    few = f.first_lanes(count - whole, lanes)

    def visit(body: Callable[..., None]) -> None:
        with f.loop("i", whole, step=lanes) as i:
            body(i, None)
        with f.where(whole < count):
            body(whole, few)

    return visit


def sweep(f: Function, count: Value, lanes: int, body: Callable[[Value, Value | None], None]) -> None:
    """body(i, mask) for i = 0, lanes, ... below count; the mask is None where all lanes lie below count."""
    vectors(f, count, lanes)(body)


class Elementwise(Function):
    """A function of ``elementwise``, which remembers by what rule its outputs follow from its inputs."""

    rule: Callable[..., Sequence[Value]]


def streamed(*arrays: NDArray[Any]) -> bool:
    """Are the arrays of a kernel so large that its outputs, which begin cache lines, should be streamed?"""
    sizes = [array.nbytes for array in arrays]
    return sum(sizes) > STREAMED and min(sizes) > arena.MALLOC and whole()  # smaller ones may begin anywhere


def elementwise(
    kind: Type, inputs: int, body: Callable[..., Sequence[Value]], outputs: int = 1, stream: bool = False
) -> Elementwise:
    """y0[i], y1[i], ... = body(x0[i], x1[i], ...) for all i below count. Outputs may lie where inputs lie."""
    names = [*(f"x{n}" for n in range(inputs)), *(f"y{n}" for n in range(outputs))]
    f = Elementwise("elementwise", **dict.fromkeys(names, pointer(kind)), count=INDEX, **TASK)
    f.rule = body
    *arrays, count, _, first, last = f.arguments
    with f.loop("task", last, first) as task:
        begin = (task * BLOCK).named("begin")
        here = [f.at(array, begin) for array in arrays]

        def vector(i: Value, mask: Value | None) -> None:
            if stream and inputs == 1:
                f.prefetch(here[0], i + AHEAD // kind.size)
            results = body(*(f.load(x, i, kind.lanes, mask) for x in here[:inputs]))
            for result, y in zip(results, here[inputs:], strict=True):
                f.store(f.lift(result, kind), y, i, mask, streamed=stream)

        sweep(f, f.min(count - begin, BLOCK).named("length"), kind.lanes, vector)
    return f


def launch(function: Callable[..., None], *arrays: NDArray[Any], count: int) -> None:
    """Run a kernel of ``elementwise`` over arrays of ``count`` numbers, inputs first."""
    workers.launch(function, *arrays, count, tasks=-(-count // BLOCK), work=COST * count)
