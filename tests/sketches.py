"""Random composites that hypothesis draws, and what tests of networks fill them with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from faltung.elements import Concat, Conv, Product, ReLU, Sum, Tanh
from faltung.network import Backward, Composite, Graph, Network, Node


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def integers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(float)


def filled(net: Network, make: Any = random) -> dict[str, Any]:
    """Parameters whose biases are not 0 either; variances stay positive."""
    asked = net.parameters | net.states
    params = {name: make(*parameter.shape, seed=seed) for seed, (name, parameter) in enumerate(asked.items())}
    return {name: abs(array) + 0.5 if name.endswith("variance") else array for name, array in params.items()}


def assert_same(one: Backward, other: Backward) -> None:
    """The same bits."""
    assert one.cost == other.cost
    for part in ("values", "errors", "gradients", "state"):
        a, b = getattr(one, part), getattr(other, part)
        assert list(a) == list(b)
        assert all(np.array_equal(a[name], b[name]) for name in a), part


@dataclass(frozen=True)
class Sketch:
    """A graph that hypothesis has drawn, and the shape of its input."""

    nodes: dict[str, Node]
    shape: tuple[int, ...]
    seed: int

    def network(self) -> Network:
        return Graph(outputs=None, **self.nodes).on(self.shape)

    def value(self, name: str) -> str:
        """The full name of a node's value."""
        element = self.nodes[name].element
        return f"{name}.{element.outputs[0]}" if isinstance(element, Composite) else name

    def tapped(self, name: str) -> Network:
        """The network with a further input, "tap", that is added to the value of this node."""
        raw = f"{name}_raw"
        nodes = {raw if other == name else other: node for other, node in self.nodes.items()}
        nodes = {
            other: Node(node.element, *node.sources, weights=raw if node.weights == name else node.weights)
            for other, node in nodes.items()
        }
        tap = Graph(outputs=None, **nodes, **{name: Node(Sum(), raw, "tap")})
        return tap.on(x=self.shape, tap=self.network().shapes[self.value(name)])


def residual(channels: int) -> Graph:
    conv = Conv(channels, kernel=3, padding="causal")
    return Graph(conv=Node(conv, "x"), tanh=Node(Tanh(), "conv"), sum=Node(Sum(), "x", "tanh"))


@st.composite
def sketches(draw: Any) -> Sketch:
    """Small graphs whose values all have the same axes; a rectifier reads a fresh convolution, away from its kink."""
    axes = draw(st.sampled_from([(4,), (3, 2)]))
    nodes: dict[str, Node] = {}
    channels = {"x": 2}
    kinds = ["conv", "relu", "tanh", "sum", "gate", "concat", "block", "shared"]
    for n in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(kinds))
        source = draw(st.sampled_from(list(channels)))
        alike = [name for name in channels if channels[name] == channels[source]]
        name, count = f"{kind}{n}", channels[source]
        if kind in ("conv", "relu"):
            count = draw(st.integers(1, 3))
            conv = Conv(count, kernel=draw(st.integers(1, 3)), dilation=draw(st.integers(1, 2)), padding="same")
            nodes[f"{name}_z" if kind == "relu" else name] = Node(conv, source)
            if kind == "relu":
                nodes[name] = Node(ReLU(), f"{name}_z")
        elif kind == "tanh":
            nodes[name] = Node(Tanh(), source)
        elif kind == "sum":
            nodes[name] = Node(Sum(), source, *draw(st.lists(st.sampled_from(alike), min_size=1, max_size=2)))
        elif kind == "gate":
            nodes[f"{name}_p"] = Node(Product(), source, draw(st.sampled_from(alike)))
            nodes[name] = Node(Tanh(), f"{name}_p")
        elif kind == "concat":
            other = draw(st.sampled_from(list(channels)))
            nodes[name], count = Node(Concat(), source, other), count + channels[other]
        elif kind == "block":
            nodes[name] = Node(residual(count), source)
        else:
            owners = [node for node in nodes.items() if _may_share(node[1], count, channels)]
            if not owners:
                continue
            owner, node = draw(st.sampled_from(owners))
            nodes[name] = Node(node.element, source, weights=owner)
            count = count if isinstance(node.element, Composite) else node.element.filters
        if count <= 6:
            channels[name] = count
    if not nodes:
        nodes["conv"] = Node(Conv(2, kernel=2, padding="same"), "x")
    return Sketch(nodes, (*axes, 2), draw(st.integers(0, 10**6)))


def _may_share(node: Node, count: int, channels: dict[str, int]) -> bool:
    return isinstance(node.element, Conv | Composite) and channels.get(node.sources[0]) == count
