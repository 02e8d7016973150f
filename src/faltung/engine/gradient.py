"""The kernel of a convolution's gradient: every weight a sum over all pixels.

    dw[k, c, o] = sum over pixels t of x[t*stride + k*dilation, c] dy[t, o]

The tile: R inputs times V vectors of outputs stay in registers while the pixels pass by; one pixel takes R broadcasts
of x, V loads of dy and R*V fused multiply-adds. So that all loads come from neighbouring lines, a band of pixels is
copied first: x into panels of R channels, dy into a panel of one block of outputs, unless it lies so. Each number
copied serves taps * outputs or taps * channels multiply-adds. Pixels whose tap lies in the padding are left out of the
loops, so padding costs nothing.

Where channels are few, the taps of a row and their channels, side by side in memory, are the inputs (``joined``); the
panel is then the padded row itself. A task is a slice of examples and a few blocks of outputs; each slice has sums of
its own.
"""

from dataclasses import dataclass

from faltung.engine.correlate import SIZES, Rows, inside, pad, zero
from faltung.engine.lanes import AHEAD
from faltung.engine.language import INDEX, Function, Value, pointer
from faltung.engine.machine import Machine


@dataclass(frozen=True)
class Sums:
    """The schedule of a gradient."""

    lanes: int
    vectors: int
    inputs: int
    joined: bool
    registers: int

    @property
    def block(self) -> int:
        """Outputs in one block."""
        return self.lanes * self.vectors

    @property
    def panel(self) -> int:
        """Channels in one panel: as many tiles' inputs as one vector moves."""
        return self.inputs * max(1, self.lanes // self.inputs)


def schedule(rows: Rows, machine: Machine) -> Sums:
    """Choose the tile that takes the fewest cycles for all inputs and outputs of a pixel.

    Two multiply-adds and two loads run in a cycle, and at least 8 multiply-adds must be under way.
    """
    lanes = machine.lanes(rows.kind.size)
    needed = -(-rows.outputs // lanes)
    joined = rows.dilation == 1 and rows.x_pixel == rows.inputs and rows.inputs < 8
    inputs = rows.inputs * (rows.taps if joined else 1)

    def cycles(choice: tuple[int, int]) -> tuple[float, int]:
        vectors, most = choice
        whole, rest = divmod(inputs, most)
        tiles = [most] * whole + [rest] * (rest > 0)
        one = sum(max(r * vectors / 2, (r + vectors) / 2, 4.0) for r in tiles)
        return (one * -(-needed // vectors), -most * vectors)

    choices = [
        (vectors, most)
        for vectors in range(1, min(8, needed) + 1)
        for most in range(1, min(14, inputs) + 1)
        if vectors * most + vectors + 1 <= machine.registers
    ]
    vectors, most = min(choices, key=cycles)
    return Sums(lanes, vectors, most, joined, machine.registers)


def tile(rows: Rows, plan: Sums, inputs: int) -> Function:
    """Add a box of pixels (examples, rows, columns) to ``inputs`` times one block of sums.

    Where these are too few to hide a multiply-add's latency, up to four pixels in turn have sums of their own.
    """
    kind, lanes, vectors = rows.kind, plan.lanes, range(plan.vectors)
    step = rows.stride * rows.x_pixel if plan.joined else plan.panel * (1 if thinned(rows) else rows.stride)
    f = Function(
        f"sums_{inputs}",
        x=pointer(kind), dy=pointer(kind), dw=pointer(kind), examples=INDEX, height=INDEX, width=INDEX,
        x_example=INDEX, x_row=INDEX, dy_example=INDEX, dy_row=INDEX,
    )  # fmt: skip
    x, dy, dw, examples, height, width, x_example, x_row, dy_example, dy_row = f.arguments
    sums = inputs * plan.vectors
    turns = 1 if sums >= 8 else min(4, (plan.registers - 1 - plan.vectors) // sums)
    acc = [[f.variable(f"acc{r}_{v}", 0.0, kind.times(lanes)) for v in vectors] for r in range(turns * inputs)]
    with f.loop("n", examples) as n, f.loop("h", height) as h:
        x_h, dy_h = f.at(x, n * x_example + h * x_row), f.at(dy, n * dy_example + h * dy_row)
        whole = width // turns * turns
        for begin, end, pixels in ((0, whole, turns), (whole, width, 1))[: 1 if turns == 1 else 2]:
            with f.loop("t", end, begin, step=pixels) as t:
                x_t, dy_t = f.at(x_h, t * step), f.at(dy_h, t * plan.block)
                if in_place(rows, plan):
                    for line in range(0, pixels * plan.block, lanes):
                        f.prefetch(dy_t, line + AHEAD // kind.size)
                for p in range(pixels):
                    errors = [f.load(dy_t, p * plan.block + v * lanes, lanes, name="dy") for v in vectors]
                    for r in range(inputs):
                        pixel = f.broadcast(f.load(x_t, p * step + r, name=f"x{r}"), lanes)
                        for total, error in zip(acc[p * inputs + r], errors, strict=True):
                            total.set(f.fma(pixel, error, total.value))
    for r in range(inputs):
        for v in vectors:
            total = f.load(dw, r * plan.block + v * lanes, lanes)
            for part in acc[r::inputs]:
                total = total + part[v].value
            f.store(total, dw, r * plan.block + v * lanes)
    return f


def gradient(name: str, rows: Rows, plan: Sums, machine: Machine) -> list[Function]:
    """The driver, after the tiles that it uses.

    Arguments: run-time sizes (``SIZES``), x, dy, packed sums, all examples, those in a slice and those that are
    copied together, how few blocks of outputs are a task, whether sums begin at 0, a worker's scratch, and the tasks to
    do. Sums lie as [slice][group of channels][block of outputs][outer taps][tap][input][output in the block].
    """
    kind = rows.kind
    count = rows.inputs * (rows.taps if plan.joined else 1)
    tiles = {inputs: tile(rows, plan, inputs) for inputs in sorted({plan.inputs, count % plan.inputs} - {0})}
    f = Function(
        name,
        sizes=pointer(INDEX), x=pointer(kind), dy=pointer(kind), sums=pointer(kind), examples=INDEX, share=INDEX,
        together=INDEX, few=INDEX, fresh=INDEX, scratch=pointer(kind), first=INDEX, last=INDEX,
    )  # fmt: skip
    sizes, x, dy, sums, examples, share, together, few, fresh, scratch, first, last = f.arguments
    size = {field: f.load(sizes, number, name=field) for number, field in enumerate(SIZES)}
    blocks = -(-rows.outputs // plan.block)
    packed = size["d_taps"] * size["h_taps"] * (rows.taps * rows.inputs * plan.block)
    ranges = (few + (blocks - 1)) // few
    with f.loop("task", last, first) as task:
        some, rest = task % ranges, task // ranges
        group, part = rest % size["groups"], rest // size["groups"]
        block_first = some * few
        block_last = f.min(block_first + few, blocks)
        dw = f.at(sums, (part * size["groups"] + group) * blocks * packed)
        with f.where(fresh > 0):
            zero(f, kind, f.at(dw, block_first * packed), (block_last - block_first) * packed, plan.lanes)
        begin, stop = part * share, f.min(part * share + share, examples)
        with f.loop("d", size["depth"]) as d, f.loop("band", size["bands"]) as band:
            low = band * size["band"]
            height = f.min(size["height"] - low, size["band"])
            with f.loop("box", (stop - begin + together - 1) // together) as number:
                n = begin + number * together
                box = f.min(stop - n, together)
                dy_n = f.at(
                    dy, n * size["y_example"] + d * size["y_plane"] + low * size["y_row"] + group * rows.outputs
                )
                x_n = f.at(x, n * size["x_example"])
                x_panel = f.at(scratch, box * height * size["width"] * plan.block)
                d_in, d_low, d_high = inside(f, d, size, "d", "x_depth")
                with f.loop("kd", d_high, d_low) as kd:
                    place = (kd, d_in, low, height)
                    if plan.joined:
                        panel = _gather_rows(f, rows, size, x_n, x_panel, box, place, machine)
                    else:
                        panel = _gather_channels(
                            f, rows, plan, size, f.at(x_n, group * rows.inputs), x_panel, box, place
                        )
                    with f.loop("block", block_last, block_first) as block:
                        outputs = f.constant(rows.outputs) - block * plan.block
                        dy_block = f.at(dy_n, block * plan.block)
                        errors = _gather_errors(f, rows, plan, size, dy_block, scratch, box, height, outputs)
                        _taps(f, rows, plan, tiles, size, panel, errors, f.at(dw, block * packed), box, place)
    return [*tiles.values(), f]


def in_place(rows: Rows, plan: Sums) -> bool:
    """Does dy lie as tiles read it? Then it is not copied."""
    return rows.outputs == rows.y_pixel == plan.block


def thinned(rows: Rows) -> bool:
    """Are the columns that a single tap passes over left out of the panels?"""
    return rows.taps == 1 and not rows.padded


Place = tuple[Value, Value, Value, Value]
"""A depth tap, the plane that output reads first, the first output row of the band, and how many rows it has."""
Errors = tuple[Value, Value, Value]
"""Where a block of dy begins, and the numbers from one example and row to the next."""


def _gather_errors(
    f: Function, rows: Rows, plan: Sums, size: dict[str, Value], dy: Value, panel: Value, box: Value, height: Value,
    outputs: Value,
) -> Errors:  # fmt: skip
    """panel[example][row][pixel][output of the block] = dy, with zeros beyond the last output, unless it lies so."""
    if in_place(rows, plan):
        return dy, size["y_example"], size["y_row"]
    row = size["width"] * plan.block
    ragged = rows.outputs % plan.block != 0
    masks = [f.first_lanes(outputs - v * plan.lanes, plan.lanes) if ragged else None for v in range(plan.vectors)]
    with f.loop("n", box) as n, f.loop("h", height) as h:
        source = f.at(dy, n * size["y_example"] + h * size["y_row"])
        target = f.at(panel, (n * height + h) * row)
        with f.loop("t", size["width"]) as t:
            for v, mask in enumerate(masks):
                numbers = f.load(source, t * rows.y_pixel + v * plan.lanes, plan.lanes, mask)
                f.store(numbers, target, t * plan.block + v * plan.lanes)
    return panel, height * row, row


@dataclass(frozen=True)
class _Panel:
    """Where x lies after copying: its first number, and the numbers from one example, row and panel to the next.

    Its rows are the input's from ``first`` on, every ``every``-th.
    """

    x: Value
    example: Value
    row: Value
    whole: Value
    first: Value
    every: Value


def _gather_channels(
    f: Function, rows: Rows, plan: Sums, size: dict[str, Value], x: Value, panel: Value, box: Value, place: Place
) -> _Panel:
    """panel[channels][example][row][pixel][channel of the panel] = x, for the rows of one plane that the band reads.

    A vector is stored whole: what it writes beyond the channels of a pixel, the next pixel overwrites.
    """
    kd, d_in, low, height = place
    first, count, every = _reads(f, size, low, height)
    stride, width = (rows.stride, size["width"]) if thinned(rows) else (1, size["x_width"])
    plane = f.at(x, (d_in + kd * size["d_dilation"]) * size["x_plane"] + first * size["x_row"])
    if thinned(rows):
        plane = f.at(plane, size["w_start"] * rows.x_pixel)
    row, example = width * plan.panel, count * width * plan.panel
    vectors = range(-(-plan.panel // plan.lanes))
    with f.loop("c", rows.inputs, step=plan.panel) as c, f.loop("n", box) as n, f.loop("h", count) as h:
        here = f.min(f.constant(rows.inputs) - c, plan.panel)
        masks = [f.first_lanes(here - v * plan.lanes, plan.lanes) for v in vectors]
        source = f.at(plane, n * size["x_example"] + h * (every * size["x_row"]) + c)
        target = f.at(panel, (c // plan.panel * box + n) * example + h * row)
        with f.loop("t", width) as t:
            for v in vectors:
                numbers = f.load(source, t * (stride * rows.x_pixel) + v * plan.lanes, plan.lanes, masks[v])
                f.store(numbers, target, t * plan.panel + v * plan.lanes)
    return _Panel(panel, example, row, box * example, first, every)


def _gather_rows(
    f: Function, rows: Rows, size: dict[str, Value], x: Value, panel: Value, box: Value, place: Place, machine: Machine
) -> _Panel:
    """panel[example][row] = the padded rows of one plane that the band reads."""
    kd, d_in, low, height = place
    first, count, every = _reads(f, size, low, height)
    row = ((size["width"] - 1) * rows.stride + (rows.taps - 1) * rows.dilation + 1) * rows.x_pixel
    with f.loop("n", box) as n:
        x_n, to = f.at(x, n * size["x_example"]), f.at(panel, n * (count * row))
        pad(f, rows, size, x_n, to, d_in, kd, kd + 1, first, count, machine, every)
    return _Panel(panel, count * row, row, f.constant(0), first, every)


def _reads(f: Function, size: dict[str, Value], low: Value, height: Value) -> tuple[Value, Value, Value]:
    """The first input row that a band reads, how many, and every which: with one tap those between are left out."""
    single = f.select(size["h_taps"] > 1, f.constant(1), size["h_start"]).equal(0)
    begin = low * size["h_stride"] + size["h_start"]
    end = begin + (height - 1) * size["h_stride"] + (size["h_taps"] - 1) * size["h_dilation"] + 1
    first = f.max(begin, 0)
    count = f.max(f.min(end, size["x_height"]) - first, 0)
    return first, f.select(single, height, count), f.select(single, size["h_stride"], f.constant(1))


def _taps(
    f: Function, rows: Rows, plan: Sums, tiles: dict[int, Function], size: dict[str, Value], panel: _Panel,
    errors: Errors, dw: Value, box: Value, place: Place,
) -> None:  # fmt: skip
    """Add what every tap of one plane sees, over the pixels for which it lies inside the input."""
    kd, _, low, height = place
    count = rows.inputs * (rows.taps if plan.joined else 1)
    rest = count % plan.inputs
    dy, dy_example, dy_row = errors
    with f.loop("kh", size["h_taps"]) as kh:
        reach = size["h_start"] + kh * size["h_dilation"]
        h_from, h_to = _valid(f, reach, size["h_stride"], size["x_height"], low, low + height)
        with f.loop("kw", 1 if plan.joined else rows.taps) as kw:
            if plan.joined:
                t_from, t_to, column = f.constant(0), size["width"], f.constant(0)
            else:
                column = size["w_start"] + kw * rows.dilation
                t_from, t_to = _valid(f, column, f.constant(rows.stride), size["x_width"], f.constant(0), size["width"])
                column = t_from if thinned(rows) else column + t_from * rows.stride
            row = (h_from * size["h_stride"] + reach - panel.first) // panel.every
            dw_k = f.at(dw, ((kd * size["h_taps"] + kh) * rows.taps + kw) * (rows.inputs * plan.block))
            dy_k = f.at(dy, (h_from - low) * dy_row + t_from * plan.block)

            def add(
                begin: Value, wide: int, row: Value = row, column: Value = column, dw_k: Value = dw_k,
                dy_k: Value = dy_k, h_from: Value = h_from, h_to: Value = h_to, t_from: Value = t_from,
                t_to: Value = t_to,
            ) -> None:  # fmt: skip
                at = begin
                if not plan.joined:
                    at = begin // plan.panel * panel.whole + begin % plan.panel + column * plan.panel
                x = f.at(panel.x, at + row * panel.row)
                f.call(
                    tiles[wide], x, dy_k, f.at(dw_k, begin * plan.block), box, h_to - h_from, t_to - t_from,
                    panel.example, panel.row * (size["h_stride"] // panel.every), dy_example, dy_row,
                )  # fmt: skip

            with f.loop("r", count - rest, step=plan.inputs) as r:
                add(r, plan.inputs)
            if rest:
                add(f.constant(count - rest), rest)


def _valid(f: Function, reach: Value, stride: Value, extent: Value, low: Value, high: Value) -> tuple[Value, Value]:
    """The outputs t, low <= t < high, for which t*stride + reach lies inside the input; empty where none does."""
    begin = f.max((f.constant(0) - reach + stride - 1) // stride, low)
    end = f.min((extent - reach + stride - 1) // stride, high)
    return f.min(begin, high), f.max(end, f.min(begin, high))
