"""Learn from a folder of recordings, WAV or FLAC, and speak: ``python examples/wavenet.py FOLDER``.

It needs ``pip install 'faltung[audio]'``. ``faltung wavenet train`` does the same, with checkpoints and validation.
"""

import sys

import numpy as np

import faltung as ft
from faltung.data.audio import write_wav
from faltung.models.wavenet import SETTINGS, Settings, WaveNet
from faltung.models.wavenet.corpus import read_corpus
from faltung.models.wavenet.generate import generate
from faltung.models.wavenet.windows import IGNORED, Windows, training_network


def learn(folder: str, settings: Settings = SETTINGS["nv"], steps: int = 10_000, length: int = 2400) -> WaveNet:
    """Train on windows of so many samples; the cost that is printed after each 250 steps is in nats."""
    recordings = read_corpus(folder, settings).clips["training"]
    fitted = ft.fit(
        training_network(settings, length),
        WaveNet.initial(settings, seed=0).params,
        Windows(recordings, settings, length, count=4 * min(steps, 250)),
        cost=ft.CrossEntropy(ignore=IGNORED),
        optimiser=ft.Adam(ft.WarmUp(200, ft.Cosine(2e-3, steps=steps))),
        epochs=-(-steps // 250),
        batch=4,
    )
    return WaveNet(settings, fitted.params)


if __name__ == "__main__":
    model = learn(sys.argv[1])
    model.save("wavenet.safetensors")
    speech = np.concatenate(list(generate(model, samples=3 * model.settings.rate, seed=0)), axis=1)
    write_wav("wavenet.wav", speech[0], model.settings.rate)
