"""The kernel that convolves images with 3x3 taps by 16 multiplications for 4 outputs, where the definition takes 36.

    y = A' (sum over c of (G w[c] G') * (B' x[c] B)) A, for 2x2 pixels of y, the 3x3 taps w and 4x4 pixels x

with * entry by entry; Lavin & Gray 2016, F(2x2, 3x3), after Winograd 1980. B and A hold 0, 1 and -1, and G halves, so
small whole numbers stay exact. Each of the 16 entries is a product of matrices, (tiles, inputs) by (inputs, outputs):

    u[entry, c, o] = G w G'                    packed, once
    v[entry, t, c] = B' x B                    the tiles of a chunk, channels in the lanes
    m[entry, t, o] = sum over c of v u         in registers P tiles times V vectors of outputs, as in ``correlate``
    y = A' m A + bias                          outputs in the lanes

The error is the same on dy, with the taps in reverse. Rounding errors are about twice those of the definition. A number
that is not finite reaches all 2x2 pixels of a tile, those that do not see it, too. So this serves predictors and steps
of training alone, where nobody sees the values of single elements, and rounding may differ.
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
from faltung.engine.host.recording import constant
from faltung.engine.kernels.launch import SLICES, Axis, Place, Steps, Taps
from faltung.engine.kernels.pack import STEPS, turned
from faltung.engine.kernels.pixels import STORED, Ending, Here, Store
from faltung.engine.kernels.tiles import Rows as Plain
from faltung.engine.kernels.tiles import even
from faltung.engine.kernels.tiles import schedule as columns_of
from faltung.engine.loops.language import INDEX, Function, Type, Value, pointer

Array = NDArray[Any]

SIZES = (
    "tasks", "ranges", "few", "bands", "band", "chunk",  # how y is cut: blocks of outputs, rows of tiles, tiles
    "rows", "columns", "height", "width", "x_height", "x_width", "h_start", "w_start",
    "x_example", "x_row", "y_example", "y_row",  # numbers from one to the next
)  # fmt: skip
"""The run-time numbers of a call, in the order in which they lie in memory."""
ENTRIES = 16
"""Of a tile."""
CHUNK = 24
"""Tiles whose entries lie in the scratch at a time, at most."""
PITCH = 25
"""Tiles from one entry to the next: odd, so that the entries of a tile do not push each other out of the L1 cache."""
LEAST = 12
"""Tiles that a task has, at least, beyond two tasks: its weights are read once for them, from the L2 cache at best."""
RANGE = 64
"""Outputs that a task has, at least, where weights outweigh pixels, so that outputs are divided, not tiles."""


@dataclass(frozen=True)
class Rows:
    """What is compiled in."""

    kind: Type
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Tile:
    """The schedule of the products: P tiles times V vectors."""

    lanes: int
    vectors: int
    tiles: int

    @property
    def block(self) -> int:
        """Outputs in one block."""
        return self.lanes * self.vectors


def schedule(rows: Rows, machine: Machine) -> Tile:
    """That of a convolution of one tap."""
    plain = Plain(rows.kind, rows.inputs, rows.outputs, 1, 1, 1, rows.inputs, rows.outputs, padded=False)
    found = columns_of(plain, 1, machine)
    return Tile(found.lanes, found.vectors, found.pixels)


def multiply(rows: Rows, plan: Tile, tiles: int) -> Function:
    """One entry of so many tiles, one block of outputs."""
    kind, lanes, vectors = rows.kind, plan.lanes, range(plan.vectors)
    f = Function(f"multiply_{tiles}", v=pointer(kind), u=pointer(kind), m=pointer(kind))
    v, u, m = f.arguments
    acc = [[f.variable(f"acc{t}_{k}", 0.0, kind.times(lanes)) for k in vectors] for t in range(tiles)]
    unroll = next(n for n in (4, 3, 2, 1) if rows.inputs % n == 0)
    with f.loop("c", rows.inputs, step=unroll) as c:
        u_c, v_c = f.at(u, c * plan.block), f.at(v, c)
        for i in range(unroll):
            weights = [f.load(u_c, i * plan.block + k * lanes, lanes, name="u") for k in vectors]
            for t in range(tiles):
                number = f.broadcast(f.load(v_c, t * rows.inputs + i, name=f"v{t}"), lanes)
                for k in vectors:
                    acc[t][k].set(f.fma(number, weights[k], acc[t][k].value))
    for t in range(tiles):
        for k in vectors:
            f.store(acc[t][k].value, m, t * plan.block + k * lanes)
    return f


def convolve(name: str, rows: Rows, plan: Tile, ending: Ending = STORED) -> list[Function]:
    """The driver of one call, after the products that it uses.

    Arguments: run-time sizes (``SIZES``), x, packed weights, y (or where else the ``ending`` stores), bias, a worker's
    scratch, and the tasks to do. A task is a band of rows of tiles of one example, for a range of blocks of outputs; it
    is done in chunks of tiles.
    """
    kind, inputs, outputs, block = rows.kind, rows.inputs, rows.outputs, plan.block
    products = {tiles: multiply(rows, plan, tiles) for tiles in range(1, plan.tiles + 1)}
    f = Function(
        name,
        sizes=pointer(INDEX), x=pointer(kind), w=pointer(kind), **ending.arguments(kind), bias=pointer(kind),
        scratch=pointer(kind), first=INDEX, last=INDEX,
    )  # fmt: skip
    sizes, x, w, *places, bias, scratch, first, last = f.arguments
    size = {field: f.load(sizes, number, name=field) for number, field in enumerate(SIZES)}
    blocks = -(-outputs // block)
    v, m = scratch, f.at(scratch, ENTRIES * PITCH * inputs)
    with f.loop("task", last, first) as task:
        part, rest = task % size["ranges"], task // size["ranges"]
        band, n = rest % size["bands"], rest // size["bands"]
        block_first = part * size["few"]
        block_last = f.min(block_first + size["few"], blocks)
        row = band * size["band"]
        begin = row * size["columns"]
        count = f.min(size["rows"] - row, size["band"]) * size["columns"]
        x_n = f.at(x, n * size["x_example"])
        chunks = (count + (size["chunk"] - 1)) // size["chunk"]
        with f.loop("chunk", chunks) as chunk:
            start = begin + chunk * size["chunk"]
            many = f.min(count - chunk * size["chunk"], size["chunk"])
            with f.loop("t", many) as t:
                i, j = (start + t) // size["columns"], (start + t) % size["columns"]
                h, w_ = i * 2 + size["h_start"], j * 2 + size["w_start"]
                spread(f, rows, plan.lanes, size, x_n, h, w_, f.at(v, t * inputs), PITCH)
            groups = (many + (plan.tiles - 1)) // plan.tiles
            base, longer = many // groups, many % groups
            with f.loop("block", block_last, block_first) as number:
                u = f.at(w, number * (ENTRIES * inputs * block))
                with f.loop("e", ENTRIES) as entry:
                    at = f.variable("at", 0)
                    u_e = f.at(u, entry * (inputs * block))
                    v_e, m_e = f.at(v, entry * (PITCH * inputs)), f.at(m, entry * (PITCH * block))
                    with f.loop("group", groups) as group:
                        tiles = base + f.select(group < longer, f.constant(1), f.constant(0))
                        for wanted, function in products.items():
                            with f.where(tiles.equal(wanted)):
                                f.call(function, f.at(v_e, at.value * inputs), u_e, f.at(m_e, at.value * block))
                        at.set(at.value + tiles)
                with f.loop("t", many) as t:
                    i, j = (start + t) // size["columns"], (start + t) % size["columns"]
                    begin_o = number * block
                    store = ending.store(f, size, outputs, places, Here(n, i, j, begin_o))
                    gather(f, rows, plan, f.at(m, t * block), f.at(bias, begin_o), begin_o, store)
    return [*products.values(), f]


def spread(
    f: Function, rows: Rows, lanes: int, size: dict[str, Value], x: Value, h: Value, w: Value, v: Value, chunk: int
) -> None:
    """The entries of the tile whose first pixel is (h, w); what lies outside of x is 0. Entries of a ``chunk`` of tiles
    lie together.
    """
    inputs = rows.inputs
    place = f.at(x, h * size["x_row"] + w * inputs)
    room = f.min(f.min(h, size["x_height"] - 4 - h), f.min(w, size["x_width"] - 4 - w))

    def entries(masks: Any) -> None:
        with f.loop("c", inputs, step=lanes) as c:
            whole = f.first_lanes(f.constant(inputs) - c, lanes) if inputs % lanes else None
            at = f.at(place, c)
            d = [
                [
                    f.load(at, a * size["x_row"] + b * inputs, lanes, masks(a, b, c) if masks else whole)
                    for b in range(4)
                ]
                for a in range(4)
            ]
            turned = list(zip(*[_filtered(column) for column in zip(*d, strict=True)], strict=True))
            for a, line in enumerate(turned):
                for b, entry in enumerate(_filtered(line)):
                    f.store(entry, v, c + (4 * a + b) * (chunk * inputs), whole)

    with f.where(room >= 0):
        entries(None)
    with f.where(room < 0):
        zero = f.constant(0)

        def within(at: Value, extent: Value) -> list[Value]:
            return [f.select(at + k >= 0, f.select(at + k < extent, f.constant(1), zero), zero) for k in range(4)]

        seen = [[a * b * inputs for b in within(w, size["x_width"])] for a in within(h, size["x_height"])]
        entries(lambda a, b, c: f.first_lanes(seen[a][b] - c, lanes))


def _filtered(d: Any) -> list[Value]:
    """B' d, for 4 numbers."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def gather(f: Function, rows: Rows, plan: Tile, m: Value, bias: Value, begin: Value, store: Store) -> None:
    """The 2x2 pixels of a tile from its entries, one block of outputs."""
    outputs, lanes, block = rows.outputs, plan.lanes, plan.block
    with f.loop("o", f.min(f.constant(outputs) - begin, block), step=lanes) as o:
        mask = f.first_lanes(f.constant(outputs) - begin - o, lanes) if outputs % lanes else None
        entries = [[f.load(m, o + (4 * a + b) * (PITCH * block), lanes) for b in range(4)] for a in range(4)]
        lines = list(zip(*[_joined(column) for column in zip(*entries, strict=True)], strict=True))
        shift = f.load(bias, o, lanes, mask)
        store([[pixel + shift for pixel in _joined(line)] for line in lines], o, mask)


