"""A WaveNet step by step in NumPy, with a queue for each layer: what the compiled steps must agree with.

A layer with the dilation d reads what it was given d, 2 d, ... steps ago; so that is all that it must remember. Source:
Le Paine et al. 2016 (Fast WaveNet).
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from faltung.elements.element import Array
from faltung.engine.stream.columns import bfloat16
from faltung.special import sigmoid

MATRICES = ("gate", "residual", "skip", "end1", "end2")


@dataclass
class Heard:
    """The queues: what each layer was given, the oldest first."""

    queues: list[deque[Array]]


class Stepwise:
    """The same three functions as ``faltung.engine.stream.generator.Generator``, from the same arrays."""

    def __init__(self, dilations: Sequence[int], weights: Mapping[str, Array], streams: int = 1, half: bool = False):
        self.dilations, self.streams, self.weights = dilations, streams, dict(weights)
        if half:
            self.weights |= {name: bfloat16(weights[name]) for name in MATRICES}

    def begin(self) -> Heard:
        """Streams that have heard nothing: zeros."""
        _, kernel, residual, *_ = self.weights["gate"].shape
        nothing = np.zeros((self.streams, residual), self.weights["gate"].dtype)
        return Heard([deque([nothing] * ((kernel - 1) * dilation)) for dilation in self.dilations])

    def run(
        self,
        heard: Heard,
        codes: Array,
        starts: Array,
        numbers: Array,
        *,
        given: int = 0,
        temperature: float = 1.0,
        keep: bool = False,
    ) -> Array | None:
        """Go on; see ``Generator.run``."""
        front = len(self.weights["front"])
        count = codes.shape[1] - front
        kept = []
        for step in range(count):
            logits = self.step(heard, codes[:, step : step + front], starts[:, min(step, starts.shape[1] - 1)])
            if step >= given:
                codes[:, step + front] = draw(logits, numbers[:, step], temperature)
            kept += [logits] * keep
        return np.stack(kept) if keep else None

    def step(self, heard: Heard, codes: Array, starts: Array) -> Array:
        """The logits (streams, classes) after these codes (streams, taps)."""
        w = self.weights
        h = np.stack([rows[codes[:, tap]] for tap, rows in enumerate(w["front"])]).sum(0)
        skips = np.zeros(w["skip.b"].shape[1:], h.dtype)
        for layer, (dilation, queue) in enumerate(zip(self.dilations, heard.queues, strict=True)):
            taps = [*(queue[back] for back in range(0, len(queue), dilation)), h]
            ab = starts[:, layer] + sum(np.tensordot(x, wk, 1) for x, wk in zip(taps, w["gate"][layer], strict=True))
            z = np.tanh(ab[:, 0]) * sigmoid(ab[:, 1])
            queue.popleft()
            queue.append(h)
            h = h + w["residual.b"][layer] + z @ w["residual"][layer]
            skips = skips + w["skip.b"][layer] + z @ w["skip"][layer]
        end = np.maximum(np.maximum(skips, 0) @ w["end1"] + w["end1.b"], 0)
        return end @ w["end2"] + w["end2.b"]


def draw(logits: Array, numbers: Array, temperature: float) -> Array:
    """For each stream the smallest class at which the sums of probabilities exceed the number of [0, 1).

    A temperature of 0 gives the first of the largest logits.

    >>> draw(np.log([[0.5, 0.0001, 0.4999]]), np.array([0.49]), 1.0), draw(np.array([[1.0, 5.0]]), np.array([0.0]), 0)
    (array([0]), array([1]))
    """
    if not temperature:
        return logits.argmax(1)
    p = np.exp((logits - logits.max(1, keepdims=True)) / temperature)
    c = p.cumsum(1)
    last = c[:, -1:]
    return ((c <= numbers[:, None] * last) & (c < last)).sum(1)
