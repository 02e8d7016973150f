"""The run-time numbers of a pooling: where regions begin on each axis, which of them hold an entry, and its bands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host.recording import constant
from faltung.engine.kernels.elementwise import BLOCK
from faltung.engine.kernels.regions import Axis, Regions
from faltung.geometry import Window

Numbers = NDArray[Any]

HEAD = ("bands", "band", "whole", "broken", "first", "last", "before", "behind")
"""Bands of an example, and how many rows one has. Of the last axis: the first region with all taps, and the first one
behind these; the first block (see ``gather``) and the first one behind; and how many runs lie before blocks and behind.
"""
AXIS = ("size", "count", "most", "spans", "runs")
"""Of each axis: its sizes in x and y; the entries of its largest region; and the places of two tables, with begin and
count of each region, and with runs."""
RUN = ("begin", "end", "newest", "held")
"""Entries that the same regions hold: so many, the last of which is the newest one. But for the last axis, one each."""


@dataclass(frozen=True)
class Places:
    """The regions on one axis: their true entries are begin + k*dilation, k < count."""

    size: int
    begin: Numbers
    count: Numbers

    @classmethod
    def windows(cls, window: Window, size: int) -> "Places":
        """Those of a window that moves along an axis.

        >>> places = Places.windows(Window(3, stride=2, padding=1), 6)
        >>> places.begin.tolist(), places.count.tolist()
        ([0, 1, 3], [2, 3, 3])
        """
        low = np.arange(window.output(size) or 0) * window.stride - window.pads(size)[0]
        first = np.maximum(-(low // window.dilation), 0)
        behind = np.minimum(-((low - size) // window.dilation), window.kernel)
        return cls(size, low + first * window.dilation, behind - first)

    @classmethod
    def slices(cls, slices: Sequence[slice], size: int) -> "Places":
        """Those of regions that are known by their ends."""
        start, stop = np.array([[part.start, part.stop] for part in slices]).T
        return cls(size, start, stop - start)

    def runs(self, dilation: int) -> Numbers:
        """A ``RUN`` for each entry.

        >>> Places.windows(Window(3, stride=2), 6).runs(1).tolist()
        [[0, 1, 0, 1], [1, 2, 0, 1], [2, 3, 1, 2], [3, 4, 1, 1], [4, 5, 1, 1], [5, 6, 0, 0]]
        """
        every = np.arange(len(self.count))
        regions = np.repeat(every, self.count)
        taps = np.arange(len(regions)) - np.repeat(np.cumsum(self.count) - self.count, self.count)
        entries, all_ = np.repeat(self.begin, self.count) + taps * dilation, np.arange(self.size)
        newest = np.zeros(self.size, int)
        np.maximum.at(newest, entries, regions)
        return np.stack([all_, all_ + 1, newest, np.bincount(entries, minlength=self.size)], axis=1)

    def blocks(self, axis: Axis, whole: int, broken: int) -> tuple[int, int]:
        """The first block of entries all of whose regions are whole, and the first one behind them."""
        if not axis.blocks or whole == broken:
            return 0, 0
        first = whole + -(-axis.taps // axis.stride) - 1
        last = min(broken, whole + (self.size - int(self.begin[whole])) // axis.stride)
        return (first, last) if first < last else (0, 0)


def numbers(axes: Sequence[Places], regions: Regions, error: bool) -> tuple[Numbers, int]:
    """What the kernels of ``pool`` or, for the ``error``, of ``gather`` read; and how many bands an example has."""
    last, compiled = axes[-1], regions.axes[-1]
    complete = np.flatnonzero(last.count == compiled.taps)
    whole, broken = (int(complete[0]), int(complete[-1]) + 1) if len(complete) else (0, 0)
    blocks = last.blocks(compiled, whole, broken)
    runs = [axis.runs(own.dilation) for axis, own in zip(axes, regions.axes, strict=True)]
    low, high = (
        (int(last.begin[blocks[0]]), int(last.begin[blocks[1] - 1]) + compiled.stride) if any(blocks) else (0, 0)
    )
    before, behind = _merged(runs[-1][:low]), _merged(runs[-1][high:])
    runs[-1] = np.concatenate([before, behind])

    rows = len(axes[0].begin) if not error else axes[0].size if len(axes) > 1 else blocks[1] - blocks[0]
    every = regions.channels * math.prod(axis.size for axis in axes) // max(rows, 1)
    band = max(1, BLOCK // max(every, 1))
    bands = max(1, -(-rows // band))
    head, tables, at = [bands, band, whole, broken, *blocks, len(before), len(behind)], [], len(fields(len(axes)))
    for axis, own in zip(axes, runs, strict=True):
        spans = np.stack([axis.begin, axis.count], axis=1)
        head += [axis.size, len(axis.begin), int(axis.count.max()), at, at + spans.size]
        tables += [spans.ravel(), own.ravel()]
        at += spans.size + own.size
    return constant(np.concatenate([np.array(head), *tables]).astype(np.int64)), bands


def _merged(runs: Numbers) -> Numbers:
    """Neighbours with the same regions as one run."""
    if not len(runs):
        return runs
    new = np.flatnonzero(np.append(True, (runs[1:, 2:] != runs[:-1, 2:]).any(axis=1)))
    merged = runs[new]
    merged[:, 1] = np.append(runs[new[1:], 0], runs[-1, 1])
    return merged


def fields(rank: int) -> list[str]:
    """The names of the run-time numbers in their order; behind them are the tables."""
    return [*HEAD, *(f"{name}{axis}" for axis in range(rank) for name in AXIS)]
