"""The mean of each channel over all positions of an example, and its error; a task is an example.

A kernel of regions has as many lanes as there are channels; here few channels fill vectors, too (see ``channels``).
"""

from faltung.engine.kernels.channels import Periods, narrow
from faltung.engine.kernels.elementwise import TASK, vectors
from faltung.engine.kernels.lanes import fill
from faltung.engine.loops.language import F64, INDEX, Function, Type, Value, pointer

SIZES = dict.fromkeys(["channels", "period", "length"], INDEX)


def mean_forward(kind: Type) -> Function:
    """y[n, c] = the mean over the example's ``length`` numbers; ``tables[n]`` is memory for a period."""
    places = {"x": pointer(kind), "tables": pointer(F64), "y": pointer(kind)}
    f = Function("mean", **places, **SIZES, **TASK | {"scratch": pointer(kind)})
    x, tables, y, channels, period, length, scratch, first, last = f.arguments
    periods, double = Periods(kind, channels, period, scratch), F64.times(kind.lanes)
    count = f.convert("to_float", length // channels, F64)
    with f.loop("n", last, first) as n:
        table = f.at(tables, n * period)
        fill(f, table, period, 0.0, double)
        start = [f.constant(0.0, kind)]
        periods.sums([x], table, n * length, length, start, lambda number, total: [total + number])

        def channel(c: Value, mask: Value | None) -> None:
            total = f.variable("total", 0.0, double)
            with f.loop("again", period // channels) as again:
                total.set(total.value + f.load(table, again * channels + c, kind.lanes, mask))
            mean = total.value / count
            f.store(narrow(mean, kind), y, n * channels + c, mask)

        vectors(f, channels, kind.lanes)(channel)
    return f


def mean_error(kind: Type) -> Function:
    """dx[n, t, c] = dy[n, c] / m, for m positions."""
    f = Function("mean_error", dy=pointer(kind), dx=pointer(kind), **SIZES, **TASK | {"scratch": pointer(kind)})
    dy, dx, channels, period, length, scratch, first, last = f.arguments
    periods = Periods(kind, channels, period, scratch)
    share = 1.0 / f.convert("to_float", length // channels, kind.times(1))
    with f.loop("n", last, first) as n:
        periods.spread(f.at(dy, n * channels))
        periods.map([], dx, n * length, length, lambda each: share * each)
    return f
