"""The kernel that convolves to few outputs, as a first layer's error does: taps lie in the lanes, beside the outputs.

    v[m, t, (kw, kh, o)] = sum over kd, c of x[m, t, c] w[kd, kh, kw, c, o]
    u[m, at, (kh, o)] = sum over t, kw with at = t*stride + kw*dilation of v[m, t, (kw, kh, o)]
    y[h, at, o] = bias[o] + sum over m, kh with h = m*stride + kh*dilation of u[m, at, (kh, o)]

``correlate`` has only the outputs for its lanes: 3 channels of an image use 3 of 16. Here a pixel of x is spread over
the pixels of y that it reaches, which is what an error does: a 3x3 kernel of 3 channels fills 27 of 32 lanes, and no
stride needs phases. (Depth is not spread, but summed as in ``correlate``.)

v is a register tile, P pixels times V vectors of lanes; many taps fall into blocks of some height taps each. v never
goes to memory: pixel after pixel is added to a sum, whose lanes then move down by as many numbers as x moves on, and
those that leave are a finished piece of u. Of u only the rows that can still reach a row of y are kept, in a ring.

On a Zen 5 core (peak 230 GFLOP/s) the errors of first layers of 9x9 on 1 channel to 20, 3x3 on 3 to 64, and 7x7 with
stride 2 on 3 to 64 run at 129, 153 and 168 GFLOP/s, idle lanes not counted; with ``correlate`` at 12, 34 and 32.
"""

import itertools
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
from faltung.engine.kernels.correlate import inside
from faltung.engine.kernels.depthwise import within
from faltung.engine.kernels.lanes import fill, parts
from faltung.engine.kernels.launch import Axis, Place, Steps, Taps
from faltung.engine.kernels.pack import STEPS
from faltung.engine.loops.language import INDEX, Function, Type, Value, Variable, pointer

Array = NDArray[Any]

SIZES = (
    "tasks", "groups", "bands", "band", "depth", "height", "width",  # how y is cut, and its sizes
    "x_depth", "x_height", "x_width",
    "d_start", "d_stride", "d_dilation", "d_taps",  # plane d of y reads planes of x ...
    "origin", "ahead", "h_stride", "h_dilation",  # row m of x reaches (m + ahead)*stride + kh*dilation - origin ...
    "w_start",  # and pixel t reaches w_start + t*stride + kw*dilation
    "x_example", "x_plane", "x_row", "y_example", "y_plane", "y_row",  # numbers from one to the next
    "ring", "u_row",  # rows of u that are kept, and numbers of one block in a row
)  # fmt: skip
"""The run-time numbers of a call, in the order in which they lie in memory."""
TASKS = 16
"""A call is cut into so many tasks, if bands of rows are then still much higher than what they compute twice."""


@dataclass(frozen=True)
class Rows:
    """What is compiled in: channels of a group, the taps of height and width, and the steps of the width."""

    kind: Type
    inputs: int
    outputs: int
    h_taps: int
    taps: int
    stride: int
    dilation: int
    x_pixel: int
    y_pixel: int

    @property
    def span(self) -> int:
        """How many pixels of a row of y one of x reaches over."""
        return (self.taps - 1) * self.dilation + 1


@dataclass(frozen=True)
class Tile:
    """The schedule of such rows: P pixels, V vectors, and the height taps of a block."""

    lanes: int
    vectors: int
    pixels: int
    heights: int
    blocks: int

    @property
    def block(self) -> int:
        """Lanes of a block, used or not."""
        return self.lanes * self.vectors


def schedule(rows: Rows, machine: Machine) -> Tile | None:
    """The cheapest tile; None where not even the taps of one row fit, or where x reaches pixels with gaps between them.

    >>> from faltung.engine.loops.language import F32
    >>> from faltung.engine.host.machine import AVX512
    >>> image = Rows(F32, inputs=64, outputs=3, h_taps=3, taps=3, stride=1, dilation=1, x_pixel=64, y_pixel=3)
    >>> schedule(image, AVX512)
    Tile(lanes=16, vectors=2, pixels=14, heights=3, blocks=1)
    """
    tiles = [_tile(rows, heights, machine) for heights in range(1, rows.h_taps + 1)]
    fit = [tile for tile in tiles if tile.pixels > 0 and rows.stride <= rows.span]
    return min(fit, key=lambda tile: cost(rows, tile, machine), default=None)


