"""The kernel that convolves: rows of output pixels from rows of input pixels, weights in vectors over the outputs.

    y[t, o] = bias[o] + sum over k, c of x[t*stride + k*dilation, c] w[k, c, o]

Forward uses it on x, the error on dy with the taps in reverse (one call for each phase of the stride), transposed
convolution the same the other way round, and an affine element on the batch as one long row. Sizes are run-time
numbers; channels, the taps of the last axis and its steps are compiled in.

A tile of pixels and outputs (``tiles`` says how large) stays in registers while the taps and channels pass by.

Taps of the outer axes that lie in the padding are left out of the loops. Along the row, tiles that see padding read a
copy of the row's ends between zeros, the others x itself. For small images zeros are a waste, since an eighth of the
taps may see them; there the row runs ``across`` the batch, height and width are the outer axes, and no padding is
touched.
"""

from dataclasses import dataclass

from faltung.engine.host.machine import Machine
from faltung.engine.kernels.shared import Tails, cut_row
from faltung.engine.kernels.tiles import Rows, Tile
from faltung.engine.loops.language import INDEX, Function, Type, Value, Variable, pointer

SIZES = (
    "tasks", "groups", "bands", "band", "spans", "span", "ranges", "few",  # how the output is cut
    "depth", "height", "width",  # its size
    "x_depth", "x_height", "x_width",  # the input's sizes
    "d_start", "h_start", "w_start", "d_stride", "h_stride", "d_dilation", "h_dilation", "d_taps", "h_taps",
    "x_example", "x_plane", "x_row", "y_example", "y_plane", "y_row",  # numbers from one to the next
    "x_pixel", "y_pixel",
)  # fmt: skip
"""The run-time numbers of a call, in the order in which they lie in memory."""

LINE = 64
"""Bytes of a cache line."""

TURN = 16
"""Multiply-adds in a turn of the innermost loop from which on its counting costs nothing. Unrolled further, 3 to 128
channels run as fast (1x1, 3x3, 5x5), and take LLVM longer."""


