"""Normalisations on the kernels of ``standardise`` and ``layernorm``.

xhat is not kept: x, its mean and 1 / sigma take less room, and less time than one more array to write and read.
``batch_backward`` and ``layer_backward`` give the error and the gradients together, which share their sums.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from faltung.elements.element import Array, Params, Run
from faltung.elements.normalisation import BatchNorm, LayerNorm
from faltung.engine.host import arena, workers
from faltung.engine.host.recording import Fresh, Slices, sliced
from faltung.engine.kernels import layernorm, standardise
from faltung.engine.kernels.channels import SLICES, period_of, run_channelwise, run_sums, slice_of, width
from faltung.engine.kernels.elementwise import COST, code
from faltung.engine.kernels.rows import launch
from faltung.engine.programs.ready import ready

Both = tuple[Array, dict[str, Array]]


def _small(kernel: Callable[..., None], *arguments: Any) -> None:
    """Run a kernel of one task."""
    workers.launch(kernel, *arguments, tasks=1, work=0)


# --------------------------------------------------------------------------------------------------------- BatchNorm


@ready
def batch_forward(norm: BatchNorm, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Any]:
    """See ``BatchNorm.forward``; kept are x, what ``settle`` gives, and the statistics for ``renew``."""
    norm.admit(params, x)
    channels = x.shape[-1]
    if run.training and x.size // channels < 2 and not sliced():
        return norm.forward(params, x, run)  # which says why this cannot be
    x = np.ascontiguousarray(x)
    table, about = arena.empty((1, 3, channels), x.dtype), arena.empty((1, 3, channels), np.float64)
    if run.training:
        sums, starts = run_sums(standardise.moments, [x])
        sources = (sums, starts, Slices(len(sums)), period_of(x))
    else:
        sources = (params["mean"], params["variance"])
    _small(
        code(standardise.settle, x.dtype, run.training), *sources, params["scale"], params["shift"], table, about,
        channels, norm.epsilon,
    )  # fmt: skip
    statistics = (about[:, 0], about[:, 2]) if run.training else None
    return run_channelwise(standardise.scale_all, [x], table), (x, table, about, statistics)


@ready
def batch_backward(norm: BatchNorm, params: Params, kept: Any, dy: Array) -> Both:
    """dx and the gradients."""
    x, _, _, statistics = kept
    dy = np.ascontiguousarray(dy)
    gradients, back = _batch_sums(kept, dy)
    if statistics is None:
        return batch_error(norm, params, kept, dy), gradients
    return run_channelwise(standardise.move_all, [x, dy], back), gradients


@ready
def batch_error(norm: BatchNorm, params: Params, kept: Any, dy: Array) -> Array:
    """See ``BatchNorm.error``."""
    _, table, _, statistics = kept
    if statistics is None:
        return run_channelwise(standardise.multiply_all, [np.ascontiguousarray(dy)], table[0, 1])
    return batch_backward(norm, params, kept, dy)[0]


@ready
def batch_gradient(norm: BatchNorm, params: Params, kept: Any, dy: Array) -> dict[str, Array]:
    """See ``BatchNorm.gradient``."""
    return _batch_sums(kept, np.ascontiguousarray(dy))[0]


@ready
def batch_renew(norm: BatchNorm, params: Params, kept: Any) -> dict[str, Array]:
    """See ``BatchNorm.renew``."""
    _, _, about, statistics = kept
    if statistics is None:
        return {}
    return {name: _renewed(norm, params[name], about, row) for name, row in (("mean", 0), ("variance", 2))}


def _renewed(norm: BatchNorm, old: Array, about: Array, row: int) -> Array:
    new, channels = arena.empty(old.shape, old.dtype), old.size
    found = about, row * channels * about.itemsize
    _small(code(standardise.renewed, old.dtype), np.ascontiguousarray(old), found, new, norm.momentum, channels)
    return new


def _batch_sums(kept: Any, dy: Array) -> tuple[dict[str, Array], Array]:
    """The gradients, and the constants of the channels for dx."""
    (x, table, about, _), channels = kept, dy.shape[-1]
    sums, _ = run_sums(standardise.products, [x, dy], table)
    dw, back = arena.empty((2, channels), dy.dtype), arena.empty((4, channels), dy.dtype)
    _small(
        code(standardise.derive, dy.dtype), sums, about, table, dw, back, Slices(len(sums)), channels, period_of(x)
    )  # fmt: skip
    return {"scale": dw[0], "shift": dw[1]}, back


# --------------------------------------------------------------------------------------------------------- LayerNorm


@ready
def layer_forward(norm: LayerNorm, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Any]:
    """See ``LayerNorm.forward``; kept are x, mean and 1 / sigma."""
    norm.admit(params, x)
    x, y, channels = np.ascontiguousarray(x), arena.empty(x.shape, x.dtype), x.shape[-1]
    over = (*x.shape[:-1], 1) if norm.axes == "channels" else (len(x), *(1 for _ in x.shape[1:]))
    mean, inverse = (arena.empty(over, np.float64) for _ in range(2))
    constants = params["scale"], params["shift"]
    if norm.axes == "channels":
        kernel = code(layernorm.row_forward, x.dtype, channels)
        launch(kernel, x, *constants, y, mean, inverse, norm.epsilon, rows=mean.size, length=channels)
    else:
        size = period_of(x)
        tables = arena.empty((len(x), 2, size), np.float64)
        workers.launch(
            code(layernorm.example_forward, x.dtype), x, *constants, y, mean, inverse, tables, norm.epsilon,
            channels, size, math.prod(x.shape[1:]), len(x),
            tasks=len(x), work=COST * x.size, scratch=2 * size * x.itemsize,
        )  # fmt: skip
    return y, (x, mean, inverse)


@ready
def layer_backward(norm: LayerNorm, params: Params, kept: Any, dy: Array) -> Both:
    """dx and the gradients."""
    return _layer_back(norm, params, kept, dy)


@ready
def layer_error(norm: LayerNorm, params: Params, kept: Any, dy: Array) -> Array:
    """See ``LayerNorm.error``."""
    return _layer_back(norm, params, kept, dy, adds=False)[0]


@ready
def layer_gradient(norm: LayerNorm, params: Params, kept: Any, dy: Array) -> dict[str, Array]:
    """See ``LayerNorm.gradient``."""
    return _layer_back(norm, params, kept, dy, moves=False)[1]


def _layer_back(
    norm: LayerNorm, params: Params, kept: Any, dy: Array, *, moves: bool = True, adds: bool = True
) -> Both:
    """dx, where it is asked for (it ``moves``), and the gradients, where they are."""
    (x, mean, inverse), dy = kept, np.ascontiguousarray(dy)
    channels, scale = x.shape[-1], params["scale"]
    dx = arena.empty(dy.shape, dy.dtype) if moves else dy
    if norm.axes == "channels":
        size, band = channels, slice_of(x) // channels
        sums = arena.sums((-(-mean.size // band), width(size)), np.float64) if adds else mean
        launch(
            code(layernorm.row_back, x.dtype, channels, moves, adds), x, dy, scale, dx, mean, inverse, sums, Fresh(1),
            rows=mean.size, length=channels, band=band,
        )  # fmt: skip
    else:
        size, share = period_of(x), max(1, len(x) if sliced() else -(-len(x) // SLICES))
        slices = -(-len(x) // share)
        sums, tables = arena.sums((slices, width(size)), np.float64), arena.empty((slices, 2, size), np.float64)
        workers.launch(
            code(layernorm.example_back, x.dtype, moves), x, dy, scale, dx, mean, inverse, tables, sums,
            share, Fresh(1), channels, size, math.prod(x.shape[1:]), len(x),
            tasks=slices, work=COST * x.size, scratch=size * x.itemsize,
        )  # fmt: skip
    if not adds:
        return dx, {}
    dw = arena.empty((2, channels), dy.dtype)
    _small(code(layernorm.add_up, x.dtype), sums, dw, Slices(len(sums)), channels, size)
    return dx, {"scale": dw[0], "shift": dw[1]}


LOWERINGS = {
    BatchNorm: (batch_forward, batch_error, batch_gradient, batch_backward, batch_renew),
    LayerNorm: (layer_forward, layer_error, layer_gradient, layer_backward),
}