def _joined(m: Any) -> list[Value]:
    """A' m, for 4 numbers."""
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def pack(name: str, rows: Rows, plan: Tile) -> Function:
    """packed[block][entry][input][output in the block] = G w G', one task a block.

    Of the error, inputs lie side by side in w: they are turned in the scratch first.
    """
    kind, inputs, lanes, block = rows.kind, rows.inputs, plan.lanes, plan.block
    f = Function(name, w=pointer(kind), packed=pointer(kind), **STEPS, scratch=pointer(kind), first=INDEX, last=INDEX)
    w, packed, _, _, _, h_step, w_step, input_step, output_step, _, scratch, first, last = f.arguments
    half = f.constant(0.5, kind.times(lanes))

    def widened(g: Any) -> list[Value]:
        """G g, for 3 numbers."""
        outer, inner = (g[0] + g[2]) * half, g[1] * half
        return [g[0], outer + inner, outer - inner, g[2]]

    def write(target: Value, w: Value, left: Value, h_step: Value, w_step: Value, input_step: Value) -> None:
        with f.loop("c", inputs) as c:
            for k in range(plan.vectors):
                mask, source = f.first_lanes(left - k * lanes, lanes), f.at(w, c * input_step + k * lanes)
                g = [[f.load(source, a * h_step + b * w_step, lanes, mask) for b in range(3)] for a in range(3)]
                columns = list(zip(*[widened(column) for column in zip(*g, strict=True)], strict=True))
                for a, line in enumerate(columns):
                    for b, entry in enumerate(widened(line)):
                        f.store(entry, target, (4 * a + b) * (inputs * block) + c * block + k * lanes)

    with f.loop("task", last, first) as task:
        target, source = f.at(packed, task * (ENTRIES * inputs * block)), f.at(w, task * block * output_step)
        left = f.min(f.constant(rows.outputs) - task * block, block)
        with f.where(output_step.equal(1)):
            write(target, source, left, h_step, w_step, input_step)
        with f.where(output_step > 1):
            tap = inputs * block
            with f.loop("h", 3) as h, f.loop("k", 3) as k:
                there = f.at(scratch, (h * 3 + k) * tap)
                tap_source = f.at(source, h * h_step + k * w_step)
                turned(f, kind, inputs, (lanes, plan.vectors), tap_source, there, output_step, left)
            write(target, scratch, left, *map(f.constant, (3 * tap, tap, block)))
    return f


