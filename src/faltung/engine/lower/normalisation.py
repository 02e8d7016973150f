"""Normalisations. Everything between what is loaded and what is stored is float64, and rounded once.

xhat is not kept: x, its mean and 1 / sigma take less room, and less time than one more array to write and read.

BatchNorm: with g = scale / sigma, y = (x - mean) g + shift and dx = (dy - mean(dy) - xhat mean(dy xhat)) g. Mean and
variance come from the sums of d and d^2, d = x - start, so that x is read once. ``start`` is the mean of the first
rows: if that is far from the mean of all, those rows make the variance large, and the difference of the sums keeps its
digits.

LayerNorm: each row (a position, or an example) by itself: its mean, its variance, then y, while the cache holds it.
"""

import math
from typing import Any

import numpy as np

from faltung.elements.element import Array, Params, Run
from faltung.elements.normalisation import BatchNorm, LayerNorm
from faltung.engine import arena
from faltung.engine.channels import (
    Period,
    add,
    channel_sums,
    channelwise,
    clear,
    narrow,
    periods,
    run_channelwise,
    run_sums,
    wide,
)
from faltung.engine.elementwise import code
from faltung.engine.language import F64, INDEX, Function, Type, Value, pointer
from faltung.engine.machine import host
from faltung.engine.rows import each_band, each_row, launch, row_kernel, row_length, summed

START = 64
"""Rows whose mean the numbers of a channel are compared with."""


def _period(x: Array) -> Period:
    return Period(x.shape[-1], host().lanes(x.itemsize))


# --------------------------------------------------------------------------------------------------------- BatchNorm


def _moments(kind: Type) -> Function:
    return channel_sums(kind, 1, 1, lambda x, start: ((x - start) * (x - start), x - start))


def _scaled(kind: Type) -> Function:
    return channelwise(kind, 1, 3, lambda x, mean, g, shift: x.function.fma(x - mean, g, shift))


def _products(kind: Type) -> Function:
    return channel_sums(kind, 2, 1, lambda x, dy, mean: (dy * (x - mean), dy))


def _moved(kind: Type) -> Function:
    return channelwise(kind, 2, 4, lambda x, dy, mean, along, across, g: (dy - along - (x - mean) * across) * g)


def _multiplied(kind: Type) -> Function:
    return channelwise(kind, 1, 1, lambda dy, g: dy * g)


def batch_forward(norm: BatchNorm, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Any]:
    """See ``BatchNorm.forward``; kept are x, mean, 1 / sigma, and the statistics that ``renew`` wants."""
    norm.admit(params, x)
    m = x.size // x.shape[-1]
    if run.training and m < 2:
        return norm.forward(params, x, run)  # which says why this cannot be
    x, period = np.ascontiguousarray(x), _period(x)
    if run.training:
        start = x.reshape(m, x.shape[-1])[:START].mean(0, dtype=np.float64)
        squares, sums = run_sums(code(_moments, x.dtype), period, [x], [start])
        mean = start + sums / m
        variance = np.maximum((squares - sums * sums / m) / m, 0)
        statistics = (mean[None], variance[None] * m / (m - 1))
    else:
        mean, variance = params["mean"].astype(np.float64), params["variance"].astype(np.float64)
        statistics = None
    inverse = 1 / np.sqrt(variance + norm.epsilon)
    y = run_channelwise(code(_scaled, x.dtype), period, [x], [mean, inverse * params["scale"], params["shift"]])
    return y, (x, mean[None], inverse[None], statistics)


def batch_error(norm: BatchNorm, params: Params, kept: Any, dy: Array) -> Array:
    """See ``BatchNorm.error``."""
    x, mean, inverse, statistics = kept
    dy, g = np.ascontiguousarray(dy), inverse * params["scale"]
    if statistics is None:
        return run_channelwise(code(_multiplied, dy.dtype), _period(dy), [dy], [g])
    m = dy.size // dy.shape[-1]
    products, sums = run_sums(code(_products, dy.dtype), _period(dy), [x, dy], [mean])
    across = inverse * inverse * products / m
    return run_channelwise(code(_moved, dy.dtype), _period(dy), [x, dy], [mean, sums / m, across, g])


def batch_gradient(norm: BatchNorm, params: Params, kept: Any, dy: Array) -> dict[str, Array]:
    """See ``BatchNorm.gradient``."""
    x, mean, inverse, _ = kept
    products, sums = run_sums(code(_products, dy.dtype), _period(dy), [x, np.ascontiguousarray(dy)], [mean])
    return {"scale": (products * inverse[0]).astype(dy.dtype), "shift": sums.astype(dy.dtype)}


# --------------------------------------------------------------------------------------------------------- LayerNorm


def _layer(kind: Type) -> Function:
    """mean[row], inverse[row] and y from x."""
    places = dict.fromkeys(["x", "y"], pointer(kind)) | dict.fromkeys(
        ["scale", "shift", "mean", "inverse"], pointer(F64)
    )
    f = row_kernel("layer_norm", **places, epsilon=F64, period=INDEX)
    x, y, scale, shift, means, inverses, epsilon, period, *_ = f.arguments
    length = row_length(f)
    visit, count = periods(f, length, period, kind.lanes), f.convert("to_float", length, F64)
    with each_row(f) as row:
        x, y = f.at(x, row * length), f.at(y, row * length)

        def centred(i: Value, mask: Value | None) -> Value:
            return wide(f.load(x, i, kind.lanes, mask)) - mean

        def square(i: Value, place: Value, mask: Value | None) -> Value:
            d = centred(i, mask)
            return d * d

        def scaled(i: Value, place: Value, mask: Value | None) -> None:
            xhat = centred(i, mask) * inverse
            v = f.fma(xhat, f.load(scale, place, kind.lanes, mask), f.load(shift, place, kind.lanes, mask))
            f.store(narrow(v, kind), y, i, mask)

        double = F64.times(kind.lanes)
        mean = summed(f, double, visit, lambda i, _, mask: wide(f.load(x, i, kind.lanes, mask))) / count
        inverse = 1 / f.op("sqrt", summed(f, double, visit, square) / count + epsilon)
        f.store(mean, means, row)
        f.store(inverse, inverses, row)
        visit(scaled)
    return f


