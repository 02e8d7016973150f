"""What is measured: WaveNets by name, which every ``in_*.py`` defines alike, and batches of samples."""

from dataclasses import dataclass

import numpy as np

CLASSES = 256


@dataclass(frozen=True)
class Work:
    """A WaveNet on codes from 0 to 255, without conditions; all convolutions but the first one have a bias."""

    dilations: tuple[int, ...]
    residual: int
    gate: int
    """Channels of each half."""
    skip: int
    """Also between the last two convolutions."""
    kernel: int = 2
    rate: float = 1e-3
    """Of Adam."""


def cycles(count, last):
    """1, 2, 4, ... up to ``last``, so many times."""
    return tuple(1 << k for k in range(last.bit_length())) * count


WORKS = {
    "nv": Work(cycles(2, 128), 64, 64, 256),
    "ibab": Work(cycles(5, 512), 32, 32, 512),
    "layers30": Work(cycles(3, 512), 64, 64, 256),
}
SPOKEN = {"nv": WORKS["nv"], "ibab": WORKS["ibab"], "small": Work(cycles(2, 512), 32, 32, 128)}
"""What speaks, sample by sample."""
BATCHES = ((1, 16_000), (4, 8_000))
"""Examples and samples of a training step."""


def examples(batch, samples, seed=0):
    """Codes that wander as those of sound do, and the next ones, which are to be predicted."""
    random = np.random.default_rng(seed)
    x = np.cumsum(random.integers(-6, 7, (batch, samples + 1)), axis=1)
    x = np.abs((x + 128) % 510 - 255)
    return x[:, :-1].astype(np.int64), x[:, 1:].astype(np.int64)
