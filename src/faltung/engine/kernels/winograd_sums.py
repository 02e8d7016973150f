"""The gradient of a convolution with 3x3 taps by 16 multiplications a tile of 2x2 pixels, where ``gradient`` takes 36.

    dw[c, o] = G' (sum over tiles of (B' x[c] B) * (A dy[o] A')) G

It is the transpose of ``winograd``, with the same A, B and G, by the same tiles: each of the 16 entries is a product of
matrices again, (inputs, tiles) by (tiles, outputs), which is added to the sums of a slice.

    v[entry, t, c] = B' x B                        the tiles of a chunk, channels in the lanes
    z[entry, t, o] = A dy A'
    sums[block, entry, c, o] += sum over t of v z  in registers R inputs times V vectors of outputs, as in ``gradient``
    dw = G' (the sums of all slices) G             once
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.host import arena, workers
from faltung.engine.host.compile import Code
from faltung.engine.host.machine import Machine, host
from faltung.engine.host.recall import recalled
from faltung.engine.host.recording import Fresh, Slices, constant
from faltung.engine.kernels import winograd
from faltung.engine.kernels.correlate import zero
from faltung.engine.kernels.gradient import MOST
from faltung.engine.kernels.tiles import even
from faltung.engine.kernels.winograd import ENTRIES, Rows, spread
from faltung.engine.loops.language import INDEX, Function, Value, pointer

Array = NDArray[Any]

SIZES = (
    "examples", "chunk", "rows", "columns", "height", "width", "x_height", "x_width", "h_start", "w_start",
    "x_example", "x_row", "y_example", "y_row",
)  # fmt: skip
"""The run-time numbers of a call, in the order in which they lie in memory."""
CHUNK = 63
"""Tiles whose entries lie in the scratch at a time, at most: so many times a sum is added to between load and store."""
STEPS = dict.fromkeys(("h_step", "w_step", "input_step"), INDEX)


@dataclass(frozen=True)
class Tile:
    """The schedule of the products: R inputs times V vectors of outputs."""

    lanes: int
    vectors: int
    inputs: int

    @property
    def block(self) -> int:
        """Outputs in one block."""
        return self.lanes * self.vectors

    def blocks(self, rows: Rows) -> int:
        """Blocks of outputs."""
        return -(-rows.outputs // self.block)


def schedule(rows: Rows, machine: Machine) -> Tile:
    """As many vectors as halve the loads, and as many inputs as there is room for."""
    lanes = machine.lanes(rows.kind.size)
    vectors = even(-(-rows.outputs // lanes), 4 if machine.registers >= 32 else 2)
    room = (machine.registers - 1 - vectors) // vectors
    return Tile(lanes, vectors, even(rows.inputs, min(room, MOST)))


def multiply(rows: Rows, plan: Tile, inputs: int) -> Function:
    """Add the products of so many tiles to ``inputs`` times one block of sums of one entry."""
    kind, lanes, vectors = rows.kind, plan.lanes, range(plan.vectors)
    f = Function(f"multiply_{inputs}", v=pointer(kind), z=pointer(kind), sums=pointer(kind), tiles=INDEX)
    v, z, sums, tiles = f.arguments
    acc = [
        [f.variable(f"acc{r}_{k}", f.load(sums, r * plan.block + k * lanes, lanes)) for k in vectors]
        for r in range(inputs)
    ]
    with f.loop("t", tiles) as t:
        v_t, z_t = f.at(v, t * rows.inputs), f.at(z, t * (plan.blocks(rows) * plan.block))
        errors = [f.load(z_t, k * lanes, lanes, name="z") for k in vectors]
        for r in range(inputs):
            number = f.broadcast(f.load(v_t, r, name=f"v{r}"), lanes)
            for k in vectors:
                acc[r][k].set(f.fma(number, errors[k], acc[r][k].value))
    for r in range(inputs):
        for k in vectors:
            f.store(acc[r][k].value, sums, r * plan.block + k * lanes)
    return f


def gradient(name: str, rows: Rows, plan: Tile) -> list[Function]:
    """The driver of one call, after the products that it uses.

    Arguments: run-time sizes (``SIZES``), x, dy, the sums of a slice, whether they begin at 0, a worker's scratch, and
    the tasks to do, of which there is one.
    """
    kind, inputs, block, blocks = rows.kind, rows.inputs, plan.block, plan.blocks(rows)
    whole, rest = divmod(inputs, plan.inputs)
    products = {count: multiply(rows, plan, count) for count in {plan.inputs, rest} - {0}}
    f = Function(
        name,
        sizes=pointer(INDEX), x=pointer(kind), dy=pointer(kind), sums=pointer(kind), fresh=INDEX,
        scratch=pointer(kind), first=INDEX, last=INDEX,
    )  # fmt: skip
    sizes, x, dy, sums, fresh, scratch, first, last = f.arguments
    size = {field: f.load(sizes, number, name=field) for number, field in enumerate(SIZES)}
    outputs = blocks * block
    v, z = scratch, f.at(scratch, ENTRIES * CHUNK * inputs)
    count = size["rows"] * size["columns"]
    with f.loop("task", last, first):
        with f.where(fresh > 0):
            zero(f, kind, sums, f.constant(ENTRIES * inputs * outputs), plan.lanes)
        with (
            f.loop("n", size["examples"]) as n,
            f.loop("chunk", (count + (size["chunk"] - 1)) // size["chunk"]) as chunk,
        ):
            x_n, dy_n = f.at(x, n * size["x_example"]), f.at(dy, n * size["y_example"])
            start = chunk * size["chunk"]
            many = f.min(count - start, size["chunk"])
            with f.loop("t", many) as t:
                i, j = (start + t) // size["columns"], (start + t) % size["columns"]
                v_t, h, w = f.at(v, t * inputs), i * 2 + size["h_start"], j * 2 + size["w_start"]
                spread(f, rows, plan.lanes, size, x_n, h, w, v_t, CHUNK)
                widen(f, rows, plan, size, dy_n, i * 2, j * 2, f.at(z, t * outputs))
            with f.loop("e", ENTRIES) as e, f.loop("block", blocks) as number:
                v_e, z_e = f.at(v, e * (CHUNK * inputs)), f.at(z, e * (CHUNK * outputs) + number * block)
                sums_e = f.at(sums, (number * ENTRIES + e) * (inputs * block))
                with f.loop("c", whole * plan.inputs, step=plan.inputs) as c:
                    f.call(products[plan.inputs], f.at(v_e, c), z_e, f.at(sums_e, c * block), many)
                if rest:
                    c = whole * plan.inputs
                    f.call(products[rest], f.at(v_e, c), z_e, f.at(sums_e, c * block), many)
    return [*products.values(), f]


def widen(f: Function, rows: Rows, plan: Tile, size: dict[str, Value], dy: Value, h: Value, w: Value, z: Value) -> None:
    """The entries of the 2x2 errors from (h, w) on, with zeros up to whole blocks; what lies outside of dy is 0."""
    outputs, lanes, wide = rows.outputs, plan.lanes, plan.blocks(rows) * plan.block
    place, zero = f.at(dy, h * size["y_row"] + w * outputs), f.constant(0)
    low, right = (f.select(size[end] - at > 1, f.constant(outputs), zero) for end, at in (("height", h), ("width", w)))
    seen = [[f.constant(outputs), right], [low, f.min(low, right)]]
    with f.loop("o", wide, step=lanes) as o:
        d = [
            [
                f.load(f.at(place, o), a * size["y_row"] + b * outputs, lanes, f.first_lanes(seen[a][b] - o, lanes))
                for b in range(2)
            ]
            for a in range(2)
        ]
        columns = list(zip(*[_widened(column) for column in zip(*d, strict=True)], strict=True))
        for a, line in enumerate(columns):
            for b, entry in enumerate(_widened(line)):
                f.store(entry, z, o + (4 * a + b) * (CHUNK * wide))


def _widened(d: Any) -> list[Value]:
    """A d, for 2 numbers."""
    return [d[0], d[0] + d[1], d[0] - d[1], -d[1]]


def unpack(name: str, rows: Rows, plan: Tile) -> Function:
    """dw = G' (the sums of all slices, added in the same order always) G; one task a block of outputs."""
    kind, inputs, lanes, block = rows.kind, rows.inputs, plan.lanes, plan.block
    f = Function(
        name, sums=pointer(kind), dw=pointer(kind), slices=INDEX, **STEPS, scratch=pointer(kind), first=INDEX,
        last=INDEX,
    )  # fmt: skip
    sums, dw, slices, h_step, w_step, input_step, _, first, last = f.arguments
    half, whole = f.constant(0.5, kind.times(lanes)), ENTRIES * inputs * plan.blocks(rows) * block

    def narrowed(m: Any) -> list[Value]:
        """G' m, for 4 numbers."""
        outer, inner = (m[1] + m[2]) * half, (m[1] - m[2]) * half
        return [m[0] + outer, inner, outer + m[3]]

    with f.loop("task", last, first) as task, f.loop("c", inputs) as c:
        for k in range(plan.vectors):
            source = f.at(sums, task * (ENTRIES * inputs * block) + c * block + k * lanes)
            total = [f.variable("total", f.load(source, e * (inputs * block), lanes)) for e in range(ENTRIES)]
            with f.loop("s", slices, 1) as s:
                for e, entry in enumerate(total):
                    entry.set(entry.value + f.load(source, s * whole + e * (inputs * block), lanes))
            m = [[total[4 * a + b].value for b in range(4)] for a in range(4)]
            begin = task * block + k * lanes
            mask, target = f.first_lanes(f.constant(rows.outputs) - begin, lanes), f.at(dw, c * input_step + begin)
            columns = list(zip(*[narrowed(column) for column in zip(*m, strict=True)], strict=True))
            for a, line in enumerate(columns):
                for b, tap in enumerate(narrowed(line)):
                    f.store(tap, target, a * h_step + b * w_step, mask)
    return f


