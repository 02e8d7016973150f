"""The sum of each channel over all positions: the gradient of a bias.

Few channels fill vectors, too, and partial sums are float64 (see ``channels``): a slice has a table of one period.
"""

from typing import Any

from numpy.typing import NDArray

from faltung.engine.host import arena, workers
from faltung.engine.host.recording import Fresh, Slices
from faltung.engine.kernels.channels import SIZES, Periods, narrow, period_of, slice_of
from faltung.engine.kernels.elementwise import TASK, code, vectors
from faltung.engine.kernels.lanes import fill
from faltung.engine.loops.language import F64, INDEX, Function, Type, Value, pointer

Array = NDArray[Any]


def channel_totals(kind: Type) -> Function:
    """tables[slice, place] += the numbers of a slice that belong to this place of a period."""
    places = {"x": pointer(kind), "tables": pointer(F64)}
    f = Function("channel_totals", **places, **SIZES, fresh=INDEX, **TASK | {"scratch": pointer(kind)})
    x, tables, channels, period, block, count, fresh, scratch, first, last = f.arguments
    periods = Periods(kind, channels, period, scratch)
    with f.loop("task", last, first) as task:
        begin, table = (task * block).named("begin"), f.at(tables, task * period)
        with f.where(fresh > 0):
            fill(f, table, period, 0.0, F64.times(kind.lanes))
        length, start = f.min(count - begin, block).named("length"), [f.constant(0.0, kind)]
        periods.sums([x], table, begin, length, start, lambda number, total: [total + number])
    return f


def folded(kind: Type) -> Function:
    """y[c] = what all tables hold for channel c."""
    sizes = dict.fromkeys(["slices", "channels", "period"], INDEX)
    f = Function("folded", tables=pointer(F64), y=pointer(kind), **sizes, **TASK)
    tables, y, slices, channels, period = f.arguments[:5]

    def channel(c: Value, mask: Value | None) -> None:
        total = f.variable("total", 0.0, F64.times(kind.lanes))
        with f.loop("part", slices) as part, f.loop("again", period // channels) as again:
            total.set(total.value + f.load(tables, part * period + again * channels + c, kind.lanes, mask))
        f.store(narrow(total.value, kind), y, c, mask)

    vectors(f, channels, kind.lanes)(channel)
    return f


def total(x: Array) -> Array:
    """The sum of x over all axes but the last, which is not empty."""
    channels, size, block = x.shape[-1], period_of(x), slice_of(x)
    slices = -(-x.size // block)
    tables, y = arena.sums((slices, size), "float64"), arena.empty((channels,), x.dtype)
    workers.launch(
        code(channel_totals, x.dtype), x, tables, channels, size, block, x.size, Fresh(1),
        tasks=slices, work=x.size,
    )  # fmt: skip
    workers.launch(
        code(folded, x.dtype), tables, y, Slices(slices), channels, size, tasks=1, work=slices * size
    )  # fmt: skip
    return y