def _layer_back(kind: Type) -> Function:
    """dx from x, mean, inverse and dy."""
    places = dict.fromkeys(["x", "dy", "dx"], pointer(kind)) | dict.fromkeys(["scale", "mean", "inverse"], pointer(F64))
    f = row_kernel("layer_norm_back", **places, period=INDEX)
    x, dy, dx, scale, means, inverses, period, *_ = f.arguments
    length = row_length(f)
    visit, count = periods(f, length, period, kind.lanes), f.convert("to_float", length, F64)
    with each_row(f) as row:
        x, dy, dx = (f.at(place, row * length) for place in (x, dy, dx))
        mean, inverse = f.load(means, row), f.load(inverses, row)

        def dxhat(i: Value, place: Value, mask: Value | None) -> Value:
            return wide(f.load(dy, i, kind.lanes, mask)) * f.load(scale, place, kind.lanes, mask)

        def xhat(i: Value, mask: Value | None) -> Value:
            return (wide(f.load(x, i, kind.lanes, mask)) - mean) * inverse

        def moved(i: Value, place: Value, mask: Value | None) -> None:
            v = (dxhat(i, place, mask) - along - xhat(i, mask) * across) * inverse
            f.store(narrow(v, kind), dx, i, mask)

        double = F64.times(kind.lanes)
        along = summed(f, double, visit, dxhat) / count
        across = summed(f, double, visit, lambda i, place, mask: dxhat(i, place, mask) * xhat(i, mask)) / count
        visit(moved)
    return f


def _layer_sums(kind: Type) -> Function:
    """sums[task, 0, place] = the sum over the task's rows of dy xhat, sums[task, 1, place] = that of dy."""
    places = dict.fromkeys(["x", "dy"], pointer(kind)) | dict.fromkeys(["mean", "inverse", "sums"], pointer(F64))
    f = row_kernel("layer_norm_sums", **places, period=INDEX)
    x, dy, means, inverses, sums, period, *_ = f.arguments
    length = row_length(f)
    visit = periods(f, length, period, kind.lanes)
    with each_band(f) as (task, begin, end):
        here = f.at(sums, task * (2 * period))
        clear(f, here, period, kind.lanes)
        with f.loop("row", end, begin) as row:
            mean, inverse = f.load(means, row), f.load(inverses, row)

            def terms(i: Value, place: Value, mask: Value | None) -> None:
                d = wide(f.load(dy, row * length + i, kind.lanes, mask))
                xhat = (wide(f.load(x, row * length + i, kind.lanes, mask)) - mean) * inverse
                add(f, here, period, place, mask, (d * xhat, d))

            visit(terms)
    return f


def layer_forward(norm: LayerNorm, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Any]:
    """See ``LayerNorm.forward``; kept are x, mean and 1 / sigma."""
    norm.admit(params, x)
    x, period, y = np.ascontiguousarray(x), _period(x), arena.empty(x.shape, x.dtype)
    averaged = x.shape[-1:] if norm.axes == "channels" else x.shape[1:]
    over = x.shape[: x.ndim - len(averaged)] + (1,) * len(averaged)
    mean, inverse = arena.empty(over, np.float64), arena.empty(over, np.float64)
    constants = (period.spread(params[name]) for name in ("scale", "shift"))
    length = math.prod(averaged)
    launch(
        code(_layer, x.dtype), x, y, *constants, mean, inverse, norm.epsilon, period.size, rows=mean.size, length=length
    )
    return y, (x, mean, inverse)


def layer_error(norm: LayerNorm, params: Params, kept: Any, dy: Array) -> Array:
    """See ``LayerNorm.error``."""
    x, mean, inverse = kept
    dy, period, dx = np.ascontiguousarray(dy), _period(x), arena.empty(dy.shape, dy.dtype)
    scale = period.spread(params["scale"])
    rows, length = mean.size, x.size // max(mean.size, 1)
    launch(code(_layer_back, x.dtype), x, dy, dx, scale, mean, inverse, period.size, rows=rows, length=length)
    return dx


def layer_gradient(norm: LayerNorm, params: Params, kept: Any, dy: Array) -> dict[str, Array]:
    """See ``LayerNorm.gradient``."""
    x, mean, inverse = kept
    dy, period = np.ascontiguousarray(dy), _period(x)
    rows, length = mean.size, x.size // max(mean.size, 1)
    band = -(-period.share(x.size) // max(length, 1))
    sums = arena.empty((-(-rows // band), 2, period.size), np.float64)
    launch(code(_layer_sums, x.dtype), x, dy, mean, inverse, sums, period.size, rows=rows, length=length, band=band)
    scale, shift = period.total(sums).astype(dy.dtype)
    return {"scale": scale, "shift": shift}


LOWERINGS = {
    BatchNorm: (batch_forward, batch_error, batch_gradient),
    LayerNorm: (layer_forward, layer_error, layer_gradient),
}
