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
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from faltung import elements
from faltung.elements import *  # noqa: F403 -- its __all__ is the list of public elements
from faltung.network import Backward, Chain, Forward, Graph, Network, Node

if TYPE_CHECKING:
    from faltung import arithmetic, check, data, errors, initial, matrix, models
    from faltung.model import Model
    from faltung.training import SGD, Adam, AdamW, Cosine, Piecewise, StepDecay, WarmUp, evaluate, fit

__version__ = "0.1.0"

_LATER = {"Model": "faltung.model"} | dict.fromkeys(
    ("SGD", "Adam", "AdamW", "Cosine", "Piecewise", "StepDecay", "WarmUp", "evaluate", "fit"), "faltung.training"
)
_MODULES = ("arithmetic", "check", "data", "errors", "initial", "matrix", "models")

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
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
    "errors",
    "evaluate",
    "fit",
    "initial",
    "matrix",
    "models",
]
__all__ += elements.__all__


def __getattr__(name: str) -> Any:
    """Import what is not needed to define and run a network when it is first asked for."""
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    if name in _MODULES:
        return import_module(f"faltung.{name}")
    raise AttributeError(f"module 'faltung' has no attribute {name!r}")
