"""One element after the other: the executor that knows the order, and leaves it to others how an element is computed.

Backpropagation is the loop over the nodes in reverse: hand the error at the output back as errors at the inputs, and
take the gradient on the way. Source: memo p. 7, "Backpropagation in general cases".
"""

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from faltung.elements.costs import Cost
from faltung.elements.element import Array, Element, Params, Run, example
from faltung.errors import at
from faltung.network.executors import Arrays, Backward, Forward, Goals, Optimiser, Prepare, Slots, Trained

if TYPE_CHECKING:
    from faltung.network.network import Network, Step


class Functions(Protocol):
    """How an element is computed: its three functions, and the value of a cost with its error signal."""

    def step(self) -> AbstractContextManager[None]:
        """What all calls of one pass through the network stand in."""
        ...

    def forward(self, element: Element, params: Params, x: Any, run: Run) -> tuple[Array, Any]:
        """See ``Element.forward``; ``Element.renew`` must understand what is kept."""
        ...

    def error(self, element: Element, params: Params, kept: Any, dy: Array) -> Any:
        """See ``Element.error``."""
        ...

    def backward(
        self, element: Element, params: Params, kept: Any, dy: Array, *, error: bool
    ) -> tuple[Any, dict[str, Array]]:
        """See ``Element.error`` (None, where it is not asked for) and ``Element.gradient``."""
        ...

    def renew(self, element: Element, params: Params, kept: Any) -> dict[str, Array]:
        """See ``Element.renew``."""
        ...

    def add(self, a: Array, b: Array) -> Array:
        """a + b, of the same shape."""
        ...

    def cost(self, cost: Cost, y: Array, target: Array, weight: Any) -> tuple[float, Array]:
        """J and dy; see ``Cost.forward`` and ``Cost.error``."""
        ...


@dataclass(frozen=True)
class Layerwise:
    """See ``faltung.network.executors.Executor``."""

    functions: Functions

    def predict(self, network: "Network", params: Params, inputs: Arrays, run: Run) -> dict[str, Array]:
        """The outputs alone; a value is dropped as soon as its last reader has read it."""
        readers = Counter(source for step in network.steps for source in step.sources)
        readers.update(network.outputs)  # the caller reads these last
        values = dict(inputs)
        with self.functions.step():
            for step in network.steps:
                values[step.name] = self._forward(step, params, values, run)[0]
                readers.subtract(step.sources)
                for name in {step.name, *step.sources}:
                    if not readers[name]:
                        del values[name]
        return {name: values[name] for name in network.outputs}

    def frozen(self, network: "Network", params: Params) -> Prepare:
        """Nothing is made ready."""
        return lambda inputs: lambda *arrays: network.predict(params, dict(zip(inputs, arrays, strict=True)))

    def forward(self, network: "Network", params: Params, inputs: Arrays, run: Run) -> Forward:
        """Every value, in the order of the nodes."""
        values, kept, state = dict(inputs), {}, {}
        with self.functions.step():
            for step in network.steps:
                values[step.name], kept[step.name] = self._forward(step, params, values, run)
                if run.training and step.states:
                    new = self.functions.renew(step.element, step.local(params), kept[step.name])
                    state |= {step.states[short]: value for short, value in new.items()}
        return Forward(values, state, kept)

    def backward(
        self,
        network: "Network",
        params: Params,
        forward: Forward,
        errors: Arrays,
        keep: frozenset[str],
        per_example: bool,
    ) -> Backward:
        """The reverse loop."""
        wanted = _wanted(network, keep)
        errors = dict(errors)
        gradients: dict[str, Array] = {}
        with self.functions.step():
            for step in reversed(network.steps):
                if step.name not in errors:
                    continue
                dy = errors[step.name] if step.name in keep else errors.pop(step.name)
                kept, local = forward.kept[step.name], step.local(params)
                error = not wanted.isdisjoint(step.sources)
                with at(step.name):
                    dx, shares = self._backward(step, local, kept, dy, error, per_example)
                for short, dw in shares.items():
                    name = step.parameters[short]
                    gradients[name] = self.functions.add(gradients[name], dw) if name in gradients else dw
                if not error:
                    continue
                for source, share in zip(step.sources, dx if isinstance(dx, tuple) else (dx,), strict=True):
                    if share is not None:
                        errors[source] = self.functions.add(errors[source], share) if source in errors else share
        for name, parameter in network.parameters.items():
            if name not in gradients:
                batch = next(iter(forward.values.values())).shape[:1] if per_example else ()
                gradients[name] = np.zeros((*batch, *parameter.shape), params[name].dtype)
        return Backward(
            cost=float("nan"),
            values={name: value for name, value in forward.values.items() if name in keep},
            errors={name: error for name, error in errors.items() if name in keep},
            gradients={name: gradients[name] for name in network.parameters},
            state=forward.state,
        )

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
        total, errors = 0.0, {}
        with self.functions.step():
            forward = self.forward(network, params, inputs, run)
            for output, (cost, target, weight) in goals.items():
                with at(output):
                    value, errors[output] = self.functions.cost(cost, forward.values[output], target, weight)
                total += value
            back = self.backward(network, params, forward, errors, keep, per_example)
        return replace(back, cost=total)

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
        back = self.backpropagate(network, params, inputs, goals, run, frozenset(), per_example=False)
        moved, remembered = optimiser.update(params, back.gradients, slots, run.step)
        return Trained(back.cost, moved | back.state, remembered)

    def _forward(self, step: "Step", params: Params, values: Arrays, run: Run) -> tuple[Array, Any]:
        inputs = tuple(values[source] for source in step.sources)
        x = inputs if step.element.arity != 1 else inputs[0]
        with at(step.name):
            return self.functions.forward(step.element, step.local(params), x, replace(run, node=step.name))

    def _backward(
        self, step: "Step", local: Params, kept: Any, dy: Array, error: bool, per_example: bool
    ) -> tuple[Any, dict[str, Array]]:
        """dx, if it is asked for, and the gradients, of each example where that is asked for."""
        backward = self.functions.backward
        if not per_example:
            return backward(step.element, local, kept, dy, error=error)
        dx = self.functions.error(step.element, local, kept, dy) if error else None
        shares = [
            backward(step.element, local, example(kept, n), dy[n : n + 1], error=False)[1] for n in range(len(dy))
        ]
        stacked = {short: np.array([share[short] for share in shares], dy.dtype) for short in step.parameters}
        return dx, {short: dw.reshape(len(dy), *local[short].shape) for short, dw in stacked.items()}


def _wanted(network: "Network", keep: frozenset[str]) -> set[str]:
    """The values whose error signals are kept, or lead to a parameter or to one that is kept."""
    wanted = set(keep)
    for step in network.steps:
        if step.parameters or not wanted.isdisjoint(step.sources):
            wanted.add(step.name)
    return wanted
