"""The kernels of a depthwise convolution: every channel by itself, channels in the lanes of vectors.

    y[t, c] = bias[c] + sum over k of x[t*stride + k*dilation, c] w[k, c]
    dw[k, c] = sum over pixels t of x[t*stride + k*dilation, c] dy[t, c]

A number of x takes part in as few multiply-adds as there are taps, so memory is what counts; ``boxes`` looks after it.
Of a box in the scratch, one vector of channels after the other passes through the L1 cache.

The tile of y: P pixels of a row. A row of its taps takes (P - 1)*stride + taps loads of x, one load of each weight, and
P*taps multiply-adds: 13 and 24 for 3 taps and P = 8, where two of each run in a cycle; 8 sums hide a latency of 4. All
tiles of a row have one size; the last one begins early enough to end with the row, and computes some pixels again.
The tile of dw: all taps, one pixel after the other. 9 of them take 10 loads and 9 multiply-adds.

Measured with 3x3 taps on one core of a Zen 5: 65 to 90 GFLOP/s where x and y lie in the L2 cache, and 32 to 50 where
they do not, which is a line of x and one of y in 6 to 9 ns; a bare copy of a line takes 3 to 5. That was before lines
were fetched ahead (``elementwise.AHEAD``), which takes 0.7 to 0.85 of that time.
"""

from dataclasses import dataclass

from faltung.engine.host.machine import Machine
from faltung.engine.kernels.boxes import SIZES, Box
from faltung.engine.kernels.lanes import fill
from faltung.engine.kernels.tiles import Rows
from faltung.engine.loops.language import INDEX, Function, Value, pointer

SHORT = 512
"""Bytes. Tiles write to y where pixels are that short; they collect it where these would be too far from each other."""


@dataclass(frozen=True)
class Tiles:
    """The schedule."""

    lanes: int
    pixels: int
    """Of y, at most."""
    sums: int
    """Of dw, at most."""
    collects: bool
    """Is y collected in the scratch? So it is where the last vector of a pixel is not a whole one, too."""


