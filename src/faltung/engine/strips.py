"""The end of a network, done for a few positions at a time where examples are few and long.

Behind its last element that sees several positions, a network does the same at each: so positions are to that end what
examples are to a whole network. It is recorded for a few of them, with the cost and all the way back, and done deep,
while what passes between its launches stays in the L2 cache: of a WaveNet all skips, their sum, and what follows. Only
the error signal of the value that all of it goes through is handed back, and the rest of the network goes on there,
launch by launch for all positions. Gates that the end reads it takes anew, so that none of them is kept for it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from faltung.elements.activations import Activation
from faltung.elements.conv import Conv
from faltung.elements.costs import Cost, CrossEntropy
from faltung.elements.element import Array, Parameter, Run
from faltung.elements.gate import Gate
from faltung.elements.joins import Product, Sum
from faltung.engine.host.machine import host
from faltung.engine.host.recording import Recorder
from faltung.engine.programs.plan import SLICES, Task, recordings
from faltung.engine.programs.stages import Deep, Strips, order
from faltung.errors import node
from faltung.network import Network
from faltung.network.executors import Arrays
from faltung.network.layerwise import Layerwise
from faltung.network.network import Step

POSITIONS = 2048
"""Fewer are not worth a plan of their own."""
SUMS = 24 << 20
"""Bytes of the sums of all slices, at most."""


class Goal(Protocol):
    """An output with its cost, and what it is compared with; see ``networks.Comparison``."""

    @property
    def output(self) -> str: ...

    @property
    def cost(self) -> Cost: ...

    @property
    def y(self) -> Array: ...

    @property
    def arrays(self) -> Arrays: ...

    def recorded(self, given: Arrays) -> tuple[Cost, Array, Any]: ...


@dataclass(frozen=True)
class Part:
    """Some steps of a network, as ``Layerwise`` wants it."""

    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Parameter]


@dataclass(frozen=True)
class Split:
    """A network in two parts; both have the steps between what the end reads and the value it goes through."""

    start: Part
    end: Part
    through: str


def backpropagation(
    listener: Recorder,
    network: Network,
    goal: "Goal",
    functions: Callable[[], Any],
    given: Arrays,
    own: Arrays,
    run: Run,
) -> dict[str, Array] | None:
    """Cost, gradients and state by name, recorded with the end in strips; None where the network has no such end.

    ``functions`` makes what computes elements, and keeps the ``sums`` of costs.
    """
    parts = split(network, goal.cost)
    if parts is None or math.prod(goal.y.shape[:2]) < POSITIONS:
        return None
    output, through = goal.output, parts.through
    start, last = cast("tuple[Network, Network]", (parts.start, parts.end))  # executors ask for no more of a network
    forward = Layerwise(functions()).forward(start, own, {name: given[name] for name in network.inputs}, run)

    def end(given: Arrays, own: Arrays) -> dict[str, Array]:
        costs = functions()
        x, goals = {name: given[name] for name in parts.end.inputs}, {output: goal.recorded(given)}
        keep = frozenset((through,))
        back = Layerwise(costs).backpropagate(last, own, x, goals, run, keep, per_example=False)
        found = {f"gradient:{name}": gradient for name, gradient in back.gradients.items()}
        return found | {f"error:{through}": back.errors[through], f"cost:{output}": costs.sums[0]}

    values = {name: forward.values[name] for name in parts.end.inputs}
    values |= {name: array for name, array in given.items() if name in goal.arrays}
    params = {name: own[name] for name in parts.end.parameters}
    done = in_strips(listener, end, values, params)
    errors = {through: done.pop(f"error:{through}")}
    back = Layerwise(functions()).backward(start, own, forward, errors, frozenset(), per_example=False)
    found = {f"gradient:{name}": gradient for name, gradient in back.gradients.items()} | done
    found = {name: found[name] for name in (*(f"gradient:{name}" for name in network.parameters), f"cost:{output}")}
    return found | {f"state:{name}": array for name, array in forward.state.items()}


def split(network: Network, cost: Cost) -> Split | None:
    """The end of a network; None where it has none, or one that is not worth it."""
    if len(network.outputs) > 1 or not isinstance(cost, CrossEntropy):
        return None
    inside: dict[str, Step] = {}
    for step in reversed(network.steps):
        readers = [other.name for other in network.steps if step.name in other.sources]
        if (readers or step.name in network.outputs) and _alone(step) and all(name in inside for name in readers):
            inside[step.name] = step
    steps = [step for step in network.steps if step.name in inside]
    rest = [step for step in network.steps if step.name not in inside]
    owned = {name for step in steps for name in step.parameters.values()}
    shared = owned & {name for step in rest for name in step.parameters.values()}
    if sum(isinstance(step.element, Conv) for step in steps) < 2 or shared:
        return None
    at = next(n for n in range(len(steps)) if _all_through(steps, n))
    sources = {source for step in steps for source in step.sources if source not in inside}
    gates = [step for step in rest if step.name in sources and isinstance(step.element, Gate)]
    done = {step.name for step in (*gates, *steps)}
    inputs = dict.fromkeys(source for step in (*gates, *steps) for source in step.sources if source not in done)
    end = Part((*gates, *steps), tuple(inputs), network.outputs, _owned(network, steps))
    first = [*rest, *steps[: at + 1]]
    start = Part(
        tuple(step for step in network.steps if step in first), tuple(network.inputs), (steps[at].name,),
        _owned(network, first),
    )  # fmt: skip
    return Split(start, end, steps[at].name)


def _alone(step: Step) -> bool:
    """Does an element do the same at each position, and see no other?"""
    if any(len(shape) < 2 for shape in step.shapes):
        return False
    if isinstance(step.element, Conv):
        return all((w.kernel, w.stride, w.pads(1)) == (1, 1, (0, 0)) for w in step.element.windows(step.shapes[0]))
    return isinstance(step.element, Activation | Gate | Product | Sum)


def _all_through(steps: list[Step], at: int) -> bool:
    """Do all steps behind this one read only its value and each other's?"""
    known = {step.name for step in steps[at:]}
    return all(known.issuperset(step.sources) for step in steps[at + 1 :])


