"""A composite bound to the shapes of its inputs: parameters, forward values, error signals and gradients.

A ``Network`` is a frozen description too: parameters are a flat mapping by name that the caller holds, and every call
hands back what it computed. Between two calls nothing stays behind, so one network serves many threads and sizes.

>>> import faltung as ft
>>> net = ft.Chain(conv=ft.Conv(2, kernel=3), relu=ft.ReLU(), pool=ft.GlobalPool("mean")).on((None, 1))
>>> params = net.initial(seed=0)
>>> {name: w.shape for name, w in params.items()}
{'conv.w': (3, 1, 2), 'conv.b': (2,)}
>>> back = net.backpropagate(params, np.ones((4, 7, 1)), np.array([0, 1, 1, 0]), cost=ft.CrossEntropy())
>>> back.values["conv"].shape, back.errors["conv"].shape, back.gradients["conv.w"].shape
((4, 5, 2), (4, 5, 2), (3, 1, 2))
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from faltung.elements.costs import Cost
from faltung.elements.element import Array, Element, Parameter, Params, Run, Shape
from faltung.errors import NetworkError, ShapeError, at
from faltung.initial import draw
from faltung.network.composite import Composite, Node
from faltung.network.door import admit_goals, admit_inputs, admit_params, admit_shapes
from faltung.network.executors import Backward, Forward, Goals, Optimiser, Slots, Trained, find
from faltung.network.predictor import Predictor
from faltung.network.table import table

Keep = Literal["all"] | Iterable[str]
"""The names of inputs and nodes whose values and error signals are handed back."""


@dataclass(frozen=True)
class Step:
    """One node of a bound network."""

    name: str
    element: Element
    sources: tuple[str, ...]
    shapes: tuple[Shape, ...]
    """Of the values that it reads."""
    output: Shape
    parameters: dict[str, str]
    """From names as the element knows them to names as the network does: {"w": "conv1.w"}."""
    states: dict[str, str]

    def local(self, params: Params) -> dict[str, Array]:
        """The parameters and states of this node, under the element's own names."""
        return {short: params[full] for short, full in (self.parameters | self.states).items()}


