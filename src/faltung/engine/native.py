"""The native executor: networks as programs of compiled kernels, and element by element where there is no program."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from faltung.elements.element import Array, Params, Run
from faltung.engine.elements import Kernels, compiled
from faltung.network.executors import Arrays, Backward, Goals, Optimiser, Prepare, Slots, Trained
from faltung.network.layerwise import Layerwise

if TYPE_CHECKING:
    from faltung.network.network import Network


@dataclass(frozen=True)
class Native(Layerwise):
    """See ``faltung.network.executors.Executor``; ``forward`` and ``backward`` keep everything, element by element."""

    def predict(self, network: "Network", params: Params, inputs: Arrays, run: Run) -> dict[str, Array]:
        """The outputs alone."""
        done = programs().predict(network, params, inputs, run) if compiled()[1] else None
        return super().predict(network, params, inputs, run) if done is None else done

    def frozen(self, network: "Network", params: Params) -> Prepare:
        """Programs for the sizes that come; what follows from parameters alone is computed once."""
        slowly = super().frozen(network, params)
        if not compiled()[1]:
            return slowly
        frozen = programs().Frozen(network, params)
        return lambda inputs: frozen.ready(inputs) or slowly(inputs)

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
        done = None
        if compiled()[1] and not per_example:
            done = programs().backpropagate(network, params, inputs, goals, run, keep)
        if done is None:
            return super().backpropagate(network, params, inputs, goals, run, keep, per_example)
        return done

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
        done = None
        if compiled()[1]:
            done = programs().train_step(network, params, slots, inputs, goals, run, optimiser)
        return super().train_step(network, params, slots, inputs, goals, run, optimiser) if done is None else done


@cache
def programs() -> Any:
    """``faltung.engine.networks``, which is loaded, with LLVM, when the first network runs."""
    from faltung.engine import networks as programs

    return programs


def native() -> Native:
    """The executor of this name."""
    return Native(Kernels())
