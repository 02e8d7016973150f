"""A network made ready to predict and nothing else: its parameters are taken once, and stay as they are."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from faltung.elements.element import Params
from faltung.network.door import admit_inputs, admit_params
from faltung.network.folding import folded

if TYPE_CHECKING:
    from faltung.network.network import Network

MOST = 64
"""Sizes for which a predictor stays ready."""


class Predictor:
    """x -> what ``network.predict(params, x)`` gives; see ``Network.predictor``."""

    def __init__(self, network: "Network", params: Params):
        self._dtype = admit_params(params, (*network.parameters, *network.states))
        composite, own = folded(network, params)
        self.network = type(network)(composite, network.inputs)
        """What is computed: batch normalisations are folded."""
        self.network.compute = network.compute
        self._prepare = network.compute.frozen(self.network, own)
        self._ready: dict[Any, Callable[..., Any]] = {}
        single = len(network.inputs) == 1 and not network.indices
        self._own = np.dtype(self._dtype) if single and self._dtype is not None else None
        """The dtype of which arrays pass as they are."""

    def __call__(self, x: Any) -> Any:
        """The output for x (batch, *axes, channels), as ``Network.predict``, with the same errors."""
        if type(x) is np.ndarray and x.dtype is self._own and x.flags.c_contiguous:
            ready = self._ready.get(x.shape)
            if ready is not None:
                return ready(x)
        return self._admitted(x)

    def _admitted(self, x: Any) -> Any:
        inputs = admit_inputs(self.network.inputs, x, self._dtype, self.network.indices)
        inputs = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        arrays = list(inputs.values())
        key = arrays[0].shape if self._own is not None else tuple((array.shape, array.dtype) for array in arrays)
        ready = self._ready.get(key)
        if ready is None:
            ready = self._prepare(inputs)
            if len(self._ready) >= MOST:
                self._ready.clear()
            self._ready[key] = ready
        return ready(*arrays)

    def __repr__(self) -> str:
        return f"Predictor({self.network!r})"
