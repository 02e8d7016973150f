"""One training run: what is given, what changes, and the step that leads from one state to the next.

All that training changes is one frozen ``State``. A step makes the new state from the old one and from nothing else:
the order of the examples is a function of (seed, epoch), random masks are one of (seed, step). So a run that goes on
from a saved state does, bit for bit, what it would have done.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.data.dataset import Data, Redrawn, steps
from faltung.elements.costs import Cost
from faltung.elements.element import Array, Params, Run
from faltung.elements.settings import check_count
from faltung.errors import DataError, NetworkError, NonFiniteError, SettingError
from faltung.exchange.description import describe, describe_network
from faltung.exchange.modelfile import misfit
from faltung.network import Network
from faltung.network.nonfinite import NonFinite, first_nonfinite
from faltung.randomness import generator
from faltung.training.metrics import Tally, evaluate
from faltung.training.optimisers import Optimiser, Slots

Row = dict[str, Any]
"""One epoch in numbers: epoch (from 1), step, cost, test_cost, test_accuracy, seconds, examples_per_second."""
Order = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class State:
    """Everything that training changes. A checkpoint is this value in a file."""

    params: dict[str, Array]
    slots: dict[str, dict[str, Array]]
    step: int = 0
    """Updates made so far."""
    tally: Tally = field(default_factory=Tally)
    """The costs of the running epoch."""
    seconds: float = 0.0
    """The time that its steps took."""
    history: tuple[Row, ...] = ()
    """The epochs that are complete."""


def order(seed: int, epoch: int, count: int) -> Order:
    """The order of ``count`` examples in an epoch (counted from 0): a permutation drawn from (seed, epoch).

    >>> order(0, 0, 5).tolist(), order(0, 1, 5).tolist()
    ([2, 4, 3, 0, 1], [1, 4, 3, 0, 2])
    """
    return generator(seed, epoch).permutation(count)


@dataclass(frozen=True, eq=False)
class Job:
    """What is trained, on what, and how. Refuses at once what could not be trained."""

    network: Network
    data: Data
    cost: Cost
    optimiser: Optimiser
    batch: int
    seed: int
    test: Data | None
    drop_last: bool

    def __post_init__(self):
        check_count("fit", batch=self.batch)
        generator(self.seed)  # refuses what is no seed
        if not isinstance(self.cost, Cost):
            raise SettingError(
                f"got cost={self.cost!r}, expected one cost, such as CrossEntropy()",
                way_out="for several costs, call network.backpropagate and optimiser.update in a loop of your own",
            )
        if not isinstance(self.optimiser, Optimiser):
            raise SettingError(f"got optimiser={self.optimiser!r}, expected one", way_out="write optimiser=SGD(0.1)")
        for name, data in {"data": self.data, "test": self.test}.items():
            if data is not None and len(data) == 0:
                raise DataError(f"got {name} of no examples, expected at least one", way_out="give at least one")
        _ = self.steps  # refuses examples that do not fill one batch

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return steps(len(self.data), self.batch, drop_last=self.drop_last)

    @property
    def examples(self) -> int:
        """Examples of an epoch."""
        return min(self.steps * self.batch, len(self.data))

    def settings(self) -> dict[str, Any]:
        """What must be the same where a run is resumed, as plain data."""
        return {
            "network": describe_network(self.network),
            "cost": describe(self.cost),
            "optimiser": describe(self.optimiser),
            "batch": self.batch,
            "seed": self.seed,
            "drop_last": self.drop_last,
            "examples": len(self.data),
            "test examples": 0 if self.test is None else len(self.test),
        }

    def examples_of(self, epoch: int) -> Data:
        """The examples of an epoch (counted from 0)."""
        return self.data.epoch(epoch) if isinstance(self.data, Redrawn) else self.data

    def begin(self, params: Params) -> State:
        """The state before the first step, after a rehearsal on one example of each data set."""
        problem = misfit(self.network, params)
        if problem:
            raise NetworkError(problem, way_out="make them with network.initial(seed)")
        for data in (self.data, self.test):
            if data is not None:
                x, target = data[np.array([0])]
                with np.errstate(all="ignore"):  # what overflows is found in the first step
                    self.cost.forward(self.network.predict(params, x), np.asarray(target))
        arrays = {name: np.asarray(w) for name, w in params.items()}
        return State(arrays, self.optimiser.slots({name: arrays[name] for name in self.network.parameters}))

    def done(self, state: State) -> int:
        """Steps made in the running epoch."""
        return state.step - len(state.history) * self.steps

    def result(self, state: State) -> dict[str, Array]:
        """The parameters that are evaluated and saved: the optimiser's choice."""
        return dict(self.optimiser.result(state.params, state.slots, state.step))

    def advance(self, state: State, data: Data, sequence: Order) -> State:
        """The state after one more step of the running epoch, which takes its examples in this sequence.

        Raises: NonFiniteError where the cost, a parameter or a slot is no longer finite.
        """
        began = time.perf_counter()
        first = self.done(state) * self.batch
        chosen = sequence[first : first + self.batch]
        x, target = data[chosen]
        target = np.asarray(target)
        run = Run(training=True, seed=self.seed, step=state.step)
        done = self.network.train_step(
            state.params, state.slots, x, target, cost=self.cost, optimiser=self.optimiser, run=run
        )
        params, slots = done.params, done.slots
        overflown = _overflown(params, slots)
        if overflown or not math.isfinite(done.cost):
            raise self._broken(state, chosen, x, target, run, overflown)
        return replace(
            state,
            params=params,
            slots=slots,
            step=state.step + 1,
            tally=state.tally.add(self.cost, done.cost, target),
            seconds=state.seconds + time.perf_counter() - began,
        )

    def close(self, state: State, after: Callable[[], None]) -> State:
        """The state at the begin of the next epoch; ``after`` is called after each batch of the test."""
        row: Row = {"epoch": len(state.history) + 1, "step": state.step, "cost": state.tally.mean}
        if self.test is not None:
            found = evaluate(self.network, self.result(state), self.test, cost=self.cost, batch=self.batch, after=after)
            row |= {f"test_{name}": value if math.isfinite(value) else None for name, value in found.items()}
        row["seconds"] = round(state.seconds, 3)
        row["examples_per_second"] = round(self.examples / max(state.seconds, 1e-9), 1)
        return replace(state, tally=Tally(), seconds=0.0, history=(*state.history, row))

    def _broken(
        self, state: State, chosen: Order, x: Any, target: Array, run: Run, overflown: str | None
    ) -> NonFiniteError:
        """Repeat the step, keep everything, and say where the first entry is that is not finite."""
        back = self.network.backpropagate(state.params, x, target, cost=self.cost, run=run, keep="all")
        found = first_nonfinite(self.network, state.params, target, back)
        when = f"in step {self.done(state) + 1} of epoch {len(state.history) + 1}"
        if found is None:
            what = f"the update of {overflown}" if overflown else "the cost of finite values"
            return NonFiniteError(f"{what} overflows {when}", way_out="lower the rate")
        number = "NaN" if math.isnan(found.number) else f"{found.number:g}"
        what = f"the {found.what}" if found.element else "it"
        error = NonFiniteError(
            f"{what} is {number} first here, at {_place(found, chosen)}, {when}",
            element=found.element or found.what,
            way_out=_WAYS_OUT.get(found.what, "lower the rate, or scale the inputs to about 1"),
        )
        error.node = found.name or None
        return error


_WAYS_OUT = {
    "input": "give finite inputs",
    "target": "give finite targets",
    "parameter": "begin with finite parameters",
}


def _place(found: NonFinite, chosen: Order) -> str:
    if not found.per_example:
        return f"entry {found.index}"
    example, *position = found.index
    return f"example {chosen[example]}" + (f", position ({', '.join(map(str, position))})" if position else "")


def _overflown(params: Params, slots: Slots) -> str | None:
    """The name of the first parameter that is not finite, or whose slots are not."""
    for name, w in params.items():
        arrays = [w, *(slot[name] for slot in slots.values() if name in slot)]
        if not all(np.isfinite(array).all() for array in arrays):
            return name
    return None
