"""The kernels of normalisation by the statistics of a whole batch.

Sums over many numbers are float64; each number is treated in its own precision.

A mean that is far from 0 costs no digits: x - mean is (x - near) - rest, where ``near`` is the mean rounded to x's
precision, so that the first difference is as exact as x, and ``rest`` joins what is added in the end.

With g = scale / sigma, y = (x - near) g + (shift - rest g), and on the way back
dx = (dy - (x - near) a + (rest a - mean(dy))) g, a = mean(dy xhat) / sigma. Mean and variance come from the sums of d
and d^2, d = x - start, so that x is read once; ``start`` are the numbers of a slice's first position. Each way has
three kernels: partial sums, a small one that makes the constants of the channels, and one over all numbers.
"""

from typing import Any

from faltung.engine.kernels.channels import (
    channel_sums,
    channelwise,
    counted,
    narrow,
    slice_totals,
    totals,
    wide,
    width,
)
from faltung.engine.kernels.elementwise import TASK, vectors
from faltung.engine.loops.language import F64, INDEX, Function, Type, Value, pointer


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
