"""The door of a network: what comes in is checked once, and converted once."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from faltung.elements.costs import Cost
from faltung.elements.element import Array, Params, Shape
from faltung.errors import NetworkError, SettingError, ShapeError
from faltung.network.executors import Goals


def admit_shapes(names: Sequence[str], shapes: Mapping[str, Sequence[int | None]]) -> dict[str, Shape]:
    """The shapes of the inputs, one for each name; sizes are whole numbers from 1, or None for an open axis."""
    if set(names) != set(shapes):
        raise NetworkError(
            f"got shapes for {sorted(shapes)}, expected one for each of the inputs {sorted(names)}",
            way_out="give .on(...) one shape an input, without the batch",
        )
    for name, shape in shapes.items():
        listed = isinstance(shape, list | tuple)
        if not listed or not all(size is None or (type(size) is int and size >= 1) for size in shape):
            raise ShapeError(
                f"got the shape {shape!r} for input {name!r}, expected a tuple of sizes of at least 1, None where open",
                way_out="give (*axes, channels) without the batch",
            )
    return {name: tuple(shapes[name]) for name in names}


def admit_params(params: Params, names: Collection[str]) -> Any:
    """The dtype that all parameters share, after a check that none is missing."""
    given = [params.get(name) for name in names]
    if {*map(type, given)} == {np.ndarray} and len(kinds := {array.dtype for array in given}) == 1:  # pyright: ignore[reportOptionalMemberAccess]
        [kind] = kinds
        if kind.kind == "f" and kind.isnative:
            return kind
    missing = [name for name in names if name not in params]
    if missing:
        raise NetworkError(
            f"got parameters without {', '.join(missing)}, expected all of {', '.join(names)}",
            way_out="make them with network.initial(seed)",
        )
    for name in names:
        if not isinstance(params[name], np.ndarray):
            kind = type(params[name]).__name__
            raise SettingError(f"got {name} of type {kind}, expected a NumPy array", way_out="convert it by np.asarray")
    dtypes = {name: params[name].dtype for name in names}
    kinds = set(dtypes.values())
    odd = [name for name, kind in dtypes.items() if kind.kind != "f" or not kind.isnative]
    if len(kinds) > 1 or odd:
        other = odd[0] if odd else next(name for name in dtypes if dtypes[name] != dtypes[next(iter(dtypes))])
        raise SettingError(
            f"got {other} of {dtypes[other]} among parameters of {', '.join(sorted(map(str, kinds)))}, "
            "expected one floating dtype for all",
            way_out="convert them with w.astype(np.float32)",
        )
    return kinds.pop() if kinds else None


def admit_inputs(shapes: Mapping[str, Shape], x: Any, dtype: Any, indices: Collection[str]) -> dict[str, Array]:
    """Each input as an array of the parameters' dtype (indices stay integers), batch first."""
    if type(x) is np.ndarray and x.dtype == dtype and len(shapes) == 1 and not indices:  # as it nearly always is
        [(name, shape)] = shapes.items()
        if x.ndim and x.shape[1:] == shape:
            return {name: x}
    if not isinstance(x, Mapping) and len(shapes) > 1:
        raise NetworkError(
            f"got one input, expected a dictionary of {', '.join(shapes)}",
            way_out="give one array an input by its name",
        )
    given = dict(x) if isinstance(x, Mapping) else {next(iter(shapes)): x}
    if set(given) != set(shapes):
        raise NetworkError(
            f"got the inputs {', '.join(map(str, given))}, expected {', '.join(shapes)}",
            way_out="give one array an input by its name",
        )
    inputs = {name: _array(name, given[name], dtype, name in indices) for name in shapes}
    for name, array in inputs.items():
        shape = shapes[name]
        fits = array.ndim == len(shape) + 1 and all(
            want in (None, size) for want, size in zip(shape, array.shape[1:], strict=True)
        )
        if not fits:
            raise ShapeError(
                f"got input {name!r} of shape {array.shape}, expected (batch, {', '.join(map(_size, shape))})",
                way_out="give the batch first and the channels last, as in x[None, ..., None] for one grey image",
            )
    if len({len(array) for array in inputs.values()}) > 1:
        raise ShapeError(
            "got batches of "
            + ", ".join(f"{len(array)} ({name})" for name, array in inputs.items())
            + ", expected one size",
            way_out="give every input the same number of examples",
        )
    return inputs


def admit_goals(costs: Mapping[str, Cost], targets: Any, weights: Any) -> Goals:
    """For each output its cost, what it is compared with as an array, and the weight of its examples."""
    weights = {} if weights is None else weights
    for what, given in (("target", targets), ("weight", weights)):
        if not isinstance(given, Mapping):
            raise NetworkError(
                f"got one {what} for costs by output, expected a dictionary by output, too",
                way_out=f"write {what}={{'name of the output': ...}}",
            )
    for name, cost in costs.items():
        if not isinstance(cost, Cost):
            raise SettingError(
                f"got cost={cost!r} for {name!r}, expected one of faltung's costs", way_out="write cost=CrossEntropy()"
            )
    lacking, stray = [name for name in costs if name not in targets], [name for name in weights if name not in costs]
    if lacking:
        raise NetworkError(f"got no target for {', '.join(lacking)}, expected one for each cost", way_out="add it")
    if stray:
        raise NetworkError(
            f"got a weight for {', '.join(stray)}, expected outputs that have a cost", way_out="leave it out"
        )
    return {name: (cost, np.asarray(targets[name]), weights.get(name)) for name, cost in costs.items()}


def _array(name: str, x: Any, dtype: Any, indices: bool) -> Array:
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ShapeError(
            f"got input {name!r} that is no array ({error}), expected examples of one shape",
            way_out="pass examples of different shapes one by one, or make them equal",
        ) from None
    if array.dtype.kind not in "fiub" or (indices and array.dtype.kind not in "iu"):
        expected = "whole numbers" if indices else "numbers"
        raise SettingError(
            f"got input {name!r} of {array.dtype}, expected {expected}", way_out="convert it with x.astype(...)"
        )
    if indices:
        return array
    if dtype is None:  # a network without parameters
        dtype = array.dtype.newbyteorder("=") if array.dtype.kind == "f" else np.float32
    return array.astype(dtype, copy=False)


def _size(size: int | None) -> str:
    return "any" if size is None else str(size)