def tile(rows: Rows, plan: Tile, pixels: int) -> Function:
    """``pixels`` neighbouring output pixels, one block of outputs, one sweep of channels."""
    kind, lanes, vectors = rows.kind, plan.lanes, range(plan.vectors - (plan.shared is not None))
    f = Function(
        f"tile_{pixels}", x=pointer(kind), w=pointer(kind), y=pointer(kind), start=pointer(kind), start_step=INDEX,
        x_step=INDEX, y_step=INDEX, d_count=INDEX, h_count=INDEX, x_plane=INDEX, x_row=INDEX, w_plane=INDEX,
        outputs=INDEX,
    )  # fmt: skip
    x, w, y, start, start_step, x_step, y_step, d_count, h_count, x_plane, x_row, w_plane, outputs = f.arguments
    if not rows.across:
        x_step, y_step = f.constant(rows.stride * rows.pixel), f.constant(rows.y_pixel)
    ragged = rows.outputs % plan.block != 0 and not plan.shared
    masks = [f.first_lanes(outputs - v * lanes, lanes) if ragged else None for v in vectors]
    for p in range(pixels):  # where the next tile writes; else tiles of few taps wait for these lines
        for line in range(0, plan.block, max(lanes, LINE // kind.size)):
            f.prefetch(y, y_step * (pixels + p) + line)
    acc: list[list[Variable]] = []
    for p in range(pixels):
        place = f.at(start, start_step * p)
        acc.append([f.variable(f"acc{p}_{v}", f.load(place, v * lanes, lanes, masks[v])) for v in vectors])
    tails, last, tap = None, len(vectors) * lanes, _tap(rows, plan)
    if plan.shared:
        tails = Tails(f, plan.shared, pixels, plan.shared.repeated(f, start, last), packed=not plan.filters)

    def weights_at(place: Value, offset: int) -> list[Value]:
        known = masks if plan.filters else [None] * len(masks)
        return [f.load(place, offset + v * lanes, lanes, known[v], name="w") for v in vectors]

    def add(sums: list[Variable], pixel: Value, weights: list[Value]) -> None:
        for total, weight in zip(sums, weights, strict=True):
            total.set(f.fma(pixel, weight, total.value))

    def sweep(x_tap: Value, w_tap: Value, count: int) -> None:
        """One input after the other."""
        if tails and plan.kept:
            tails.add_row(x_tap, w_tap, plan.row, count)
            return
        # Within a turn no number of x is met twice: LLVM would keep it until then, and spill the accumulators.
        most = min(count if count <= 12 else 4, count if rows.across else rows.stride * rows.pixel)
        enough = -(-TURN // (pixels * plan.vectors))
        unroll = max(u for u in range(1, min(most, enough) + 1) if count % u == 0)
        with f.loop("c", count, step=unroll) as c:
            w_c = f.at(w_tap, c * plan.row)
            places = [f.at(x_tap, c + x_step * p) for p in range(pixels)]
            if rows.taps == 1 and not rows.across:  # what the next tile reads
                for place in places:
                    f.prefetch(place, x_step * pixels)
            for u in range(unroll):
                weights = weights_at(w_c, u * plan.row)
                for p in range(pixels):
                    add(acc[p], f.broadcast(f.load(places[p], u, name=f"x{p}"), lanes), weights)
                if tails:
                    tails.add(places[0], u, w_c, u * plan.row + last)

    def together(x_h: Value, w_h: Value) -> None:
        """Several taps at once: what one of them reads for a pixel, the next one reads for its neighbour."""
        whole = rows.taps // plan.together * plan.together
        for begin, end, count in ((0, whole, plan.together), (whole, rows.taps, rows.taps - whole)):
            if not count:
                continue
            with f.loop("kw", end, begin, step=count) as kw, f.loop("c", plan.channels) as c:
                x_c, w_c = f.at(x_h, kw * rows.pixel + c), f.at(w_h, kw * tap + c * plan.row)
                if tails:
                    for k in range(count):
                        tails.add(x_c, k * rows.pixel, w_c, k * tap + last)
                weights = [weights_at(w_c, k * tap) for k in range(count)]
                for t in range(pixels + count - 1):
                    pixel = f.broadcast(f.load(x_c, t * rows.pixel, name=f"x{t}"), lanes)
                    for k in range(count):
                        if 0 <= t - k < pixels:
                            add(acc[t - k], pixel, weights[k])

    with f.loop("kd", d_count) as kd:
        x_d, w_d = f.at(x, kd * x_plane), f.at(w, kd * w_plane)
        with f.loop("kh", h_count) as kh:
            x_h, w_h = f.at(x_d, kh * x_row), f.at(w_d, kh * (rows.taps * tap))
            if plan.together > 1:
                together(x_h, w_h)
            elif rows.joined(plan.channels):  # one long sweep
                sweep(x_h, w_h, rows.taps * plan.channels)
            else:
                with f.loop("kw", rows.taps) as kw:
                    sweep(f.at(x_h, kw * (rows.dilation * rows.pixel)), f.at(w_h, kw * tap), plan.channels)
    for p in range(pixels):
        for v in vectors:
            f.store(acc[p][v].value, y, y_step * p + v * lanes, masks[v])
    if tails:
        tails.store(f.at(y, last), rows.y_pixel)
    return f


def _tap(rows: Rows, plan: Tile) -> int:
    """Weights from one tap to the next."""
    return rows.inputs * plan.filters if plan.filters else plan.channels * plan.block


def correlate(name: str, rows: Rows, plan: Tile, machine: Machine) -> list[Function]:
    """The driver of one call, after the tiles that it uses.

    Arguments: run-time sizes (``SIZES``), x, packed weights (or w itself), y, bias, a worker's scratch, and the tasks
    to do. A task is a band of output rows of one plane of one example, for one group of channels, or of them a span of
    columns, or a range of blocks of outputs; within it, weights of one block of outputs and one sweep of channels serve
    all pixels before the next.
    """
    kind = rows.kind
    tiles = {pixels: tile(rows, plan, pixels) for pixels in plan.sizes}
    f = Function(
        name,
        sizes=pointer(INDEX), x=pointer(kind), w=pointer(kind), y=pointer(kind), bias=pointer(kind),
        scratch=pointer(kind), first=INDEX, last=INDEX,
    )  # fmt: skip
    sizes, x, w, y, bias, scratch, first, last = f.arguments
    size = {field: f.load(sizes, number, name=field) for number, field in enumerate(SIZES)}
    x_step = size["x_pixel"] if rows.across else f.constant(rows.stride * rows.pixel)
    y_step = size["y_pixel"] if rows.across else f.constant(rows.y_pixel)
    tap_row = rows.taps * _tap(rows, plan)
    w_plane = size["h_taps"] * tap_row
    sweeps, blocks = rows.inputs // plan.channels, -(-rows.outputs // plan.block)
    with f.loop("task", last, first) as task:
        part, rest = task % size["ranges"], task // size["ranges"]
        span, rest = rest % size["spans"], rest // size["spans"]
        band, rest = rest % size["bands"], rest // size["bands"]
        d, rest = rest % size["depth"], rest // size["depth"]
        group, n = rest % size["groups"], rest // size["groups"]
        block_first = part * size["few"]
        block_last = f.min(block_first + size["few"], blocks)
        h_first, t_first = band * size["band"], span * size["span"]
        h_last = f.min(h_first + size["band"], size["height"])
        width = f.min(size["width"] - t_first, size["span"])
        cut = cut_row(f, plan.shared, plan.pixels, width)
        d_in, d_low, d_high = inside(f, d, size, "d", "x_depth")
        x_n = f.at(x, n * size["x_example"] + group * rows.inputs)
        y_d = f.at(y, n * size["y_example"] + d * size["y_plane"] + t_first * y_step + group * rows.outputs)
        begin = f.constant(0) if rows.across else size["w_start"] + t_first * rows.stride
        plane = f.at(x_n, (d_in + d_low * size["d_dilation"]) * size["x_plane"])
        x_t = t_first * x_step if rows.across else begin * rows.x_pixel
        own = Source(f.at(plane, x_t), size["x_plane"] * size["d_dilation"], size["x_row"], f.constant(0))
        source = own
        if rows.padded:
            h_low = f.max(h_first * size["h_stride"] + size["h_start"], 0)
            last_row = (h_last - 1) * size["h_stride"] + size["h_start"] + (size["h_taps"] - 1) * size["h_dilation"]
            rows_read = f.max(f.min(last_row + 1, size["x_height"]) - h_low, 0)
            span_size = size | {"width": width, "w_start": begin}
            reach = (plan.pixels - 1) * rows.stride + (rows.taps - 1) * rows.dilation if rows.ends else None
            x_row = pad(f, rows, span_size, x_n, scratch, d_in, d_low, d_high, h_low, rows_read, machine, reach)
            source = Source(scratch, rows_read * x_row, x_row, h_low)
        with f.loop("sweep", sweeps) as sweep, f.loop("block", block_last, block_first) as block:
            if plan.filters:
                w_first = group * rows.outputs + block * plan.block + sweep * (plan.channels * plan.filters)
            else:
                w_first = ((group * blocks + block) * sweeps + sweep) * (size["d_taps"] * w_plane)
            w_block = f.at(w, w_first + d_low * w_plane)
            outputs = f.constant(rows.outputs) - block * plan.block
            bias_block = f.at(bias, group * rows.outputs + block * plan.block)
            with f.loop("h", h_last, h_first) as h:
                h_in, h_low, h_high = inside(f, h, size, "h", "x_height")
                h_in = h_in + h_low * size["h_dilation"]
                w_h = f.at(w_block, h_low * tap_row)
                y_h = f.at(y_d, h * size["y_row"] + block * plan.block)
                with f.loop("tile", cut.count) as number:
                    at, pixels = cut.tile(f, number)
                    y_t = f.at(y_h, at * y_step)
                    offset = sweep * plan.channels + at * x_step
                    x_t, x_plane, x_row = source.at(f, h_in, offset)
                    if rows.ends:
                        column = begin + at * rows.stride
                        far = column + (pixels - 1) * rows.stride + (rows.taps - 1) * rows.dilation
                        seen = [f.variable("seen", value) for value in (x_t, x_plane, x_row)]
                        with f.where(column >= 0), f.where(far < size["x_width"]):
                            for variable, value in zip(seen, own.at(f, h_in, offset), strict=True):
                                variable.set(value)
                        x_t, x_plane, x_row = (variable.value for variable in seen)
                    outer = (d_high - d_low, h_high - h_low, x_plane, x_row * size["h_dilation"], w_plane, outputs)
                    for wanted, function in tiles.items():
                        with f.where(pixels.equal(wanted)):
                            with f.where(f.op("equal", sweep, 0)):
                                f.call(function, x_t, w_h, y_t, bias_block, 0, x_step, y_step, *outer)
                            with f.where(sweep > 0):
                                f.call(function, x_t, w_h, y_t, y_t, y_step, x_step, y_step, *outer)
    return [*tiles.values(), f]


@dataclass(frozen=True)
class Source:
    """Where tiles read: row ``first`` of the first plane that a tap sees, and the numbers to the next plane and row."""

    place: Value
    plane: Value
    row: Value
    first: Value

    def at(self, f: Function, h: Value, offset: Value) -> tuple[Value, Value, Value]:
        """A place in row h, and the numbers to the next plane and row."""
        return f.at(self.place, (h - self.first) * self.row + offset), self.plane, self.row


def inside(f: Function, at: Value, size: dict[str, Value], axis: str, extent: str) -> tuple[Value, Value, Value]:
    """Where output ``at`` begins to read along an outer axis, and the taps low .. high that lie inside the input."""
    begin = at * size[f"{axis}_stride"] + size[f"{axis}_start"]
    dilation = size[f"{axis}_dilation"]
    low = f.max((f.constant(0) - begin + dilation - 1) // dilation, 0)
    high = f.min((size[extent] - begin + dilation - 1) // dilation, size[f"{axis}_taps"])
    low = f.min(low, size[f"{axis}_taps"])
    return begin, low, f.max(high, low)


def pad(
    f: Function, rows: Rows, size: dict[str, Value], x: Value, target: Value, d_in: Value, d_low: Value, d_high: Value,
    h_low: Value, count: Value, machine: Machine, reach: int | None = None,
) -> Value:  # fmt: skip
    """Copy ``count`` rows from h_low on of each plane that a tap sees, each between the zeros of its padding; one
    group's channels only.

    Where the ``reach`` of a tile is told, only what tiles read that see padding: what lies so close to it.
    Returns how many numbers one copied row has; planes lie ``count`` rows apart.
    """
    lanes = machine.lanes(rows.kind.size)
    width = (size["width"] - 1) * rows.stride + (rows.taps - 1) * rows.dilation + 1
    before, skipped = f.min(f.max(f.constant(0) - size["w_start"], 0), width), f.max(size["w_start"], 0)
    end = before + f.max(f.min(width - before, size["x_width"] - skipped), 0)
    parts = [(before, end)]
    if reach is not None:
        left = f.min(before + f.select(before > 0, f.constant(reach), f.constant(0)), end)
        right = f.select(end < width, f.max(before - skipped + size["x_width"] - reach, left), end)
        parts = [(before, left), (right, end)]
    with f.loop("kd", d_high - d_low) as kd:
        plane = f.at(x, (d_in + (d_low + kd) * size["d_dilation"]) * size["x_plane"])
        with f.loop("h", count) as h:
            to = f.at(target, (kd * count + h) * (width * rows.inputs))
            source = f.at(plane, (h_low + h) * size["x_row"] + (skipped - before) * rows.x_pixel)
            zero(f, rows.kind, to, before * rows.inputs, lanes)
            for begin, stop in parts:
                if rows.x_pixel == rows.inputs:
                    behind, many = begin * rows.inputs, (stop - begin) * rows.inputs
                    copy(f, rows.kind, f.at(to, behind), f.at(source, behind), many, lanes)
                else:
                    with f.loop("t", stop, begin) as t:
                        pixel = f.at(to, t * rows.inputs)
                        copy(f, rows.kind, pixel, f.at(source, t * rows.x_pixel), f.constant(rows.inputs), lanes)
            zero(f, rows.kind, f.at(to, end * rows.inputs), (width - end) * rows.inputs, lanes)
    return width * rows.inputs


def copy(f: Function, kind: Type, target: Value, source: Value, count: Value, lanes: int) -> None:
    """target[:count] = source[:count]."""
    whole = count - count % lanes
    with f.loop("i", whole, step=lanes) as i:
        f.store(f.load(source, i, lanes), target, i)
    with f.where(whole < count):
        mask = f.first_lanes(count - whole, lanes)
        f.store(f.load(source, whole, lanes, mask), target, whole, mask)


def zero(f: Function, kind: Type, target: Value, count: Value, lanes: int) -> None:
    """target[:count] = 0."""
    whole, zeros = count - count % lanes, f.constant(0.0, kind.times(lanes))
    with f.loop("i", whole, step=lanes) as i:
        f.store(zeros, target, i)
    with f.where(whole < count):
        f.store(zeros, target, whole, f.first_lanes(count - whole, lanes))
