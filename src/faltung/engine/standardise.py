"""The kernels of normalisations. Sums over many numbers are float64; each number is treated in its own precision.

A mean that is far from 0 costs no digits: x - mean is (x - near) - rest, where ``near`` is the mean rounded to x's
precision, so that the first difference is as exact as x, and ``rest`` joins what is added in the end.

A whole batch: with g = scale / sigma, y = (x - near) g + (shift - rest g), and on the way back
dx = (dy - (x - near) a + (rest a - mean(dy))) g, a = mean(dy xhat) / sigma. Mean and variance come from the sums of d
and d^2, d = x - start, so that x is read once; ``start`` are the numbers of a slice's first position. Each way has
three kernels: partial sums, a small one that makes the constants of the channels, and one over all numbers.

A row of channels, or a whole example, by itself: its mean, its variance, then y, while the cache holds it; on the way
back its dx and its share of the gradients.
"""

from collections.abc import Callable
from typing import Any

from faltung.engine.channels import (
    SIZES,
    Periods,
    channel_sums,
    channelwise,
    counted,
    narrow,
    slice_totals,
    totals,
    wide,
    width,
)
from faltung.engine.elementwise import TASK, Visit, sweep, vectors
from faltung.engine.lanes import fill
from faltung.engine.language import F64, INDEX, Function, Type, Value, pointer
from faltung.engine.rows import each_band, each_row, row_kernel, summed

SHORT = 16
"""Vectors of a row of channels up to which they are written one after the other, and summed in their own precision."""

# ------------------------------------------------------------------------------------------------------ whole batches


def moments(kind: Type) -> Function:
    """Of each channel the sums of d and d^2; each slice has a start of its own."""

    def add(x: Value, start: Value, total: Value, square: Value) -> tuple[Value, Value]:
        d = wide(x) - wide(start)
        return total + d, x.function.fma(d, d, square)

    return channel_sums(kind, 1, add, exact=True, first_row=True)


def scale_all(kind: Type) -> Function:
    """y from x and the constants that ``settle`` makes."""
    return channelwise(kind, 1, 3, lambda x, near, g, offset: x.function.fma(x - near, g, offset))


def products(kind: Type) -> Function:
    """Of each channel the sums of dy (x - near) and dy."""

    def add(x: Value, dy: Value, near: Value, product: Value, total: Value) -> tuple[Value, Value]:
        return x.function.fma(dy, x - near, product), total + dy

    return channel_sums(kind, 2, add)


def move_all(kind: Type) -> Function:
    """dx from x, dy and the constants that ``derive`` makes."""

    def move(x: Value, dy: Value, near: Value, g: Value, a: Value, offset: Value) -> Value:
        f = x.function
        return (dy + f.fma(x - near, a, offset)) * g

    return channelwise(kind, 2, 4, move)


def multiply_all(kind: Type) -> Function:
    """dx from dy and g, where mean and variance do not depend on x."""
    return channelwise(kind, 1, 1, lambda dy, g: dy * g)


def settle(kind: Type, training: bool) -> Function:
    """near, g and offset (rows of ``table``) and mean, 1 / sigma and variance (rows of ``about``) of each channel.

    In training from the sums of ``moments`` and their starts, otherwise from the given mean and variance.
    """
    sources = {"sums": pointer(F64), "starts": pointer(kind), "slices": INDEX, "period": INDEX}
    sources = sources if training else dict.fromkeys(["old", "spread"], pointer(kind))
    places = dict.fromkeys(["scale", "shift", "table"], pointer(kind)) | {"about": pointer(F64)}
    f = Function("settle", **sources, **places, channels=INDEX, epsilon=F64, **TASK)
    *given, scale, shift, table, about, channels, epsilon, _, _, _ = f.arguments
    lanes = kind.lanes
    m = counted(given[0], given[2], given[3]) if training else f.constant(2.0, F64)

    def vector(c: Value, mask: Value | None) -> None:
        if training:
            sums, starts, slices, period = given
            mean, variance = _merged(sums, starts, slices, period, m, channels, c, lanes, mask)
        else:
            mean, variance = (wide(f.load(place, c, lanes, mask)) for place in given)
        inverse = 1 / f.op("sqrt", variance + epsilon)
        near = narrow(mean, kind)
        g = inverse * wide(f.load(scale, c, lanes, mask))
        offset = wide(f.load(shift, c, lanes, mask)) - (mean - wide(near)) * g
        for row, value in enumerate((near, narrow(g, kind), narrow(offset, kind))):
            f.store(value, table, row * channels + c, mask)
        for row, value in enumerate((mean, inverse, variance * (m / (m - 1)))):
            f.store(value, about, row * channels + c, mask)

    vectors(f, channels, lanes)(vector)
    return f


