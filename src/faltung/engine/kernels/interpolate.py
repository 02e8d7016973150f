"""The kernel that applies a matrix with few entries in each row along every axis of an array: resizing, and its error.

    y = R x along the first axis, then along the next, ...       R[j, i] has the entries that ``Matrix`` lists

One row of y after the other: the rows of x that it comes from are combined where they lie, in full vectors, into a row
in the scratch, which is as long as x's; then the last matrix is applied to this row, its lanes being channels. So no
intermediate array is written, and sums have the order of the NumPy definition. Sizes and matrices are run-time numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host.recording import constant
from faltung.engine.kernels.elementwise import BLOCK, TASK, sweep
from faltung.engine.kernels.lanes import Part, blocks, parts, pitches
from faltung.engine.loops.language import INDEX, Function, Type, Value, pointer

VECTORS = 4
"""Vectors of channels that are summed side by side."""


@dataclass(frozen=True)
class Matrix:
    """A matrix along an axis of x with this size: row j has the entries from ``starts[j]`` up to ``starts[j + 1]``."""

    size: int
    starts: NDArray[Any]
    columns: NDArray[Any]
    weights: NDArray[Any]

    @classmethod
    def listed(
        cls, rows: NDArray[Any], columns: NDArray[Any], weights: NDArray[Any], count: int, size: int
    ) -> "Matrix":
        """With ``count`` rows, from entries in any order, which they keep within a row.

        >>> matrix = Matrix.listed(np.array([1, 0, 1]), np.array([5, 3, 4]), np.array([0.1, 0.2, 0.3]), 2, 6)
        >>> matrix.starts.tolist(), matrix.columns.tolist(), matrix.weights.tolist()
        ([0, 1, 3], [3, 5, 4], [0.2, 0.1, 0.3])
        """
        order = np.argsort(rows, kind="stable")
        return cls(size, np.searchsorted(rows[order], np.arange(count + 1)), columns[order], weights[order])


@dataclass(frozen=True)
class Along:
    """What is compiled in."""

    channels: int
    rank: int
    entries: int = 0
    """In each row of each matrix; 0 where rows differ."""
    weighted: bool = True
    """Else all entries are 1."""


def numbers(matrices: Sequence[Matrix], channels: int, dtype: Any) -> tuple[NDArray[Any], NDArray[Any], int]:
    """What the kernel reads: whole numbers and weights; and how many bands an example of y has.

    The numbers: bands, the place of their table (first and last row of y), the place of the columns, and for each axis
    its sizes in x and y and the place of the starts, which count entries through all axes.
    """
    counts = [len(matrix.starts) - 1 for matrix in matrices]
    row = channels * int(np.prod(counts[1:]))
    edges = np.append(np.arange(0, counts[0], max(1, BLOCK // max(row, 1))), counts[0])
    table = np.stack([edges[:-1], edges[1:]], axis=1)
    begin = 3 + 3 * len(matrices)
    columns = begin + table.size + sum(counts) + len(counts)
    head, starts, at, entry = [len(table), begin, columns], [], begin + table.size, 0
    for matrix, count in zip(matrices, counts, strict=True):
        head += [matrix.size, count, at]
        starts.append(matrix.starts + entry)
        at, entry = at + count + 1, entry + len(matrix.columns)
    whole = [np.array(head), table.ravel(), *starts, *(matrix.columns for matrix in matrices)]
    weights = np.concatenate([matrix.weights for matrix in matrices]).astype(dtype)
    return constant(np.concatenate(whole).astype(np.int64)), constant(weights), len(table)


def interpolate(kind: Type, along: Along, masks: bool) -> Function:
    """y from x, by vectors of this type: arguments are run-time numbers, weights, x, y; scratch is for a row of x."""
    arrays = {"weights": pointer(kind), "x": pointer(kind), "y": pointer(kind)}
    f = Function("interpolate", sizes=pointer(INDEX), **arrays, **TASK | {"scratch": pointer(kind)})
    sizes, weights, x, y, scratch, first, last = f.arguments
    _Writer(f, kind, along, masks, sizes, weights, scratch).write(x, y, first, last)
    return f


@dataclass(frozen=True)
class _Row:
    """The entries of a row of a matrix: columns and weights where their number is known, else from begin to end."""

    known: list[tuple[Value, Value | None]]
    begin: Value
    end: Value


@dataclass
class _Writer:
    """The statements of ``interpolate``."""

    f: Function
    kind: Type
    along: Along
    masks: bool
    sizes: Value
    weights: Value
    scratch: Value

    def write(self, x: Value, y: Value, first: Value, last: Value) -> None:
        """Write all."""
        f, axes = self.f, range(self.along.rank)
        bands, table, self._columns = (
            f.load(self.sizes, at, name=name) for at, name in enumerate(("bands", "table", "columns"))
        )
        size, self._count, self._starts = (
            [f.load(self.sizes, 3 + 3 * axis + at, name=f"{name}{axis}") for axis in axes]
            for at, name in enumerate(("size", "count", "starts"))
        )
        self._x_pitch = pitches(f, self.along.channels, size)
        self._y_pitch = pitches(f, self.along.channels, self._count)
        with f.loop("task", last, first) as task:
            n, band = (task // bands).named("n"), (task % bands).named("band")
            rows = [f.load(self.sizes, table + (2 * band + end), name=name) for end, name in enumerate(("low", "high"))]
            self._x = f.at(x, n * self._x_pitch[0])
            self._outer([], f.at(y, n * self._y_pitch[0]), *rows)

    def _outer(self, rows: list[_Row], y: Value, low: Value, high: Value) -> None:
        """All rows of y, from low to high on the first axis; ``rows`` are those of the matrices so far."""
        f, axis = self.f, len(rows)
        if axis == self.along.rank - 1:
            self._last(self._combined(rows), y, low, high)
            return
        with f.loop(f"j{axis}", high, low) as j:
            place = f.at(y, j * self._y_pitch[axis + 1])
            self._outer([*rows, self._matrix_row(axis, j)], place, f.constant(0), self._count[axis + 1])

    def _combined(self, rows: list[_Row]) -> Value:
        """The row of x, as it is when all matrices but the last have been applied."""
        f, along, lanes = self.f, self.along, self.kind.lanes
        if not rows:
            return self._x
        if along.entries == 1 and not along.weighted:
            place = f.constant(0)
            for row, pitch in zip(rows, self._x_pitch[1:], strict=False):
                place = place + row.known[0][0] * pitch
            return f.at(self._x, place)

        def vector(i: Value, mask: Value | None) -> None:
            def value(axis: int, place: Value) -> Value:
                if axis < 0:
                    return f.load(self._x, place + i, lanes, mask)
                pitch = self._x_pitch[axis + 1]
                (total,) = self._sum(rows[axis], 1, lambda column: [value(axis - 1, place + column * pitch)])
                return total

            f.store(value(len(rows) - 1, f.constant(0)), self.scratch, i, mask)

        sweep(f, self._x_pitch[-2], lanes, vector)
        return self.scratch

    def _last(self, row: Value, y: Value, low: Value, high: Value) -> None:
        """The last matrix, applied to a row."""
        f, channels = self.f, self.along.channels
        vectors = parts(channels, self.kind, self.masks)
        with f.loop("j", high, low) as j:
            entries, place = self._matrix_row(self.along.rank - 1, j), f.at(y, j * channels)
            blocks(f, vectors, VECTORS, lambda c, some: self._pixel(entries, f.at(row, c), f.at(place, c), some))

    def _pixel(self, row: _Row, x: Value, y: Value, vectors: list[Part]) -> None:
        f, channels = self.f, self.along.channels
        sums = self._sum(row, len(vectors), lambda column: [part.load(f, x, column * channels) for part in vectors])
        for part, value in zip(vectors, sums, strict=True):
            part.store(f, value, y)

    def _sum(self, row: _Row, vectors: int, read: Callable[[Value], list[Value]]) -> list[Value]:
        """The sum over the entries of a row of weight times the vectors that are read at its column."""
        f = self.f

        def terms(column: Value, weight: Value | None) -> list[Value]:
            return [value if weight is None else weight * value for value in read(column)]

        if row.known:
            first, *others = (terms(*entry) for entry in row.known)
            for other in others:
                first = [total + term for total, term in zip(first, other, strict=True)]
            return first
        totals = [f.variable("total", f.constant(0.0, self.kind)) for _ in range(vectors)]
        with f.loop("e", row.end, row.begin) as e:
            for total, term in zip(totals, terms(*self._entry(e)), strict=True):
                total.set(total.value + term)
        return [total.value for total in totals]

    def _matrix_row(self, axis: int, j: Value) -> _Row:
        f, starts = self.f, self._starts[axis]
        begin = f.load(self.sizes, starts + j, name="begin")
        if self.along.entries:
            return _Row([self._entry(begin + k) for k in range(self.along.entries)], begin, begin)
        return _Row([], begin, f.load(self.sizes, starts + (j + 1), name="end"))

    def _entry(self, e: Value) -> tuple[Value, Value | None]:
        column = self.f.load(self.sizes, self._columns + e, name="column")
        return column, self.f.load(self.weights, e, name="weight") if self.along.weighted else None