class Network:
    """A composite on inputs of known shape; made by ``Chain(...).on(shape)`` or ``Graph(...).on(shape)``."""

    def __init__(self, composite: Composite, inputs: Mapping[str, Sequence[int | None]], executor: str | None = None):
        self.composite = composite
        self.inputs = admit_shapes(composite.inputs, inputs)
        self.compute = find(executor)
        self.parameters: dict[str, Parameter] = {}
        """What has a gradient, by name."""
        self.states: dict[str, Parameter] = {}
        """What lies beside the parameters and has none, such as running statistics."""
        self.shapes: dict[str, Shape] = dict(self.inputs)
        """Of every value, without the batch."""
        nodes, self.outputs = composite.flat()
        owners = _owners(dict(nodes))
        self.steps = tuple(self._step(name, node, owners[name]) for name, node in nodes)
        indexed = (step for step in self.steps if step.element.takes_indices)
        self.indices = frozenset(source for step in indexed for source in step.sources)
        """The inputs that hold integers, which are not converted."""
        self._check_indices()
        self._check_shared()
        self._owned = (*self.parameters, *self.states)

    def _step(self, name: str, node: Node, owner: str) -> Step:
        element, shapes = node.element, tuple(self.shapes[source] for source in node.sources)
        assert isinstance(element, Element)
        with at(name):
            output = element.output(*shapes)
            parameters, states = element.parameters(*shapes), element.state(*shapes)
        self.shapes[name] = output
        if owner == name:
            self.parameters |= {f"{name}.{short}": parameter for short, parameter in parameters.items()}
        self.states |= {f"{name}.{short}": state for short, state in states.items()}
        return Step(
            name,
            element,
            node.sources,
            shapes,
            output,
            {short: f"{owner}.{short}" for short in parameters},
            {short: f"{name}.{short}" for short in states},
        )

    def _check_indices(self) -> None:
        for step in self.steps:
            for source in step.sources:
                holds = source in self.indices
                if holds != step.element.takes_indices or (holds and source not in self.inputs):
                    wanted = "indices, which an input holds" if step.element.takes_indices else "numbers, not indices"
                    with at(step.name):
                        raise NetworkError(
                            f"got {source!r} to read, expected {wanted}",
                            element=step.element,
                            way_out="give it an input of its own",
                        )

    def _check_shared(self) -> None:
        for step in self.steps:
            for short, parameter in step.element.parameters(*step.shapes).items():
                owned = self.parameters.get(step.parameters[short])
                if owned is None or owned.shape != parameter.shape:
                    found = "that do not exist" if owned is None else f"of shape {owned.shape}"
                    with at(step.name):
                        raise ShapeError(
                            f"got shared weights {step.parameters[short]!r} {found}, "
                            f"expected {short} of shape {parameter.shape}",
                            element=step.element,
                            way_out="share with a node of the same element and the same number of input channels",
                        )

    def on_executor(self, executor: str) -> "Network":
        """The same network, run by another executor."""
        return Network(self.composite, self.inputs, executor)

    def initial(self, seed: int = 0, dtype: Any = np.float32) -> dict[str, Array]:
        """Parameters (and states) by name, drawn from the seed by each element's own rule.

        Raises: SettingError where the seed is no whole number from 0.
        """
        asked = self.parameters | self.states
        return {name: draw(asks.rule, asks.shape, asks.fans, seed, name).astype(dtype) for name, asks in asked.items()}

    def predict(self, params: Params, x: Any, run: Run = Run()) -> Any:
        """The output for x (batch, *axes, channels): an array, or a dictionary where there are several outputs.

        Raises: ShapeError, NetworkError where x or params do not fit the network.

        >>> from faltung.elements import Affine, ReLU
        >>> from faltung.network import Chain
        >>> net = Chain(dense=Affine(1), relu=ReLU()).on((2,))
        >>> params = {"dense.w": np.array([[1.0], [2.0]]), "dense.b": np.array([0.5])}
        >>> net.predict(params, np.array([[1.0, 3.0], [2.0, -3.0]])).tolist()
        [[7.5], [0.0]]
        """
        outputs = self.compute.predict(self, *self._admit(params, x), run)
        return outputs[self.outputs[0]] if len(self.outputs) == 1 else outputs

    def predictor(self, params: Params) -> Predictor:
        """The network with these parameters, made ready to predict often: ``predictor(x)`` is ``predict(params, x)``.

        The parameters are copied now, and what follows from them alone is computed once: weights lie as kernels read
        them, batch normalisations are folded into the weights before them, and 3x3 convolutions take fewer
        multiplications; results differ by rounding. For each size of x that comes, the predictor gets ready once. It
        serves any number of threads.
        Raises: NetworkError, SettingError where params do not fit; the predictor raises as ``predict``.

        >>> from faltung.elements import Affine, ReLU
        >>> from faltung.network import Chain
        >>> net = Chain(dense=Affine(1), relu=ReLU()).on((2,))
        >>> predictor = net.predictor({"dense.w": np.array([[1.0], [2.0]]), "dense.b": np.array([0.5])})
        >>> predictor(np.array([[1.0, 3.0], [2.0, -3.0]])).tolist()
        [[7.5], [0.0]]
        """
        return Predictor(self, params)

    def forward(self, params: Params, x: Any, run: Run = Run()) -> Forward:
        """Every value by name, and what ``backward`` will need. Raises: as ``predict``. Example: see ``backward``."""
        return self.compute.forward(self, *self._admit(params, x), run)

    def backward(
        self, params: Params, forward: Forward, dy: Any, *, keep: Keep = "all", per_example: bool = False
    ) -> Backward:
        """Error signals and gradients from the error signal dy at the output (or a dictionary of them, at any values).

        The cost is unknown here, and NaN.
        Raises: ShapeError where an error signal has not the shape of its value; NetworkError where there is no such.

        >>> from faltung.elements import Affine, ReLU
        >>> from faltung.network import Chain
        >>> net = Chain(dense=Affine(1), relu=ReLU()).on((2,))
        >>> params = {"dense.w": np.array([[1.0], [2.0]]), "dense.b": np.array([0.5])}
        >>> forward = net.forward(params, np.array([[1.0, 3.0], [2.0, -3.0]]))
        >>> {name: value.ravel().tolist() for name, value in forward.values.items()}
        {'x': [1.0, 3.0, 2.0, -3.0], 'dense': [7.5, -3.5], 'relu': [7.5, 0.0]}
        >>> back = net.backward(params, forward, np.array([[10.0], [20.0]]))
        >>> back.errors["x"].tolist(), back.gradients["dense.w"].tolist()
        ([[10.0, 20.0], [0.0, 0.0]], [[10.0], [30.0]])
        """
        errors = dict(dy) if isinstance(dy, Mapping) else {self._single("dy"): dy}
        self._known(errors)
        admit_params(params, self._owned)
        for name, error in errors.items():
            if np.shape(error) != forward.values[name].shape:
                problem = f"got an error signal of shape {np.shape(error)}, expected {forward.values[name].shape}"
                with at(name):
                    raise ShapeError(problem, element="error signal", way_out="give it the shape of the value")
            errors[name] = np.asarray(error, forward.values[name].dtype)
        return self.compute.backward(self, params, forward, errors, self._names(keep), per_example)

    def backpropagate(
        self,
        params: Params,
        x: Any,
        target: Any,
        *,
        cost: Cost | Mapping[str, Cost],
        weight: Any = None,
        run: Run = Run(training=True),
        keep: Keep = "all",
        per_example: bool = False,
    ) -> Backward:
        """The cost, every value, every error signal and every gradient, by name.

        ``x`` is (batch, *axes, channels), or a dictionary by input; ``target`` is what the cost compares with. Where
        several outputs have a cost, ``cost``, ``target`` and ``weight`` are dictionaries by output, and the costs add
        up. ``keep`` names the values and error signals to hand back; gradients come always, summed over the batch, or
        one for each example with ``per_example``. ``run`` is in training by default: dropout and batch statistics act.
        A value on which no cost depends has no error signal, and a parameter on which none does the gradient 0. Arrays
        may be those that were given, or each other: do not write into them.
        Raises: ShapeError, NetworkError, SettingError, DataError where arguments do not fit the network or the cost.
        Source: memo p. 7.

        >>> from faltung.elements import Affine, ReLU, SquaredError
        >>> from faltung.network import Chain
        >>> net = Chain(dense=Affine(1), relu=ReLU()).on((2,))
        >>> params = {"dense.w": np.array([[1.0], [2.0]]), "dense.b": np.array([0.5])}
        >>> x, target = np.array([[1.0, 3.0], [2.0, -3.0]]), np.array([[5.5], [0.0]])
        >>> back = net.backpropagate(params, x, target, cost=SquaredError())  # 1/2 (7.5 - 5.5)^2, over 2 examples
        >>> back.cost, back.errors["dense"].tolist(), back.gradients["dense.w"].tolist()
        (1.0, [[1.0], [0.0]], [[1.0], [3.0]])
        >>> each = net.backpropagate(params, x, target, cost=SquaredError(), per_example=True)
        >>> each.gradients["dense.w"].tolist()
        [[[1.0], [3.0]], [[0.0], [0.0]]]
        """
        goals = self._goals(cost, target, weight)
        params, inputs = self._admit(params, x)
        return self.compute.backpropagate(self, params, inputs, goals, run, self._names(keep), per_example)

    def train_step(
        self,
        params: Params,
        slots: Slots,
        x: Any,
        target: Any,
        *,
        cost: Cost | Mapping[str, Cost],
        optimiser: Optimiser,
        weight: Any = None,
        run: Run = Run(training=True),
    ) -> Trained:
        """One step of training: backpropagation, and then the optimiser's update.

        Arguments are those of ``backpropagate``; ``slots`` is what ``optimiser.slots(params)`` gives at first, and
        afterwards what the step before gave. ``run.step`` counts the updates made before. Nothing is changed in place.
        Raises: as ``backpropagate``.

        >>> from faltung.elements import Affine, SquaredError
        >>> from faltung.network import Chain
        >>> from faltung.training import SGD
        >>> net, sgd = Chain(dense=Affine(1)).on((2,)), SGD(0.1, momentum=0.5)
        >>> params = {"dense.w": np.array([[1.0], [2.0]]), "dense.b": np.array([0.5])}
        >>> x, target, slots = np.array([[1.0, 3.0]]), np.array([[5.5]]), sgd.slots(params)
        >>> for step in range(3):
        ...     run = Run(training=True, step=step)
        ...     done = net.train_step(params, slots, x, target, cost=SquaredError(), optimiser=sgd, run=run)
        ...     params, slots = done.params, done.slots
        ...     print(round(done.cost, 4), params["dense.w"].round(4).ravel().tolist())
        2.0 [0.8, 1.4]
        0.02 [0.72, 1.16]
        0.5832 [0.788, 1.364]
        """
        goals = self._goals(cost, target, weight)
        params, inputs = self._admit(params, x)
        return self.compute.train_step(self, params, slots, inputs, goals, run, optimiser)

    def _goals(self, cost: Any, target: Any, weight: Any) -> Goals:
        if not isinstance(cost, Mapping):
            output = self._single("cost")
            if isinstance(cost, Cost):
                return {output: (cost, np.asarray(target), weight)}
            cost, target, weight = {output: cost}, {output: target}, {output: weight}
        self._known(cost)
        return admit_goals(cost, target, weight)

    def _admit(self, params: Params, x: Any) -> tuple[Params, dict[str, Array]]:
        dtype = admit_params(params, self._owned)
        return params, admit_inputs(self.inputs, x, dtype, self.indices)

    def _names(self, keep: Keep) -> frozenset[str]:
        names = frozenset(self.shapes if keep == "all" else (keep,) if isinstance(keep, str) else keep)
        self._known(names)
        return names

    def _known(self, names: Iterable[str]) -> None:
        unknown = [name for name in names if name not in self.shapes]
        if unknown:
            raise NetworkError(
                f"got the names {unknown}, expected some of {list(self.shapes)}", way_out="see print(net)"
            )

    def _single(self, what: str) -> str:
        if len(self.outputs) != 1:
            raise NetworkError(
                f"got one {what}, expected a dictionary for some of the outputs {', '.join(self.outputs)}",
                way_out=f"write {what}={{{self.outputs[0]!r}: ...}}",
            )
        return self.outputs[0]

    def __repr__(self) -> str:
        if len(self.inputs) == 1:
            return f"{self.composite!r}.on({next(iter(self.inputs.values()))})"
        return f"{self.composite!r}.on({', '.join(f'{name}={shape}' for name, shape in self.inputs.items())})"

    def __str__(self) -> str:
        return table(self)


def _owners(nodes: Mapping[str, Node]) -> dict[str, str]:
    """Whose parameters each node uses: its own, or those at the end of the chain of ``weights``."""
    owners = {}
    for name in nodes:
        owner, passed = name, {name}
        while (weights := nodes[owner].weights) is not None:
            if weights not in nodes or weights in passed:
                with at(owner):
                    raise NetworkError(
                        f"got weights={weights!r}, expected the name of a node with weights of its own",
                        element=nodes[owner].element,
                        way_out="name the node that owns the weights",
                    )
            owner = weights
            passed.add(owner)
        owners[name] = owner
    return owners