def _merged(
    sums: Value, starts: Value, slices: Value, period: Value, m: Value, channels: Value, c: Value, lanes: int, mask: Any
) -> tuple[Value, Value]:
    """Mean and variance from those of the slices, each of which has a start of its own."""
    f = sums.function
    total, square = (f.variable(name, 0.0, F64.times(lanes)) for name in ("total", "square"))

    def slice_of(part: Value) -> tuple[Value, Value, Value, Value]:
        first, second = slice_totals(sums, part, channels, period, c, lanes, mask)
        count = f.load(sums, part * width(period) + 2 * period)
        return wide(f.load(starts, part * channels + c, lanes, mask)), count, first, second

    with f.loop("part", slices) as part:
        start, count, first, _ = slice_of(part)
        total.set(total.value + f.fma(start, count, first))
    mean = total.value / m
    with f.loop("part", slices) as part:
        start, count, first, second = slice_of(part)
        off = start - mean
        square.set(square.value + (second + off * (2 * first + off * count)))
    return mean, f.max(0.0, square.value / m)


def derive(kind: Type) -> Function:
    """dscale and dshift (rows of ``dw``), and the constants of ``move_all``, from the sums of ``products``."""
    places = {"sums": pointer(F64), "about": pointer(F64)} | dict.fromkeys(["table", "dw", "back"], pointer(kind))
    f = Function("derive", **places, **dict.fromkeys(["slices", "channels", "period"], INDEX), **TASK)
    sums, about, table, dw, back, slices, channels, period, *_ = f.arguments
    total, lanes, m = totals(sums, slices, channels, period, kind.lanes), kind.lanes, counted(sums, slices, period)

    def vector(c: Value, mask: Value | None) -> None:
        product, dshift = total(c, mask)
        mean, inverse = (f.load(about, row * channels + c, lanes, mask) for row in range(2))
        near, g = (f.load(table, row * channels + c, lanes, mask) for row in range(2))
        rest = mean - wide(near)
        dscale = (product - rest * dshift) * inverse
        a = dscale / m * inverse
        for row, value in enumerate((dscale, dshift)):
            f.store(narrow(value, kind), dw, row * channels + c, mask)
        for row, value in enumerate((near, g, narrow(-a, kind), narrow(rest * a - dshift / m, kind))):
            f.store(value, back, row * channels + c, mask)

    vectors(f, channels, lanes)(vector)
    return f


# -------------------------------------------------------------------------------------------------- rows and examples


def row_forward(kind: Type, channels: int) -> Function:
    """y, mean[row] and inverse[row] from x, whose rows are so many channels."""
    places = dict.fromkeys(["x", "scale", "shift", "y"], pointer(kind)) | dict.fromkeys(
        ["mean", "inverse"], pointer(F64)
    )
    f = row_kernel("layer_norm", **places, epsilon=F64)
    xs, scale, shift, ys, means, inverses, epsilon, *_ = f.arguments
    visit, total = _channels(f, kind, channels), _totals(f, kind, channels)
    with each_row(f) as row:
        x, y = f.at(xs, row * channels), f.at(ys, row * channels)

        def apart(i: Value, mask: Value | None) -> Value:
            return f.load(x, i, kind.lanes, mask) - near

        def scaled(i: Value, mask: Value | None) -> None:
            s, b = (f.load(table, i, kind.lanes, mask) for table in (scale, shift))
            f.store(f.fma(f.fma(apart(i, mask), factor, offset), s, b), y, i, mask)

        double = F64.times(kind.lanes)
        mean = summed(f, double, visit, lambda i, mask: wide(f.load(x, i, kind.lanes, mask))) * (1 / channels)
        near = narrow(mean, kind)
        rest = mean - wide(near)
        variance = total(lambda i, mask: apart(i, mask) * apart(i, mask)) - rest * rest
        inverse = 1 / f.op("sqrt", f.max(0.0, variance) + epsilon)
        factor, offset = narrow(inverse, kind), narrow(-rest * inverse, kind)
        f.store(mean, means, row)
        f.store(inverse, inverses, row)
        visit(scaled)
    return f