def schedule(rows: Rows, machine: Machine) -> Tiles:
    """A tile of y has as many places of x at hand as sums, a weight and the bias; one of dw a number of x and of dy."""
    lanes = machine.lanes(rows.kind.size)
    collects = rows.outputs * rows.kind.size > SHORT or rows.outputs % lanes > 0
    return Tiles(lanes, min(8, (machine.registers - 3) // 2), machine.registers - 3, collects)


def convolve(name: str, rows: Rows, plan: Tiles) -> Function:
    """The whole of y; a task is a box.

    ``w_d``, ``w_h`` and ``w_w`` are the numbers from one tap to the next, so that the error can count them backwards.
    """
    kind, lanes = rows.kind, plan.lanes
    f = Function(
        name,
        sizes=pointer(INDEX), x=pointer(kind), w=pointer(kind), y=pointer(kind), bias=pointer(kind),
        w_d=INDEX, w_h=INDEX, w_w=INDEX, scratch=pointer(kind), first=INDEX, last=INDEX,
    )  # fmt: skip
    sizes, x, w, y, bias, w_d, w_h, w_w, scratch, first, last = f.arguments
    size = {field: f.load(sizes, number, name=field) for number, field in enumerate(SIZES)}
    with f.loop("task", last, first) as task:
        box = Box(f, rows, lanes, size, task, scratch)
        box.fill(x)
        tiles = (box.w.count + (plan.pixels - 1)) // plan.pixels
        wanted = (box.w.count + tiles - 1) // f.max(tiles, 1)
        with box.vectors() as (c, mask):
            with f.loop("kd", size["d_taps"]) as kd, f.loop("kh", size["h_taps"]) as kh:
                for k in range(rows.taps):
                    weight = f.load(w, kd * w_d + kh * w_h + w_w * k + c, lanes, mask)
                    f.store(weight, box.weights, ((kd * size["h_taps"] + kh) * rows.taps + k) * lanes)
            start = f.load(bias, c, lanes, mask)
            for pixels in range(1, plan.pixels + 1):
                with f.where(wanted.equal(pixels)), f.loop("i", box.h.count) as i:
                    x_i = f.at(box.x, i * (size["h_step"] * box.x_row) + c, name="x_i")
                    y_i = f.at(f.at(box.y, i * box.y_row) if plan.collects else box.row_of(y, i), c, name="y_i")
                    with f.loop("at", box.w.count, step=pixels) as at:
                        t = f.min(at, box.w.count - pixels).named("t")
                        _tile(box, x_i, y_i, t, start, pixels, box.pitch if plan.collects else box.y_step)
        if plan.collects:
            box.write(y)
    return f


def _tile(box: Box, x: Value, y: Value, t: Value, start: Value, pixels: int, y_step: int) -> None:
    """``pixels`` of a row of y, from t on, for one vector of channels."""
    f, rows, lanes, h_taps = box.f, box.rows, box.lanes, box.size["h_taps"]
    for p in range(pixels):  # where the next tile writes
        f.prefetch(y, (t + p + pixels) * y_step)
    acc = [f.variable(f"acc{p}", start) for p in range(pixels)]
    with f.loop("kd", box.d.high, box.d.low) as kd, f.loop("kh", h_taps) as kh:
        x_k = f.at(x, kd * box.x_plane + kh * box.x_row + t * (box.step * box.pitch), name="x_k")
        w_k = f.at(box.weights, (kd * h_taps + kh) * (rows.taps * lanes), name="w_k")
        places: dict[int, Value] = {}
        for k in sorted(range(rows.taps), key=lambda k: k % box.step):  # those after each other that share places
            weight = f.load(w_k, k * lanes, lanes, name="w")
            for p, total in enumerate(acc):
                place = p * box.step + k
                if place not in places:
                    places[place] = f.load(x_k, place * box.pitch, lanes, name=f"x{place}")
                total.set(f.fma(places[place], weight, total.value))
    for p, total in enumerate(acc):
        f.store(total.value, y, (t + p) * y_step)


def gradient(name: str, rows: Rows, h_taps: int, plan: Tiles) -> Function:
    """The whole of dw; a task is a slice of consecutive boxes.

    Each slice adds to sums of its own, which lie as [slice][depth tap][height tap][tap][channel]; to what is there,
    unless they are ``fresh``.
    """
    kind, lanes = rows.kind, plan.lanes
    f = Function(
        name,
        sizes=pointer(INDEX), x=pointer(kind), dy=pointer(kind), sums=pointer(kind), boxes=INDEX, share=INDEX,
        fresh=INDEX, scratch=pointer(kind), first=INDEX, last=INDEX,
    )  # fmt: skip
    sizes, x, dy, sums, boxes, share, fresh, scratch, first, last = f.arguments
    size = {field: f.load(sizes, number, name=field) for number, field in enumerate(SIZES)}
    taps = h_taps * rows.taps
    most = -(-taps // -(-taps // plan.sums))
    packed = size["d_taps"] * (taps * rows.outputs)
    with f.loop("part", last, first) as part:
        with f.where(fresh > 0):
            fill(f, f.at(sums, part * packed), packed, 0.0, kind.times(lanes))
        with f.loop("n", f.min(part * share + share, boxes), part * share) as number:
            box = Box(f, rows, lanes, size, number, scratch)
            box.fill(x)
            box.fetch(dy)
            with box.vectors() as (c, mask), f.loop("kd", box.d.high, box.d.low) as kd:
                dw = f.at(sums, (part * size["d_taps"] + kd) * (taps * rows.outputs) + c, name="dw")
                for some in (range(begin, min(begin + most, taps)) for begin in range(0, taps, most)):
                    acc = [f.variable(f"acc{k}", 0.0, kind.times(lanes)) for k in some]
                    with f.loop("i", box.h.count) as i:
                        x_i = f.at(box.x, kd * box.x_plane + i * (size["h_step"] * box.x_row) + c, name="x_i")
                        x_k = {
                            kh: f.at(x_i, box.x_row * kh, name=f"x_{kh}")
                            for kh in sorted({k // rows.taps for k in some})
                        }
                        dy_i = f.at(box.y, i * box.y_row + c, name="dy_i")
                        with f.loop("t", box.w.count) as t:
                            signal = f.load(dy_i, t * box.pitch, lanes, name="dyv")
                            for k, total in zip(some, acc, strict=True):
                                place = t * (box.step * box.pitch) + k % rows.taps * box.pitch
                                seen = f.load(x_k[k // rows.taps], place, lanes)
                                total.set(f.fma(seen, signal, total.value))
                    for k, total in zip(some, acc, strict=True):
                        f.store(f.load(dw, k * rows.outputs, lanes, mask) + total.value, dw, k * rows.outputs, mask)
    return f


def within(f: Function, place: Value, size: Value) -> Value:
    """Is 0 <= place < size?"""
    return f.select(place < 0, place, size) > place
