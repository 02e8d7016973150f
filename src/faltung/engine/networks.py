"""What is asked of a network, done by a program; ``None`` where there is none, and it must be done in another way.

Whoever asks first for certain sizes has to wait until the network is recorded for them (see ``plan``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np

from faltung.elements.activations import Identity
from faltung.elements.costs import Cost
from faltung.elements.element import Array, Element, Params, Run, Shape
from faltung.elements.reshape import Flatten, Reshape
from faltung.engine import strips
from faltung.engine.elements import Kernels, lowering
from faltung.engine.host.recording import Later, NotRecordedError, recorder
from faltung.engine.lower import costs
from faltung.engine.lower.update import move
from faltung.engine.programs.plan import Plan, Plans, Task, later
from faltung.engine.programs.settle import Settled
from faltung.errors import at
from faltung.network import Network
from faltung.network.executors import Arrays, Backward, Goals, Optimiser, Slots, Trained
from faltung.network.layerwise import Layerwise

Record = Callable[[Arrays, Arrays, Run], dict[str, Array]]
"""What a program does, from inputs and parameters by name, and a run whose numbers are found later."""
NOTHING: Mapping[str, Any] = MappingProxyType({})
VIEWS = (Identity, Flatten, Reshape)
"""Elements whose definitions compute nothing."""

plans = Plans()


def predict(network: Network, params: Params, inputs: Arrays, run: Run) -> dict[str, Array] | None:
    """See ``faltung.network.executors.Executor.predict``."""

    def record(given: Arrays, own: Arrays, run: Run) -> dict[str, Array]:
        return _named(value=Layerwise(Recording()).predict(network, own, given, run))

    found = _found(network, ("predict",), inputs, _own(network, params), run, record)
    if found is None:
        return None
    plan, arrays = found
    ready = plan.ready(arrays, network.outputs)
    if ready is not None:
        y = ready(*arrays.values())
        return {network.outputs[0]: y} if len(network.outputs) == 1 else y
    results = plan.run(arrays, Numbers(run.step, run.seed, run.first, NOTHING, NOTHING))
    return {name: results["value"][name] for name in network.outputs}


class Frozen:
    """See ``faltung.network.executors.Executor.frozen``."""

    def __init__(self, network: Network, params: Params):
        self._network = network
        self._own = {name: np.ascontiguousarray(array) for name, array in _own(network, params).items()}
        self._settled = Settled(self._own)

    def ready(self, inputs: Arrays) -> Callable[..., Any] | None:
        """The function for inputs like these; None where there is no program."""
        network = self._network

        def record(given: Arrays, own: Arrays) -> dict[str, Array]:
            return _named(value=Layerwise(Recording()).predict(network, own, given, later(Run())))

        dtypes = {name: np.dtype(np.int64) if name in network.indices else x.dtype for name, x in inputs.items()}
        found = tuple((name, x.shape, dtypes[name]) for name, x in inputs.items())

        def make() -> Plan:
            task = Task(
                record,
                {name: (shape[1:], dtype) for name, shape, dtype in found},
                {name: (w.shape, w.dtype) for name, w in self._own.items()},
                self._settled,
                exact=False,
            )
            return Plan(task, found[0][1][0], summed=False)

        plan = plans.find(network, ("frozen", found), make)
        run = None if plan is None else plan.bound([*inputs], network.outputs)
        if run is None or not network.indices:
            return run

        def admitted(*arrays: Array) -> Any:
            given = dict(zip(inputs, arrays, strict=True))
            _admit_indices(network, given)
            return run(*given.values())

        return admitted


def backpropagate(
    network: Network, params: Params, inputs: Arrays, goals: Goals, run: Run, keep: frozenset[str]
) -> Backward | None:
    """See ``faltung.network.executors.Executor.backpropagate``."""
    comparisons = _compared(network, params, inputs, goals)
    if comparisons is None:
        return None
    record = _backpropagation(network, comparisons, keep)
    results = _results(network, ("backpropagate", keep), inputs, _own(network, params), run, record, comparisons)
    if results is None:
        return None
    values, errors, gradients, state = (results.get(kind, {}) for kind in ("value", "error", "gradient", "state"))
    values |= {name: inputs[name] for name in inputs if name in values}
    return Backward(_total(comparisons, results), values, errors, gradients, state)


def train_step(
    network: Network, params: Params, slots: Slots, inputs: Arrays, goals: Goals, run: Run, optimiser: Optimiser
) -> Trained | None:
    """See ``faltung.network.executors.Executor.train_step``."""
    update, comparisons = optimiser.formulas(run.step), _compared(network, params, inputs, goals)
    if update is None or comparisons is None:
        return None
    remembers, formulas, names = tuple(optimiser.remembers), update.formulas, tuple(update.numbers)
    backpropagation = _backpropagation(network, comparisons, frozenset())

    def record(given: Arrays, own: Arrays, run: Run) -> dict[str, Array]:
        results = backpropagation(given, own, run)
        new = {name: array for name, array in results.items() if name.startswith(("cost", "state"))}
        numbers = {name: Later(lambda given, name=name: given.update[name]) for name in names}
        for name in network.parameters:
            old = {slot: own[f"old {slot}:{name}"] for slot in remembers}
            with at(name):
                w, moved = move(formulas, remembers, own[name], results[f"gradient:{name}"], old, numbers)
            new |= {f"param:{name}": w} | {f"{slot}:{name}": array for slot, array in moved.items()}
        return new

    own = _own(network, params)
    own |= {f"old {slot}:{name}": slots[slot][name] for slot in remembers for name in network.parameters}
    key = ("train", formulas, remembers, names)
    results = _results(network, key, inputs, own, run, record, comparisons, update.numbers, exact=False)
    if results is None:
        return None
    new = {**params, **results.get("param", NOTHING), **results.get("state", NOTHING)}
    return Trained(_total(comparisons, results), new, {slot: results.get(slot, {}) for slot in remembers})


@dataclass(frozen=True)
class Recording(Kernels):
    """The kernels while a network is recorded: what the tasks of a cost give is kept in ``sums``."""

    sums: list[Array] = field(default_factory=list)

    def functions(self, element: Element, *numbers: Array) -> Any:
        found = lowering(element, *numbers)
        if found is None and type(element) not in VIEWS:
            raise NotRecordedError(f"{type(element).__name__} has no kernels")
        return found or self.definitions

    def cost(self, cost: Cost, y: Array, target: Array, weight: Any) -> tuple[float, Array]:
        sums, dy = costs.slopes(cost, np.ascontiguousarray(y), target, *weight)
        self.sums.append(sums)
        return 0.0, dy


def _backpropagation(network: Network, comparisons: Mapping[str, "Comparison"], keep: frozenset[str]) -> Record:
    """Backpropagation, to be recorded."""

    def record(given: Arrays, own: Arrays, run: Run) -> dict[str, Array]:
        listener = recorder()
        if listener is not None and listener.strips and not keep and len(comparisons) == 1:
            [comparison] = comparisons.values()
            done = strips.backpropagation(listener, network, comparison, Recording, given, own, run)
            if done is not None:
                return done
        functions = Recording()
        goals = {output: comparison.recorded(given) for output, comparison in comparisons.items()}
        x = {name: given[name] for name in network.inputs}
        back = Layerwise(functions).backpropagate(network, own, x, goals, run, keep, per_example=False)
        sums = dict(zip(goals, functions.sums, strict=True))
        return _named(value=back.values, error=back.errors, gradient=back.gradients, state=back.state, cost=sums)

    return record


class Comparison(NamedTuple):
    """An output with its cost, and what it is compared with."""

    output: str
    cost: Cost
    y: Array
    """Stands for the output: of its shape and dtype."""
    target: Array
    weight: Array | None
    factor: float
    """1 / what the cost is divided by."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What a program depends on, beside the shapes of the arrays."""
        return self.output, self.cost, self.weight is None

    @property
    def arrays(self) -> dict[str, Array]:
        """Target and weight by name, one or more numbers an example."""
        arrays = {f"target:{self.output}": self.target}
        if self.weight is not None:
            arrays[f"weight:{self.output}"] = self.weight.reshape(len(self.y), -1)
        return arrays

    def recorded(self, given: Arrays) -> tuple[Cost, Array, Any]:
        """The goal for a recording: the weight, and the factor, which is found when a program runs."""
        weight = given.get(f"weight:{self.output}")
        factor = Later(lambda numbers: numbers.factors[self.output])
        return self.cost, given[f"target:{self.output}"], (None if weight is None else weight.reshape(-1), factor)

    def value(self, sums: Array) -> float:
        """J."""
        with at(self.output):
            return costs.value(self.cost, self.y, self.target, sums, self.factor)