def row_back(kind: Type, channels: int) -> Function:
    """dx, and sums[slice, s, c] += the sums over a slice of rows of dy xhat (s = 0) and dy (1)."""
    places = dict.fromkeys(["x", "dy", "scale", "dx"], pointer(kind)) | dict.fromkeys(
        ["mean", "inverse", "sums"], pointer(F64)
    )
    f = row_kernel("layer_norm_back", **places, fresh=INDEX)
    xs, dys, scale, dxs, means, inverses, sums, fresh, *_ = f.arguments
    visit, total = _channels(f, kind, channels), _totals(f, kind, channels)
    with each_band(f) as (task, begin, end):
        here = f.at(sums, task * width(channels))
        with f.where(fresh > 0):
            fill(f, here, f.constant(width(channels)), 0.0, F64.times(kind.lanes))
        with f.loop("row", end, begin) as row:
            x, dy, dx = (f.at(place, row * channels) for place in (xs, dys, dxs))
            xhat, factor = _standard(kind, f.load(means, row), f.load(inverses, row))

            def numbers(i: Value, mask: Value | None) -> tuple[Value, Value, Value]:
                d = f.load(dy, i, kind.lanes, mask)
                return d, d * f.load(scale, i, kind.lanes, mask), xhat(f.load(x, i, kind.lanes, mask))

            def moved(i: Value, mask: Value | None) -> None:
                d, dxhat, h = numbers(i, mask)
                f.store((dxhat + f.fma(h, across, along)) * factor, dx, i, mask)
                for number, term in enumerate((d * h, d)):
                    at = number * channels + i
                    f.store(f.load(here, at, kind.lanes, mask) + wide(term), here, at, mask)

            along = narrow(-total(lambda i, mask: numbers(i, mask)[1]), kind)
            across = narrow(-total(lambda i, mask: numbers(i, mask)[1] * numbers(i, mask)[2]), kind)
            visit(moved)
    return f


def _standard(kind: Type, mean: Value, inverse: Value) -> tuple[Callable[[Value], Value], Value]:
    """How x becomes xhat, and 1 / sigma."""
    f, near = mean.function, narrow(mean, kind)
    factor, offset = narrow(inverse, kind), narrow((wide(near) - mean) * inverse, kind)
    return lambda x: f.fma(x - near, factor, offset), factor


def _channels(f: Function, kind: Type, channels: int) -> Visit:
    """To visit the vectors of so many channels."""
    if channels > SHORT * kind.lanes:
        return vectors(f, f.constant(channels), kind.lanes)
    few = f.first_lanes(channels % kind.lanes, kind.lanes)

    def visit(body: Callable[..., None]) -> None:
        for i in range(0, channels, kind.lanes):
            body(f.constant(i), few if i + kind.lanes > channels else None)

    return visit


def _totals(f: Function, kind: Type, channels: int) -> Callable[[Callable[..., Value]], Value]:
    """A function that gives the mean of terms over the channels; sums of many are float64."""
    visit, short = _channels(f, kind, channels), channels <= SHORT * kind.lanes

    def mean(term: Callable[..., Value]) -> Value:
        if short:
            return wide(summed(f, kind, visit, term)) * (1 / channels)
        return summed(f, F64.times(kind.lanes), visit, lambda *at: wide(term(*at))) * (1 / channels)

    return mean


def example_forward(kind: Type) -> Function:
    """y, mean[n] and inverse[n] from x, whose examples have ``block`` numbers; ``tables[n]`` is memory."""
    f = _example_kernel("layer_norm_all", kind, ["x", "scale", "shift", "y"], epsilon=F64)
    x, scale, shift, y, means, inverses, tables, epsilon, channels, size, block, _, scratch, first, last = f.arguments
    periods = Periods(kind, channels, size, scratch)
    periods.spread(scale, shift)
    count, double = f.convert("to_float", block, F64), F64.times(kind.lanes)
    with f.loop("n", last, first) as n:
        begin, table = (n * block).named("begin"), f.at(tables, n * (2 * size))
        start = wide(f.load(x, begin))

        def add(number: Value, _s: Value, _b: Value, total: Value, square: Value) -> tuple[Value, Value]:
            d = wide(number) - start
            return total + d, f.fma(d, d, square)

        fill(f, table, 2 * size, 0.0, double)
        periods.sums([x], table, begin, block, 2 * [f.constant(0.0, double)], add)
        rows = (table, f.at(table, size))
        total, square = (_over_places(periods, lambda i, mask, row=row: f.load(row, i, kind.lanes, mask)) / count
                         for row in rows)  # fmt: skip
        mean, inverse = start + total, 1 / f.op("sqrt", f.max(0.0, square - total * total) + epsilon)
        f.store(mean, means, n)
        f.store(inverse, inverses, n)
        xhat, _ = _standard(kind, mean, inverse)
        periods.map([x], y, begin, block, lambda number, s, b: f.fma(xhat(number), s, b))
    return f


