"""Networks as plain data, and back: what a model file says in JSON.

Elements are frozen dataclasses whose fields are plain data, so one rule describes them all: ``{"type": "Conv",
"filters": 20, ...}``, every field by its name (a file means the same when a default changes), tuples as lists. Only
the element types of ``faltung.elements`` are built again, by the name of their class; nothing is imported or evaluated.
A formula comes with its derivative, so that nothing is differentiated either; ``"found": true`` says that it was found,
not given by hand.
"""

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from faltung import elements
from faltung.elements.element import Element, Found
from faltung.errors import FaltungError, ModelFileError, at
from faltung.network import Chain, Composite, Graph, Network, Node

FORMULAS = {"Pointwise": "formula", "Pool": "g"}
"""The field that holds the formula of an element."""
DAMAGE = (FaltungError, ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What constructors raise where their settings are of the wrong kind, missing, too large or nested too deeply."""


def describe(part: Any) -> dict[str, Any]:
    """Return the type and all fields of a frozen dataclass: an element, a cost, a schedule, an optimiser.

    Raises: ModelFileError where a field holds what JSON cannot, such as a Python function.

    >>> describe(elements.LayerNorm(axes="all")), describe(elements.Reshape((4, -1)))
    ({'type': 'LayerNorm', 'axes': 'all', 'epsilon': 1e-05}, {'type': 'Reshape', 'sizes': [4, -1]})
    """
    own = {field.name: getattr(part, field.name) for field in fields(part) if field.init}
    mark = {"found": True} if isinstance(own.get("derivative"), Found) else {}
    return {"type": type(part).__name__} | {name: _plain(part, name, value) for name, value in own.items()} | mark


def describe_network(network: Network) -> dict[str, Any]:
    """Return the composite with its nodes in order, and the shapes of the inputs.

    Raises: ModelFileError, naming the node, where an element cannot be described.

    >>> describe_network(Chain(sigm=elements.Sigmoid()).on((None, 4)))["inputs"]
    {'x': [None, 4]}
    """
    inputs = {name: list(shape) for name, shape in network.inputs.items()}
    return {"inputs": inputs, "composite": _describe_composite(network.composite)}


def read_network(data: Any) -> Network:
    """Build the network that ``describe_network`` described.

    Raises: ModelFileError, and nothing else, whatever the data are.

    >>> read_network(describe_network(Chain(sigm=elements.Sigmoid()).on((None, 4))))
    Chain(sigm=Sigmoid()).on((None, 4))
    """
    try:
        shapes = {name: tuple(shape) for name, shape in _object(data["inputs"]).items()}
        return _composite(_object(data["composite"])).on(**shapes)
    except ModelFileError:
        raise
    except DAMAGE as error:
        raise ModelFileError(
            f"the description of the network is damaged ({type(error).__name__}: {error})",
            way_out="take an undamaged copy of the file",
        ) from error


def element_types() -> dict[str, type[Element]]:
    """Return the types that a description may name."""
    return {
        name: kind
        for name, kind in vars(elements).items()
        if inspect.isclass(kind) and issubclass(kind, Element) and not inspect.isabstract(kind)
    }


def _plain(part: Any, name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_plain(part, name, entry) for entry in value]
    if is_dataclass(value) and not isinstance(value, type):
        return describe(value)
    raise ModelFileError(
        f"got {name}={value!r}, expected numbers, text, or tuples of them: nothing else can be written into a file",
        element=part,
        way_out="give a function as a formula, such as 'mean(x**2)'",
    )


def _describe_composite(composite: Composite) -> dict[str, Any]:
    nodes = []
    for name, node in composite.nodes.items():
        with at(name):
            inside = node.element
            element = _describe_composite(inside) if isinstance(inside, Composite) else _describe_element(inside)
        nodes.append({"name": name, "element": element})
        if isinstance(composite, Graph):
            nodes[-1] |= {"sources": list(node.sources), "weights": node.weights}
    if isinstance(composite, Graph):
        return {"type": "Graph", "nodes": nodes, "outputs": list(composite.outputs)}
    return {"type": "Chain", "nodes": nodes}


def _describe_element(element: Element) -> dict[str, Any]:
    if element_types().get(type(element).__name__) is not type(element):
        raise ModelFileError(
            f"got an element of the type {type(element).__name__}, expected one of faltung.elements",
            element=element,
            way_out="save the parameters alone, or compose it of known elements",
        )
    return describe(element)


def _composite(data: Mapping[str, Any]) -> Composite:
    nodes = {_text(entry["name"]): entry for entry in _list(data["nodes"])}
    if len(nodes) < len(data["nodes"]):
        raise ValueError("two nodes of one name")
    parts = {name: _part(_object(entry["element"])) for name, entry in nodes.items()}
    match data["type"]:
        case "Chain":
            return Chain(**parts)
        case "Graph":
            graph = {
                name: Node(parts[name], *map(_text, _list(entry["sources"])), weights=entry["weights"])
                for name, entry in nodes.items()
            }
            return Graph(outputs=[_text(output) for output in _list(data["outputs"])], **graph)
    raise ValueError(f"a composite of the type {data['type']!r}")


def _part(data: Mapping[str, Any]) -> Element | Composite:
    kind = _text(data["type"])
    if kind in ("Chain", "Graph"):
        return _composite(data)
    known = element_types()
    if kind not in known:
        raise ModelFileError(
            f"got an element of the unknown type {kind!r}",
            way_out="upgrade faltung: the file may come from a newer version",
        )
    settings = {name: _value(value) for name, value in data.items() if name != "type"}
    return known[kind](**(_with_derivative(settings, FORMULAS[kind]) if kind in FORMULAS else settings))


def _with_derivative(settings: dict[str, Any], formula: str) -> dict[str, Any]:
    """The settings of an element with a formula, its derivative marked as it was."""
    text, derivative = _text(settings[formula]), _text(settings["derivative"])
    mark = settings.pop("found", False)
    return settings | {"derivative": Found(derivative, source=text) if mark is True else derivative}


def _value(value: Any) -> Any:
    """The value of a field: lists were tuples."""
    if isinstance(value, list):
        return tuple(_value(entry) for entry in value)
    if value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError(f"a setting of {type(value).__name__}")
    return value


def _object(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{type(data).__name__} where an object should be")
    return data


def _list(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError(f"{type(data).__name__} where a list should be")
    return data


def _text(data: Any) -> str:
    if not isinstance(data, str):
        raise ValueError(f"{type(data).__name__} where a text should be")
    return data
