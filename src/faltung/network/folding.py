"""Folding: in prediction a batch normalisation is a scale and a shift, which the element before it may as well do.

    (x w + b - mean) k + shift = x (w k) + ((b - mean) k + shift),    k = scale / sqrt(variance + epsilon)

Source: the affine map that Ioffe & Szegedy 2015 (algorithm 2, step 11) leave for inference.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from faltung.elements.activations import Identity
from faltung.elements.affine import Affine
from faltung.elements.conv import Conv
from faltung.elements.conv_transpose import ConvTranspose
from faltung.elements.element import Array, Element, Params
from faltung.elements.normalisation import BatchNorm
from faltung.network.composite import Composite, Node

if TYPE_CHECKING:
    from faltung.network.network import Network, Step


class Folded(Composite):
    """Nodes that hold elements only, under their full names, sources first."""

    def __init__(self, inputs: tuple[str, ...], nodes: Mapping[str, Node], outputs: tuple[str, ...]):
        self.inputs, self.nodes, self.outputs = inputs, nodes, outputs

    def flat(self) -> tuple[list[tuple[str, Node]], tuple[str, ...]]:
        return list(self.nodes.items()), self.outputs


def folded(network: "Network", params: Params) -> tuple[Folded, dict[str, Array]]:
    """What predicts the same (but for rounding) with fewer elements, and its parameters: copies, that nobody writes.

    Folded are the batch normalisations that alone read a convolution, a transposed one or an affine element, if neither
    shares its parameters.

    >>> from faltung.network import Chain
    >>> network = Chain(conv=Conv(2, kernel=3, bias=False), norm=BatchNorm()).on((None, 1))
    >>> composite, params = folded(network, network.initial(seed=0))
    >>> composite.nodes["conv"], composite.nodes["norm"], list(params)
    (Node(Conv(2, kernel=3), 'x'), Node(Identity(), 'conv'), ['conv.w', 'conv.b'])
    """
    flat, _ = network.composite.flat()
    nodes, steps = dict(flat), {step.name: step for step in network.steps}
    readers = Counter(source for step in network.steps for source in step.sources)
    readers.update(network.outputs)
    users = Counter(name for step in network.steps for name in step.parameters.values())
    asked = network.parameters | network.states
    users.update(2 * [name for name in asked if params[name].shape != asked[name].shape])  # which is refused later
    kept = {name: np.array(params[name]) for name in (*network.parameters, *network.states)}
    for norm in network.steps:
        before = steps.get(norm.sources[0])
        if not isinstance(norm.element, BatchNorm) or before is None or readers[before.name] > 1:
            continue
        if any(users[name] > 1 for step in (norm, before) for name in (step.parameters | step.states).values()):
            continue
        scaled = _scaled(before, norm, kept)
        if scaled is not None:
            element, own = scaled
            nodes[before.name], nodes[norm.name] = Node(element, *before.sources), Node(Identity(), before.name)
            for name in (*norm.parameters.values(), *norm.states.values()):
                del kept[name]
            kept |= {f"{before.name}.{short}": array for short, array in own.items()}
    for array in kept.values():
        array.flags.writeable = False
    return Folded(tuple(network.inputs), nodes, network.outputs), kept


def _scaled(before: "Step", norm: "Step", params: Params) -> tuple[Element, dict[str, Array]] | None:
    """The element with the normalisation in it, and its w and b; None where that cannot be."""
    element, normalisation = before.element, norm.element
    across = np.s_[:]
    match element:
        case Conv() | Affine():
            pass
        case ConvTranspose(groups=1):
            across = np.s_[:, np.newaxis]  # w has the inputs last
        case _:
            return None
    assert isinstance(normalisation, BatchNorm)
    own, about = before.local(params), norm.local(params)
    scale, shift, mean, variance = (about[name].astype(np.float64) for name in ("scale", "shift", "mean", "variance"))
    factor = scale / np.sqrt(variance + normalisation.epsilon)
    w, bias = own["w"], own["b"] if element.bias else 0.0
    scaled = {"w": (w * factor[across]).astype(w.dtype), "b": ((bias - mean) * factor + shift).astype(w.dtype)}
    return replace(element, bias=True), scaled
