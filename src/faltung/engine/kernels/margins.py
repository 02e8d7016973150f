"""The kernel that lays an array into a larger one, row by row: what is beyond its ends is a number, or other entries.

    y[t] = x[source[t]] along every axis, or the number where a source is missing (-1)

Along the last axis the sources of the entries in the middle lie side by side, and are copied in full vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host.recording import constant
from faltung.engine.kernels.elementwise import BLOCK, TASK
from faltung.engine.kernels.lanes import Part, blocks, copy, fill, parts, pitches
from faltung.engine.loops.language import INDEX, Function, Type, Value, pointer

VECTORS = 8
"""Vectors of one block of a pixel's channels."""


@dataclass(frozen=True)
class Margins:
    """What is compiled in; ``number`` is what stands beyond the ends, None where other entries do."""

    channels: int
    rank: int
    number: float | None


def numbers(
    sizes: Sequence[int], sources: Sequence[NDArray[Any]], channels: int, before: int
) -> tuple[NDArray[Any], int]:
    """What the kernel reads, and how many bands an example of y has; ``before`` entries of a row precede its middle.

    The numbers: rows in a band (on the first axis), bands, before; for each axis its sizes in x and y, and the place of
    its sources.
    """
    counts = [len(source) for source in sources]
    rows = counts[0] if len(counts) > 1 else 1
    band = min(rows, max(1, BLOCK * rows // (channels * int(np.prod(counts)))))
    bands = -(-rows // band)
    head, at = [band, bands, before], 3 + 3 * len(counts)
    for size, count in zip(sizes, counts, strict=True):
        head += [size, count, at]
        at += count
    return constant(np.concatenate([np.array(head), *sources]).astype(np.int64)), bands


def surround(kind: Type, margins: Margins, masks: bool, stream: bool) -> Function:
    """y from x, by vectors of this type: arguments are run-time numbers, x and y; a task is a band of an example.

    To ``stream`` y, each of its positions must begin a cache line.
    """
    f = Function("surround", sizes=pointer(INDEX), x=pointer(kind), y=pointer(kind), **TASK)
    sizes, x, y, _, first, last = f.arguments
    axes, channels = range(margins.rank), margins.channels
    band, bands, before = (f.load(sizes, at, name=name) for at, name in enumerate(("band", "bands", "before")))
    size, count, sources = (
        [f.load(sizes, 3 + 3 * axis + at, name=f"{name}{axis}") for axis in axes]
        for at, name in enumerate(("size", "count", "sources"))
    )
    x_pitch, y_pitch = pitches(f, channels, size), pitches(f, channels, count)

    def rows(axis: int, x: Value, y: Value, source: Value, low: Value, high: Value) -> None:
        """All rows from low to high; ``source`` is negative where x has none of them."""
        if axis == margins.rank - 1:
            with f.where(source < 0):
                fill(f, y, y_pitch[axis], margins.number or 0.0, kind)
            with f.where(source >= 0):
                row(x, y)
            return
        with f.loop(f"t{axis}", high, low) as t:
            here = f.load(sizes, sources[axis] + t, name="source")
            row_x, row_y = f.at(x, here * x_pitch[axis + 1]), f.at(y, t * y_pitch[axis + 1])
            rows(axis + 1, row_x, row_y, f.min(source, here), f.constant(0), count[axis + 1])

    def row(x: Value, y: Value) -> None:
        """A row that x has: its ends, and its middle."""
        begin = f.load(sizes, sources[-1] + before, name="begin")
        middle = f.min(count[-1] - before, size[-1] - begin).named("middle")
        behind = (before + middle).named("behind")
        if margins.number is not None:
            fill(f, y, before * channels, margins.number, kind)
            fill(f, f.at(y, behind * channels), (count[-1] - behind) * channels, margins.number, kind)
        else:
            vectors = parts(channels, kind, masks)
            with f.loop("end", 2) as end:
                first = end.equal(0)
                with f.loop("t", f.select(first, before, count[-1]), f.select(first, 0, behind)) as t:
                    source = f.at(x, f.load(sizes, sources[-1] + t, name="source") * channels)
                    target = f.at(y, t * channels)
                    blocks(f, vectors, VECTORS, lambda c, some: pixel(f.at(source, c), f.at(target, c), some))
        copy(f, f.at(y, before * channels), f.at(x, begin * channels), middle * channels, kind, stream)

    def pixel(x: Value, y: Value, vectors: list[Part]) -> None:
        for part in vectors:
            part.store(f, part.load(f, x), y)

    with f.loop("task", last, first) as task:
        n, low = (task // bands).named("n"), (task % bands * band).named("low")
        x_n, y_n = f.at(x, n * x_pitch[0]), f.at(y, n * y_pitch[0])
        rows(0, x_n, y_n, f.constant(0), low, f.min(low + band, count[0]))
    return f
