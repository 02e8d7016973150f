"""A network as a table: one line a node, with geometry, shape, parameters, multiplications and receptive field."""

import math
from typing import TYPE_CHECKING

from faltung.elements.element import Shape, View
from faltung.receptive import Field
from faltung.text import aligned

if TYPE_CHECKING:
    from faltung.network.network import Network

HEADER = ("node", "element", "reads", "shape", "parameters", "multiplications", "sees")


def table(network: "Network") -> str:
    """The text of ``print(network)``.

    Multiplications are one example's, forward, and an open axis shows as "?". What a unit sees is the size of its
    receptive field, "all" of the input, or "varies", where no one field fits all units.
    """
    fields = receptive_fields(network)
    rows = [(name, "input", "", _shape(shape), "", "", "") for name, shape in network.inputs.items()]
    parameters = multiplications = 0
    for step in network.steps:
        own = [full for full in step.parameters.values() if full.startswith(f"{step.name}.")]
        count = sum(math.prod(network.parameters[full].shape) for full in own)
        work = step.element.multiplications(*step.shapes)
        shared = "shared" if step.parameters and not own else f"{count:,}" if count else ""
        multiplied = "?" if work is None else f"{work:,}" if work else ""
        reads = ", ".join(step.sources)
        rows.append(
            (step.name, repr(step.element), reads, _shape(step.output), shared, multiplied, _seen(fields[step.name]))
        )
        parameters += count
        multiplications = None if work is None or multiplications is None else multiplications + work
    rows.append(
        ("total", "", "", "", f"{parameters:,}", "?" if multiplications is None else f"{multiplications:,}", "")
    )
    return aligned(HEADER, rows, left=(0, 1, 2, 3, 6))


def receptive_fields(network: "Network") -> dict[str, View]:
    """What a unit of each value sees of the input: a field an axis, "all", or "varies".

    >>> from faltung.elements import Conv, GlobalPool, MaxPool
    >>> from faltung.network import Chain
    >>> net = Chain(conv=Conv(8, kernel=3), pool=MaxPool(2), mean=GlobalPool("mean")).on((9, 1))
    >>> [view if isinstance(view, str) else list(view[0].of(1)) for view in receptive_fields(net).values()]
    [[1], [1, 2, 3], [2, 3, 4, 5], 'all']
    """
    fields: dict[str, View] = {}
    for name, shape in network.inputs.items():
        axes = shape if name in network.indices else shape[:-1]  # indices have no channels
        fields[name] = tuple(Field() for _ in axes)
    for step in network.steps:
        fields[step.name] = step.element.receptive([fields[source] for source in step.sources], step.shapes)
    return fields


def _shape(shape: Shape) -> str:
    return " x ".join("?" if size is None else str(size) for size in shape)


def _seen(view: View) -> str:
    return view if isinstance(view, str) else " x ".join(str(field.size) for field in view)
