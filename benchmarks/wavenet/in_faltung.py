"""WaveNets in Faltung, and how they train."""

import faltung as ft
from faltung.elements.element import Run
from faltung.models.wavenet import Settings
from faltung.models.wavenet import network as composed

from .works import CLASSES


def network(work):
    """The network of a work; time is open."""
    return composed(
        Settings(
            work.dilations, kernel=work.kernel, residual=work.residual, gate=work.gate, skip=work.skip, classes=CLASSES
        )
    )


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
