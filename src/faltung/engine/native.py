"""The native executor: networks as programs of compiled kernels, and element by element where there is no program.

LLVM is loaded when the first network runs. Where it is missing, or the system refuses memory for machine code, the
elements' NumPy definitions do everything, after one warning.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from faltung.elements.activations import Identity
from faltung.elements.costs import Cost
from faltung.elements.element import Array, Element, Params, Run
from faltung.elements.joins import Sum
from faltung.elements.reshape import Flatten, Reshape
from faltung.engine.lower import Lowering, lowerings
from faltung.errors import EngineError, at
from faltung.network.executors import Arrays, Backward, Goals, Optimiser, Slots, Trained
from faltung.network.layerwise import Layerwise
from faltung.network.reference import Definitions

if TYPE_CHECKING:
    from faltung.network.network import Network

Record = Callable[[Arrays, Arrays, Run], dict[str, Array]]
"""What a program does, from inputs and parameters by name, and a run whose numbers are found later."""
NOTHING: Mapping[str, Any] = MappingProxyType({})
VIEWS = (Identity, Flatten, Reshape)
"""Elements whose definitions compute nothing."""
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
"""What kernels compute with; numbers of another kind are left to the definitions."""


_SUM = Sum()


@dataclass(frozen=True)
class Kernels:
    """The elements' functions, compiled where there is a lowering; see ``faltung.network.layerwise.Functions``."""

    definitions: ClassVar[Definitions] = Definitions()

    def step(self) -> AbstractContextManager[None]:
        return _compiled()[0]()

    def forward(self, element: Element, params: Params, x: Any, run: Run) -> tuple[Array, Any]:
        inputs = x if isinstance(x, tuple) else (x,)
        numbers = (array for array in (*inputs, *params.values()) if array.dtype.kind == "f")
        return self._functions(element, *numbers).forward(element, params, x, run)

    def error(self, element: Element, params: Params, kept: Any, dy: Array) -> Any:
        return self._functions(element, dy).error(element, params, kept, dy)

    def backward(
        self, element: Element, params: Params, kept: Any, dy: Array, *, error: bool
    ) -> tuple[Any, dict[str, Array]]:
        lowering = _lowering(element, dy)
        if lowering is None:
            return self.definitions.backward(element, params, kept, dy, error=error)
        if lowering.backward is not None and error:
            return lowering.backward(element, params, kept, dy)
        dx = lowering.error(element, params, kept, dy) if error else None
        return dx, lowering.gradient(element, params, kept, dy) if lowering.gradient else {}

    def renew(self, element: Element, params: Params, kept: Any) -> dict[str, Array]:
        lowering = _lowering(element, *params.values())
        if lowering is None or lowering.renew is None:
            return element.renew(params, kept)
        return lowering.renew(element, params, kept)

    def cost(self, cost: Cost, y: Array, target: Array, weight: Any) -> tuple[float, Array]:
        lowering = _lowering(cost, y)
        if lowering is None:
            return self.definitions.cost(cost, y, target, weight)
        J, kept = lowering.forward(cost, y, target, weight)
        return J, lowering.error(cost, kept)

    def add(self, a: Array, b: Array) -> Array:
        lowering = _lowering(_SUM, a, b)
        return a + b if lowering is None else lowering.forward(_SUM, {}, (a, b))[0]

    def _functions(self, element: Element, *numbers: Array) -> Any:
        return _lowering(element, *numbers) or self.definitions


@dataclass(frozen=True)
class Recording(Kernels):
    """The same while a network is recorded: what the tasks of a cost give is kept in ``sums``."""

    sums: list[Array] = field(default_factory=list)

    def _functions(self, element: Element, *numbers: Array) -> Any:
        lowering = _lowering(element, *numbers)
        if lowering is None and not isinstance(element, VIEWS):
            raise _not_recorded(f"{element!r} has no kernels")
        return lowering or self.definitions

    def cost(self, cost: Cost, y: Array, target: Array, weight: Any) -> tuple[float, Array]:
        sums, dy = _costs().slopes(cost, np.ascontiguousarray(y), target, *weight)
        self.sums.append(sums)
        return 0.0, dy


