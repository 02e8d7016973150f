"""The kernel of a convolution's gradient: every weight a sum over all pixels.

    dw[k, c, o] = sum over pixels t of x[t*stride + k*dilation, c] dy[t, o]

The tile: R inputs times V vectors of outputs stay in registers while the pixels pass by; one pixel takes R broadcasts
of x, V loads of dy and R*V fused multiply-adds. x is read where it is: a copy would cost one load and one store a
number, which few taps and channels never earn back. So is dy where few tiles read it; but where many do, a chunk of one
block is copied first, for its lines, which lie far apart, would push each other out of the L1 cache. Pixels whose tap
lies in the padding are left out of the loops, so padding costs nothing.

A task has a piece of the sums, a range of inputs and a range of blocks of outputs, that stays in the L2 cache while the
pixels of a slice of examples pass by, a chunk at a time; and the chunk stays in the L2 cache until all of the piece has
seen it. Each slice of examples, or of the rows and columns of one, has sums of its own.

Where channels are few, the taps of a row and their channels, side by side in memory, are the inputs (``joined``); they
are read from a copy of the padded row, and may share vectors of sums (see ``shared``). And where a vector cannot be
loaded in part, a copy of dy has zeros behind its last output.
"""

import itertools
from dataclasses import dataclass

from faltung.engine.host.machine import Machine
from faltung.engine.kernels.correlate import SIZES, inside, pad, zero
from faltung.engine.kernels.shared import Shared, sharing
from faltung.engine.kernels.tiles import STREAM, Rows, even
from faltung.engine.loops.language import INDEX, Function, Value, pointer

MOST = 16
"""Inputs of a tile at most."""
OFTEN = 32
"""Tiles that read the same dy, from which on it pays to copy it first."""


@dataclass(frozen=True)
class Sums:
    """The schedule of a gradient."""

    lanes: int
    vectors: int
    inputs: int
    joined: bool
    copied: bool
    """Is dy copied, with zeros up to whole vectors?"""
    registers: int
    shared: Shared | None = None
    """How inputs share the sums of the last vector of outputs, if they do."""

    @property
    def block(self) -> int:
        """Outputs in one block."""
        return self.lanes * self.vectors


