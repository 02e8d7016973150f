"""Convolution, transposed convolution and affine elements, compiled.

A transposed convolution exchanges forward and error of a convolution; an affine element is one of a single tap.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.elements.affine import Affine
from faltung.elements.conv import Conv
from faltung.elements.conv_transpose import ConvTranspose
from faltung.elements.element import Array, Params, Run
from faltung.engine.host.machine import Machine, host
from faltung.engine.kernels.elementwise import KINDS
from faltung.engine.lower.convolution import Convolution, total
from faltung.engine.programs.ready import ready
from faltung.geometry import Window


@ready
def conv_forward(conv: Conv, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
    """See ``Conv.forward``."""
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(params["w"])
    y = _admitted(conv, params, x).forward(x, w, params["b"] if conv.bias else None)
    return _shaped(y, x.ndim), x


@ready
def conv_error(conv: Conv, params: Params, kept: Array, dy: Array) -> Array:
    """See ``Conv.error``."""
    dy, w = np.ascontiguousarray(dy), np.ascontiguousarray(params["w"])
    return convolution_of(conv, kept.shape[1:], kept.dtype).error(dy, w).reshape(kept.shape)


@ready
def conv_gradient(conv: Conv, params: Params, kept: Array, dy: Array) -> dict[str, Array]:
    """See ``Conv.gradient``."""
    dy = np.ascontiguousarray(dy)
    dw = {"w": convolution_of(conv, kept.shape[1:], kept.dtype).gradient(kept, dy, params["w"].shape)}
    return dw | {"b": total(dy)} if conv.bias else dw


@ready
def transpose_forward(conv: ConvTranspose, params: Params, x: Any, run: Run = Run()) -> tuple[Array, Array]:
    """See ``ConvTranspose.forward``."""
    inputs = x if conv.arity == 2 else (x,)
    first, w = np.ascontiguousarray(inputs[0]), np.ascontiguousarray(params["w"])
    y = _admitted(conv, params, *inputs).error(first, w, params["b"] if conv.bias else None)
    return _shaped(y, first.ndim), first


@ready
def transpose_error(conv: ConvTranspose, params: Params, kept: Array, dy: Array) -> Any:
    """See ``ConvTranspose.error``."""
    dy, w = np.ascontiguousarray(dy), np.ascontiguousarray(params["w"])
    dx = convolution_of(conv, dy.shape[1:], dy.dtype, kept.shape[-1]).forward(dy, w, None).reshape(kept.shape)
    return (dx, None) if conv.arity == 2 else dx


@ready
def transpose_gradient(conv: ConvTranspose, params: Params, kept: Array, dy: Array) -> dict[str, Array]:
    """See ``ConvTranspose.gradient``."""
    dy = np.ascontiguousarray(dy)
    dw = {"w": convolution_of(conv, dy.shape[1:], dy.dtype, kept.shape[-1]).gradient(dy, kept, params["w"].shape)}
    return dw | {"b": total(dy)} if conv.bias else dw


@ready
def affine_forward(affine: Affine, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
    """See ``Affine.forward``."""
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(params["w"])
    y = _admitted(affine, params, x).forward(x, w, params["b"] if affine.bias else None)
    return y.reshape(*x.shape[:-1], affine.units), x


@ready
def affine_error(affine: Affine, params: Params, kept: Array, dy: Array) -> Array:
    """See ``Affine.error``."""
    dy, w = np.ascontiguousarray(dy), np.ascontiguousarray(params["w"])
    return _of_affine(affine, kept.shape[1:], kept.dtype, host()).error(dy, w).reshape(kept.shape)


@ready
def affine_gradient(affine: Affine, params: Params, kept: Array, dy: Array) -> dict[str, Array]:
    """See ``Affine.gradient``."""
    dy = np.ascontiguousarray(dy)
    dw = {"w": _of_affine(affine, kept.shape[1:], kept.dtype, host()).gradient(kept, dy, params["w"].shape)}
    return dw | {"b": total(dy)} if affine.bias else dw


def _admitted(element: Conv | ConvTranspose | Affine, params: Params, *inputs: Array) -> Convolution:
    """The convolution of an element, after a check of inputs and parameters."""
    shapes = tuple((name, array.shape) for name, array in params.items())
    return _checked(element, tuple(x.shape[1:] for x in inputs), inputs[0].dtype, shapes, host())


@lru_cache(maxsize=1024)
def _checked(
    element: Any, shapes: tuple[Any, ...], dtype: Any, params: tuple[tuple[str, Any], ...], machine: Machine
) -> Convolution:
    """The convolution of an element on inputs and parameters of these shapes, if they fit."""
    stand_ins = {name: np.broadcast_to(0.0, shape) for name, shape in params}
    element.admit(stand_ins, *(np.broadcast_to(0.0, (1, *shape)) for shape in shapes))
    match element:
        case Affine():
            return _of_affine(element, shapes[0], dtype, machine)
        case ConvTranspose():
            return convolution_of(element, element.output(*shapes), dtype, shapes[0][-1])
    return convolution_of(element, shapes[0], dtype)


def convolution_of(conv: Conv | ConvTranspose, shape: Any, dtype: Any, filters: int | None = None) -> Convolution:
    """The convolution of x of this shape; for a transposed one that whose error it is, with its ``filters``."""
    return _convolution_of(conv, shape, dtype, filters, host())


@lru_cache(maxsize=1024)
def _convolution_of(
    conv: Conv | ConvTranspose, shape: Any, dtype: Any, filters: int | None, machine: Machine
) -> Convolution:
    windows = conv.windows(shape)
    missing = 3 - len(windows)
    return Convolution(
        KINDS[dtype],
        (*(Window(),) * missing, *windows),  # pyright: ignore[reportArgumentType] -- three of them
        conv.groups,
        shape[-1],
        filters or conv.filters,
        (*(1,) * missing, *shape[:-1]),  # pyright: ignore[reportArgumentType] -- three of them
    )


@lru_cache(maxsize=1024)
def _of_affine(affine: Affine, shape: Any, dtype: Any, machine: Machine) -> Convolution:
    """The convolution of one tap over all positions."""
    extent = (1, 1, math.prod(shape[:-1]))
    return Convolution(KINDS[dtype], (Window(), Window(), Window()), 1, shape[-1], affine.units, extent)


def _shaped(y: Array, ndim: int) -> Array:
    """Of three axes, those that are there."""
    return y.reshape(len(y), *y.shape[5 - ndim + 1 :]) if ndim < 5 else y


LOWERINGS = {
    Conv: (conv_forward, conv_error, conv_gradient),
    ConvTranspose: (transpose_forward, transpose_error, transpose_gradient),
    Affine: (affine_forward, affine_error, affine_gradient),
}
