"""The reference executor: the NumPy definitions, one element after the other. It is the law for every other executor.

Backpropagation is the loop over the nodes in reverse: hand the error at the output back as errors at the inputs, and
take the gradient on the way. Source: memo p. 7, "Backpropagation in general cases".
"""

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from faltung.elements.element import Array, Params, Run, example
from faltung.errors import at
from faltung.network.executors import Arrays, Backward, Forward, Goals

if TYPE_CHECKING:
    from faltung.network.network import Network, Step


class Reference:
    """See ``faltung.network.executors.Executor``."""

    def predict(self, network: "Network", params: Params, inputs: Arrays, run: Run) -> dict[str, Array]:
        """The outputs alone; a value is dropped as soon as its last reader has read it."""
        readers = Counter(source for step in network.steps for source in step.sources)
        readers.update(network.outputs)  # the caller reads these last
        values = dict(inputs)
        for step in network.steps:
            values[step.name] = _forward(step, params, values, run)[0]
            readers.subtract(step.sources)
            for name in {step.name, *step.sources}:
                if not readers[name]:
                    del values[name]
        return {name: values[name] for name in network.outputs}

    def forward(self, network: "Network", params: Params, inputs: Arrays, run: Run) -> Forward:
        """Every value, in the order of the nodes."""
        values, kept, state = dict(inputs), {}, {}
        for step in network.steps:
            values[step.name], kept[step.name] = _forward(step, params, values, run)
            if run.training and step.states:
                new = step.element.renew(step.local(params), kept[step.name])
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
        for step in reversed(network.steps):
            if step.name not in errors:
                continue
            dy = errors[step.name] if step.name in keep else errors.pop(step.name)
            kept, local = forward.kept[step.name], step.local(params)
            for short, dw in _gradient(step, local, kept, dy, per_example).items():
                name = step.parameters[short]
                gradients[name] = gradients[name] + dw if name in gradients else dw
            if wanted.isdisjoint(step.sources):
                continue
            dx = step.element.error(local, kept, dy)
            for source, share in zip(step.sources, dx if isinstance(dx, tuple) else (dx,), strict=True):
                if share is not None:
                    errors[source] = errors[source] + share if source in errors else share
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
        forward = self.forward(network, params, inputs, run)
        total, errors = 0.0, {}
        for output, (cost, target, weight) in goals.items():
            with at(output):
                value, kept = cost.forward(forward.values[output], target, weight)
            total += value
            errors[output] = cost.error(kept)
        return replace(self.backward(network, params, forward, errors, keep, per_example), cost=total)


def _forward(step: "Step", params: Params, values: Arrays, run: Run) -> tuple[Array, Any]:
    inputs = tuple(values[source] for source in step.sources)
    with at(step.name):
        return step.element.forward(
            step.local(params), inputs if step.element.arity != 1 else inputs[0], replace(run, node=step.name)
        )


def _gradient(step: "Step", local: Params, kept: Any, dy: Array, per_example: bool) -> dict[str, Array]:
    if not per_example:
        return step.element.gradient(local, kept, dy)
    shares = [step.element.gradient(local, example(kept, n), dy[n : n + 1]) for n in range(len(dy))]
    stacked = {short: np.array([share[short] for share in shares], dy.dtype) for short in step.parameters}
    return {short: dw.reshape(len(dy), *local[short].shape) for short, dw in stacked.items()}  # for no examples, too


def _wanted(network: "Network", keep: frozenset[str]) -> set[str]:
    """The values whose error signals are kept, or lead to a parameter or to one that is kept."""
    wanted = set(keep)
    for step in network.steps:
        if step.parameters or not wanted.isdisjoint(step.sources):
            wanted.add(step.name)
    return wanted