def example_back(kind: Type) -> Function:
    """dx, and sums[slice, s, place] += the sums over ``share`` examples of dy xhat (s = 0) and dy (1).

    ``tables[slice]`` is memory, for the sums over one example: those over its channels follow from them.
    """
    f = _example_kernel(
        "layer_norm_all_back", kind, ["x", "dy", "scale", "dx"], sums=pointer(F64), share=INDEX, fresh=INDEX
    )
    x, dy, scale, dx, means, inverses, tables, sums, share, fresh, *sizes = f.arguments
    channels, size, block, examples, scratch, first, last = sizes
    periods = Periods(kind, channels, size, scratch)
    periods.spread(scale)
    count, double = f.convert("to_float", block, F64), F64.times(kind.lanes)

    def example(n: Value, table: Value, total: Value) -> None:
        begin = (n * block).named("begin")
        xhat, factor = _standard(kind, f.load(means, n), f.load(inverses, n))

        def add(number: Value, d: Value, _: Value, product: Value, total: Value) -> tuple[Value, Value]:
            return f.fma(d, xhat(number), product), total + d

        def move(number: Value, d: Value, s: Value) -> Value:
            return (d * s + f.fma(xhat(number), across, along)) * factor

        def weighted(row: Value) -> Callable[..., Value]:
            return lambda i, mask: wide(f.load(scratch, i, kind.lanes, mask)) * f.load(row, i, kind.lanes, mask)

        fill(f, table, 2 * size, 0.0, double)
        periods.sums([x, dy], table, begin, block, 2 * [f.constant(0.0, kind)], add)
        rows = (table, f.at(table, size))
        across, along = (narrow(-_over_places(periods, weighted(row)) / count, kind) for row in rows)
        periods.map([x, dy], dx, begin, block, move)
        sweep(f, 2 * size, kind.lanes, lambda i, mask: f.store(
            f.load(total, i, kind.lanes, mask) + f.load(table, i, kind.lanes, mask), total, i, mask))  # fmt: skip

    with f.loop("task", last, first) as task:
        table, total = f.at(tables, task * (2 * size)), f.at(sums, task * width(size))
        with f.where(fresh > 0):
            fill(f, total, width(size), 0.0, double)
        with f.loop("n", f.min((task + 1) * share, examples), task * share) as n:
            example(n, table, total)
    return f


def _over_places(periods: Periods, term: Callable[..., Value]) -> Value:
    """The sum of float64 terms over the places of a period."""
    return summed(periods.f, F64.times(periods.kind.lanes), periods.places, term)


def _example_kernel(name: str, kind: Type, arrays: list[str], **more: Type) -> Function:
    places = dict.fromkeys(arrays, pointer(kind)) | dict.fromkeys(["mean", "inverse", "tables"], pointer(F64))
    return Function(name, **places, **more, **SIZES, **TASK | {"scratch": pointer(kind)})


def add_up(kind: Type) -> Function:
    """dscale and dshift (rows of ``dw``) from partial sums."""
    sizes = dict.fromkeys(["slices", "channels", "period"], INDEX)
    f = Function("layer_norm_total", sums=pointer(F64), dw=pointer(kind), **sizes, **TASK)
    sums, dw, slices, channels, size, *_ = f.arguments
    total = totals(sums, slices, channels, size, kind.lanes)

    def vector(c: Value, mask: Value | None) -> None:
        for row, value in enumerate(total(c, mask)):
            f.store(narrow(value, kind), dw, row * channels + c, mask)

    vectors(f, channels, kind.lanes)(vector)
    return f


def renewed(kind: Type) -> Function:
    """The running statistics after a batch: old * momentum + new * (1 - momentum)."""
    arrays = {"old": pointer(kind), "new": pointer(F64), "y": pointer(kind)}
    f = Function("renewed", **arrays, momentum=F64, channels=INDEX, **TASK)
    old, new, y, momentum, channels, *_ = f.arguments

    def vector(c: Value, mask: Value | None) -> None:
        before, found = wide(f.load(old, c, kind.lanes, mask)), f.load(new, c, kind.lanes, mask)
        f.store(narrow(momentum * before + (1 - momentum) * found, kind), y, c, mask)

    vectors(f, channels, kind.lanes)(vector)
    return f
