"""The kernel that adds slices: y = the sum of several arrays that lie one behind the other, always in their order."""

from typing import Any

from numpy.typing import NDArray

from faltung.engine.host import workers
from faltung.engine.host.recording import Slices
from faltung.engine.kernels.elementwise import BLOCK, TASK, code, sweep
from faltung.engine.loops.language import INDEX, Function, Type, Value, pointer


def added(kind: Type) -> Function:
    """y[i] = sums[0][i] + sums[1][i] + ...; a task is a block of numbers."""
    f = Function("added", sums=pointer(kind), y=pointer(kind), slices=INDEX, count=INDEX, **TASK)
    sums, y, slices, count, _, first, last = f.arguments
    with f.loop("task", last, first) as task:
        begin = (task * BLOCK).named("begin")

        def vector(i: Value, mask: Value | None) -> None:
            total = f.variable("total", f.load(sums, begin + i, kind.lanes, mask))
            with f.loop("s", slices, 1) as s:
                total.set(total.value + f.load(sums, s * count + begin + i, kind.lanes, mask))
            f.store(total.value, y, begin + i, mask)

        sweep(f, f.min(count - begin, BLOCK).named("length"), kind.lanes, vector)
    return f


def add_slices(sums: NDArray[Any], y: NDArray[Any]) -> None:
    """y = the sum of the rows of ``sums``."""
    slices, count = sums.shape
    workers.launch(
        code(added, y.dtype), sums, y, Slices(slices), count, tasks=-(-count // BLOCK), work=slices * count
    )  # fmt: skip
