"""Who computes: the contract between networks and executors.

An executor runs a whole network, given as an immutable ``Network``; what it may keep between calls (compiled code,
plans) never changes a result. ``reference`` runs the NumPy definitions of the elements one after the other, ``native``
compiled kernels. ``FALTUNG_EXECUTOR`` names the one that runs where none is asked for.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from faltung.elements.costs import Cost
from faltung.elements.element import Array, Params, Run
from faltung.errors import SettingError

if TYPE_CHECKING:
    from faltung.network.network import Network

Arrays = Mapping[str, Array]
Slots = Mapping[str, Mapping[str, Array]]
"""What an optimiser remembers: by the name of the slot, then by that of the parameter."""
Goals = Mapping[str, tuple[Cost, Any, Any]]
"""For each output: its cost, the target, and the weight of the examples (or None)."""

Prepare = Callable[[Arrays], Callable[..., Any]]
"""Takes inputs by name, and gives a function of inputs of these shapes and dtypes, in the order of the network's: what
it gives is what ``Network.predict`` gives. Inputs lie in memory without gaps."""


@dataclass(frozen=True)
class Forward:
    """What a forward pass found: every value by name, the new state (in training), and what the way back needs.

    Example: see ``Network.backward``.
    """

    values: dict[str, Array]
    state: dict[str, Array]
    kept: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Backward:
    """What backpropagation found, each by name; ``d`` is always the derivative of the cost.

    ``values`` of inputs and nodes, ``errors`` dJ/d(value), ``gradients`` dJ/d(parameter), with a leading example axis
    where they were asked for per example, and ``state``, the new running statistics: ``params | back.state``.
    Example: see ``Network.backpropagate``.
    """

    cost: float
    values: dict[str, Array]
    errors: dict[str, Array]
    gradients: dict[str, Array]
    state: dict[str, Array]


@dataclass(frozen=True)
class Update:
    """How a parameter w moves by its gradient dw, as formulas for each entry, done one after the other.

    A formula has the name of what it gives: w, a slot (what an optimiser remembers of each parameter), or something
    that later ones read. It reads w, dw, slots as old_mean and new_mean, and ``numbers``, which are those of one step.
    """

    formulas: tuple[tuple[str, str], ...]
    numbers: Mapping[str, float]


class Optimiser(Protocol):
    """What a training step asks of an optimiser; see ``faltung.training.optimisers.Optimiser``."""

    @property
    def remembers(self) -> tuple[str, ...]:
        """The names of the slots."""
        ...

    def update(self, params: Params, gradients: Params, slots: Any, step: int) -> tuple[Any, Any]:
        """All parameters, those that have a gradient moved, and their slots."""
        ...

    def formulas(self, step: int) -> Update | None:
        """The same as formulas, if there are any."""
        ...


@dataclass(frozen=True)
class Trained:
    """What a training step gives: the cost before it, and parameters (and states) and slots after it.

    Example: see ``Network.train_step``.
    """

    cost: float
    params: dict[str, Array]
    slots: dict[str, dict[str, Array]]


class Executor(Protocol):
    """What a network asks for. Inputs are admitted and converted before."""

    def predict(self, network: "Network", params: Params, inputs: Arrays, run: Run) -> dict[str, Array]:
        """The outputs alone."""
        ...

    def frozen(self, network: "Network", params: Params) -> Prepare:
        """``predict`` for parameters that never change, made ready for inputs of one shape after the other."""
        ...

    def forward(self, network: "Network", params: Params, inputs: Arrays, run: Run) -> Forward:
        """Every value."""
        ...

    def backward(
        self,
        network: "Network",
        params: Params,
        forward: Forward,
        errors: Arrays,
        keep: frozenset[str],
        per_example: bool,
    ) -> Backward:
        """Error signals and gradients, from error signals at some values; ``keep`` names what to hand back."""
        ...

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
        """Forward, costs and backward in one."""
        ...

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
        ...


EXECUTORS = {
    "reference": ("faltung.network.reference", "reference"),
    "native": ("faltung.engine.native", "native"),
}
DEFAULT = "native"


def find(name: str | None = None) -> Executor:
    """The executor of this name, or the one that runs where none is asked for."""
    name = name or os.environ.get("FALTUNG_EXECUTOR") or DEFAULT
    if name not in EXECUTORS:
        raise SettingError(
            f"got executor={name!r}, expected one of {', '.join(EXECUTORS)}", way_out="choose another one"
        )
    module, function = EXECUTORS[name]
    return getattr(import_module(module), function)()