@dataclass(frozen=True)
class Native(Layerwise):
    """Predictions and backpropagation by programs; what is asked for beyond that, element by element."""

    def predict(self, network: "Network", params: Params, inputs: Arrays, run: Run) -> dict[str, Array]:
        """The outputs alone."""

        def record(given: Arrays, own: Arrays, run: Run) -> dict[str, Array]:
            return _named(value=Layerwise(Recording()).predict(network, own, given, run))

        own = {name: params[name] for name in (*network.parameters, *network.states)}
        results = self._planned(network, ("predict",), inputs, own, run, record)
        if results is None:
            return super().predict(network, params, inputs, run)
        return {name: results[f"value:{name}"] for name in network.outputs}

    def backpropagate(
        self,
        network: "Network",
        params: Params,
        inputs: Arrays,
        goals: Goals,
        run: Run,
        keep: frozenset[str],
        per_example: bool,
    ) -> Backward:
        """Forward, the cost and its error signal at each output, and backward."""
        comparisons = None if per_example else _compared(network, params, inputs, goals)
        if comparisons is not None:
            own = {name: params[name] for name in (*network.parameters, *network.states)}
            record = self._recorded(network, comparisons, keep)
            results = self._planned(network, ("backpropagate", keep), inputs, own, run, record, comparisons)
            if results is not None:
                parts = (_part(results, kind) for kind in ("value", "error", "gradient", "state"))
                return Backward(_total(comparisons, results), *parts)
        return super().backpropagate(network, params, inputs, goals, run, keep, per_example)

    def train_step(
        self,
        network: "Network",
        params: Params,
        slots: Slots,
        inputs: Arrays,
        goals: Goals,
        run: Run,
        optimiser: Optimiser,
    ) -> Trained:
        """Backpropagation, and the optimiser's update."""
        update, comparisons = optimiser.formulas(run.step), _compared(network, params, inputs, goals)
        if update is not None and comparisons is not None:
            remembers, formulas, names = tuple(optimiser.remembers), update.formulas, tuple(update.numbers)
            held = {f"old {slot}:{name}": slots[slot][name] for slot in remembers for name in network.parameters}
            backpropagated = self._recorded(network, comparisons, frozenset())

            def record(given: Arrays, own: Arrays, run: Run) -> dict[str, Array]:
                results = backpropagated(given, own, run)
                new = {name: array for name, array in results.items() if name.startswith(("cost", "state"))}
                numbers = {name: _later(lambda given, name=name: given.update[name]) for name in names}
                for name in network.parameters:
                    old = {slot: own[f"old {slot}:{name}"] for slot in remembers}
                    with at(name):
                        w, moved = _move(formulas, remembers, own[name], results[f"gradient:{name}"], old, numbers)
                    new |= {f"param:{name}": w} | {f"{slot}:{name}": array for slot, array in moved.items()}
                return new

            own = {name: params[name] for name in (*network.parameters, *network.states)} | held
            key = ("train", formulas, remembers, names)
            results = self._planned(network, key, inputs, own, run, record, comparisons, update.numbers)
            if results is not None:
                moved = {slot: _part(results, slot) for slot in remembers}
                new = {**params, **_part(results, "param"), **_part(results, "state")}
                return Trained(_total(comparisons, results), new, moved)
        return super().train_step(network, params, slots, inputs, goals, run, optimiser)

    @staticmethod
    def _recorded(network: "Network", comparisons: Mapping[str, "Comparison"], keep: frozenset[str]) -> Record:
        """Backpropagation, to be recorded."""

        def record(given: Arrays, own: Arrays, run: Run) -> dict[str, Array]:
            functions = Recording()
            goals = {output: comparison.recorded(given) for output, comparison in comparisons.items()}
            x = {name: given[name] for name in network.inputs}
            back = Layerwise(functions).backpropagate(network, own, x, goals, run, keep, per_example=False)
            costs = dict(zip(goals, functions.sums, strict=True))
            parts = {"value": back.values, "error": back.errors, "gradient": back.gradients, "state": back.state}
            return _named(**parts, cost=costs)

        return record

    @staticmethod
    def _planned(
        network: "Network",
        key: tuple[Any, ...],
        inputs: Arrays,
        own: Arrays,
        run: Run,
        record: Record,
        comparisons: Mapping[str, "Comparison"] = NOTHING,
        update: Mapping[str, float] = NOTHING,
    ) -> dict[str, Array] | None:
        """The results of a program by name, or None where there is none.

        Args:
            network: whose plans are looked through.
            key: what the program depends on, beside shapes.
            inputs: by name, the batch first.
            own: parameters, states and slots by name.
            run: which run it is.
            record: what to record, where there is no plan yet.
            comparisons: whose targets and weights are given, too.
            update: the numbers of an optimiser.
        """
        if not _compiled()[1]:
            return None
        arrays = dict(inputs)
        for comparison in comparisons.values():
            arrays |= comparison.arrays
        examples, batches = len(next(iter(inputs.values()))), len(arrays)
        arrays |= own
        for name, array in arrays.items():
            if not array.flags.c_contiguous:
                arrays[name] = np.ascontiguousarray(array)
        costs = tuple([comparison.key for comparison in comparisons.values()])
        found = tuple([(name, array.shape, array.dtype) for name, array in arrays.items()])
        plan = _plans().find(
            network,
            (key, costs, run.training, found),
            lambda: _made(record, found[:batches], found[batches:], run, examples, summed=bool(comparisons)),
        )
        if plan is None:
            return None
        factors = {output: comparison.factor for output, comparison in comparisons.items()}
        return plan.run(arrays, Numbers(run.step, run.seed, run.first, factors, update))


