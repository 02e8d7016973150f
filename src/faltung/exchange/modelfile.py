"""Model files: a network, its parameters, and what else there is to know about it, in one safetensors file.

Tensors carry the parameters' names; the metadata holds ``format`` "faltung", ``version``, the network and what is
known about it as JSON, and a checksum. No pickle: loading a file runs no code from it.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from faltung.elements.element import Array, Params
from faltung.errors import ModelFileError
from faltung.exchange import tensorfile
from faltung.exchange.description import describe_network, read_network
from faltung.network import Network

FORMAT = "faltung"


def save_model(
    path: str | os.PathLike[str], network: Network, params: Params, about: Mapping[str, Any] | None = None
) -> None:
    """Write a model file, whole or not at all.

    ``about`` is anything that JSON can say: the classes' names, the accuracy, ...
    Raises: ModelFileError where network, parameters or ``about`` cannot be written into a file; FileError where the
    file cannot be written.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from faltung.elements import Affine
    >>> from faltung.network import Chain
    >>> network = Chain(dense=Affine(1)).on((2,))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "line.safetensors")
    ...     save_model(path, network, {"dense.w": np.ones((2, 1)), "dense.b": np.zeros(1)}, {"classes": ["line"]})
    ...     again, params, about = load_model(path)
    >>> again.predict(params, np.array([[1.0, 2.0]])).tolist(), about
    ([[3.0]], {'classes': ['line']})
    """
    problem = misfit(network, params)
    if problem:
        raise ModelFileError(f"cannot write {path}: {problem}", way_out="give the parameters of this network")
    texts = {"network": json.dumps(describe_network(network)), "about": about_text(about or {})}
    tensorfile.write(path, FORMAT, {name: np.asarray(w) for name, w in params.items()}, texts)


def load_model(path: str | os.PathLike[str]) -> tuple[Network, dict[str, Array], dict[str, Any]]:
    """The network, its parameters and what is known about it.

    Raises: ModelFileError where the file is missing, damaged, of another kind or of a newer version, or where its
    parameters are not those of its network.
    Example: see ``save_model``.
    """
    params, texts = tensorfile.read(path, FORMAT)
    try:
        network = read_network(json.loads(texts["network"]))
        about = json.loads(texts["about"])
    except ModelFileError as error:
        error.problem = f"{path}: {error.problem}"
        raise
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path}: the file is damaged ({type(error).__name__}: {error})", way_out=tensorfile.COPY
        ) from error
    problem = misfit(network, params)
    if problem or not isinstance(about, dict):
        raise ModelFileError(
            f"{path}: the file is damaged ({problem or 'about is no object'})", way_out=tensorfile.COPY
        )
    return network, {name: params[name] for name in network.parameters | network.states}, about


def about_text(about: Mapping[str, Any]) -> str:
    """The JSON of what is known about a model. Raises: ModelFileError where JSON cannot say it."""
    try:
        return json.dumps(about, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"got about={about!r}, expected what JSON can say ({error})",
            way_out="use text, finite numbers, lists and dictionaries",
        ) from None


def misfit(network: Network, params: Params) -> str | None:
    """What keeps these from being the parameters of the network, or None.

    >>> from faltung.elements import Affine
    >>> from faltung.network import Chain
    >>> misfit(Chain(dense=Affine(2)).on((3,)), {"dense.w": np.zeros((2, 2)), "dense.b": np.zeros(2)})
    'the parameter dense.w has the shape (2, 2), expected (3, 2)'
    """
    expected = network.parameters | network.states
    missing, extra = sorted(expected.keys() - params.keys()), sorted(params.keys() - expected.keys())
    if missing or extra:
        lists = [f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("extra", extra)) if names]
        return f"the parameters are not those of the network: {'; '.join(lists)}"
    arrays = {name: np.asarray(params[name]) for name in expected}
    for name, parameter in expected.items():
        if arrays[name].shape != parameter.shape:
            return f"the parameter {name} has the shape {arrays[name].shape}, expected {parameter.shape}"
    dtypes = {array.dtype for array in arrays.values()}
    if len(dtypes) > 1 or any(dtype.kind != "f" for dtype in dtypes):
        return f"the parameters are {', '.join(sorted(map(str, dtypes)))}, expected one floating dtype"
    return None
