"""The kernels of a depthwise convolution: every channel by itself, channels in the lanes of vectors.

    y[t, c] = bias[c] + sum over k of x[t*stride + k*dilation, c] w[k, c]
    dw[k, c] = sum over pixels t of x[t*stride + k*dilation, c] dy[t, c]

One multiply-add needs one number of x, so loads are what counts: a tile of P neighbouring pixels loads each place of
the row once for all of its taps, (P - 1)*stride + taps loads for P*taps multiply-adds where the dilation is 1. Pixels
whose window reaches beyond the row go one by one and skip those taps; nothing is copied. The sizes of a call are
those of ``correlate``.
"""

from dataclasses import dataclass

from faltung.engine.correlate import SIZES, Rows, inside
from faltung.engine.language import INDEX, Function, Value, Variable, pointer
from faltung.engine.machine import Machine


@dataclass(frozen=True)
class Lanes:
    """The schedule: one vector of channels, and P pixels of it at a time."""

    lanes: int
    pixels: int


def schedule(rows: Rows, machine: Machine) -> Lanes:
    """As many pixels as leave registers for the taps' weights and for two places of the row."""
    return Lanes(machine.lanes(rows.kind.size), max(1, min(8, machine.registers - 2 - rows.taps)))


def convolve(name: str, rows: Rows, plan: Lanes) -> Function:
    """The whole of y. w lies as [depth tap][height tap][tap][channel]; a task is one row of output.

    ``w_step`` are the numbers from one tap to the next, so that the error can count them backwards.
    """
    kind, lanes = rows.kind, plan.lanes
    f = Function(
        name, sizes=pointer(INDEX), x=pointer(kind), w=pointer(kind), y=pointer(kind), bias=pointer(kind), w_d=INDEX,
        w_h=INDEX, w_step=INDEX, scratch=pointer(kind), first=INDEX, last=INDEX,
    )  # fmt: skip
    sizes, x, w, y, bias, w_d, w_h, w_step, _, first, last = f.arguments
    size = {field: f.load(sizes, number, name=field) for number, field in enumerate(SIZES)}
    with f.loop("task", last, first) as task:
        h, rest = task % size["height"], task // size["height"]
        d, n = rest % size["depth"], rest // size["depth"]
        d_in, d_low, d_high = inside(f, d, size, "d", "x_depth")
        h_in, h_low, h_high = inside(f, h, size, "h", "x_height")
        row = n * size["x_example"] + d_in * size["x_plane"] + h_in * size["x_row"] + size["w_start"] * rows.x_pixel
        x_row = f.at(x, row)
        y_row = f.at(y, n * size["y_example"] + d * size["y_plane"] + h * size["y_row"])
        begin, end = interior(f, rows, size)
        with f.loop("c", rows.x_pixel, step=lanes) as c:
            mask = f.first_lanes(f.constant(rows.x_pixel) - c, lanes) if rows.x_pixel % lanes else None

            def pixels(t: Value, count: int, border: bool, c: Value = c, mask: Value | None = mask) -> None:
                """``count`` pixels from t on, all their taps inside; or one at the border, and those that are."""
                acc = [f.variable(f"acc{p}", f.load(bias, c, lanes, mask)) for p in range(count)]
                with f.loop("kd", d_high, d_low) as kd, f.loop("kh", h_high, h_low) as kh:
                    outer = kd * (size["d_dilation"] * size["x_plane"]) + kh * (size["h_dilation"] * size["x_row"])
                    x_t = f.at(x_row, outer + t * (rows.stride * rows.x_pixel) + c)
                    w_k = f.at(w, kd * w_d + kh * w_h + c)
                    places: dict[int, Value] = {}
                    for k in range(rows.taps):
                        if border:
                            place = t * rows.stride + size["w_start"] + k * rows.dilation
                            with f.where(within(f, place, size["x_width"])):
                                _tap(f, rows, acc, x_t, f.load(w_k, w_step * k, lanes, mask), k, {}, lanes, mask)
                        else:
                            _tap(f, rows, acc, x_t, f.load(w_k, w_step * k, lanes, mask), k, places, lanes, mask)
                for p, total in enumerate(acc):
                    f.store(total.value, y_row, (t + p) * rows.y_pixel + c, mask)

            with f.loop("t", begin) as t:
                pixels(t, 1, border=True)
            whole = begin + (end - begin) // plan.pixels * plan.pixels
            with f.loop("t", whole, begin, step=plan.pixels) as t:
                pixels(t, plan.pixels, border=False)
            with f.loop("t", end, whole) as t:
                pixels(t, 1, border=False)
            with f.loop("t", size["width"], end) as t:
                pixels(t, 1, border=True)
    return f