def schedule(rows: Rows, machine: Machine) -> Sums:
    """Choose the tile that takes the fewest cycles for all inputs and outputs of a pixel.

    Two multiply-adds and two loads run in a cycle, at least 8 multiply-adds must be under way, and x and dy come from
    the L2 cache, ``STREAM`` bytes a cycle: V vectors of dy, and of x R numbers in one cache line, or two.
    """
    lanes = machine.lanes(rows.kind.size)
    needed = -(-rows.outputs // lanes)
    joined = rows.dilation == 1 and rows.x_pixel == rows.inputs and rows.inputs < 8
    inputs = rows.inputs * (rows.taps if joined else 1)

    def cycles(choice: tuple[int, int]) -> tuple[float, float]:
        vectors, most = choice
        whole, rest = divmod(inputs, most)
        tiles = [most] * whole + [rest] * (rest > 0)
        read = [vectors * machine.vector + 64 + (r - 1) * rows.kind.size for r in tiles]
        one = sum(max(r * vectors / 2, (r + vectors) / 2, 4.0, b / STREAM) for r, b in zip(tiles, read, strict=True))
        return (one * -(-needed // vectors), sum(read) * -(-needed // vectors))

    choices = [
        (vectors, most)
        for vectors in range(1, min(8, needed) + 1)
        for most in range(1, min(MOST, inputs) + 1)
        if vectors * most + vectors + 1 <= machine.registers
    ]
    shared = sharing(rows.kind, rows.outputs, 1, machine) if joined else None
    if shared and needed <= 8:
        # each group of inputs takes so many sums; beside them are dy of two pixels, x, and how it is shuffled
        room = (machine.registers - 2 * needed - 2) // ((needed - 1) * shared.members + 1)
        if room:
            return Sums(lanes, needed, even(inputs, room * shared.members), joined, False, machine.registers, shared)
    vectors, most = min(choices, key=cycles)
    readers = -(-inputs // most) * (1 if joined else rows.taps)
    copied = readers >= OFTEN or (not machine.masks and rows.outputs % (lanes * vectors) > 0)
    return Sums(lanes, vectors, most, joined, copied, machine.registers)


@dataclass(frozen=True)
class Cut:
    """How a gradient's work is cut: the examples, rows and columns of a chunk, the blocks and inputs of a piece."""

    together: int
    band: int
    span: int
    few: int
    wide: int

    def pieces(self, rows: Rows, plan: Sums) -> int:
        """Pieces of the sums of one group."""
        return -(-rows.outputs // (plan.block * self.few)) * -(-inputs(rows, plan) // self.wide)


def cut(rows: Rows, plan: Sums, outer: int, pixels: tuple[int, int, int], wanted: int, machine: Machine) -> Cut:
    """Of a slice of so many examples, rows and columns, with ``outer`` taps in the outer axes.

    A quarter of the L2 cache is for the piece and a quarter for the chunk; but there should be ``wanted`` pieces.
    """
    room, count = machine.l2 // 4, inputs(rows, plan)
    examples, height, width = pixels
    blocks = -(-rows.outputs // plan.block)
    channel = outer * (1 if plan.joined else rows.taps) * plan.block * rows.kind.size
    few = max(1, min(-(-blocks // wanted), room // (channel * count)))
    wide = count
    if few == 1 and not plan.joined:
        most = min(room // channel, -(-count // -(-wanted // blocks)))
        wide = even(-(-count // plan.inputs), max(1, most // plan.inputs)) * plan.inputs
    few = even(blocks, few)
    pixel = rows.kind.size * (rows.stride * min(wide, rows.inputs) + few * plan.block)
    most = max(1, room // pixel)
    span = even(width, most)
    band = even(height, max(1, most // width))
    return Cut(even(examples, max(1, most // (height * width))), band, span, few, wide)


def inputs(rows: Rows, plan: Sums) -> int:
    """Inputs of one group, as the tile counts them."""
    return rows.inputs * (rows.taps if plan.joined else 1)


def tile(rows: Rows, plan: Sums, inputs: int) -> Function:
    """Add a box of pixels (examples, rows, columns) to ``inputs`` times one block of sums.

    Where these are too few to hide a multiply-add's latency, up to four pixels in turn have sums of their own. What
    lies ``x_ahead`` and ``dy_ahead`` is read next, from memory that answers late. Where inputs share vectors, pixels go
    in pairs at least, and what two of them read is read once.
    """
    kind, lanes, shared = rows.kind, plan.lanes, plan.shared
    vectors, groups = range(plan.vectors - (shared is not None)), shared.groups(inputs) if shared else []
    x_step, dy_step = rows.stride * rows.x_pixel, plan.block if plan.copied else rows.y_pixel
    f = Function(
        f"sums_{inputs}",
        x=pointer(kind), dy=pointer(kind), dw=pointer(kind), examples=INDEX, height=INDEX, width=INDEX,
        x_example=INDEX, x_row=INDEX, dy_example=INDEX, dy_row=INDEX, outputs=INDEX, x_ahead=INDEX, dy_ahead=INDEX,
    )  # fmt: skip
    x, dy, dw, examples, height, width, x_example, x_row, dy_example, dy_row, outputs, x_ahead, dy_ahead = f.arguments
    ragged = rows.outputs % plan.block != 0 and not plan.copied and not shared
    masks = [f.first_lanes(outputs - v * lanes, lanes) if ragged else None for v in vectors]
    sums, last = inputs * len(vectors) + len(groups), len(vectors) * lanes
    turns = 1 if sums >= 8 else min(4, (plan.registers - 1 - plan.vectors) // sums)
    if shared:  # dy of all of them is at hand
        turns = max(1, min(turns, (plan.registers - 3) // (sums + plan.vectors)))
    together = max(turns, 2 if shared else 1)
    acc = [[f.variable(f"acc{r}_{v}", 0.0, kind.times(lanes)) for v in vectors] for r in range(turns * inputs)]
    tails = [f.variable(f"tail{n}", 0.0, kind.times(lanes)) for n in range(turns * len(groups))]
    with f.loop("n", examples) as n, f.loop("h", height) as h:
        x_h, dy_h = f.at(x, n * x_example + h * x_row), f.at(dy, n * dy_example + h * dy_row)
        whole = width // together * together
        for begin, end, pixels in ((0, whole, together), (whole, width, 1))[: 1 if together == 1 else 2]:
            with f.loop("t", end, begin, step=pixels) as t:
                x_t, dy_t = f.at(x_h, t * x_step), f.at(dy_h, t * dy_step)
                for p in range(pixels):
                    if not plan.joined:
                        f.prefetch(f.at(x_t, p * x_step), x_ahead)
                    for v in vectors if not plan.copied else ():
                        f.prefetch(f.at(dy_t, p * dy_step + v * lanes), dy_ahead)
                errors: dict[int, list[Value]] = {}
                pairs = itertools.product(range(pixels), range(inputs))
                for p, r in sorted(pairs, key=lambda pair: pair[0] * x_step + pair[1]) if shared else pairs:
                    if p not in errors:
                        places = [(p * dy_step + v * lanes, masks[v]) for v in vectors]
                        errors[p] = [f.load(dy_t, place, lanes, mask, name="dy") for place, mask in places]
                        if shared:
                            errors[p].append(shared.repeated(f, dy_t, p * dy_step + last))
                    if vectors:
                        pixel = f.broadcast(f.load(x_t, p * x_step + r, name=f"x{r}"), lanes)
                        for total, error in zip(acc[p % turns * inputs + r], errors[p], strict=False):
                            total.set(f.fma(pixel, error, total.value))
                    if shared and r % shared.members == 0:
                        number = r // shared.members
                        total = tails[p % turns * len(groups) + number]
                        some = shared.numbers(f, x_t, p * x_step + r, len(groups[number]))
                        total.set(f.fma(some, errors[p][-1], total.value))
    for r in range(inputs):
        for v in vectors:
            total = f.load(dw, r * plan.block + v * lanes, lanes)
            for part in acc[r::inputs]:
                total = total + part[v].value
            f.store(total, dw, r * plan.block + v * lanes)
        if shared:
            number, member = divmod(r, shared.members)
            total = f.load(dw, r * plan.block + last, shared.used)
            for part in tails[number :: len(groups)]:
                total = total + shared.outputs(f, part.value, range(member, member + 1))
            f.store(total, dw, r * plan.block + last)
    return f


def gradient(name: str, rows: Rows, plan: Sums, machine: Machine) -> list[Function]:
    """The driver, after the tiles that it uses.

    Arguments: run-time sizes (``SIZES``), x, dy, packed sums, all examples, those in a slice and its rows and columns,
    the numbers of a ``Cut``, whether sums begin at 0, a worker's scratch, and the tasks to do. Sums lie as
    [slice][group of channels][block of outputs][outer taps][tap][input][output in the block].
    """
    kind, count = rows.kind, inputs(rows, plan)
    tiles = {r: tile(rows, plan, r) for r in sorted({plan.inputs, count % plan.inputs} - {0})}
    f = Function(
        name,
        sizes=pointer(INDEX), x=pointer(kind), dy=pointer(kind), sums=pointer(kind), examples=INDEX, share=INDEX,
        tall=INDEX, long=INDEX, together=INDEX, band=INDEX, span=INDEX, few=INDEX, wide=INDEX, fresh=INDEX,
        scratch=pointer(kind), first=INDEX, last=INDEX,
    )  # fmt: skip
    sizes, x, dy, sums, examples, share, tall, long, together, band, span, few, wide, fresh, *rest = f.arguments
    scratch, first, last = rest
    size = {field: f.load(sizes, number, name=field) for number, field in enumerate(SIZES)}
    blocks = -(-rows.outputs // plan.block)
    taps = size["d_taps"] * size["h_taps"] * (1 if plan.joined else rows.taps)
    behind = together * band * span * plan.block if plan.copied else 0
    tap_row = rows.taps * rows.inputs * plan.block
    ranges, widths = (few + (blocks - 1)) // few, (wide + (count - 1)) // wide
    columns = (size["width"] + (long - 1)) // long
    parts = (size["height"] + (tall - 1)) // tall * columns

    def ahead(example: Value, row: Value, pixel: int) -> Value:
        """From a chunk to the next."""
        rows_on = f.select(band < size["height"], band * row, together * example)
        return f.select(span < size["width"], span * pixel, rows_on)

    x_ahead = ahead(size["x_example"], size["x_row"] * size["h_stride"], rows.stride * rows.x_pixel)
    dy_ahead = ahead(size["y_example"], size["y_row"], rows.y_pixel)
    with f.loop("task", last, first) as task:
        block_first, rest = task % ranges * few, task // ranges
        low, rest = rest % widths * wide, rest // widths
        group, part = rest % size["groups"], rest // size["groups"]
        block_last, high = f.min(block_first + few, blocks), f.min(low + wide, count)
        dw = f.at(sums, (part * size["groups"] + group) * (taps * (blocks * count * plan.block)))
        with f.where(fresh > 0), f.loop("tap", taps * block_last, taps * block_first) as tap:
            zero(f, kind, f.at(dw, (tap * count + low) * plan.block), (high - low) * plan.block, plan.lanes)
        begin = part // parts * share
        stop = f.min(begin + share, examples)
        h_begin, t_begin = part % parts // columns * tall, part % columns * long
        h_stop, t_stop = f.min(h_begin + tall, size["height"]), f.min(t_begin + long, size["width"])
        with (
            f.loop("box", (stop - begin + together - 1) // together) as box,
            f.loop("d", size["depth"]) as d,
            f.loop("rows", (h_stop - h_begin + band - 1) // band) as h_number,
            f.loop("columns", (t_stop - t_begin + span - 1) // span) as t_number,
        ):
            n, h, t = begin + box * together, h_begin + h_number * band, t_begin + t_number * span
            h_last, t_last = f.min(h + band, h_stop), f.min(t + span, t_stop)
            chunk = Chunk(f.min(stop - n, together), h, h_last, t, t_last)
            x_n = f.at(x, n * size["x_example"] + group * rows.inputs)
            dy_n = n * size["y_example"] + d * size["y_plane"] + h * size["y_row"] + t * rows.y_pixel
            d_in, d_low, d_high = inside(f, d, size, "d", "x_depth")
            with f.loop("kd", d_high, d_low) as kd:
                plane = f.at(x_n, (d_in + kd * size["d_dilation"]) * size["x_plane"])
                pixels = Pixels(plane, size["x_example"], size["x_row"], f.constant(0))
                if plan.joined:
                    pixels = _padded(f, rows, size, pixels, f.at(scratch, behind), chunk, machine)
                with f.loop("block", block_last, block_first) as block:
                    left = f.constant(rows.outputs) - block * plan.block
                    dy_block = f.at(dy, dy_n + group * rows.outputs + block * plan.block)
                    errors = Pixels(dy_block, size["y_example"], size["y_row"], h)
                    if plan.copied:
                        errors = _copied(f, rows, plan, errors, scratch, chunk, left, dy_ahead)
                    dw_d = f.at(dw, (block * size["d_taps"] + kd) * size["h_taps"] * tap_row)
                    x_next = f.select((block - block_first).equal(0), x_ahead, f.constant(0))
                    _taps(f, rows, plan, tiles, size, pixels, errors, dw_d, chunk, low, high, left, x_next, dy_ahead)
    return [*tiles.values(), f]


@dataclass(frozen=True)
class Chunk:
    """Pixels that are added together: of so many examples the rows h .. h_last and the columns t .. t_last."""

    examples: Value
    h: Value
    h_last: Value
    t: Value
    t_last: Value


@dataclass(frozen=True)
class Pixels:
    """Where x or dy lie: their first number, in row ``first``, and the numbers from one example and row to the next."""

    place: Value
    example: Value
    row: Value
    first: Value


def _padded(
    f: Function, rows: Rows, size: dict[str, Value], x: Pixels, target: Value, chunk: Chunk, machine: Machine
) -> Pixels:
    """The padded rows of one plane that the chunk reads, copied."""
    first = f.max(chunk.h * size["h_stride"] + size["h_start"], 0)
    end = (chunk.h_last - 1) * size["h_stride"] + size["h_start"] + (size["h_taps"] - 1) * size["h_dilation"] + 1
    count = f.max(f.min(end, size["x_height"]) - first, 0)
    columns = size | {"width": chunk.t_last - chunk.t, "w_start": size["w_start"] + chunk.t * rows.stride}
    row = ((columns["width"] - 1) * rows.stride + rows.taps) * rows.x_pixel
    zero_, one = f.constant(0), f.constant(1)
    with f.loop("n", chunk.examples) as n:
        to = f.at(target, n * (count * row))
        pad(f, rows, columns, f.at(x.place, n * x.example), to, zero_, zero_, one, first, count, machine)
    return Pixels(f.at(target, -(chunk.t * (rows.stride * rows.x_pixel))), count * row, row, first)


def _copied(
    f: Function, rows: Rows, plan: Sums, dy: Pixels, target: Value, chunk: Chunk, left: Value, ahead: Value
) -> Pixels:
    """One block of dy, copied with zeros behind the last output; what lies ``ahead`` is copied next."""
    height, width = chunk.h_last - chunk.h, chunk.t_last - chunk.t
    ragged = rows.outputs % plan.block != 0
    masks = [f.first_lanes(left - v * plan.lanes, plan.lanes) if ragged else None for v in range(plan.vectors)]
    with f.loop("n", chunk.examples) as n, f.loop("h", height) as h:
        source = f.at(dy.place, n * dy.example + h * dy.row)
        to = f.at(target, (n * height + h) * (width * plan.block))
        with f.loop("t", width) as t:
            for v, mask in enumerate(masks):
                f.prefetch(source, t * rows.y_pixel + v * plan.lanes + ahead)
                numbers = f.load(source, t * rows.y_pixel + v * plan.lanes, plan.lanes, mask)
                f.store(numbers, to, t * plan.block + v * plan.lanes)
    return Pixels(target, height * width * plan.block, width * plan.block, dy.first)


def _taps(
    f: Function, rows: Rows, plan: Sums, tiles: dict[int, Function], size: dict[str, Value], x: Pixels, dy: Pixels,
    dw: Value, chunk: Chunk, low: Value, high: Value, left: Value, x_ahead: Value, dy_ahead: Value,
) -> None:  # fmt: skip
    """Add what every tap of one plane sees, over the pixels for which it lies inside the input."""
    count = inputs(rows, plan)
    rest = count % plan.inputs
    dy_pixel = plan.block if plan.copied else rows.y_pixel
    with f.loop("kh", size["h_taps"]) as kh:
        reach = size["h_start"] + kh * size["h_dilation"]
        h, h_last = valid(f, reach, size["h_stride"], size["x_height"], chunk.h, chunk.h_last)
        with f.loop("kw", 1 if plan.joined else rows.taps) as kw:
            if plan.joined:
                t, t_last, column = chunk.t, chunk.t_last, f.constant(0)
            else:
                column = size["w_start"] + kw * rows.dilation
                t, t_last = valid(f, column, f.constant(rows.stride), size["x_width"], chunk.t, chunk.t_last)
            x_k = f.at(
                x.place, (h * size["h_stride"] + reach - x.first) * x.row + (t * rows.stride + column) * rows.x_pixel
            )
            dy_k = f.at(dy.place, (h - chunk.h) * dy.row + (t - chunk.t) * dy_pixel)
            dw_k = f.at(dw, (kh * rows.taps + kw) * (rows.inputs * plan.block))
            first_tap, zero_ = (kh + kw).equal(0), f.constant(0)
            x_next, dy_next = (f.select(first_tap, ahead, zero_) for ahead in (x_ahead, dy_ahead))
            box = (chunk.examples, h_last - h, t_last - t, x.example, x.row * size["h_stride"], dy.example, dy.row)
            with f.loop("r", f.min(high, count - rest), low, step=plan.inputs) as r:
                once = f.select(r.equal(low), dy_next, zero_)
                f.call(tiles[plan.inputs], f.at(x_k, r), dy_k, f.at(dw_k, r * plan.block), *box, left, x_next, once)
            if rest:
                with f.where(high.equal(count)):
                    r = count - rest
                    f.call(tiles[rest], f.at(x_k, r), dy_k, f.at(dw_k, r * plan.block), *box, left, x_next, zero_)


def valid(f: Function, reach: Value, stride: Value, extent: Value, low: Value, high: Value) -> tuple[Value, Value]:
    """The outputs t, low <= t < high, for which t*stride + reach lies inside the input; empty where none does."""
    begin = f.max((f.constant(0) - reach + stride - 1) // stride, low)
    end = f.min((extent - reach + stride - 1) // stride, high)
    return f.min(begin, high), f.max(end, f.min(begin, high))
