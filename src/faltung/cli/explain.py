"""``faltung explain``: how the engine runs a model, and what every call costs."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from faltung.cli.inputs import random_inputs
from faltung.elements.costs import CrossEntropy, SquaredError
from faltung.elements.element import Params, Shape
from faltung.engine.elements import compiled
from faltung.errors import NetworkError, SettingError
from faltung.exchange.modelfile import load_model
from faltung.network import Network
from faltung.text import aligned
from faltung.training import SGD

if TYPE_CHECKING:
    from faltung.engine.programs.explain import Row
    from faltung.engine.programs.stages import Planned

HEADER = ("job", "node", "kernel", "examples", "tasks", "operations", "KB", "predicted us", "measured us", "% of peak")


ASKED = {
    "train": "a step of training with {}",
    "predict": "a prediction of {}",
    "predictor": "a predictor's call of {}",
}
"""What can be explained."""


def explain(model: Path, size: tuple[int, ...] | None, batch: int, asked: str, node: str | None) -> None:
    """Print the plan of what is ``asked`` for; or the loops of one node."""
    if not compiled()[1]:
        raise NetworkError("there is no compiled code here, so nothing to explain", way_out="see the warning above")
    from faltung.engine.programs.explain import listing, nodes, rows, summary

    network, params, _ = load_model(model)
    planned, folded = _planned(network.on_executor("native"), params, size, batch, asked)
    if node is not None:
        if node not in nodes(planned):
            raise NetworkError(
                f"got the node {node!r}, expected one that has kernels: {', '.join(nodes(planned))}",
                way_out="choose one of them",
            )
        print(listing(planned, node), end="")
        return
    facts = {"asked for": ASKED[asked].format(f"{batch} examples")} | summary(planned)
    if folded:
        facts["folded"] = ", ".join(folded)
    width = max(map(len, facts))
    for name, text in facts.items():
        print(f"{name:{width}}  {text}")
    found = rows(planned)
    print(f"\n{aligned(HEADER, map(_cells, found), left=(1, 2))}\n")
    each = sum(row.measured / row.examples for row in found if row.deep)
    once = sum(row.measured for row in found if not row.deep)
    print(f"{_microseconds(each)} us an example, and {_microseconds(once)} us once, on one thread")


def _cells(row: "Row") -> tuple[str, ...]:
    examples, percent = str(row.examples) if row.deep else "all", f"{100 * row.predicted / row.measured:.0f}"
    sizes = f"{row.tasks}", f"{row.work:,.0f}", f"{row.size / 1024:,.0f}"
    times = _microseconds(row.predicted), _microseconds(row.measured)
    return (str(row.job), row.node, row.kernel, examples, *sizes, *times, percent)


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:,.1f}"


def _planned(
    network: Network, params: Params, size: tuple[int, ...] | None, batch: int, asked: str
) -> tuple["Planned", list[str]]:
    """The plan for inputs of random numbers, with a cost that fits the output; and the nodes that are folded."""
    from faltung.engine.networks import plans

    sizes = {name: _sizes(name, shape, size) for name, shape in network.inputs.items()}
    x = random_inputs(network, sizes, batch, np.random.default_rng(0))
    used = network
    if asked == "predictor":
        predictor = network.predictor(params)
        predictor(x)
        used = predictor.network
    elif asked == "predict":
        network.predict(params, x)
    else:
        y = network.predict(params, {name: array[:1] for name, array in x.items()})
        outputs = y if isinstance(y, dict) else {network.outputs[0]: y}
        targets = {name: np.zeros((batch, *array.shape[1:]), array.dtype) for name, array in outputs.items()}
        costs = dict.fromkeys(targets, SquaredError())
        if all(array.shape[-1] > 1 for array in outputs.values()):
            costs = dict.fromkeys(targets, CrossEntropy())
            targets = {name: np.zeros(target.shape[:-1], np.int64) for name, target in targets.items()}
        sgd = SGD(0.01, momentum=0.9)
        slots = sgd.slots({name: params[name] for name in network.parameters})
        network.train_step(params, slots, x, targets, cost=costs, optimiser=sgd)
    plan = plans.newest(used)
    if plan is None:
        raise NetworkError(
            "this network runs element by element: one of its elements has no kernels that can be recorded",
            way_out="use elements that have kernels, or fewer options",
        )
    pairs = zip(network.steps, used.steps, strict=True)
    return plan.planned, [old.name for old, new in pairs if type(new.element) is not type(old.element)]


def _sizes(name: str, shape: Shape, size: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of an input whose open axes have this size."""
    left = list(size or ())
    sizes = [left.pop(0) if wanted is None and left else wanted for wanted in shape]
    known = tuple(size for size in sizes if size is not None)
    if len(known) < len(sizes) or left:
        given, open_axes = "x".join(map(str, size or ())), sum(wanted is None for wanted in shape)
        raise SettingError(
            f"got {f'the size {given}' if given else 'no size'} for the input {name!r} of {shape}, "
            f"expected {open_axes} open axes",
            way_out="give --size HxW for the open axes, and only for them",
        )
    return known
