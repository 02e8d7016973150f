"""Weights in the order in which the kernels read them, and sums of a gradient back in the order of w.

Packed weights lie as [group][block of outputs][sweep of inputs][outer taps][tap][input][output in the block], with
zeros up to whole blocks. Both functions see w with any steps from one depth tap, height tap, tap, input, output and
group to the next: with inputs and outputs exchanged, and taps counted backwards, the same weights serve the error.
"""

from faltung.engine.kernels.gradient import Sums
from faltung.engine.kernels.tiles import Rows, Tile
from faltung.engine.loops.language import INDEX, Function, Type, Value, pointer

STEPS = dict.fromkeys(
    ("d_taps", "h_taps", "d_step", "h_step", "w_step", "input_step", "output_step", "group_step"), INDEX
)


def pack(name: str, rows: Rows, plan: Tile) -> Function:
    """packed[...] = w[...], one task a block of outputs of one group."""
    kind, lanes = rows.kind, plan.lanes
    f = Function(name, w=pointer(kind), packed=pointer(kind), **STEPS, scratch=pointer(kind), first=INDEX, last=INDEX)
    w, packed, d_taps, h_taps, d_step, h_step, w_step, input_step, output_step, group_step, _, first, last = f.arguments
    sweeps, blocks = rows.inputs // plan.channels, -(-rows.outputs // plan.block)
    size = d_taps * h_taps * (rows.taps * rows.inputs * plan.block)
    with f.loop("task", last, first) as task:
        begin, group = task % blocks * plan.block, task // blocks
        left = f.min(f.constant(rows.outputs) - begin, plan.block)
        place = f.variable("place", task * size)
        with (
            f.loop("sweep", sweeps) as sweep,
            f.loop("d", d_taps) as d,
            f.loop("h", h_taps) as h,
            f.loop("k", rows.taps) as k,
        ):
            outer = d * d_step + h * h_step + k * w_step + group * group_step
            source = f.at(w, outer + sweep * plan.channels * input_step + begin * output_step)
            target = f.at(packed, place.value)
            with f.where(output_step.equal(1)), f.loop("c", plan.channels) as c:
                for v in range(plan.vectors):
                    mask = f.first_lanes(left - v * lanes, lanes)
                    numbers = f.load(source, c * input_step + v * lanes, lanes, mask)
                    f.store(numbers, target, c * plan.block + v * lanes)
            with f.where(output_step > 1):
                turned(f, kind, plan.channels, (lanes, plan.vectors), source, target, output_step, left)
            place.set(place.value + plan.channels * plan.block)
    return f


def turned(
    f: Function, kind: Type, inputs: int, block: tuple[int, int], source: Value, target: Value, output_step: Value,
    left: Value,
) -> None:  # fmt: skip
    """target[input][output in the block] = source[output * ``output_step`` + input], for the outputs that are left.

    A block has so many lanes and vectors. Squares of lanes by lanes are transposed in registers.
    """
    lanes, vectors = block
    size, whole = lanes * vectors, inputs // lanes * lanes
    for v in range(vectors):
        first = v * lanes
        full = f.min(f.max(left - first, 0), lanes)
        with f.where(full.equal(lanes)), f.loop("c", whole, step=lanes) as c:
            square = [f.load(source, c + output_step * (first + o), lanes) for o in range(lanes)]
            for i, row in enumerate(transposed(f, square)):
                f.store(row, target, (c + i) * size + first)
        begin = f.select(full.equal(lanes), f.constant(whole), f.constant(0))
        with f.loop("c", inputs, begin) as c:
            with f.loop("o", full) as o:
                f.store(f.load(source, c + (o + first) * output_step), target, c * size + first + o)
            with f.loop("o", lanes, full) as o:
                f.store(f.constant(0.0, kind), target, c * size + first + o)


def transposed(f: Function, square: list[Value]) -> list[Value]:
    """The columns of a square of numbers given by rows: halves are exchanged, then quarters, and so on."""
    lanes = half = len(square)
    while half > 1:
        half //= 2
        for i in range(lanes):
            if i & half:
                continue
            a, b = square[i], square[i + half]
            low = [lane if not lane & half else lanes + (lane ^ half) for lane in range(lanes)]
            high = [lane ^ half if not lane & half else lanes + lane for lane in range(lanes)]
            square[i], square[i + half] = f.shuffle(a, b, low), f.shuffle(a, b, high)
    return square


def unpack(name: str, rows: Rows, plan: Sums) -> Function:
    """dw[...] = the sum of ``slices`` sums, added in one order always; a task is an outer tap of a block of outputs."""
    kind, lanes = rows.kind, plan.lanes
    f = Function(
        name, packed=pointer(kind), dw=pointer(kind), slices=INDEX, groups=INDEX, **STEPS, scratch=pointer(kind),
        first=INDEX, last=INDEX,
    )  # fmt: skip
    packed, dw, slices, groups, d_taps, h_taps, d_step, h_step, w_step, input_step, output_step, group_step, *rest = (
        f.arguments
    )
    _, first, last = rest
    blocks = -(-rows.outputs // plan.block)
    row = rows.taps * rows.inputs * plan.block
    size = d_taps * h_taps * row
    with f.loop("task", last, first) as task:
        h, rest = task % h_taps, task // h_taps
        d, rest = rest % d_taps, rest // d_taps
        begin, group = rest % blocks * plan.block, rest // blocks
        left = f.min(f.constant(rows.outputs) - begin, plan.block)
        place = f.variable("place", task * row)
        with f.loop("k", rows.taps) as k:
            outer = d * d_step + h * h_step + k * w_step + group * group_step + begin * output_step
            with f.loop("c", rows.inputs) as c:
                target, source = f.at(dw, outer + c * input_step), f.at(packed, place.value)
                for v in range(plan.vectors):
                    total = f.variable("total", f.load(source, v * lanes, lanes))
                    with f.loop("s", slices, 1) as s:
                        total.set(total.value + f.load(source, s * (size * blocks * groups) + v * lanes, lanes))
                    f.store(total.value, target, v * lanes, f.first_lanes(left - v * lanes, lanes))
                place.set(place.value + plan.block)
    return f
