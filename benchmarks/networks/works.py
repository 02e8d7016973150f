"""What is measured: networks by name, their inputs, and how they are trained. Each is defined in every ``in_*.py``."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Work:
    """A network on images of one shape; ``network`` names its definition, which gets ``arguments``."""

    network: str
    shape: tuple[int, int, int]
    """Height, width, channels."""
    batches: tuple[int, ...] = (32, 256)
    """Of a training step; a prediction is measured at 1 and 32."""
    rate: float = 0.01
    momentum: float = 0.9
    arguments: tuple[int, ...] = ()
    per_pixel: bool = False
    """Whether each pixel has a label, or each image."""
    flattened: tuple[str, tuple[int, int, int]] | None = None
    """The dense layer that reads images entry by entry, and their shape: channels-first peers need its rows in another
    order."""


CLASSES = 10
WORKS = {
    "ufldl": Work("ufldl", (28, 28, 1), rate=0.1, flattened=("dense", (10, 10, 20))),
    "lenet5": Work("lenet5", (28, 28, 1), rate=0.05, flattened=("dense1", (5, 5, 16))),
    "vgg": Work("vgg", (32, 32, 3), flattened=("dense", (4, 4, 128))),
    "residual": Work("residual", (32, 32, 3)),
    "unet": Work("unet", (128, 128, 3), batches=(4,), per_pixel=True),
}


def examples(work: Work, batch: int, seed: int = 0):
    """Random images, from 0 to 1 and channels last, and random labels."""
    random = np.random.default_rng(seed)
    x = random.random((batch, *work.shape), np.float32)
    labels = random.integers(0, CLASSES, (batch, *work.shape[:2]) if work.per_pixel else batch)
    return x, labels
