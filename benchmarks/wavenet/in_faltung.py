"""WaveNets in Faltung, how they train, and how they speak."""

import numpy as np

import faltung as ft
from faltung.elements.element import Run
from faltung.engine.stream.generator import Generator
from faltung.engine.stream.halves import by_two
from faltung.models.wavenet import Settings, WaveNet, expected
from faltung.models.wavenet import network as composed
from faltung.models.wavenet.weights import stacked

from .works import CLASSES


def settings(work):
    """A work as Faltung's settings."""
    return Settings(
        work.dilations, kernel=work.kernel, residual=work.residual, gate=work.gate, skip=work.skip, classes=CLASSES
    )


def network(work):
    """The network of a work; time is open."""
    return composed(settings(work))


def initial(work):
    """The parameters that every side begins with, by name."""
    return network(work).initial(seed=0)


class Training:
    """Steps of backpropagation and update, on one batch."""

    def __init__(self, work, params, x, targets):
        self.network, self.params = network(work), params
        self.optimiser = ft.Adam(work.rate)
        self.slots, self.count = self.optimiser.slots(params), 0
        self.x, self.targets = x, targets

    def step(self):
        done = self.network.train_step(
            self.params, self.slots, self.x, self.targets, cost=ft.CrossEntropy(), optimiser=self.optimiser,
            run=Run(training=True, step=self.count),
        )  # fmt: skip
        self.params, self.slots = done.params, done.slots
        self.count += 1
        return done.cost

    def gradients(self):
        """The cost and all gradients by name; no update."""
        back = self.network.backpropagate(self.params, self.x, self.targets, cost=ft.CrossEntropy(), keep=())
        return back.cost, dict(back.gradients)


class Generation:
    """Samples one after the other; each call goes on where the last one ended."""

    def __init__(self, work, params, streams=1, bfloat16=False, workers=1):
        self.model = WaveNet(settings(work), params)
        self.weights = stacked(self.model)
        make = by_two if workers > 1 else Generator
        self.machine = make(work.dilations, self.weights, streams, bfloat16)
        self.state, self.random = self.machine.begin(), np.random.default_rng(0)
        self.heard = np.full((streams, work.kernel), CLASSES // 2, np.int32)

    @property
    def bytes(self):
        """What a step reads."""
        return self.machine.bytes

    def logits(self, codes):
        """Of the next sample after each code."""
        return expected(self.model, codes[None])[0]

    def speak(self, steps):
        """So many more codes of each stream."""
        codes = np.concatenate([self.heard, np.zeros((len(self.heard), steps), np.int32)], axis=1)
        numbers = self.random.random((len(codes), steps))
        self.machine.run(self.state, codes, self.weights["gate.b"][None, None], numbers)
        self.heard = codes[:, steps:]
        return codes[:, -steps:]