@cache
def code(rows: Rows, here: Machine) -> tuple[Tile, Code]:
    """The schedule, and the code."""
    plan = schedule(rows, here)
    return plan, recalled(_written, here, rows, plan, public=frozenset({"winograd_gradient", "winograd_unpack"}))


def _written(machine: Machine, rows: Rows, plan: Tile) -> list[Function]:
    return [*gradient("winograd_gradient", rows, plan), unpack("winograd_unpack", rows, plan)]


@dataclass(frozen=True)
class Sums:
    """The gradient of a convolution, as in ``launch``, for one slice of the batch."""

    call: winograd.Call

    def gradient(self, x: Array, dy: Array, dw: Array) -> None:
        """dw = the sum over all pixels of x dy."""
        rows, taps = self.call.rows, self.call.taps
        plan, code_ = code(rows, host())
        blocks = plan.blocks(rows)
        sums = arena.sums((1, ENTRIES * rows.inputs * blocks * plan.block), rows.kind.dtype)
        scratch = ENTRIES * CHUNK * (rows.inputs + blocks * plan.block) * rows.kind.size
        workers.launch(
            code_.functions["winograd_gradient"], self._sizes, x, dy, sums, Fresh(1), tasks=1, work=self.call.work,
            scratch=scratch,
        )  # fmt: skip
        workers.launch(
            code_.functions["winograd_unpack"], sums, dw, Slices(1), taps.h, taps.w, taps.input, tasks=blocks,
            work=sums.size,
        )  # fmt: skip

    def pays(self, machine: Machine) -> bool:
        """Is this faster than ``gradient``, as far as one can tell? Cycles of both are estimated, for one example.

        Beside what ``winograd`` takes, sums are loaded and stored once a chunk.
        """
        rows, (h, w), lanes = self.call.rows, self.call.axes, machine.lanes(self.call.rows.kind.size)
        inputs, outputs, tiles = -(-rows.inputs // lanes), -(-rows.outputs // lanes), math.prod(self.call.tiles)
        products = ENTRIES * rows.inputs * outputs
        passes = 4 if products * machine.vector <= machine.l2 // 2 else 16
        here = tiles * (0.55 * products + 60 * inputs + 40 * outputs + 40) + -(-tiles // CHUNK) * passes * products
        return 1.1 * here < h.output * w.output * 0.55 * 9 * rows.inputs * outputs

    @cached_property
    def _sizes(self) -> Array:
        """The run-time numbers."""
        call, (h, w) = self.call, self.call.axes
        rows, columns = call.tiles
        numbers = {
            "examples": call.examples, "chunk": even(rows * columns, CHUNK), "rows": rows, "columns": columns,
            "height": h.output, "width": w.output, "x_height": h.size, "x_width": w.size,
            "h_start": h.start, "w_start": w.start,
            "x_example": call.x.example, "x_row": call.x.row, "y_example": call.y.example, "y_row": call.y.row,
        }  # fmt: skip
        return constant(np.array([numbers[name] for name in SIZES], np.int64))
