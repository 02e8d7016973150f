"""The kernels of normalisation of a row of channels, or of a whole example, by itself.

Its mean, its variance, then y, while the cache holds it; on the way back its dx, its share of the gradients, or both.
Sums over many numbers are float64. xhat is (x - near) / sigma + (near - mean) / sigma, where ``near`` is the mean
rounded to x's precision: so a mean that is far from 0 costs no digits.
"""

import operator
from collections.abc import Callable
from functools import cache

from faltung.engine.kernels.channels import SIZES, TERMS, Periods, narrow, totals, wide, width
from faltung.engine.kernels.elementwise import TASK, Visit, sweep, vectors
from faltung.engine.kernels.lanes import fill
from faltung.engine.kernels.rows import each_band, each_row, row_kernel, summed
from faltung.engine.loops.language import F64, INDEX, Function, Type, Value, pointer

FEW = 4
"""Vectors of a row of channels up to which they stay in registers from the sums to dx."""
SHORT = 16
"""Vectors up to which they are written one after the other, and summed in their own precision."""


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


def row_back(kind: Type, channels: int, moves: bool, adds: bool) -> Function:
    """dx; and sums[slice, s, c] += the sums over a slice of rows of dy xhat (s = 0) and dy (1); or one of both."""
    places = dict.fromkeys(["x", "dy", "scale", "dx"], pointer(kind)) | dict.fromkeys(
        ["mean", "inverse", "sums"], pointer(F64)
    )
    f = row_kernel("layer_norm_back", **places, fresh=INDEX)
    xs, dys, scale, dxs, means, inverses, sums, fresh, *_ = f.arguments
    visit, total = _channels(f, kind, channels), _totals(f, kind, channels)
    few = channels <= FEW * kind.lanes
    with each_band(f) as (task, begin, end):
        here = f.at(sums, task * width(channels))
        if adds:
            with f.where(fresh > 0):
                fill(f, here, f.constant(width(channels)), 0.0, F64.times(kind.lanes))

        def one(row: Value, terms: dict[Value, list[Value]], last: bool) -> None:
            x, dy, dx = (f.at(place, row * channels) for place in (xs, dys, dxs))
            xhat, factor = _standard(kind, f.load(means, row), f.load(inverses, row))

            def numbers(i: Value, mask: Value | None) -> list[Value]:
                d = f.load(dy, i, kind.lanes, mask)
                return [d, d * f.load(scale, i, kind.lanes, mask), xhat(f.load(x, i, kind.lanes, mask))]

            known = cache(numbers) if few else numbers  # in registers

            def move(i: Value, mask: Value | None) -> None:
                _, dxhat, h = known(i, mask)
                f.store((dxhat + f.fma(h, across, along)) * factor, dx, i, mask)

            def add(i: Value, mask: Value | None) -> None:
                d, _, h = known(i, mask)
                before = terms.get(i)
                terms[i] = [f.fma(d, h, before[0]), before[1] + d] if before else [d * h, d]
                for s, term in enumerate(terms[i] if last else ()):
                    at = s * channels + i
                    f.store(f.load(here, at, kind.lanes, mask) + wide(term), here, at, mask)

            if moves:
                along = narrow(-total(lambda i, mask: known(i, mask)[1]), kind)
                across = narrow(-total(lambda i, mask: operator.mul(*known(i, mask)[1:])), kind)
                visit(move)
            if adds:
                visit(add)

        def several(first: Value, count: int) -> None:
            terms = {}
            for n in range(count):
                one(first + n, terms, last=n + 1 == count)

        together = TERMS if few else 1
        whole = (begin + (end - begin) // together * together).named("whole")
        with f.loop("row", whole, begin, step=together) as row:
            several(row, together)
        if together > 1:
            with f.loop("row", end, whole) as row:
                several(row, 1)
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
    places = [(f.constant(i), few if i + kind.lanes > channels else None) for i in range(0, channels, kind.lanes)]

    def visit(body: Callable[..., None]) -> None:
        for place in places:
            body(*place)

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


def example_back(kind: Type, moves: bool) -> Function:
    """dx, if it ``moves``; and sums[slice, s, place] += the sums over ``share`` examples of dy xhat (s = 0) and dy (1).

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
        if moves:
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
