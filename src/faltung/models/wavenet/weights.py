"""A WaveNet's parameters as plain arrays, layer above layer, for whoever goes step by step."""

from typing import cast

import numpy as np

from faltung.elements.element import Array
from faltung.errors import NonFiniteError
from faltung.models.wavenet.model import WaveNet
from faltung.models.wavenet.mulaw import decode


def stacked(model: WaveNet) -> dict[str, Array]:
    """The arrays that ``engine.stream.generator`` packs, and "gate.b" (layers, 2, gate), all of the dtype of the model.

    The last layer's residual, which nobody reads, is 0.
    Raises: NonFiniteError where a parameter is NaN or infinite.

    >>> from faltung.models.wavenet import Settings
    >>> weights = stacked(WaveNet.initial(Settings((1, 2, 4), residual=4, gate=5, skip=8), seed=0))
    >>> weights["front"].shape, weights["gate"].shape, weights["skip"].shape, weights["end2"].shape
    ((2, 257, 4), (3, 2, 4, 2, 5), (3, 5, 8), (8, 256))
    """
    params = model.params
    for name, w in params.items():
        if not np.isfinite(w).all():
            raise NonFiniteError(
                f"the parameter {name} holds NaN or infinity", element="WaveNet", way_out="take an earlier checkpoint"
            )
    settings, numbers = model.settings, range(1, len(model.settings.dilations) + 1)
    last = len(settings.dilations)

    def layers(name: str, end: str, *shape: int) -> Array:
        """The parameters of all layers, each of this shape."""
        parts = [params.get(f"{name.format(i)}.{end}") for i in numbers]
        like = params["end2.b"]
        return np.stack([np.zeros(shape, like.dtype) if part is None else part.reshape(shape) for part in parts])

    residual, gate, skip = settings.residual, settings.gate, settings.skip
    assert last
    return {
        "front": _front(model),
        "gate": layers("gate{}.conv", "w", settings.kernel, residual, 2, gate),
        "gate.b": layers("gate{}.conv", "b", 2, gate),
        "residual": layers("residual{}", "w", gate, residual),
        "residual.b": layers("residual{}", "b", residual),
        "skip": layers("skip{}", "w", gate, skip),
        "skip.b": layers("skip{}", "b", skip),
        "end1": params["end1.w"][0],
        "end1.b": params["end1.b"],
        "end2": params["end2.w"][0],
        "end2.b": params["end2.b"],
    }


def _front(model: WaveNet) -> Array:
    """What the first convolution adds for each tap, the oldest first, and each code; last, for no code."""
    params, settings = model.params, model.settings
    if settings.input == "onehot":
        names = [*(f"past{back}" for back in range(settings.kernel - 1, 0, -1)), "now"]
        rows = np.stack([params[f"front.{name}.w"] for name in names])
        return np.concatenate([rows, np.zeros_like(rows[:, :1])], axis=1)
    w = params["front.w"]
    amplitudes = np.append(decode(np.arange(settings.classes), settings.classes), np.float32(0))
    rows = amplitudes[:, None] * w
    rows[-1] += params["front.b"]
    return cast("Array", rows)