def _tap(
    f: Function, rows: Rows, acc: list[Variable], x: Value, w: Value, k: int, places: dict[int, Value], lanes: int,
    mask: Value | None,
) -> None:  # fmt: skip
    """One tap of several neighbouring pixels; ``places`` of the row that are loaded already are not loaded again."""
    for p, total in enumerate(acc):
        place = p * rows.stride + k * rows.dilation
        if place not in places:
            places[place] = f.load(x, place * rows.x_pixel, lanes, mask)
        total.set(f.fma(places[place], w, total.value))


def interior(f: Function, rows: Rows, size: dict[str, Value]) -> tuple[Value, Value]:
    """The output pixels begin .. end whose taps all lie inside the row."""
    start, stride, width = size["w_start"], rows.stride, size["width"]
    begin = f.min(f.max((f.constant(0) - start + (stride - 1)) // stride, 0), width)
    room = size["x_width"] - start - ((rows.taps - 1) * rows.dilation + 1)
    end = f.min(f.max((room + stride) // stride, begin), width)
    return begin, f.select(room < 0, begin, end)


def gradient(name: str, rows: Rows, plan: Lanes) -> Function:
    """The whole of dw, in slices of examples: a task is one slice and one vector of channels.

    Sums lie as [slice][depth tap][height tap][tap][channel].
    """
    kind, lanes = rows.kind, plan.lanes
    f = Function(
        name,
        sizes=pointer(INDEX), x=pointer(kind), dy=pointer(kind), sums=pointer(kind), examples=INDEX, share=INDEX,
        scratch=pointer(kind), first=INDEX, last=INDEX,
    )  # fmt: skip
    sizes, x, dy, sums, examples, share, _, first, last = f.arguments
    size = {field: f.load(sizes, number, name=field) for number, field in enumerate(SIZES)}
    vectors = -(-rows.x_pixel // lanes)
    begin, end = interior(f, rows, size)
    with f.loop("task", last, first) as task:
        c, part = task % vectors * lanes, task // vectors
        mask = f.first_lanes(f.constant(rows.x_pixel) - c, lanes) if rows.x_pixel % lanes else None
        with f.loop("kd", size["d_taps"]) as kd, f.loop("kh", size["h_taps"]) as kh:
            acc = [f.variable(f"acc{k}", 0.0, kind.times(lanes)) for k in range(rows.taps)]
            with (
                f.loop("n", f.min(part * share + share, examples), part * share) as n,
                f.loop("d", size["depth"]) as d,
                f.loop("h", size["height"]) as h,
            ):
                d_in = d * size["d_stride"] + size["d_start"] + kd * size["d_dilation"]
                h_in = h * size["h_stride"] + size["h_start"] + kh * size["h_dilation"]
                with f.where(within(f, d_in, size["x_depth"])), f.where(within(f, h_in, size["x_height"])):
                    row = n * size["x_example"] + d_in * size["x_plane"] + h_in * size["x_row"]
                    x_row = f.at(x, row + size["w_start"] * rows.x_pixel + c)
                    dy_row = f.at(dy, n * size["y_example"] + d * size["y_plane"] + h * size["y_row"] + c)
                    for low, high, border in ((0, begin, True), (begin, end, False), (end, size["width"], True)):
                        with f.loop("t", high, low) as t:
                            signal = f.load(dy_row, t * rows.y_pixel, lanes, mask)
                            x_t = f.at(x_row, t * (rows.stride * rows.x_pixel))
                            for k, total in enumerate(acc):
                                if border:
                                    place = t * rows.stride + size["w_start"] + k * rows.dilation
                                    with f.where(within(f, place, size["x_width"])):
                                        seen = f.load(x_t, k * rows.dilation * rows.x_pixel, lanes, mask)
                                        total.set(f.fma(seen, signal, total.value))
                                else:
                                    seen = f.load(x_t, k * rows.dilation * rows.x_pixel, lanes, mask)
                                    total.set(f.fma(seen, signal, total.value))
            tap = ((part * size["d_taps"] + kd) * size["h_taps"] + kh) * rows.taps
            for k, total in enumerate(acc):
                f.store(total.value, sums, (tap + k) * rows.x_pixel + c, mask)
    return f


def within(f: Function, place: Value, size: Value) -> Value:
    """Is 0 <= place < size?"""
    return f.select(place < 0, place, size) > place
