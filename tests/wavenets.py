"""Small WaveNets of every kind, and inputs for them."""

from dataclasses import replace

import numpy as np

from faltung.models.wavenet import Context, Settings, decode

TINY = Settings((1, 2, 4, 1, 2), residual=4, gate=3, skip=5, end=6, classes=16)
LOCAL = {"local": 3, "upsample": (2, 3)}
KINDS = {
    "plain": TINY,
    "kernel 3": replace(TINY, kernel=3),
    "scalar": replace(TINY, input="scalar"),
    "global": replace(TINY, condition=2),
    "speakers": replace(TINY, condition=2, speakers=3),
    "transposed": replace(TINY, **LOCAL),
    "nearest": replace(TINY, **LOCAL, upsampling="nearest"),
    "context": replace(TINY, context=Context((1, 2), pool=4, residual=3, gate=2, skip=2)),
    "everything": replace(
        TINY, condition=2, speakers=3, **LOCAL, context=Context((1, 2), pool=3, residual=2, gate=2, skip=3)
    ),
}


def arrays(settings: Settings, *, streams: int, samples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs of its network, by name."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, settings.classes, (streams, samples))
    inputs = {"x": codes if settings.input == "onehot" else decode(codes, settings.classes)[..., None]}
    if settings.speakers:
        inputs["speaker"] = random.integers(0, settings.speakers, streams)
    elif settings.condition:
        inputs["h"] = random.normal(size=(streams, settings.condition))
    if settings.local:
        inputs["local"] = random.normal(size=(streams, -(-samples // settings.hop), settings.local))
    return inputs
