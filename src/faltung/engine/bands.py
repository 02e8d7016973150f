"""The run-time numbers of a pooling: where regions begin on each axis, and how they fall to tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.elementwise import BLOCK
from faltung.engine.recording import constant
from faltung.engine.regions import Regions
from faltung.geometry import Window

Numbers = NDArray[Any]

OVERLAPPING = 8
"""Regions on the first axis that a task of overlapping ones has at least, for those at its ends are visited twice."""

AXIS = ("size", "count", "covered", "spans")
"""Of each axis: its sizes in x and y, where the entries end that some region has (0 where all of dx begins with zeros),
and the place of the table with begin and count of each region."""
BAND = ("begin", "end", "first", "last", "whole", "broken")
"""A task's rows of dx, its regions on the first axis, and those on the last one that are whole and inside the task."""


def fields(rank: int) -> list[str]:
    """The names of the run-time numbers in their order; before those of the axes the number and the table of bands."""
    return ["bands", "table", *(f"{name}{axis}" for axis in range(rank) for name in AXIS)]


@dataclass(frozen=True)
class Places:
    """The regions on one axis: what they would read if it had no ends, from low to high, and what they do read."""

    size: int
    low: Numbers
    high: Numbers
    begin: Numbers
    count: Numbers
    """True entries, of which ``begin`` is the first."""

    @classmethod
    def windows(cls, window: Window, size: int) -> "Places":
        """Those of a window that moves along an axis.

        >>> places = Places.windows(Window(3, stride=2, padding=1), 6)
        >>> places.low.tolist(), places.begin.tolist(), places.count.tolist()
        ([-1, 1, 3], [0, 1, 3], [2, 3, 3])
        """
        low = np.arange(window.output(size) or 0) * window.stride - window.pads(size)[0]
        first = np.maximum(-(low // window.dilation), 0)
        behind = np.minimum(-((low - size) // window.dilation), window.kernel)
        return cls(size, low, low + window.span - 1, low + first * window.dilation, behind - first)

    @classmethod
    def slices(cls, slices: Sequence[slice], size: int) -> "Places":
        """Those of regions that are known by their ends."""
        start, stop = np.array([[part.start, part.stop] for part in slices]).T
        return cls(size, start, stop - 1, start, stop - start)


def numbers(axes: Sequence[Places], regions: Regions, error: bool) -> tuple[Numbers, int]:
    """What the kernels of ``pool`` read, in the order of ``fields``; and how many bands an example has."""
    bands = _bands(axes, regions, error)
    begin = len(fields(len(axes)))
    head, tables, at = [len(bands), begin], [bands.ravel()], begin + bands.size
    for axis in axes:
        covered = int(axis.begin[-1] + axis.count[-1]) if regions.disjoint else 0
        head += [axis.size, len(axis.begin), covered, at]
        tables.append(np.stack([axis.begin, axis.count], axis=1).ravel())
        at += 2 * len(axis.begin)
    return constant(np.concatenate([np.array(head), *tables]).astype(np.int64)), len(bands)


def _bands(axes: Sequence[Places], regions: Regions, error: bool) -> Numbers:
    """The bands of an example, a row of ``BAND`` for each."""
    rows, whole = axes[0], np.flatnonzero(axes[-1].count == regions.axes[-1].taps)
    count = len(rows.begin)
    every = regions.channels * rows.size // count
    for axis in axes[1:]:
        every *= axis.size
    least = OVERLAPPING if error and not regions.disjoint else 1
    starts = np.arange(0, count, max(least, BLOCK // max(every, 1)))
    first, last = starts, np.append(starts[1:], count)
    begin = np.append(0, rows.low[starts[1:]].clip(0, rows.size))
    end = np.append(begin[1:], rows.size)
    if error:
        first, last = np.searchsorted(rows.high, begin), np.searchsorted(rows.low, end)
    from_, to = (whole[0], whole[-1] + 1) if len(whole) else (0, 0)
    if len(axes) == 1:
        inside = np.searchsorted(rows.low, begin), np.searchsorted(rows.high, end)
        from_ = np.maximum(from_, inside[0] if error else first).clip(first, last)
        to = np.minimum(to, inside[1] if error else last).clip(from_, last)
    return np.stack(np.broadcast_arrays(begin, end, first, last, from_, to), axis=1)
