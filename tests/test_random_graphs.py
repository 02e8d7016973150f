"""Random composites: every gradient and error signal is the slope of the cost, however it is asked for."""

from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from faltung.elements import ReLU, SquaredError
from faltung.network import Backward, Network
from sketches import assert_same, filled, random, sketches

BATCH = 2


def cost_of(net: Network, params: Any, x: Any, targets: Any) -> float:
    """The mean over the examples of the summed squared errors at all outputs, written down anew."""
    y = net.predict(params, x)
    y = y if isinstance(y, dict) else {net.outputs[0]: y}
    return sum(np.sum((y[name] - targets[name]) ** 2) / 2 / BATCH for name in net.outputs)


def backpropagated(net: Network, params: Any, x: Any, targets: Any, **more: Any) -> Backward:
    cost = dict.fromkeys(net.outputs, SquaredError())
    return net.backpropagate(params, x, targets, cost=cost, **more)


def targets_for(net: Network, x: Any, params: Any) -> dict[str, Any]:
    y = net.forward(params, x).values
    return {name: random(*y[name].shape, seed=n + 99) for n, name in enumerate(net.outputs)}


def assume_no_kink_is_near(net: Network, values: Any) -> None:
    """Neither a central difference nor float32 may carry the input of a rectifier over 0."""
    read = [step.sources[0] for step in net.steps if isinstance(step.element, ReLU)]
    assume(all(np.min(abs(values[name])) > 1e-3 for name in read))


def assert_slope(cost: Any, at: Any, slope: Any, seed: int, what: str) -> None:
    """Compare the derivative along a random direction with a central difference."""
    direction, step = random(*at.shape, seed=seed), 1e-5
    numeric = (cost(at + step * direction) - cost(at - step * direction)) / (2 * step)
    analytic = np.sum(slope * direction)
    assert abs(numeric - analytic) <= 1e-6 * max(1, abs(cost(at)), abs(numeric)), (what, numeric, analytic)


@settings(max_examples=50, deadline=None)
@given(sketches())
def test_every_gradient_is_the_slope_of_the_cost(sketch):
    net = sketch.network()
    params, x = filled(net), random(BATCH, *sketch.shape, seed=sketch.seed)
    targets = targets_for(net, x, params)
    back = backpropagated(net, params, x, targets)
    assume_no_kink_is_near(net, back.values)
    assert np.isclose(back.cost, cost_of(net, params, x, targets), rtol=1e-12)
    assert list(back.gradients) == list(net.parameters)
    for name, w in params.items():
        assert back.gradients[name].shape == w.shape
        assert_slope(
            lambda w, name=name: cost_of(net, params | {name: w}, x, targets), w, back.gradients[name], 5, name
        )


@settings(max_examples=50, deadline=None)
@given(sketches())
def test_every_error_signal_is_the_slope_of_the_cost(sketch):
    net = sketch.network()
    params, x = filled(net), random(BATCH, *sketch.shape, seed=sketch.seed)
    targets = targets_for(net, x, params)
    back = backpropagated(net, params, x, targets)
    assume_no_kink_is_near(net, back.values)
    assert set(back.errors) == set(back.values) == set(net.shapes)
    assert_slope(lambda x: cost_of(net, params, x, targets), x, back.errors["x"], 6, "x")
    for name in sketch.nodes:
        value = sketch.value(name)
        tapped = sketch.tapped(name)
        renamed = {full.replace(f"{name}.", f"{name}_raw.", 1) if full.startswith(f"{name}.") else full: w
                   for full, w in params.items()}  # fmt: skip
        goals = {name if output == value else output: target for output, target in targets.items()}
        assert_slope(
            lambda tap, net=tapped, params=renamed, goals=goals: cost_of(net, params, {"x": x, "tap": tap}, goals),
            np.zeros(back.values[value].shape),
            back.errors[value],
            7,
            value,
        )


@settings(max_examples=30, deadline=None)
@given(sketches(), st.sampled_from([np.float32, np.float64]))
def test_every_way_to_ask_gives_the_same_bits(sketch, dtype):
    net = sketch.network()
    params = {name: w.astype(dtype) for name, w in filled(net).items()}
    x = random(BATCH, *sketch.shape, seed=sketch.seed).astype(dtype)
    targets = targets_for(net, x, params)
    back = backpropagated(net, params, x, targets)
    assert_same(back, backpropagated(net, params, x, targets))

    forward = net.forward(params, x)
    assert all(np.array_equal(forward.values[name], back.values[name]) for name in net.shapes)
    y = net.predict(params, x)
    y = y if isinstance(y, dict) else {net.outputs[0]: y}
    assert list(y) == list(net.outputs)
    assert all(np.array_equal(y[name], back.values[name]) for name in net.outputs)

    lean = backpropagated(net, params, x, targets, keep=())
    assert (lean.cost, lean.values, lean.errors) == (back.cost, {}, {})
    assert all(np.array_equal(lean.gradients[name], back.gradients[name]) for name in net.parameters)

    every = [*back.values.values(), *back.errors.values(), *back.gradients.values()]
    assert {array.dtype for array in every} == {np.dtype(dtype)}


@settings(max_examples=30, deadline=None)
@given(sketches())
def test_float32_is_float64_to_its_precision(sketch):
    net = sketch.network()
    params, x = filled(net), random(BATCH, *sketch.shape, seed=sketch.seed)
    targets = targets_for(net, x, params)
    double = backpropagated(net, params, x, targets)
    assume_no_kink_is_near(net, double.values)
    single = backpropagated(net, {name: w.astype(np.float32) for name, w in params.items()}, x, targets)
    for name, dw in double.gradients.items():
        assert np.max(abs(single.gradients[name] - dw)) <= 1e-4 * max(1, np.max(abs(dw)), double.cost)
