"""The reverse loop: every value, error signal and gradient of any composite, and nothing left behind."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from faltung.elements import (
    Affine,
    BatchNorm,
    Conv,
    ConvTranspose,
    CrossEntropy,
    Dropout,
    Embedding,
    Flatten,
    GlobalPool,
    LayerNorm,
    MaxPool,
    MeanPool,
    Product,
    ReLU,
    Run,
    Sigmoid,
    SquaredError,
    Sum,
    Tanh,
)
from faltung.engine.host import arena
from faltung.network import Backward, Chain, Graph, Network, Node
from sketches import assert_same, filled, integers, random

# What meets at a value, and what does not


def test_error_signals_of_all_readers_add_up():
    net = Graph(
        a=Node(Conv(2, kernel=3, padding="same"), "x"),
        b=Node(Conv(2, kernel=3, padding="same"), "x"),
        twice=Node(Sum(), "x", "x"),
        s=Node(Sum(), "a", "b", "twice"),
    ).on((6, 2))
    params, x, dy = filled(net, integers), integers(3, 6, 2), integers(3, 6, 2, seed=1)
    errors = net.backward(params, net.forward(params, x), dy).errors
    alone = Chain(c=Conv(2, kernel=3, padding="same")).on((6, 2))
    shares = []
    for name in "ab":
        own = {"c.w": params[f"{name}.w"], "c.b": params[f"{name}.b"]}
        shares.append(alone.backward(own, alone.forward(own, x), dy).errors["x"])
    assert np.array_equal(errors["x"], shares[0] + shares[1] + 2 * dy)


def test_gradients_of_all_nodes_that_share_weights_add_up():
    conv = Conv(2, kernel=3, padding="same")
    net = Graph(a=Node(conv, "x"), b=Node(conv, "a", weights="a"), c=Node(conv, "b", weights="a")).on((6, 2))
    own = Chain(a=conv, b=conv, c=conv).on((6, 2))
    params, x, dy = filled(net, integers), integers(3, 6, 2), integers(3, 6, 2, seed=1)
    repeated = {f"{name}.{short}": params[f"a.{short}"] for name in "abc" for short in "wb"}
    shared = net.backward(params, net.forward(params, x), dy)
    single = own.backward(repeated, own.forward(repeated, x), dy)
    assert list(shared.gradients) == ["a.w", "a.b"]
    for short in "wb":
        together = sum(single.gradients[f"{name}.{short}"] for name in "abc")
        assert np.array_equal(shared.gradients[f"a.{short}"], together)


def two_heads():
    return Graph(
        body=Node(Conv(3, kernel=3), "x"),
        tanh=Node(Tanh(), "body"),
        pool=Node(GlobalPool("mean"), "tanh"),
        classes=Node(Affine(4), "pool"),
        map=Node(Conv(1, kernel=1), "tanh"),
    ).on((7, 2))


def test_costs_at_several_outputs_add_up():
    net = two_heads()
    params, x = filled(net), random(5, 7, 2)
    costs = {"classes": CrossEntropy(), "map": SquaredError()}
    targets = {"classes": np.array([0, 3, 1, 2, 2]), "map": random(5, 5, 1, seed=3)}
    both = net.backpropagate(params, x, targets, cost=costs)
    one, other = (net.backpropagate(params, x, targets, cost={name: costs[name]}) for name in costs)
    assert both.cost == one.cost + other.cost
    assert one.cost > 0 < other.cost
    for name in net.parameters:
        assert np.allclose(both.gradients[name], one.gradients[name] + other.gradients[name], rtol=1e-12, atol=1e-15)
    assert not one.gradients["map.w"].any()
    assert set(net.shapes) - set(one.errors) == {"map"}


def test_weights_of_examples_are_given_by_output():
    net = two_heads()
    params, x = filled(net), random(3, 7, 2)
    targets = {"classes": np.array([0, 3, 1]), "map": random(3, 5, 1, seed=3)}
    costs = {"classes": CrossEntropy(reduction="sum"), "map": SquaredError(reduction="sum")}
    weight = {"classes": np.array([1.0, 0.0, 0.0])}
    back = net.backpropagate(params, x, targets, cost=costs, weight=weight)
    assert not back.errors["classes"][1:].any()
    assert back.errors["map"].all()
    whole = net.backpropagate(params, x, targets, cost=costs)
    assert np.array_equal(back.errors["classes"][:1], whole.errors["classes"][:1])
    assert np.array_equal(back.errors["map"], whole.errors["map"])


def test_a_branch_that_no_output_reads_has_gradients_of_zero_and_no_error_signal():
    nodes = {"a": Node(Affine(2), "x"), "dead": Node(Affine(3), "a"), "b": Node(Tanh(), "a")}
    net = Graph(**nodes, outputs=["b"]).on((4,))
    params, x, target = filled(net), random(3, 4), random(3, 2)
    back = net.backpropagate(params, x, target, cost=SquaredError())
    assert list(back.gradients) == list(net.parameters)
    assert back.gradients["dead.w"].shape == (2, 3)
    assert not back.gradients["dead.w"].any()
    assert back.gradients["a.w"].all()
    assert "dead" in back.values
    assert "dead" not in back.errors
    each = net.backpropagate(params, x, target, cost=SquaredError(), per_example=True)
    assert each.gradients["dead.w"].shape == (3, 2, 3)
    live = Graph(a=nodes["a"], b=nodes["b"]).on((4,))
    assert np.array_equal(net.predict(params, x), live.predict(params, x))


# Asking


@pytest.mark.parametrize(
    ("keep", "names"),
    [("all", ["x", "a", "b", "c"]), ((), []), ("a", ["a"]), (["c", "x"], ["c", "x"]), ({"b"}, ["b"])],
)
def test_keep_says_which_values_and_error_signals_come_back(keep, names):
    net = Chain(a=Affine(3), b=Tanh(), c=Affine(2)).on((4,))
    params, x, target = filled(net), random(3, 4), random(3, 2)
    full = net.backpropagate(params, x, target, cost=SquaredError())
    back = net.backpropagate(params, x, target, cost=SquaredError(), keep=keep)
    assert set(back.values) == set(back.errors) == set(names)
    assert all(np.array_equal(back.values[name], full.values[name]) for name in names)
    assert all(np.array_equal(back.errors[name], full.errors[name]) for name in names)
    assert all(np.array_equal(back.gradients[name], full.gradients[name]) for name in net.parameters)


def test_the_way_back_may_begin_at_any_values():
    net = Chain(a=Affine(3), b=Affine(4), c=Affine(2)).on((5,))
    params, x = filled(net, integers), integers(3, 5)
    at_a, at_c = integers(3, 3, seed=1), integers(3, 2, seed=2)
    forward = net.forward(params, x)
    both = net.backward(params, forward, {"a": at_a, "c": at_c})
    assert np.isnan(both.cost)
    one, other = net.backward(params, forward, at_c), net.backward(params, forward, {"a": at_a})
    for name in net.parameters:
        assert np.array_equal(both.gradients[name], one.gradients[name] + other.gradients[name])
    assert np.array_equal(both.errors["a"], one.errors["a"] + at_a)
    assert not other.gradients["b.w"].any()
    assert np.array_equal(other.gradients["a.w"], x.T @ at_a)


def test_backpropagation_is_forward_then_the_costs_error_signal_then_backward():
    net = Chain(conv=Conv(3, kernel=3), sigm=Sigmoid(), pool=MeanPool(2), flat=Flatten(), out=Affine(4)).on((6, 6, 1))
    params, x, labels = filled(net), random(5, 6, 6, 1), np.array([0, 1, 2, 3, 0])
    cost = CrossEntropy()
    back = net.backpropagate(params, x, labels, cost=cost)
    forward = net.forward(params, x, Run(training=True))
    total, kept = cost.forward(forward.values["out"], labels)
    parts = net.backward(params, forward, cost.error(kept))
    assert np.isclose(back.cost, total, rtol=1e-13)
    assert all(np.allclose(back.errors[name], parts.errors[name], rtol=1e-12) for name in net.shapes)
    assert all(np.allclose(back.gradients[name], parts.gradients[name], rtol=1e-12) for name in net.parameters)


def test_the_error_signal_at_an_input_is_that_of_the_memo():
    net = Chain(affine=Affine(2), sigm=Sigmoid()).on((3,))
    params, x, y = filled(net), random(4, 3), random(4, 2, seed=1)
    back = net.backpropagate(params, x, y, cost=SquaredError(reduction="sum"))
    a, w = back.values["sigm"], params["affine.w"]
    delta_a = -(y - a)
    delta_z = delta_a * a * (1 - a)
    assert np.isclose(back.cost, 0.5 * np.sum((y - a) ** 2), rtol=1e-14)
    assert np.allclose(back.errors["sigm"], delta_a, rtol=1e-14)
    assert np.allclose(back.errors["affine"], delta_z, rtol=1e-14)
    assert np.allclose(back.errors["x"], delta_z @ w.T, rtol=1e-13)
    assert np.allclose(back.gradients["affine.w"], x.T @ delta_z, rtol=1e-13)
    assert np.allclose(back.gradients["affine.b"], delta_z.sum(0), rtol=1e-13)


# Per example


PER_EXAMPLE = {
    "convolutions": (
        Chain(Conv(3, kernel=3), ReLU(), MaxPool(2), ConvTranspose(2, kernel=2, stride=2), Flatten(), Affine(2)),
        (6, 6, 1),
    ),
    "normalisations": (
        Chain(Conv(3, kernel=3), LayerNorm(), Tanh(), BatchNorm(), LayerNorm(axes="all"), Flatten(), Affine(2)),
        (6, 1),
    ),
    "shared": (
        Graph(
            a=Node(Affine(4), "x"),
            b=Node(Tanh(), "a"),
            c=Node(Affine(4), "b", weights="a"),
            s=Node(Sum(), "c", "x"),
            out=Node(Affine(2), "s"),
        ),
        (4,),
    ),
}


@pytest.mark.parametrize("name", PER_EXAMPLE)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_per_example_add_up_to_the_whole_one(name, reduction):
    composite, shape = PER_EXAMPLE[name]
    net = composite.on(shape)
    params, x, target = filled(net), random(5, *shape), random(5, 2, seed=1)
    cost = SquaredError(reduction=reduction)
    for run in (Run(), Run(training=True)):
        whole = net.backpropagate(params, x, target, cost=cost, run=run)
        each = net.backpropagate(params, x, target, cost=cost, run=run, per_example=True)
        assert np.isclose(each.cost, whole.cost, rtol=1e-14)
        for full, dw in whole.gradients.items():
            assert each.gradients[full].shape == (5, *dw.shape)
            assert np.allclose(each.gradients[full].sum(0), dw, rtol=1e-11, atol=1e-12 * np.max(abs(dw)))


@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_the_gradient_of_an_example_is_that_of_a_batch_of_one(name):
    composite, shape = PER_EXAMPLE[name]
    net = composite.on(shape)
    params, x, target = filled(net), random(4, *shape), random(4, 2, seed=1)
    cost = SquaredError(reduction="sum")
    each = net.backpropagate(params, x, target, cost=cost, run=Run(), per_example=True)
    for n in range(4):
        alone = net.backpropagate(params, x[n : n + 1], target[n : n + 1], cost=cost, run=Run())
        for full, dw in alone.gradients.items():
            assert np.allclose(each.gradients[full][n], dw, rtol=1e-11, atol=1e-12 * np.max(abs(dw)))


def test_gradients_per_example_of_a_linear_network_are_exact():
    net = Chain(Embedding(5, 3), Conv(2, kernel=3, padding="same"), Flatten(), Affine(2)).on((6,))
    params = filled(net, integers)
    x = np.random.default_rng(0).integers(0, 5, (4, 6))
    dy = integers(4, 2, seed=1)
    each = net.backward(params, net.forward(params, x), dy, per_example=True).gradients
    for name, dw in net.backward(params, net.forward(params, x), dy).gradients.items():
        assert np.array_equal(each[name].sum(0), dw)
    for n in range(4):
        alone = net.backward(params, net.forward(params, x[n : n + 1]), dy[n : n + 1]).gradients
        assert all(np.array_equal(each[name][n], alone[name]) for name in alone)


# State, masks, threads, memory


def test_running_statistics_are_renewed_in_training_and_not_otherwise():
    net = Chain(Affine(3), norm=BatchNorm(momentum=0.5), out=Affine(2)).on((4,))
    params, x, target = net.initial(dtype=np.float64), random(6, 4), random(6, 2)
    before = {name: w.copy() for name, w in params.items()}
    back = net.backpropagate(params, x, target, cost=SquaredError())
    z = back.values["affine1"]
    assert list(back.state) == ["norm.mean", "norm.variance"]
    assert np.allclose(back.state["norm.mean"], 0.5 * z.mean(0), rtol=1e-12)
    assert np.allclose(back.state["norm.variance"], 0.5 + 0.5 * z.var(0, ddof=1), rtol=1e-12)
    assert all(np.array_equal(params[name], before[name]) for name in before)
    assert net.backpropagate(params, x, target, cost=SquaredError(), run=Run()).state == {}
    assert not set(net.states) & set(back.gradients)
    again = net.backpropagate(params | back.state, x, target, cost=SquaredError())
    assert not np.array_equal(again.state["norm.mean"], back.state["norm.mean"])


def test_nodes_that_share_the_weights_of_a_normalisation_have_statistics_of_their_own():
    net = Graph(a=Node(BatchNorm(), "x"), t=Node(Tanh(), "a"), b=Node(BatchNorm(), "t", weights="a")).on((3,))
    assert list(net.parameters) == ["a.scale", "a.shift"]
    assert list(net.states) == ["a.mean", "a.variance", "b.mean", "b.variance"]
    params = net.initial(dtype=np.float64)
    state = net.forward(params, random(4, 3) + 5, Run(training=True)).state
    assert not np.allclose(state["a.mean"], state["b.mean"])


def test_dropout_masks_are_the_same_however_the_batch_is_split():
    net = Chain(tanh=Tanh(), one=Dropout(0.5), two=Dropout(0.5)).on((20,))
    x = random(7, 20)
    whole = net.forward({}, x, Run(training=True, seed=3, step=9)).values
    for first, last in ((0, 2), (2, 3), (3, 7)):
        part = net.forward({}, x[first:last], Run(training=True, seed=3, step=9, first=first)).values
        assert all(np.array_equal(part[name], whole[name][first:last]) for name in whole)
    assert not np.array_equal(whole["one"] == 0, whole["two"] == 0)  # each node has a mask of its own
    assert np.allclose(net.predict({}, x), np.tanh(x), rtol=1e-14)


def small_network():
    return Graph(
        conv=Node(Conv(4, kernel=3), "x"),
        relu=Node(ReLU(), "conv"),
        again=Node(Conv(4, kernel=3, padding="same"), "relu"),
        gate=Node(Sigmoid(), "again"),
        gated=Node(Product(), "relu", "gate"),
        drop=Node(Dropout(0.3), "gated"),
        pool=Node(GlobalPool("mean"), "drop"),
        norm=Node(BatchNorm(), "pool"),
        out=Node(Affine(3), "norm"),
    ).on((None, None, 2))


def step_of(net: Network, params: Any, seed: int) -> Backward:
    """One step on a batch whose size and content the seed tells."""
    height, width, batch = 3 + seed % 5, 4 + seed % 3, 2 + seed % 4
    x, labels = random(batch, height, width, 2, seed=seed), np.arange(batch) % 3
    return net.backpropagate(params, x, labels, cost=CrossEntropy(), run=Run(training=True, seed=seed))


def test_one_network_serves_many_threads_and_sizes_with_the_same_bits():
    net = small_network()
    params = net.initial(seed=0)
    alone = [step_of(net, params, seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: step_of(net, params, seed), range(40)))
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


def test_nothing_is_written_into_what_is_given_and_nothing_stays_behind():
    net = small_network()
    params, x, labels = net.initial(seed=0), random(3, 6, 5, 2).astype(np.float32), np.array([0, 1, 2])
    weight = np.array([1.0, 0.5, 2.0])
    for array in (*params.values(), x, labels, weight):
        array.setflags(write=False)
    described = repr(net), str(net)

    def step() -> Backward:
        return net.backpropagate(params, x, labels, cost=CrossEntropy(), weight=weight)

    first = step()
    for part in (first.values, first.errors, first.gradients, first.state):
        for array in part.values():
            array.setflags(write=False)
    step_of(net, params, seed=4)
    net.predict(params, x)
    net.backward(params, net.forward(params, x), np.ones((3, 3), np.float32), per_example=True)
    assert_same(first, step())
    assert (repr(net), str(net)) == described


def peak_of(work: Any) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def idle_memory() -> list[Any]:
    """All blocks that the engine keeps for arrays to come, which would not be traced when they are lent."""
    held: list[Any] = []
    for number in range(arena.NUMBERS):
        while (array := arena.pool.lend(np.dtype(np.uint8), 1, arena.size(number))) is not None:
            held.append(array)
    return held


def test_memory_does_not_grow_with_depth_where_nobody_needs_the_values():
    held, size = idle_memory(), 1 << 17
    net = Chain(*[Tanh()] * 24).on((size,))
    x = random(1, size)
    assert peak_of(lambda: net.forward({}, x)) > 24 * x.nbytes
    assert peak_of(lambda: net.predict({}, x)) < 4 * x.nbytes
    branches = {f"n{n}": Node(Tanh(), "x") for n in range(24)}
    unread = Graph(**branches, outputs=["n0"]).on((size,))
    assert peak_of(lambda: unread.predict({}, x)) < 4 * x.nbytes

    forward, dy = net.forward({}, x), random(1, size)
    assert peak_of(lambda: net.backward({}, forward, dy)) > 24 * x.nbytes
    assert peak_of(lambda: net.backward({}, forward, dy, keep="x")) < 5 * x.nbytes
    del held