class Numbers(NamedTuple):
    """What programs find their numbers in."""

    step: int
    seed: int
    first: int
    factors: Mapping[str, float]
    """Of costs: 1 / what they are divided by."""
    update: Mapping[str, float]
    """Those of an optimiser."""


def _made(record: Record, inputs: Any, own: Any, run: Run, examples: int, *, summed: bool) -> Any:
    """A new plan."""
    from faltung.engine.plan import Plan, Task, later

    task = Task(
        lambda given, own: record(given, own, later(run)),
        {name: (shape[1:], dtype) for name, shape, dtype in inputs},
        {name: (shape, dtype) for name, shape, dtype in own},
    )
    return Plan(task, examples, summed=summed)


def _named(**results: Mapping[str, Array]) -> dict[str, Array]:
    """All results in one mapping."""
    return {f"{kind}:{name}": array for kind, arrays in results.items() for name, array in arrays.items()}


def _part(results: Mapping[str, Array], kind: str) -> dict[str, Array]:
    """The results of one kind."""
    return {name.partition(":")[2]: array for name, array in results.items() if name.startswith(kind)}


@dataclass(frozen=True)
class Comparison:
    """An output with its cost, and what it is compared with."""

    output: str
    cost: Cost
    y: Array
    """Stands for the output: of its shape and dtype."""
    target: Array
    weight: Array | None
    factor: float

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
        weight = None if weight is None else weight.reshape(-1)
        return self.cost, given[f"target:{self.output}"], (weight, _later(lambda numbers: numbers.factors[self.output]))

    def value(self, sums: Array) -> float:
        """J."""
        with at(self.output):
            return _costs().value(self.cost, self.y, self.target, sums, self.factor)


def _compared(network: "Network", params: Params, inputs: Arrays, goals: Goals) -> dict[str, Comparison] | None:
    """The goals, admitted; None where a program cannot know the shape of an output, or has no kernel for a cost."""
    found = {}
    examples = len(next(iter(inputs.values())))
    dtype = next((w.dtype for w in params.values()), next(iter(inputs.values())).dtype)
    for output, (cost, target, weight) in goals.items():
        shape = network.shapes[output]
        if None in shape or not examples or _lowering(cost, np.empty(0, dtype)) is None:
            return None
        y = np.broadcast_to(np.zeros((), dtype), (examples, *shape))
        with at(output):
            found[output] = Comparison(output, cost, y, *_costs().admit(cost, y, target, weight))
    return found


def _total(comparisons: Mapping[str, Comparison], results: Mapping[str, Array]) -> float:
    """The cost: what all comparisons give together."""
    return sum(comparison.value(results[f"cost:{output}"]) for output, comparison in comparisons.items())


def _not_recorded(problem: str) -> Exception:
    from faltung.engine.recording import NotRecordedError

    return NotRecordedError(problem)


def _later(of: Callable[[Any], float]) -> Any:
    from faltung.engine.recording import Later

    return Later(of)


def _move(*arguments: Any) -> tuple[Array, dict[str, Array]]:
    from faltung.engine.lower.update import move

    return move(*arguments)


def _costs() -> Any:
    from faltung.engine.lower import costs

    return costs


def _lowering(element: Element | Cost, *numbers: Array) -> Lowering | None:
    """The lowering of an element or cost, if it has one for such numbers."""
    return _compiled()[1].get(type(element)) if all(array.dtype in FLOATS for array in numbers) else None


@cache
def _compiled() -> tuple[Callable[[], AbstractContextManager[None]], Mapping[type, Lowering]]:
    """What a step stands in, and all lowerings."""
    try:
        from faltung.engine.modes import flushed

        with flushed():  # the first machine code
            return flushed, lowerings()
    except EngineError as error:
        problem = str(error)
    except ImportError as error:
        if (error.name or "").split(".")[0] != "llvmlite":
            raise
        problem = f"llvmlite cannot be imported ({error})"
    warnings.warn(f"{problem}; networks run on the reference executor", RuntimeWarning, stacklevel=2)
    return nullcontext, {}


@cache
def _plans() -> Any:
    from faltung.engine.plan import Plans

    return Plans()


def newest_plan(network: "Network") -> Any:
    """The plan that ran last for a network, a ``faltung.engine.plan.Plan``, or None where it has none."""
    return _plans().newest(network) if _compiled()[1] else None


def native() -> Native:
    """The executor of this name."""
    return Native(Kernels())
