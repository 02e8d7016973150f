"""What conditions the gates of a WaveNet while it speaks, block by block, by the network's own elements."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import numpy as np

from faltung.elements import Conv
from faltung.elements.element import Array
from faltung.models.wavenet.compose import compose
from faltung.models.wavenet.model import WaveNet
from faltung.models.wavenet.mulaw import decode
from faltung.network import Chain, Network
from faltung.network.composite import Composite


class Conditions:
    """What the gates of all layers begin with: biases, and what the conditions add.

    ``given`` are arrays as ``WaveNet.inputs`` wants them, for as many streams, or for one where all share them.
    """

    def __init__(self, model: WaveNet, gate_biases: Array, given: Mapping[str, Array], executor: str | None = None):
        self._model, self._executor = model, executor
        self._settings, self._params = model.settings, model.params
        self._nodes = compose(model.settings).nodes
        self._biases = gate_biases[None] + self._vectors(given)  # (1 or streams, layers, 2, gate)
        self._local = given.get("local")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what one step of one stream begins with."""
        return self._biases.shape[1:]

    @property
    def unit(self) -> int:
        """No block goes beyond a multiple of so many samples, if it is not 0: a context changes there."""
        context = self._settings.context
        return context.pool if context else 0

    def starts(self, first: int, count: int, heard: Array) -> Array:
        """(1 or streams, 1 or count, layers, 2, gate): for so many steps, of which ``heard`` codes lie before."""
        biases = self._biases[:, None]
        if context := self._settings.context:
            frame = self._frame(heard, context.pool, context.frames)
            biases = biases + self._projected(frame, "context", None).reshape(len(frame), 1, *self.shape)
        if self._local is None:
            return biases
        series = self._upsampled(self._local, first, count)
        bias = biases.reshape(-1) if len(biases) == 1 else None
        starts = self._projected(series, "local", bias).reshape(len(series), count, *self.shape)
        return starts if bias is not None else starts + biases

    def _vectors(self, given: Mapping[str, Array]) -> Array:
        """What the vector of the global condition adds, (1 or streams, layers, 2, gate)."""
        shape = (-1, len(self._settings.dilations), 2, self._settings.gate)
        if "speaker" in given:
            h = self._params["h.w"][given["speaker"]]
        elif "h" in given:
            h = given["h"]
        else:
            return np.zeros((1, *shape[1:]), self._params["end2.b"].dtype)
        return (h.astype(self._params["end2.b"].dtype) @ self._weights("h")).reshape(shape)

    def _weights(self, name: str) -> Array:
        """From a condition's channels to the gates of all layers."""
        layers = range(1, len(self._settings.dilations) + 1)
        parts = [self._params[f"gate{i}.from_{name}.w"] for i in layers]
        return np.concatenate([part.reshape(part.shape[-2:]) for part in parts], axis=1)

    def _projected(self, series: Array, name: str, bias: Array | None) -> Array:
        """The series (n, t, channels) as what it adds in all layers, and the bias."""
        w = self._weights(name)
        every = self._on(Chain(layers=Conv(w.shape[1], kernel=1, bias=bias is not None)), (None, len(w)))
        params = {"layers.w": w[None]} | ({} if bias is None else {"layers.b": bias})
        return every.predict(params, series)

    @cached_property
    def _upsampling(self) -> Network:
        return self._on(self._nodes["upsample"].element, (None, self._settings.local))

    @cached_property
    def _context(self) -> Network:
        return self._on(self._nodes["context"].element, (None,) if self._settings.input == "onehot" else (None, 1))

    def _on(self, part: Any, shape: tuple[int | None, ...]) -> Network:
        network = cast("Composite", part).on(shape)
        return network.on_executor(self._executor) if self._executor else network

    def _upsampled(self, frames: Array, first: int, count: int) -> Array:
        """The local series at audio rate, from sample ``first`` on; of the frames, only those around are looked at."""
        hop, reach = self._settings.hop, len(self._settings.upsample) + 1
        begin, end = max(0, first // hop - reach), -(-(first + count) // hop) + reach
        series = self._upsampling.predict(_under("upsample", self._params), frames[:, begin:end])
        return series[:, first - begin * hop :][:, :count]

    def _frame(self, heard: Array, pool: int, frames: int) -> Array:
        """The context's frame (streams, 1, channels) after the codes heard, which fill whole frames."""
        codes = heard[:, -frames * pool :]
        frame = codes.shape[1] // pool
        if not frame:  # the first one is made of nothing, but a network wants some samples
            codes = np.zeros((len(heard), pool), heard.dtype)
        x = decode(codes, self._settings.classes)[..., None] if self._settings.input == "scalar" else codes
        return self._context.predict(_under("context", self._params), x)[:, frame * pool :][:, :1]


def _under(name: str, params: Mapping[str, Array]) -> dict[str, Array]:
    """The parameters of a node, under the names that it has for them."""
    return {full[len(name) + 1 :]: w for full, w in params.items() if full.startswith(f"{name}.")}
