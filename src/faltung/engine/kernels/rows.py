"""What kernels consist of that go through arrays row by row, and sum or search along each row.

A task is a band of so many rows as hold about ``BLOCK`` numbers. A sum is as many sums as a vector has lanes, and these
are added at the end: its bits depend on the length of the row only, and on the machine.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from faltung.engine.host import workers
from faltung.engine.kernels.elementwise import BLOCK, COST, TASK, Visit, vectors
from faltung.engine.loops.language import INDEX, Function, Type, Value


def row_kernel(name: str, **arguments: Type) -> Function:
    """A function with these arguments, then the number of rows, their length, and what belongs to a task."""
    sizes = dict.fromkeys(["rows", "length", "band"], INDEX)
    scratch = {"scratch": arguments.pop("scratch", TASK["scratch"])}
    return Function(name, **arguments, **sizes, **TASK | scratch)


def row_length(f: Function) -> Value:
    """The length of the rows of a ``row_kernel``."""
    return f.arguments[-5]


def along(f: Function, kind: Type, length: int) -> tuple[Value, Visit]:
    """The length of the rows of a ``row_kernel``, and how to visit their vectors; one by one if it is known, not 0."""
    if not length:
        return row_length(f), vectors(f, row_length(f), kind.lanes)

    def visit(body: Callable[..., None]) -> None:
        for i in range(0, length, kind.lanes):
            left = f.constant(length - i)
            body(f.constant(i), f.first_lanes(left, kind.lanes) if i + kind.lanes > length else None)

    return f.constant(length), visit


@contextmanager
def each_band(f: Function) -> Iterator[tuple[Value, Value, Value]]:
    """For each task of a ``row_kernel``: its number, its first row, and the first one that is none of its rows."""
    rows, _, band, _, first, last = f.arguments[-6:]
    with f.loop("task", last, first) as task:
        begin = (task * band).named("begin")
        yield task, begin, f.min(begin + band, rows)


@contextmanager
def each_row(f: Function) -> Iterator[Value]:
    """For each row of the tasks of a ``row_kernel``: its number."""
    with each_band(f) as (_, begin, end), f.loop("row", end, begin) as row:
        yield row


def summed(f: Function, kind: Type, visit: Visit, term: Callable[..., Value]) -> Value:
    """The sum of the terms of a row, which are vectors of this type."""
    return f.sum_lanes(_gathered(f, kind, visit, term, 0.0, lambda total, new: total + new))


def largest(f: Function, kind: Type, visit: Visit, term: Callable[..., Value]) -> Value:
    """The largest term of a row; which one where there is NaN is not said."""
    return f.max_lanes(_gathered(f, kind, visit, term, -math.inf, f.max))


def _gathered(
    f: Function, kind: Type, visit: Visit, term: Callable[..., Value], start: float, gather: Callable[..., Value]
) -> Value:
    held = f.variable("held", start, kind)

    def vector(*at: Any) -> None:
        new, mask = term(*at), at[-1]
        held.set(gather(held.value, new if mask is None else f.select(mask, new, start)))

    visit(vector)
    return held.value


def launch(
    function: Callable[..., None], *arguments: Any, rows: int, length: int, band: int | None = None, scratch: int = 0
) -> None:
    """Run a ``row_kernel``; ``band`` rows are a task, and so many bytes its scratch."""
    band = band or max(1, BLOCK // max(length, 1))
    workers.launch(
        function, *arguments, rows, length, band, tasks=-(-rows // band), work=COST * rows * length, scratch=scratch
    )
