"""Faltung: convolutional networks on ordinary CPUs, every derivative written down, visible and checked.

>>> import faltung as ft
>>> import numpy as np
>>> net = ft.Chain(conv=ft.Conv(2, kernel=3), sigm=ft.Sigmoid(), flat=ft.Flatten(), dense=ft.Affine(3)).on((6, 6, 1))
>>> params = net.initial(seed=0)
>>> x, labels = np.linspace(-1, 1, 72).reshape(2, 6, 6, 1), np.array([0, 2])
>>> back = net.backpropagate(params, x, labels, cost=ft.CrossEntropy())
>>> back.errors["conv"].shape, back.gradients["conv.w"].shape
((2, 4, 4, 2), (3, 3, 1, 2))
>>> ft.check.gradient_check(net, params, x, labels, cost=ft.CrossEntropy()).passed()
True

Names are imported when they are first used, so that the command line answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faltung import arithmetic, check, data, elements, errors, initial, matrix, models
    from faltung.elements import *  # noqa: F403 -- its __all__ is the list of public elements
    from faltung.model import Model
    from faltung.network import Backward, Chain, Forward, Graph, Network, Node
    from faltung.training import SGD, Adam, AdamW, Averaged, Cosine, Piecewise, StepDecay, WarmUp, evaluate, fit

    __all__ = [
        "SGD",
        "Adam",
        "AdamW",
        "Averaged",
        "Backward",
        "Chain",
        "Cosine",
        "Forward",
        "Graph",
        "Model",
        "Network",
        "Node",
        "Piecewise",
        "StepDecay",
        "WarmUp",
        "arithmetic",
        "check",
        "data",
        "elements",
        "errors",
        "evaluate",
        "fit",
        "initial",
        "matrix",
        "models",
    ]
    __all__ += elements.__all__

__version__ = "0.1.0"

_MODULES = ("arithmetic", "check", "data", "elements", "errors", "initial", "matrix", "models")
_HOMES = (
    {"Model": "model"}
    | dict.fromkeys(("Backward", "Chain", "Forward", "Graph", "Network", "Node"), "network")
    | dict.fromkeys(
        ("SGD", "Adam", "AdamW", "Averaged", "Cosine", "Piecewise", "StepDecay", "WarmUp", "evaluate", "fit"),
        "training",
    )
)


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return [*_MODULES, *_HOMES, *import_module("faltung.elements").__all__]
    if name in _MODULES:
        return import_module(f"faltung.{name}")
    if name in _HOMES:
        return getattr(import_module(f"faltung.{_HOMES[name]}"), name)
    if name in (elements := import_module("faltung.elements")).__all__:
        return getattr(elements, name)
    raise AttributeError(f"module 'faltung' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]