@cache
def code(rows: Rows, here: Machine) -> tuple[Tile, Code]:
    """The schedule, and the code."""
    plan = schedule(rows, here)
    return plan, recalled(_written, here, rows, plan, public=frozenset({"convolve", "pack"}))


def _written(machine: Machine, rows: Rows, plan: Tile) -> list[Function]:
    return [*convolve("convolve", rows, plan), pack("pack", rows, plan)]


@dataclass(frozen=True)
class Call:
    """A convolution on given sizes, as in ``launch``."""

    rows: Rows
    axes: tuple[Axis, Axis]
    """Height and width; 3 taps, stride and dilation 1."""
    examples: int
    x: Steps
    y: Steps
    taps: Taps

    def correlate(self, x: Place, w: Place, bias: Array | None, y: Place) -> None:
        """y = correlate(x, w) + bias."""
        rows, taps = self.rows, self.taps
        plan, code_ = code(rows, host())
        blocks = -(-rows.outputs // plan.block)
        packed = arena.empty((blocks * ENTRIES * rows.inputs * plan.block,), rows.kind.dtype)
        steps = (1, 3, taps.d, taps.h, taps.w, taps.input, taps.output, taps.group)
        start = self._zeros if bias is None else np.ascontiguousarray(bias)
        turned = 9 * rows.inputs * plan.block * rows.kind.size if taps.output > 1 else 0
        workers.launch(code_.functions["pack"], w, packed, *steps, tasks=blocks, work=packed.size, scratch=turned)
        scratch = ENTRIES * PITCH * (rows.inputs + plan.block) * rows.kind.size
        workers.launch(
            code_.functions["convolve"], self._sizes, x, packed, y, start, tasks=int(self._sizes[0]), work=self.work,
            scratch=scratch,
        )  # fmt: skip

    @cached_property
    def _zeros(self) -> Array:
        return constant(np.zeros(self.rows.outputs, self.rows.kind.dtype))

    @cached_property
    def tiles(self) -> tuple[int, int]:
        """Rows of tiles, and columns."""
        h, w = self.axes
        return -(-h.output // 2), -(-w.output // 2)

    def pays(self, machine: Machine) -> bool:
        """Is this faster than ``correlate``, as far as one can tell? Cycles of both are estimated, for one example.

        A multiply-add of a vector takes half a cycle, and some more. A tile takes 60 cycles for each vector of its
        inputs and 50 for one of its outputs, and ``correlate`` 30 a pixel for the rest. (Measured on a Zen 5, for 16 to
        128 inputs and outputs.) For few tiles, weights take longer to read than these estimates know.
        """
        rows, (h, w), lanes = self.rows, self.axes, machine.lanes(self.rows.kind.size)
        inputs, outputs, tiles = -(-rows.inputs // lanes), -(-rows.outputs // lanes), math.prod(self.tiles)
        here = tiles * (0.55 * ENTRIES * rows.inputs * outputs + 60 * inputs + 50 * outputs + 40)
        there = h.output * w.output * (0.55 * 9 * rows.inputs * outputs + 30)
        return tiles >= LEAST and 1.1 * here < there

    @cached_property
    def work(self) -> int:
        """Multiply-adds of the products."""
        rows, columns = self.tiles
        return self.examples * rows * columns * ENTRIES * self.rows.inputs * self.rows.outputs

    @cached_property
    def _sizes(self) -> Array:
        """The run-time numbers."""
        (h, w), plan = self.axes, schedule(self.rows, host())
        rows, columns = self.tiles
        blocks = -(-self.rows.outputs // plan.block)
        wanted = -(-SLICES // self.examples)
        weights = ENTRIES * self.rows.inputs * self.rows.outputs
        many = weights > h.size * w.size * self.rows.inputs + h.output * w.output * self.rows.outputs
        few = even(blocks, -(-max(RANGE, self.rows.outputs // wanted) // plan.block)) if many else blocks
        ranges = -(-blocks // few)
        least = CHUNK if weights * self.rows.kind.size > host().l2 // 2 else LEAST
        bands = min(rows, -(-wanted // ranges), max(-(-2 // ranges), rows * columns // least))
        band = -(-rows // bands)
        bands = -(-rows // band)
        tiles = band * columns
        numbers = {
            "tasks": self.examples * bands * ranges, "ranges": ranges, "few": few,
            "bands": bands, "band": band, "chunk": -(-tiles // -(-tiles // CHUNK)),
            "rows": rows, "columns": columns, "height": h.output, "width": w.output,
            "x_height": h.size, "x_width": w.size, "h_start": h.start, "w_start": w.start,
            "x_example": self.x.example, "x_row": self.x.row, "y_example": self.y.example, "y_row": self.y.row,
        }  # fmt: skip
        return constant(np.array([numbers[name] for name in SIZES], np.int64))