def _tile(rows: Rows, heights: int, machine: Machine) -> Tile:
    lanes = machine.lanes(rows.kind.size)
    vectors = -(-rows.span * heights * rows.outputs // lanes)
    pixels = min((machine.registers - 1 - vectors) // vectors, 14)
    return Tile(lanes, vectors, pixels, heights, -(-rows.h_taps // heights))


def cost(rows: Rows, tile: Tile, machine: Machine) -> float:
    """Estimated cycles for a pixel of x, and one depth tap.

    An input of P pixels takes P*V multiply-adds, two a cycle, and P + V loads, or as long as four of them where weights
    come from the L2 cache; a multiply-add has a latency of 4 cycles. Then V vectors are added, moved and stored; a tile
    begins and ends.
    """
    p, v = tile.pixels, tile.vectors
    loads = p + v * (1 if rows.inputs * tile.block * rows.kind.size <= machine.l1 * 7 // 8 else 4)
    return tile.blocks * (rows.inputs * max(p * v, loads, 8) / 2 / p + 2 * v + (2 * v + 20) / p)


def tile(rows: Rows, plan: Tile, pixels: int) -> Function:
    """``pixels`` neighbouring pixels of x, spread over a row of u."""
    kind, lanes, vectors = rows.kind, plan.lanes, range(plan.vectors)
    f = Function(f"tile_{pixels}", x=pointer(kind), w=pointer(kind), u=pointer(kind), d_count=INDEX, x_plane=INDEX)
    x, w, u, d_count, x_plane = f.arguments
    acc = [[f.variable(f"acc{p}_{v}", 0.0, kind.times(lanes)) for v in vectors] for p in range(pixels)]
    unroll = next(n for n in (4, 3, 2, 1) if rows.inputs % n == 0)
    with f.loop("kd", d_count) as kd, f.loop("c", rows.inputs, step=unroll) as c:
        x_c = f.at(x, kd * x_plane + c)
        w_c = f.at(w, (kd * (plan.blocks * rows.inputs) + c) * plan.block)
        for i in range(unroll):
            weights = [f.load(w_c, i * plan.block + v * lanes, lanes, name="w") for v in vectors]
            for p in range(pixels):
                pixel = f.broadcast(f.load(x_c, p * rows.x_pixel + i, name=f"x{p}"), lanes)
                for v in vectors:
                    acc[p][v].set(f.fma(pixel, weights[v], acc[p][v].value))
    spread(f, rows, plan, acc, u)
    return f


def spread(f: Function, rows: Rows, plan: Tile, acc: list[list[Variable]], u: Value) -> None:
    """Add the pixels, one after the other, to the sum that is open at u, and leave it open behind what is done."""
    kind, lanes = rows.kind.times(plan.lanes), plan.lanes
    pitch = plan.heights * rows.outputs
    step, zero = rows.stride * pitch, f.constant(0.0, kind)
    used = {k * rows.dilation * pitch + i for k in range(rows.taps) for i in range(pitch)}
    total = [f.load(u, v * lanes, lanes) for v in range(plan.vectors)]
    for p, vectors in enumerate(acc):
        for v, vector in enumerate(vectors):
            # In lanes without a tap stands 0 times x, which is no 0 where x is infinite.
            clean = [lane if v * lanes + lane in used else lanes + lane for lane in range(lanes)]
            added = vector.value if clean == list(range(lanes)) else f.shuffle(vector.value, zero, clean)
            total[v] = total[v] + added
        for v in range(-(-step // lanes)):
            f.store(total[v], u, p * step + v * lanes)
        total = moved(f, total, step)
    for v, vector in enumerate(total):
        f.store(vector, u, len(acc) * step + v * lanes)


def moved(f: Function, vectors: list[Value], count: int) -> list[Value]:
    """The numbers of the vectors ``count`` lanes further down, followed by zeros."""
    kind = vectors[0].type
    whole, rest = divmod(count, kind.lanes)
    left = [*vectors[whole:], *[f.constant(0.0, kind)] * (whole + 1)]
    if rest == 0:
        return left[: len(vectors)]
    return [f.shuffle(a, b, range(rest, rest + kind.lanes)) for a, b in itertools.pairwise(left)]


def correlate(name: str, rows: Rows, plan: Tile, machine: Machine) -> list[Function]:
    """The driver of one call, after the tiles that it uses.

    Arguments: run-time sizes (``SIZES``), x, packed weights, y, bias, a worker's scratch, and the tasks to do. A task
    is a band of rows of one plane of one example, for one group of channels. Every number of y is summed in the same
    order, wherever bands and tiles begin.
    """
    kind, pitch = rows.kind, plan.heights * rows.outputs
    tiles = {pixels: tile(rows, plan, pixels) for pixels in range(1, plan.pixels + 1)}
    f = Function(
        name,
        sizes=pointer(INDEX), x=pointer(kind), w=pointer(kind), y=pointer(kind), bias=pointer(kind),
        u=pointer(kind), first=INDEX, last=INDEX,
    )  # fmt: skip
    sizes, x, w, y, bias, u, first, last = f.arguments
    size = {field: f.load(sizes, number, name=field) for number, field in enumerate(SIZES)}
    count = (size["x_width"] + (plan.pixels - 1)) // plan.pixels
    base, longer = size["x_width"] // count, size["x_width"] % count
    stride = size["h_stride"]
    u_all = size["u_row"] * plan.blocks
    w_block = rows.inputs * plan.block
    vector = kind.times(plan.lanes)
    fill(f, f.at(u, size["ring"] * u_all), u_all, 0.0, vector)
    with f.loop("task", last, first) as task:
        band, rest = task % size["bands"], task // size["bands"]
        d, rest = rest % size["depth"], rest // size["depth"]
        group, n = rest % size["groups"], rest // size["groups"]
        h_first = band * size["band"]
        h_last = f.min(h_first + size["band"], size["height"])
        d_in, d_low, d_high = inside(f, d, size, "d", "x_depth")
        d_step = size["x_plane"] * size["d_dilation"]
        x_d = f.at(x, n * size["x_example"] + d_in * size["x_plane"] + d_low * d_step + group * rows.inputs)
        y_d = f.at(y, n * size["y_example"] + d * size["y_plane"] + group * rows.outputs)
        w_d = f.at(w, (group * size["d_taps"] + d_low) * (plan.blocks * w_block))
        bias_g = f.at(bias, group * rows.outputs)
        lowest = (h_first + size["origin"] - size["h_dilation"] * (rows.h_taps - 1)) // stride
        with f.loop("m", (h_last + size["origin"] - 1) // stride + 1, lowest) as m:
            with f.where(within(f, m - size["ahead"], size["x_height"])), f.loop("block", plan.blocks) as block:
                x_m = f.at(x_d, (m - size["ahead"]) * size["x_row"])
                u_m = f.at(u, m % size["ring"] * u_all + block * size["u_row"])
                for v in range(plan.vectors):
                    f.store(f.constant(0.0, vector), u_m, v * plan.lanes)
                at = f.variable("at", 0)
                with f.loop("tile", count) as number:
                    pixels = base + f.select(number < longer, f.constant(1), f.constant(0))
                    x_t, u_t = f.at(x_m, at.value * rows.x_pixel), f.at(u_m, at.value * (rows.stride * pitch))
                    for wanted, function in tiles.items():
                        with f.where(pixels.equal(wanted)):
                            f.call(function, x_t, f.at(w_d, block * w_block), u_t, d_high - d_low, d_step)
                    at.set(at.value + pixels)
            done = m * stride - size["origin"]
            with f.loop("h", f.min(done + stride, h_last), f.max(done, h_first)) as h:
                gather(f, rows, plan, size, h, u, bias_g, f.at(y_d, h * size["y_row"]), machine)
    return [*tiles.values(), f]


def gather(
    f: Function, rows: Rows, plan: Tile, size: dict[str, Value], h: Value, u: Value, bias: Value, y: Value,
    machine: Machine,
) -> None:  # fmt: skip
    """Row h of y from the rows of u that reach it, zeros for the others; where x does not reach, the bias alone."""
    kind, outputs, pitch = rows.kind, rows.outputs, plan.heights * rows.outputs
    pieces = []
    for k in range(rows.h_taps):
        reached = h + size["origin"] - size["h_dilation"] * k
        m, ring = reached // size["h_stride"], size["ring"]
        slot = f.select(within(f, m - size["ahead"], size["x_height"]), m % ring, ring)
        slot = f.select((reached % size["h_stride"]).equal(0), slot, ring)
        block, j = divmod(k, plan.heights)
        pieces.append(f.at(u, (slot * plan.blocks + block) * size["u_row"] + j * outputs - size["w_start"] * pitch))
    reach = (size["x_width"] - 1) * rows.stride + rows.span
    begin = f.min(f.max(size["w_start"], 0), size["width"])
    end = f.max(f.min(size["w_start"] + reach, size["width"]), begin)
    lanes = min(plan.lanes, 1 << (outputs - 1).bit_length())
    for low, high, some in ((f.constant(0), begin, []), (begin, end, pieces), (end, size["width"], [])):
        with f.loop("at", high, low) as at:
            for part in parts(outputs, kind.times(lanes), machine.masks):
                total = part.load(f, bias)
                for piece in some:
                    total = total + f.load(piece, at * pitch + part.begin, lanes)
                part.store(f, total, y, at * rows.y_pixel)


def pack(name: str, rows: Rows, plan: Tile) -> Function:
    """packed[group][kd][block][input][lane] = w[...], and 0 in lanes without a tap; one task a group, kd and block."""
    kind, pitch = rows.kind, plan.heights * rows.outputs
    f = Function(name, w=pointer(kind), packed=pointer(kind), **STEPS, scratch=pointer(kind), first=INDEX, last=INDEX)
    w, packed, d_taps, h_taps, d_step, h_step, w_step, input_step, output_step, group_step, _, first, last = f.arguments
    with f.loop("task", last, first) as task:
        begin, rest = task % plan.blocks * plan.heights, task // plan.blocks
        d, group = rest % d_taps, rest // d_taps
        source = f.at(w, group * group_step + d * d_step + begin * h_step)
        target = f.at(packed, task * (rows.inputs * plan.block))
        fill(f, target, f.constant(rows.inputs * plan.block), 0.0, kind.times(plan.lanes))
        heights = f.min(h_taps - begin, plan.heights)
        with f.loop("kh", heights) as kh, f.loop("kw", rows.taps) as kw, f.loop("o", rows.outputs) as o:
            lane = kw * (rows.dilation * pitch) + kh * rows.outputs + o
            weights = f.at(source, kh * h_step + kw * w_step + o * output_step)
            with f.loop("c", rows.inputs) as c:
                f.store(f.load(weights, c * input_step), target, c * plan.block + lane)
    return f


@cache
def spreader(rows: Rows, here: Machine) -> tuple[Tile, Code]:
    """The code for rows that have a schedule."""
    plan = schedule(rows, here)
    assert plan is not None, "these rows do not fit, and do not pay"
    return plan, recalled(_written, here, rows, plan, public=frozenset({"correlate", "pack"}))


def _written(machine: Machine, rows: Rows, plan: Tile) -> list[Function]:
    return [*correlate("correlate", rows, plan, machine), pack("pack", rows, plan)]


@dataclass(frozen=True)
class Call:
    """A correlation on given sizes, as in ``launch``; but height and width are axes of y, on which x is spread.

    They say: pixel t of x (``output`` of them) reaches pixel start + t*stride + k*dilation of y (``size`` of them).
    """

    rows: Rows
    axes: tuple[Axis, Axis, Axis]
    examples: int
    x: Steps
    y: Steps
    taps: Taps
    groups: int = 1

    def pays(self, machine: Machine) -> bool:
        """Is this faster than ``correlate``, as far as one can tell? Cycles of both are estimated, in one plane of y.

        Here a pixel of y adds a piece of u for each height tap. There it takes half a cycle for each input, tap that
        reaches it and vector of outputs, and 30 for the rest. (Measured on convolutions of 8 to 64 filters; both are 10
        to 20 % too low.) The ring must lie in the L2 cache, and one tap alone has nothing to put beside the outputs.
        """
        rows, (_, h, w) = self.rows, self.axes
        plan = schedule(rows, machine)
        if plan is None or self._scratch(plan) > machine.l2 // 2 or h.taps * w.taps == 1:
            return False
        here = 1.15 * (cost(rows, plan, machine) * h.output * w.output + h.size * w.size * (h.taps + 2))
        reach = h.taps * w.taps / (h.stride * w.stride)
        there = h.size * w.size * (0.55 * rows.inputs * reach * -(-rows.outputs // plan.lanes) + 30)
        return here < there

    def correlate(self, x: Place, w: Place, bias: Array | None, y: Place) -> None:
        """y = x spread by w, + bias."""
        rows, taps, (d, h, _) = self.rows, self.taps, self.axes
        plan, code = spreader(rows, host())
        tasks = self.groups * d.taps * plan.blocks
        packed = arena.empty((tasks * rows.inputs * plan.block,), rows.kind.dtype)
        start = self._zeros if bias is None else np.ascontiguousarray(bias)
        steps = (d.taps, h.taps, taps.d, taps.h, taps.w, taps.input, taps.output, taps.group)
        workers.launch(code.functions["pack"], w, packed, *steps, tasks=tasks, work=packed.size)
        workers.launch(
            code.functions["correlate"], self._sizes, x, packed, y, start,
            tasks=int(self._sizes[0]), work=self.work, scratch=self._scratch(plan),
        )  # fmt: skip

    @cached_property
    def _zeros(self) -> Array:
        """The bias where there is none."""
        return constant(np.zeros(self.groups * self.rows.outputs, self.rows.kind.dtype))

    @cached_property
    def work(self) -> int:
        """Multiply-adds."""
        rows, (d, h, w) = self.rows, self.axes
        pixels = self.examples * self.groups * d.output * h.output * w.output
        return pixels * d.taps * h.taps * rows.taps * rows.inputs * rows.outputs

    @cached_property
    def _ring(self) -> int:
        """Rows of u, from the first to the last that reach the same row of y."""
        h = self.axes[1]
        return (h.taps - 1) * h.dilation // h.stride + 1

    def _u_row(self, plan: Tile) -> int:
        """Numbers in a row of u, for one block: so far reaches the last tile's last store, and a load from its end."""
        return self.axes[2].output * self.rows.stride * plan.heights * self.rows.outputs + plan.block + plan.lanes

    def _scratch(self, plan: Tile) -> int:
        """Bytes that a worker needs: the ring, and a row of zeros."""
        return (self._ring + 1) * plan.blocks * self._u_row(plan) * self.rows.kind.size

    @cached_property
    def _sizes(self) -> Array:
        """The run-time numbers."""
        plan, (d, h, w) = spreader(self.rows, host())[0], self.axes
        ahead = max(0, -(-(h.start + (h.taps - 1) * h.dilation) // h.stride))
        planes = self.examples * self.groups * d.output
        bands = max(1, min(-(-TASKS // planes), h.size // (8 * self._ring * h.stride)))
        band = -(-h.size // bands)
        bands = -(-h.size // band)
        numbers = {
            "tasks": planes * bands, "groups": self.groups, "bands": bands, "band": band,
            "depth": d.output, "height": h.size, "width": w.size,
            "x_depth": d.size, "x_height": h.output, "x_width": w.output,
            "d_start": d.start, "d_stride": d.stride, "d_dilation": d.dilation, "d_taps": d.taps,
            "origin": ahead * h.stride - h.start, "ahead": ahead, "h_stride": h.stride, "h_dilation": h.dilation,
            "w_start": w.start,
            "x_example": self.x.example, "x_plane": self.x.plane, "x_row": self.x.row,
            "y_example": self.y.example, "y_plane": self.y.plane, "y_row": self.y.row,
            "ring": self._ring, "u_row": self._u_row(plan),
        }  # fmt: skip
        return constant(np.array([numbers[name] for name in SIZES], np.int64))
