"""Embedding: rows of w are copied by index, and added back by index in the order of the law, bit for bit.

forward     y[t] = w[x[t]]                          a task is a band of positions
gradient    dw[x[t]] += dy[t], t = 0, 1, ...        a task owns a range of rows of dw, and looks at all positions
"""

import numpy as np

from faltung.elements.element import Array, Params, Run
from faltung.elements.embedding import Embedding
from faltung.engine.host import arena, workers
from faltung.engine.host.machine import host
from faltung.engine.host.recording import Fresh, sliced
from faltung.engine.kernels import rows
from faltung.engine.kernels.elementwise import COST, TASK, code, vectors
from faltung.engine.kernels.lanes import Part, blocks, fill, parts
from faltung.engine.kernels.slices import add_slices
from faltung.engine.loops.language import I64, INDEX, Function, Type, Value, pointer
from faltung.engine.programs.ready import ready

RANGES = 8
"""In so many parts the rows of dw are divided; each costs a look at all indices."""
VECTORS = 16
"""Of a row of w, so many are copied at a time."""


def _chosen(kind: Type, channels: int, masks: bool) -> Function:
    """y[row] = w[x[row]]."""
    f = rows.row_kernel("chosen", x=pointer(I64), w=pointer(kind), y=pointer(kind))
    x, w, y, *_ = f.arguments
    with rows.each_row(f) as row:
        source = f.at(w, f.convert("bits", f.load(x, row), INDEX) * channels)
        target = f.at(y, row * channels)

        def copy(c: Value, some: list[Part]) -> None:
            for part, vector in [(part, part.load(f, source, c)) for part in some]:
                part.store(f, vector, target, c)

        blocks(f, parts(channels, kind, masks), VECTORS, copy)
    return f


def _added(kind: Type) -> Function:
    """dw[low .. high] = the sums of the dy[row] whose index x[row] lies there; a task is ``share`` rows of dw.

    Where they are not ``fresh``, the sums go on from what is there.
    """
    sizes = dict.fromkeys(["rows", "channels", "count", "share", "fresh"], INDEX)
    f = Function("added", x=pointer(I64), dy=pointer(kind), dw=pointer(kind), **sizes, **TASK)
    x, dy, dw, positions, channels, count, share, fresh, _, first, last = f.arguments
    visit = vectors(f, channels, kind.lanes)
    with f.loop("task", last, first) as task:
        low = (task * share).named("low")
        high = f.min(low + share, count).named("high")
        with f.where(fresh > 0):
            fill(f, f.at(dw, low * channels), (high - low) * channels, 0.0, kind)
        with f.loop("row", positions) as row:
            index = f.convert("bits", f.load(x, row), INDEX)
            with f.where(low <= index), f.where(index < high):
                source, target = f.at(dy, row * channels), f.at(dw, index * channels)

                def add(i: Value, mask: Value | None) -> None:
                    total = f.load(target, i, kind.lanes, mask) + f.load(source, i, kind.lanes, mask)
                    f.store(total, target, i, mask)

                visit(add)
    return f


def forward(element: Embedding, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
    """See ``Embedding.forward``."""
    indices = np.ascontiguousarray(x, np.int64)
    largest = np.maximum.reduce(indices.view(np.uint64), axis=None, initial=0)  # a negative index is large
    if x.dtype.kind not in "iu" or largest >= element.count:
        element.admit_indices(x)
    return _rows_of(element, params, indices)


@ready
def _rows_of(element: Embedding, params: Params, indices: Array) -> tuple[Array, Array]:
    """``forward`` for indices that have been looked at."""
    element.admit(params, indices)
    w = np.ascontiguousarray(params["w"])
    y = arena.empty((*indices.shape, element.channels), w.dtype)
    kernel = code(_chosen, w.dtype, element.channels, host().masks)
    rows.launch(kernel, indices, w, y, rows=indices.size, length=element.channels)
    return y, indices


def error(element: Embedding, params: Params, kept: Array, dy: Array) -> None:
    """Indices have no error signal."""
    return


@ready
def gradient(element: Embedding, params: Params, kept: Array, dy: Array) -> dict[str, Array]:
    """See ``Embedding.gradient``."""
    kept, dy = np.ascontiguousarray(kept, np.int64), np.ascontiguousarray(dy)
    dw = arena.empty((element.count, element.channels), dy.dtype)
    sums = arena.sums((1, dw.size), dy.dtype) if sliced() else dw
    share = -(-element.count // RANGES)
    workers.launch(
        code(_added, dy.dtype), kept, dy, sums, kept.size, element.channels, element.count, share, Fresh(1),
        tasks=-(-element.count // share), work=COST * (dy.size + dw.size),
    )  # fmt: skip
    if sliced():
        add_slices(sums, dw)
    return {"w": dw}


LOWERINGS = {Embedding: (forward, error, gradient)}
