"""A network with its parameters, for every day: fit, predict, evaluate, save, load."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from faltung.data.dataset import Data
from faltung.elements.costs import Cost
from faltung.elements.element import Params
from faltung.elements.settings import check_count
from faltung.exchange.modelfile import load_model, save_model
from faltung.network import Network, Predictor
from faltung.training.fit import fit
from faltung.training.metrics import evaluate
from faltung.training.optimisers import Optimiser


@dataclass(frozen=True, eq=False)
class Model:
    """A network, its parameters, and what else is known about it (anything that JSON can say).

    A frozen value too: ``fit`` returns a new model.

    >>> import faltung as ft
    >>> x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> exclusive_or = ft.data.Arrays(x, np.array([0, 1, 1, 0]))
    >>> network = ft.Chain(hidden=ft.Affine(8), tanh=ft.Tanh(), dense=ft.Affine(2)).on((2,))
    >>> model = Model(network, network.initial(seed=0), {"classes": ["equal", "different"]})
    >>> model = model.fit(exclusive_or, cost=ft.CrossEntropy(), optimiser=ft.Adam(0.1), epochs=50, progress=False)
    >>> model.predict(x).argmax(1).tolist(), model.evaluate(exclusive_or, cost=ft.CrossEntropy())["accuracy"]
    ([0, 1, 1, 0], 1.0)
    """

    network: Network
    params: Params
    about: Mapping[str, Any] = field(default_factory=dict)

    def fit(self, data: Data, *, cost: Cost, optimiser: Optimiser, epochs: int, **settings: Any) -> "Model":
        """The model after training, its history in ``about``; all else as ``faltung.training.fit``."""
        arguments = {"cost": cost, "optimiser": optimiser, "epochs": epochs, "about": self.about, **settings}
        fitted = fit(self.network, self.params, data, **arguments)
        return Model(self.network, fitted.params, {**arguments["about"], "history": list(fitted.history)})

    def predict(self, x: Any, *, batch: int = 256) -> Any:
        """The output for x (n, *axes, channels), ``batch`` examples at a time; dictionaries as ``Network.predict``."""
        check_count("predict", batch=batch)
        count = len(next(iter(x.values())) if isinstance(x, Mapping) else x)
        parts = [
            self.network.predict(self.params, _cut(x, start, start + batch)) for start in range(0, max(count, 1), batch)
        ]
        if isinstance(parts[0], Mapping):
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return np.concatenate(parts)

    def predictor(self) -> Predictor:
        """The model made ready to predict often, see ``Network.predictor``."""
        return self.network.predictor(self.params)

    def evaluate(self, data: Data, *, cost: Cost, batch: int = 256) -> dict[str, float]:
        """The cost over the data, and the accuracy where the cost has classes."""
        return evaluate(self.network, self.params, data, cost=cost, batch=batch)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a model file, as ``faltung.exchange.modelfile.save_model``."""
        save_model(path, self.network, self.params, self.about)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Model":
        """Read a model file, as ``faltung.exchange.modelfile.load_model``."""
        return cls(*load_model(path))


def _cut(x: Any, start: int, stop: int) -> Any:
    """Examples start to stop of an array, or of each input's array."""
    return {name: _cut(part, start, stop) for name, part in x.items()} if isinstance(x, Mapping) else x[start:stop]
