"""What a network is composed of: elements, named and connected, before any size is known.

A ``Chain`` hands each value to the next element; a ``Graph`` is any directed acyclic composite: branches, residuals,
gates, several inputs and outputs, weights shared between nodes. Both are frozen descriptions, and both may stand inside
another one like an element: nodes inside carry the outer node's name before theirs, as in "block1.conv2". ``on(shape)``
binds a composite to its inputs and makes it a ``Network``.

Source: memo p. 3-8, "neural network as a composite function".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from keyword import iskeyword
from typing import TYPE_CHECKING, Union

from faltung.elements.element import Element
from faltung.errors import NetworkError, at

if TYPE_CHECKING:
    from faltung.network.network import Network


@dataclass(frozen=True, init=False, repr=False)
class Node:
    """An element (or a whole composite) and the names of the values it reads.

    ``weights`` names another node whose parameters this one uses as its own; gradients of both add up.

    >>> from faltung.elements import Sum
    >>> Node(Sum(), "a", "b")
    Node(Sum(), 'a', 'b')
    """

    element: Union[Element, "Composite"]
    sources: tuple[str, ...]
    weights: str | None

    def __init__(self, element: Union[Element, "Composite"], *sources: str, weights: str | None = None):
        if not isinstance(element, Element | Composite):
            raise NetworkError(
                f"got a node of {element!r}, expected an element or a composite",
                way_out="make it as Node(Conv(8, kernel=3), 'x')",
            )
        names = sources if weights is None else (*sources, weights)
        if not all(isinstance(name, str) for name in names):
            raise NetworkError(
                f"got {', '.join(map(repr, names))}, expected names of values, and the name of a node as weights",
                element=element,
                way_out="write Node(element, 'a', 'b'), not Node(element, ['a', 'b'])",
            )
        object.__setattr__(self, "element", element)
        object.__setattr__(self, "sources", sources)
        object.__setattr__(self, "weights", weights)

    def __repr__(self) -> str:
        parts = [repr(self.element), *map(repr, self.sources)]
        parts += [] if self.weights is None else [f"weights={self.weights!r}"]
        return f"Node({', '.join(parts)})"


class Composite:
    """The base of ``Chain`` and ``Graph``: nodes by name, and the names of inputs and outputs."""

    nodes: Mapping[str, Node]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def on(self, shape: Sequence[int | None] | None = None, /, **shapes: Sequence[int | None]) -> "Network":
        """Bind the composite to the shape of its input: (*axes, channels) without the batch; None is an open axis.

        Several inputs are named: ``graph.on(image=(32, 32, 3), label=(10,))``.
        Raises: ShapeError or NetworkError, naming the node, where elements do not compose.

        >>> from faltung.elements import Conv, GlobalPool
        >>> Chain(conv=Conv(8, kernel=3), pool=GlobalPool("mean")).on((None, None, 3)).shapes
        {'x': (None, None, 3), 'conv': (None, None, 8), 'pool': (8,)}
        """
        from faltung.network.network import Network

        if shape is not None:
            if len(self.inputs) != 1 or shapes:
                raise NetworkError(
                    f"got one shape, expected shapes by name for the inputs {', '.join(self.inputs)}",
                    way_out="name them: .on(" + ", ".join(f"{name}=(...)" for name in self.inputs) + ")",
                )
            shapes = {self.inputs[0]: shape}
        return Network(self, shapes)

    def flat(self) -> tuple[list[tuple[str, Node]], tuple[str, ...]]:
        """All nodes that hold an element, sources first, composites inside replaced by their nodes; and the outputs."""
        nodes, names = _flat(self, "", {name: name for name in self.inputs}, None)
        return nodes, tuple(names[output] for output in self.outputs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Composite) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        """What makes two composites equal; the order of nodes belongs to it, as that of the inputs follows from it."""
        return type(self), tuple(self.nodes.items()), self.outputs


class Chain(Composite):
    """f_last(... f_2(f_1(x))): each element reads the value before it, the first one the input "x".

    Elements are named by keyword; without a keyword, by their class and a running number.

    >>> from faltung.elements import Conv, Sigmoid
    >>> Chain(Conv(20, kernel=9), Sigmoid())
    Chain(conv1=Conv(20, kernel=9), sigmoid1=Sigmoid())
    """

    def __init__(self, /, *elements: Element | Composite, **named: Element | Composite):
        numbered = _numbered(elements)
        for name in numbered:
            if name in named:
                raise NetworkError(
                    f"got the name {name!r} twice, for an element without a name too, expected different names",
                    way_out="name all elements, or none",
                )
        elements_by_name = numbered | named
        if not elements_by_name:
            raise NetworkError("got a chain of no elements, expected at least one", way_out="use Chain(Identity())")
        names = list(elements_by_name)
        sources = ["x", *names[:-1]]
        self.nodes = {
            name: Node(element, source)
            for (name, element), source in zip(elements_by_name.items(), sources, strict=True)
        }
        self.inputs = ("x",)
        self.outputs = (names[-1],)
        _check_names(self.nodes, self.inputs)

    def __repr__(self) -> str:
        return f"Chain({', '.join(f'{name}={node.element!r}' for name, node in self.nodes.items())})"


class Graph(Composite):
    """Any directed acyclic composite: each node names the values it reads.

    Names that are read but are no node are the inputs, in the order of their first use. The outputs are the nodes that
    nobody reads, or those listed in ``outputs``.

    >>> from faltung.elements import Conv, Sum
    >>> residual = Graph(a=Node(Conv(8, kernel=3, padding="same"), "x"), s=Node(Sum(), "x", "a"))
    >>> residual.inputs, residual.outputs
    (('x',), ('s',))
    """

    def __init__(self, /, *, outputs: Sequence[str] | None = None, **nodes: Node):
        for name, node in nodes.items():
            if not isinstance(node, Node):
                raise NetworkError(
                    f"got {name}={node!r}, expected a Node",
                    way_out=f"write {name}=Node(element, 'x'), with the names of what it reads",
                )
        if not nodes:
            raise NetworkError("got a graph of no nodes, expected at least one", way_out="add name=Node(element, 'x')")
        read = dict.fromkeys(source for node in nodes.values() for source in node.sources)
        self.nodes = nodes
        self.inputs = tuple(name for name in read if name not in nodes)
        _check_names(nodes, self.inputs)
        _order(nodes, self.inputs)
        self.outputs = _unread(nodes) if outputs is None else _chosen(outputs, nodes)

    def __repr__(self) -> str:
        parts = [f"{name}={node!r}" for name, node in self.nodes.items()]
        parts += [] if _unread(self.nodes) == self.outputs else [f"outputs={self.outputs!r}"]
        return f"Graph({', '.join(parts)})"


def _numbered(elements: Sequence[Element | Composite]) -> dict[str, Element | Composite]:
    """Names for elements without one: conv1, sigmoid1, conv2, ..."""
    count: dict[str, int] = {}
    named = {}
    for element in elements:
        kind = type(element).__name__.lower()
        count[kind] = count.get(kind, 0) + 1
        named[f"{kind}{count[kind]}"] = element
    return named


def _unread(nodes: Mapping[str, Node]) -> tuple[str, ...]:
    """The nodes that no other one reads."""
    read = {source for node in nodes.values() for source in node.sources}
    return tuple(name for name in nodes if name not in read)


def _chosen(outputs: Sequence[str], nodes: Mapping[str, Node]) -> tuple[str, ...]:
    """The outputs that were asked for, after a check."""
    names = tuple(outputs) if isinstance(outputs, list | tuple) else ()
    if not names or len(set(names)) < len(names) or not all(name in nodes for name in names):
        raise NetworkError(
            f"got outputs={outputs!r}, expected one or more different names among {', '.join(nodes)}",
            way_out=f"write outputs=[{next(iter(nodes))!r}]",
        )
    return names


def _check_names(nodes: Mapping[str, Node], inputs: Sequence[str]) -> None:
    for name in (*nodes, *inputs):
        if not name.isidentifier() or iskeyword(name):
            raise NetworkError(
                f"got the name {name!r}, expected letters, digits and underscores, and no keyword of Python",
                way_out="rename it",
            )
    both = [name for name in inputs if name in nodes]
    if both:
        raise NetworkError(f"got {both[0]!r} both as node and as input", way_out="rename the node")
    for name, node in nodes.items():
        arity = node.element.arity if isinstance(node.element, Element) else len(node.element.inputs)
        if isinstance(node.element, Composite) and len(node.element.outputs) != 1:
            raise NetworkError(
                f"got a composite with the outputs {node.element.outputs} as node {name!r}, expected one output",
                way_out="choose it with outputs=[...]",
            )
        given = len(node.sources)
        if given != arity and not (arity is None and given >= 2):
            expected = "two or more" if arity is None else arity
            with at(name):
                raise NetworkError(
                    f"got {given} inputs ({', '.join(node.sources)}), expected {expected}",
                    element=node.element,
                    way_out="name the values that it reads, as in Node(element, 'x')",
                )


def _order(nodes: Mapping[str, Node], inputs: Sequence[str]) -> list[str]:
    """The names of the nodes, sources first; as they were given where that is an order already."""
    seen = set(inputs)
    for name, node in nodes.items():
        if not seen.issuperset(node.sources):
            break
        seen.add(name)
    else:
        return list(nodes)
    try:
        order = TopologicalSorter({name: node.sources for name, node in nodes.items()}).static_order()
        return [name for name in order if name in nodes]
    except CycleError as error:
        cycle = " -> ".join(error.args[1])
        raise NetworkError(
            f"got the cycle {cycle}, expected an acyclic graph", way_out="cut one of its edges"
        ) from None


def _flat(
    composite: Composite, prefix: str, names: dict[str, str], owner: str | None
) -> tuple[list[tuple[str, Node]], dict[str, str]]:
    """The nodes under their full names, and the full name of every value inside the composite.

    ``names`` gives those of its inputs; ``owner`` is the composite whose parameters this one uses.
    """
    nodes: list[tuple[str, Node]] = []
    for name in _order(composite.nodes, composite.inputs):
        node = composite.nodes[name]
        sources = [names[source] for source in node.sources]
        weights = f"{owner}.{name}" if owner else prefix + node.weights if node.weights else None
        if isinstance(node.element, Element):
            names[name] = prefix + name
            nodes.append((prefix + name, Node(node.element, *sources, weights=weights)))
        else:
            inputs = dict(zip(node.element.inputs, sources, strict=True))
            inside, values = _flat(node.element, f"{prefix}{name}.", inputs, weights)
            nodes += inside
            names[name] = values[node.element.outputs[0]]
    return nodes, names
