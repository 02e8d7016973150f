"""Where NaN or infinity first appeared: the one number worth looking at when training breaks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from faltung.elements.element import Array, Element, Params
from faltung.network.executors import Backward
from faltung.network.network import Network


@dataclass(frozen=True)
class NonFinite:
    """The first entry that is not finite.

    ``what`` is "input", "target", "parameter", "value", "error signal" or "gradient", ``name`` whose it is, ``index``
    the entry's place in the array. ``element`` is that of the node, where there is one.
    Example: see ``first_nonfinite``.
    """

    what: str
    name: str
    element: Element | None
    index: tuple[int, ...]
    number: float

    @property
    def per_example(self) -> bool:
        """True where the first place of the index is that of an example."""
        return self.what not in ("parameter", "gradient")


def first_nonfinite(network: Network, params: Params, target: Any, back: Backward) -> NonFinite | None:
    """The first entry that is not finite, in the order in which everything was computed.

    That is: inputs, target, parameters, values forward, then error signals backward, and gradients. ``back`` is what
    ``network.backpropagate(params, x, target, ..., keep="all")`` found; several targets go by the names of the outputs,
    a single one has no name. Within one array, examples come first.

    >>> import faltung as ft
    >>> net = ft.Chain(dense=ft.Affine(1), relu=ft.ReLU()).on((1,))
    >>> params = {"dense.w": np.array([[1e300]]), "dense.b": np.zeros(1)}
    >>> x, target = np.array([[1.0], [1e10]]), np.zeros((2, 1))
    >>> with np.errstate(over="ignore"):
    ...     back = net.backpropagate(params, x, target, cost=ft.SquaredError())
    >>> first_nonfinite(net, params, target, back)
    NonFinite(what='value', name='dense', element=Affine(1), index=(1, 0), number=inf)
    """
    for what, name, element, array in _in_order(network, params, target, back):
        wrong = ~np.isfinite(array)
        if wrong.any():
            index = tuple(int(place) for place in np.unravel_index(wrong.argmax(), wrong.shape))
            return NonFinite(what, name, element, index, float(array[index]))
    return None


def _in_order(
    network: Network, params: Params, target: Any, back: Backward
) -> Iterator[tuple[str, str, Element | None, Array]]:
    for name in network.inputs:
        yield "input", name, None, back.values[name]
    for name, array in (target if isinstance(target, Mapping) else {"": target}).items():
        yield "target", name, None, np.asarray(array)
    for step in network.steps:
        for full in (step.parameters | step.states).values():
            yield "parameter", full, step.element, params[full]
    for step in network.steps:
        yield "value", step.name, step.element, back.values[step.name]
    for step in reversed(network.steps):
        if step.name in back.errors:
            yield "error signal", step.name, step.element, back.errors[step.name]
        for full in step.parameters.values():
            yield "gradient", full, step.element, back.gradients[full]
