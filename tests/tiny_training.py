"""What the tests of training share: a tiny network and data that it can learn."""

import signal
from typing import Any

import numpy as np

from faltung.data import Arrays
from faltung.elements import Affine, BatchNorm, Conv, CrossEntropy, Dropout, Flatten, ReLU
from faltung.network import Chain
from faltung.training import SGD

NETWORK = Chain(
    conv=Conv(3, kernel=3), norm=BatchNorm(), relu=ReLU(), drop=Dropout(0.25), flat=Flatten(), dense=Affine(2)
).on((6, 6, 1))


def images(count: int, seed: int = 0, dtype: Any = np.float64) -> Arrays:
    """Noise with an edge that lies (label 0) or stands (label 1)."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    x = random.normal(0, 0.3, (count, 6, 6))
    x[:, 3] += 1
    x[labels == 1] = x[labels == 1].swapaxes(1, 2)
    return Arrays(x[..., None].astype(dtype), labels)


class Signalling:
    """Data that send this process signals when their batch number ``at`` (from 1) is fetched."""

    def __init__(self, data: Arrays, at: int, *signals: int):
        self.data, self.at, self.signals = data, at, signals or (signal.SIGINT,)
        self.fetched = 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, indices: Any) -> Any:
        self.fetched += len(indices) > 1  # the rehearsal asks for one
        if self.fetched == self.at and len(indices) > 1:
            for number in self.signals:
                signal.raise_signal(number)
        return self.data[indices]


def settings(**more: Any) -> dict[str, Any]:
    """Three steps an epoch, the last one smaller."""
    usual = {"cost": CrossEntropy(), "optimiser": SGD(0.1, momentum=0.9), "epochs": 3, "batch": 8, "progress": False}
    return usual | more


def without_times(history: Any) -> list[dict[str, Any]]:
    """What must be the same in any two runs."""
    return [{key: row[key] for key in row if key not in ("seconds", "examples_per_second")} for row in history]
