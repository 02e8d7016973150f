"""Softmax and its logarithm. A position's channels are a row, which is read three times while it lies in the L1 cache:
for its maximum, for the sum of the exponentials, for the quotients.

>>> y, kept = softmax_forward(Softmax(), {}, np.array([[0.0, np.log(3.0)], [1000.0, 0.0]]))
>>> y.round(4).tolist()
[[0.25, 0.75], [1.0, 0.0]]
>>> softmax_error(Softmax(), {}, kept, np.array([[1.0, 0.0], [1.0, 2.0]])).round(4).tolist()
[[0.1875, -0.1875], [0.0, 0.0]]
"""

import operator
from collections.abc import Callable

import numpy as np

from faltung.elements.element import Array, Params, Run
from faltung.elements.softmax import LogSoftmax, Softmax
from faltung.engine.host import arena
from faltung.engine.host.machine import host
from faltung.engine.kernels.elementwise import code
from faltung.engine.kernels.mathematics import decay, exp, log
from faltung.engine.kernels.rows import along, each_band, each_row, largest, launch, row_kernel, summed
from faltung.engine.loops.language import Function, Type, Value, pointer
from faltung.engine.lower.pointwise import no_gradient
from faltung.engine.programs.ready import ready

FEW = 8
"""Vectors of a row up to which its length is compiled in, so that no loop over them has to be counted."""


def softmax(kind: Type, channels: int) -> Function:
    """y[c] = exp(x[c] - most) / sum over k of exp(x[k] - most)."""
    f = row_kernel("softmax", x=pointer(kind), y=pointer(kind))
    length, visit = along(f, kind, channels)
    with each_row(f) as row:
        x, y = (f.at(array, row * length) for array in f.arguments[:2])
        most = largest(f, kind, visit, lambda i, mask: f.load(x, i, kind.lanes, mask))

        def power(i: Value, mask: Value | None) -> Value:
            e = decay(most - f.load(x, i, kind.lanes, mask))
            f.store(e, y, i, mask)
            return e

        share = 1 / summed(f, kind, visit, power)
        visit(lambda i, mask: f.store(f.load(y, i, kind.lanes, mask) * share, y, i, mask))
    return f


def softmax_back(kind: Type, channels: int) -> Function:
    """dx[c] = y[c] (dy[c] - sum over k of dy[k] y[k])."""
    f = row_kernel("softmax_back", y=pointer(kind), dy=pointer(kind), dx=pointer(kind))
    length, visit = along(f, kind, channels)
    with each_row(f) as row:
        y, dy, dx = (f.at(array, row * length) for array in f.arguments[:3])

        def both(i: Value, mask: Value | None) -> tuple[Value, Value]:
            return f.load(y, i, kind.lanes, mask), f.load(dy, i, kind.lanes, mask)

        def slope(i: Value, mask: Value | None) -> None:
            p, d = both(i, mask)
            f.store(p * (d - common), dx, i, mask)

        common = summed(f, kind, visit, lambda i, mask: operator.mul(*both(i, mask)))
        visit(slope)
    return f


def log_softmax(kind: Type, channels: int) -> Function:
    """y[c] = x[c] - most - log(sum over k of exp(x[k] - most)); the logarithms of some rows are taken side by side."""
    f = row_kernel("log_softmax", x=pointer(kind), y=pointer(kind), scratch=pointer(kind))
    x, y, *_, scratch, _, _ = f.arguments
    lanes, sums = kind.lanes, f.at(scratch, kind.lanes)
    length, visit = along(f, kind, channels)
    with each_band(f) as (_, begin, end), f.loop("some", end, begin, step=lanes) as some:
        rows = f.min(end - some, lanes).named("rows")
        with f.loop("row", rows) as row:
            here = f.at(x, (some + row) * length)
            most = largest(f, kind, visit, lambda i, mask: f.load(here, i, lanes, mask))
            f.store(most, scratch, row)
            f.store(summed(f, kind, visit, lambda i, mask: decay(most - f.load(here, i, lanes, mask))), sums, row)
        f.store(log(f.load(sums, 0, lanes)), sums)
        with f.loop("row", rows) as row:
            source, target = (f.at(array, (some + row) * length) for array in (x, y))
            below, size = f.load(scratch, row), f.load(sums, row)
            visit(lambda i, mask: f.store(f.load(source, i, lanes, mask) - below - size, target, i, mask))
    return f


def log_softmax_back(kind: Type, channels: int) -> Function:
    """dx[c] = dy[c] - exp(y[c]) (sum over k of dy[k])."""
    f = row_kernel("log_softmax_back", y=pointer(kind), dy=pointer(kind), dx=pointer(kind))
    length, visit = along(f, kind, channels)
    with each_row(f) as row:
        y, dy, dx = (f.at(array, row * length) for array in f.arguments[:3])

        def slope(i: Value, mask: Value | None) -> None:
            p = exp(f.load(y, i, kind.lanes, mask))
            f.store(f.load(dy, i, kind.lanes, mask) - p * total, dx, i, mask)

        total = summed(f, kind, visit, lambda i, mask: f.load(dy, i, kind.lanes, mask))
        visit(slope)
    return f


def _run(kernel: Callable[[Type, int], Function], *arrays: Array) -> Array:
    """The kernel's output, which has the shape of its inputs."""
    x, *others = map(np.ascontiguousarray, arrays)
    y, channels = arena.empty(x.shape, x.dtype), x.shape[-1]
    compiled = code(kernel, x.dtype, channels if channels <= FEW * host().lanes(x.itemsize) else 0)
    launch(compiled, x, *others, y, rows=x.size // channels, length=channels, scratch=2 * arena.LINE)
    return y


@ready
def softmax_forward(element: Softmax, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
    """See ``Softmax.forward``."""
    element.admit(params, x)
    y = _run(softmax, x)
    return y, y


@ready
def softmax_error(element: Softmax, params: Params, kept: Array, dy: Array) -> Array:
    """See ``Softmax.error``."""
    return _run(softmax_back, kept, dy)


@ready
def log_softmax_forward(element: LogSoftmax, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
    """See ``LogSoftmax.forward``."""
    element.admit(params, x)
    y = _run(log_softmax, x)
    return y, y


@ready
def log_softmax_error(element: LogSoftmax, params: Params, kept: Array, dy: Array) -> Array:
    """See ``LogSoftmax.error``."""
    return _run(log_softmax_back, kept, dy)


LOWERINGS = {
    Softmax: (softmax_forward, softmax_error, no_gradient),
    LogSoftmax: (log_softmax_forward, log_softmax_error, no_gradient),
}
