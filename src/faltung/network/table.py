"""A network as a table: one line a node, with geometry, shape, parameters, multiplications and receptive field."""

import math
from typing import TYPE_CHECKING

from faltung.elements.element import Fields, Shape
from faltung.errors import ShapeError
from faltung.receptive import Field

if TYPE_CHECKING:
    from faltung.network.network import Network

HEADER = ("node", "element", "reads", "shape", "parameters", "multiplications", "sees")


def table(network: "Network") -> str:
    """The text of ``print(network)``; multiplications are one example's, forward, and an open axis shows as "?"."""
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
    return _align([HEADER, *rows])


def receptive_fields(network: "Network") -> dict[str, Fields | None]:
    """What a unit of each value sees of the input, axis by axis; None where that is not one window for all units."""
    fields: dict[str, Fields | None] = {}
    for name, shape in network.inputs.items():
        axes = shape if name in network.indices else shape[:-1]  # indices have no channels
        fields[name] = tuple(Field() for _ in axes)
    for step in network.steps:
        try:
            fields[step.name] = step.element.receptive([fields[source] for source in step.sources], step.shapes)
        except ShapeError:  # branches with different strides drift apart: no one field holds both
            fields[step.name] = None
    return fields


def _shape(shape: Shape) -> str:
    return " x ".join("?" if size is None else str(size) for size in shape)


def _seen(fields: Fields | None) -> str:
    return "all" if fields is None else " x ".join(str(field.size) for field in fields)


def _align(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in (4, 5) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