def _owned(network: Network, steps: list[Step]) -> dict[str, Parameter]:
    names = {name for step in steps for name in step.parameters.values()}
    return {name: parameter for name, parameter in network.parameters.items() if name in names}


def in_strips(listener: Recorder, do: Any, given: Arrays, params: Arrays) -> dict[str, Array]:
    """What ``do`` gives, by name: it is recorded for a few positions, and noted to be done for all.

    Args:
        listener: who notes it.
        do: takes inputs and parameters by name, the inputs (positions, 1, ...).
        given: the inputs by name, (examples, positions, ...).
        params: the parameters.
    """
    first = next(iter(given.values()))
    count = math.prod(first.shape[:2])
    pixels = {name: ((1, *array.shape[2:]), array.dtype) for name, array in given.items()}
    task = Task(do, pixels, {name: (array.shape, array.dtype) for name, array in params.items()})
    one, shapes = task.record(1, sliced=True)
    sums = sum({b.address: b.size for launch in one.launches for b in launch.writes if b.kind == "sums"}.values())
    most = max(2, min(SLICES, SUMS // max(sums, 1)))
    share = -(-count // (1 << most.bit_length() - 1))  # 2, 4 or 8 slices are the same work for 2 or 4 workers
    own = order(one.launches).per_example
    largest = max(b.size for launch in one.launches for b in launch.writes if b.address in own)
    together = max(1, min(share, host().l2 // 4 // largest))  # it is read again and again; the others once or twice
    deep = Deep(recordings(task, one, count, share, together, summed=True), count, share)
    arrays, results = {}, {}
    for name, size in deep.arrays.items():
        dtype = np.dtype(shapes[name][1] if name in shapes else np.uint8)
        if size:
            arrays[name] = listener.array((size // dtype.itemsize,), dtype)
    for name, (shape, _) in shapes.items():
        assert deep.results[name].array == name  # none is a part of another
        if name.startswith("error:"):
            shape = (*first.shape[:2], *shape[2:])
        elif name.startswith("cost:"):
            shape = (-1, *shape[1:])
        results[name] = arrays[name].reshape(shape)
    places = {name: listener.place(array) for name, array in (*given.items(), *arrays.items())}
    reads, writes = (tuple(places[name].buffer for name in names) for names in (given, arrays))
    kernel = _Kernel(len(places))
    listener.launches.append(
        Strips(kernel, tuple(places.values()), 1, 0.0, 0, node(), reads, writes, deep, tuple(places))
    )
    return results


class _Kernel:
    """Stands for a kernel that may read and write all of its arguments."""

    name = "strips"

    def __init__(self, arguments: int):
        self.effects = (frozenset(range(arguments)),) * 2