def _compared(network: Network, params: Params, inputs: Arrays, goals: Goals) -> dict[str, Comparison] | None:
    """The goals, admitted; None where there are no examples, or a cost has no kernel."""
    found = {}
    [x, *_] = inputs.values()
    dtype = next(iter(params.values()), x).dtype
    for output, (cost, target, weight) in goals.items():
        shape = _shape(network, output, inputs)
        y = _stand_in((len(x), *shape), dtype)
        if not len(x) or lowering(cost, y) is None:
            return None
        with at(output):
            found[output] = Comparison(output, cost, y, *costs.admit(cost, y, target, weight))
    return found


@lru_cache
def _stand_in(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of this shape and dtype that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _shape(network: Network, output: str, inputs: Arrays) -> tuple[int, ...]:
    """The shape of an output, batch left out, where inputs are of these sizes."""
    if None not in network.shapes[output]:
        return cast("tuple[int, ...]", network.shapes[output])
    known = _shapes.setdefault(network, {})
    key = tuple((name, array.shape[1:]) for name, array in inputs.items())
    if key not in known:
        shapes: dict[str, Shape] = {name: array.shape[1:] for name, array in inputs.items()}
        for step in network.steps:
            with at(step.name):
                shapes[step.name] = step.element.output(*(shapes[source] for source in step.sources))
        known[key] = {name: cast("tuple[int, ...]", shapes[name]) for name in network.outputs}
    return known[key][output]


_shapes: WeakKeyDictionary[Network, dict[Any, dict[str, tuple[int, ...]]]] = WeakKeyDictionary()
"""By network and sizes of inputs."""


def _total(comparisons: Mapping[str, Comparison], results: Mapping[str, Mapping[str, Array]]) -> float:
    """The cost: what all comparisons give together."""
    return sum([comparison.value(results["cost"][output]) for output, comparison in comparisons.items()])


class Numbers(NamedTuple):
    """What programs find their numbers in."""

    step: int
    seed: int
    first: int
    factors: Mapping[str, float]
    """Of costs."""
    update: Mapping[str, float]
    """Of an optimiser."""


def _results(
    network: Network,
    key: tuple[Any, ...],
    inputs: Arrays,
    own: Arrays,
    run: Run,
    record: Record,
    comparisons: Mapping[str, Comparison] = NOTHING,
    update: Mapping[str, float] = NOTHING,
    *,
    exact: bool = True,
) -> dict[str, dict[str, Array]] | None:
    """A program's results by kind and name, or None where there is none; ``update`` are an optimiser's numbers."""
    found = _found(network, key, inputs, own, run, record, comparisons, exact=exact)
    if found is None:
        return None
    plan, arrays = found
    factors = {output: comparison.factor for output, comparison in comparisons.items()}
    return plan.run(arrays, Numbers(run.step, run.seed, run.first, factors, update))


def _found(
    network: Network,
    key: tuple[Any, ...],
    inputs: Arrays,
    own: Arrays,
    run: Run,
    record: Record,
    comparisons: Mapping[str, Comparison] = NOTHING,
    *,
    exact: bool = True,
) -> tuple[Plan, Arrays] | None:
    """The plan, and all arrays that it is given, by name; or None where there is no program.

    Args:
        network: whose plans are looked through.
        key: what the program depends on, beside shapes.
        inputs: by name, the batch first.
        own: parameters, states and slots by name.
        run: which run it is.
        record: what to record, where there is no plan yet.
        comparisons: whose targets and weights are given, too.
        exact: are all bits to be those of single elements?
    """
    arrays = dict(inputs)
    if network.indices:
        _admit_indices(network, arrays)
    for comparison in comparisons.values():
        arrays |= comparison.arrays
    batches = len(arrays)
    arrays |= own
    for name, array in arrays.items():
        if not array.flags.c_contiguous:
            arrays[name] = np.ascontiguousarray(array)
    found = tuple([(name, array.shape, array.dtype) for name, array in arrays.items()])
    costs = tuple([comparison.key for comparison in comparisons.values()])

    def make() -> Plan:
        task = Task(
            lambda given, own: record(given, own, later(run)),
            {name: (shape[1:], dtype) for name, shape, dtype in found[:batches]},
            {name: (shape, dtype) for name, shape, dtype in found[batches:]},
            exact=exact,
        )
        return Plan(task, found[0][1][0], summed=bool(comparisons))

    plan = plans.find(network, (key, costs, run.training, found), make)
    return None if plan is None else (plan, arrays)


def _admit_indices(network: Network, arrays: dict[str, Array]) -> None:
    """Refuse indices that are out of range, which kernels would not notice; the others become int64."""
    for step in network.steps:
        if step.element.takes_indices:
            with at(step.name):
                step.element.admit_indices(arrays[step.sources[0]])
    arrays |= {name: np.ascontiguousarray(arrays[name], np.int64) for name in network.indices}


def _own(network: Network, params: Params) -> dict[str, Array]:
    return {name: params[name] for name in (*network.parameters, *network.states)}


def _named(**results: Mapping[str, Array]) -> dict[str, Array]:
    """All results in one mapping."""
    return {f"{kind}:{name}": array for kind, arrays in results.items() for name, array in arrays.items()}
