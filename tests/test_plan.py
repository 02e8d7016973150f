"""Programs: a network run without Python between its elements gives what its elements give one after the other."""

import gc
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import (
    Affine,
    BinaryCrossEntropy,
    Conv,
    Crop,
    CrossEntropy,
    Dropout,
    Flatten,
    Identity,
    MaxPool,
    MeanPool,
    ReLU,
    Run,
    Sigmoid,
    SquaredError,
    Sum,
    Tanh,
)
from faltung.engine import networks as programs
from faltung.engine.elements import Kernels
from faltung.engine.host import arena
from faltung.engine.host.compile import counters
from faltung.engine.host.recording import Buffer, Launch, recording
from faltung.engine.programs import plan, stages
from faltung.engine.programs.program import Call, Lists, Where, together
from faltung.models import find_recipe
from faltung.network import Chain, Graph, Network, Node
from faltung.network.layerwise import Layerwise
from faltung.training import SGD
from sketches import assert_same, filled, random, sketches

RECIPES = ("ufldl", "lenet5", "allconv")


def plans_of(network: Network) -> list[Any]:
    return [known.plan for known in programs.plans._plans.get(network, {}).values()]


def layerwise(network: Network) -> Network:
    """The same network, element by element on the same kernels."""
    other = network.on_executor("native")
    other.compute = Layerwise(Kernels())
    return other


def assert_near(one: Any, other: Any, tolerance: float) -> None:
    assert np.isclose(one.cost, other.cost, rtol=tolerance, atol=tolerance)
    for part in ("values", "errors", "gradients", "state"):
        a, b = getattr(one, part), getattr(other, part)
        assert list(a) == list(b)
        for name in a:
            assert a[name].shape == b[name].shape
            assert a[name].dtype == b[name].dtype
            scale = np.abs(b[name]).max(initial=1e-30)
            assert np.abs(a[name] - b[name]).max(initial=0) <= tolerance * scale, (part, name)


def small() -> Network:
    return Chain(
        conv=Conv(5, kernel=3, padding="same"), relu=ReLU(), pool=MaxPool(2), flat=Flatten(), dense=Affine(4)
    ).on((6, 7, 3))  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("examples", [1, 3, 4, 9, 23])
def test_recipes_run_as_programs(recipe, examples):
    network = find_recipe(recipe).compose(10).on((28, 28, 1))
    params = {name: w.astype(np.float32) for name, w in filled(network).items()}
    params = {name: 0.1 * w for name, w in params.items()}
    x = random(examples, 28, 28, 1).astype(np.float32)
    labels = np.arange(examples) % 10
    for keep in ((), "all", ("x",)):
        back = network.backpropagate(params, x, labels, cost=CrossEntropy(), keep=keep)
        law = network.on_executor("reference").backpropagate(params, x, labels, cost=CrossEntropy(), keep=keep)
        assert_near(back, law, 2e-4)
    np.testing.assert_allclose(
        network.predict(params, x), network.on_executor("reference").predict(params, x), rtol=1e-4, atol=1e-4
    )
    assert plans_of(network)
    assert None not in plans_of(network)


@settings(max_examples=40, deadline=None)
@given(sketches(), st.integers(1, 20), st.sampled_from([np.float32, np.float64]))
def test_random_graphs_give_what_their_elements_give(sketch, examples, dtype):
    network = sketch.network()
    params = {name: w.astype(dtype) for name, w in filled(network).items()}
    x = random(examples, *sketch.shape, seed=sketch.seed).astype(dtype)
    targets = {name: random(examples, *network.shapes[name], seed=7).astype(dtype) for name in network.outputs}
    costs = dict.fromkeys(network.outputs, SquaredError())
    one = network.backpropagate(params, x, targets, cost=costs)
    other = layerwise(network).backpropagate(params, x, targets, cost=costs)
    assert_near(one, other, 1e-5 if dtype == np.float32 else 1e-12)
    again = network.backpropagate(params, x, targets, cost=costs)
    assert_same(one, again)
    assert None not in plans_of(network)


@pytest.mark.parametrize("name", ["small", *RECIPES])
def test_an_examples_values_do_not_depend_on_the_batch_around_it(name):
    network = small() if name == "small" else find_recipe(name).compose(10).on((28, 28, 1))
    params = network.initial(1)
    x = random(23, *(size or 1 for size in network.inputs["x"])).astype(np.float32)
    whole = network.predict(params, x)
    for count in (1, 2, 3, 5, 8, 16):
        assert np.array_equal(network.predict(params, x[:count]), whole[:count]), count


@pytest.mark.parametrize(
    "cost", [SquaredError(), CrossEntropy(ignore=2), CrossEntropy(reduction="sum"), BinaryCrossEntropy()]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_costs_and_weights(cost, weighted):
    network = small()
    params, x = network.initial(2), random(11, 6, 7, 3).astype(np.float32)
    labels = np.arange(11) % 4
    target = labels if isinstance(cost, CrossEntropy) else np.eye(4, dtype=np.float32)[labels]
    weight = np.linspace(0, 2, 11) if weighted else None
    back = network.backpropagate(params, x, target, cost=cost, weight=weight)
    law = network.on_executor("reference").backpropagate(params, x, target, cost=cost, weight=weight)
    assert_near(back, law, 1e-5)


def test_dropout_draws_the_masks_of_the_definition():
    network = Chain(dense=Affine(40), drop=Dropout(0.4), out=Affine(3)).on((6,))
    params, x = network.initial(0, np.float64), random(13, 6)
    for run in (Run(training=True, seed=5, step=7), Run(training=True, seed=2**40 + 1, step=2**33), Run()):
        back = network.backpropagate(params, x, np.arange(13) % 3, cost=CrossEntropy(), run=run)
        law = network.on_executor("reference").backpropagate(params, x, np.arange(13) % 3, cost=CrossEntropy(), run=run)
        assert_near(back, law, 1e-12)
    assert len(plans_of(network)) == 2  # in training, and not


def test_several_outputs_inputs_and_shared_weights():
    graph = Graph(
        a=Node(Affine(5), "x"), b=Node(Affine(5), "y"), c=Node(Affine(5), "a", weights=None),
        s=Node(Sum(), "b", "c"), d=Node(Affine(5), "s"), e=Node(Affine(5), "d", weights="d"),
        left=Node(Sigmoid(), "e"), right=Node(ReLU(), "c"),
    )  # fmt: skip
    network = graph.on(x=(3,), y=(4,))
    params = {name: w.astype(np.float64) for name, w in filled(network).items()}
    x = {"x": random(9, 3), "y": random(9, 4, seed=1)}
    targets = {"left": random(9, 5, seed=2), "right": random(9, 5, seed=3)}
    costs = {"left": SquaredError(), "right": SquaredError(reduction="sum")}
    back = network.backpropagate(params, x, targets, cost=costs)
    assert_near(back, network.on_executor("reference").backpropagate(params, x, targets, cost=costs), 1e-12)
    assert None not in plans_of(network)


def test_parameters_without_influence_have_the_gradient_0():
    network = Graph(used=Node(Affine(2), "x"), unused=Node(Affine(2), "x"), outputs=["used", "unused"]).on((3,))
    back = network.backpropagate(
        network.initial(0), random(5, 3), {"used": random(5, 2)}, cost={"used": SquaredError()}
    )
    assert np.array_equal(back.gradients["unused.w"], np.zeros((3, 2)))


def test_the_shapes_of_parameters_are_checked_in_every_call():
    network, x = small(), random(5, 6, 7, 3).astype(np.float32)
    params = network.initial(0)
    network.predict(params, x)
    with pytest.raises(Exception, match=r"got w of shape \(3, 3, 3, 6\), expected \(3, 3, 3, 5\)"):
        network.predict(params | {"conv.w": np.zeros((3, 3, 3, 6), np.float32)}, x)


@pytest.mark.parametrize("examples", [1, 2, 9])
def test_values_that_are_parts_of_others(examples):
    x = random(examples, 4, 3).astype(np.float32)
    for network in (
        Chain(crop=Crop(1)).on((4, 3)), Chain(crop=Crop(1), tanh=Tanh()).on((4, 3)), Chain(same=Identity()).on((4, 3)),
        Chain(tanh=Tanh(), crop=Crop(1)).on((4, 3)), Chain(flat=Flatten()).on((4, 3)),
    ):  # fmt: skip
        assert np.allclose(network.predict({}, x), network.on_executor("reference").predict({}, x), atol=1e-6)
        target = random(examples, *(size or 1 for size in network.shapes[network.outputs[0]])).astype(np.float32)
        back = network.backpropagate({}, x, target, cost=SquaredError())
        assert_near(back, network.on_executor("reference").backpropagate({}, x, target, cost=SquaredError()), 1e-5)


def test_arrays_that_do_not_lie_side_by_side_are_copied():
    network = small()
    params, x = network.initial(0), random(5, 7, 6, 3).astype(np.float32).transpose(0, 2, 1, 3)
    turned = {name: np.asfortranarray(w) for name, w in params.items()}
    assert np.array_equal(network.predict(turned, x), network.predict(params, x.copy()))


def test_no_code_is_compiled_for_a_new_batch():
    network = Chain(conv=Conv(5, kernel=3), relu=ReLU(), pool=MeanPool(2), flat=Flatten(), dense=Affine(4)).on(
        (8, 8, 2)
    )
    params = network.initial(0)

    def step(examples: int) -> None:
        x, labels = random(examples, 8, 8, 2).astype(np.float32), np.zeros(examples, int)
        network.backpropagate(params, x, labels, cost=CrossEntropy(), keep=())

    step(64)
    step(1)
    before = counters.compiled + counters.loaded
    for examples in range(2, 52):
        step(examples)
    assert counters.compiled + counters.loaded == before


def test_a_thousand_steps_of_alternating_sizes_do_not_grow_memory():
    from faltung.engine.host import arena

    network = small()
    params = network.initial(0)
    batches = [(random(n, 6, 7, 3).astype(np.float32), np.zeros(n, int)) for n in (3, 8, 21)]

    def steps(count: int) -> None:
        for k in range(count):
            x, labels = batches[k % 3]
            network.backpropagate(params, x, labels, cost=CrossEntropy(), keep=())

    steps(30)
    before = arena.pool.idle_bytes + arena.pool.lent_bytes
    steps(1000)
    assert arena.pool.idle_bytes + arena.pool.lent_bytes <= before


def test_plans_are_forgotten_when_there_are_many_or_their_network_is_gone():
    network = Chain(dense=Affine(2)).on((3,))
    params = network.initial(0)
    for examples in range(1, plan.MOST + 5):
        network.predict(params, np.zeros((examples, 3), np.float32))
    assert len(plans_of(network)) == plan.MOST
    plans = programs.plans._plans
    count = len(plans)
    del network
    assert len(plans) == count - 1


def test_any_number_of_workers_gives_the_same_bits():
    script = """
import numpy as np, faltung as ft
from faltung.models import find_recipe
N = ft.Node
residual = ft.Graph(
    a=N(ft.Conv(6, kernel=3, padding="same"), "x"), n=N(ft.BatchNorm(), "a"), r=N(ft.ReLU(), "n"),
    o=N(ft.Dropout(0.4), "r"),
    b=N(ft.Conv(6, kernel=3, padding="same"), "o"), m=N(ft.LayerNorm(), "b"), s=N(ft.Sum(), "m", "a"),
    p=N(ft.GlobalPool("mean"), "s"), d=N(ft.Affine(10), "p"),
)
works = {name: find_recipe(name).compose(10).on((28, 28, 1)) for name in ("ufldl", "lenet5", "allconv")}
works["residual"] = residual.on((28, 28, 1))
for network in works.values():
    params, sgd = network.initial(3), ft.SGD(0.1, momentum=0.9)
    x = np.random.default_rng(0).normal(size=(37, 28, 28, 1)).astype(np.float32)
    back = network.backpropagate(params, x, np.arange(37) % 10, cost=ft.CrossEntropy())
    parts = back.gradients, back.errors, back.state
    print(back.cost.hex(), *(hash(a.tobytes()) for part in parts for a in part.values()))
    done = network.train_step(
        params, sgd.slots({name: params[name] for name in network.parameters}), x, np.arange(37) % 10,
        cost=ft.CrossEntropy(), optimiser=sgd)
    print(done.cost.hex(), *(hash(w.tobytes()) for w in done.params.values()))
    print(hash(network.predict(params, x).tobytes()))
"""
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "FALTUNG_THREADS": str(threads), "PYTHONHASHSEED": "0"},
            check=True, capture_output=True, text=True,
        ).stdout
        for threads in (1, 2, 3, 8)
    }  # fmt: skip
    assert len(said) == 1
    assert len(next(iter(said)).splitlines()) == 12


def test_a_program_keeps_all_machine_code_that_it_calls():
    from faltung.engine.host import compile, dispatch, perform, workers
    from faltung.engine.kernels import elementwise, launch

    network = small()
    params, x = network.initial(0), random(9, 6, 7, 3).astype(np.float32)
    before = network.predict(params, x)
    caches = perform.shims, perform.functions, compile._load, elementwise._compiled, launch.convolver
    for cached in (*caches, dispatch._code, dispatch._system, workers._sharing):
        cached.cache_clear()
    gc.collect()
    other = Chain(dense=Affine(3), tanh=Tanh()).on((5,))  # whose code may come to lie where the other's was
    other.predict(other.initial(0), random(9, 5).astype(np.float32))
    assert np.array_equal(network.predict(params, x), before)


# -------------------------------------------------------------------------------------------------------------- orders


def call(reads: str, writes: str) -> Call:
    """A call on memory of 8 bytes each, by one letter; those of capitals overlap with those of small letters."""

    def buffer(letter: str) -> Buffer:
        return Buffer(ord(letter), 8, "memory", letter, np.dtype(np.float64), None)

    launch = Launch(None, (), 1, 1.0, 0, "", tuple(map(buffer, reads)), tuple(map(buffer, writes)))
    return Call(launch, lambda buffer: Where(":area", 8 * ord(buffer.name.lower()) + 4 * buffer.name.isupper()))


@pytest.mark.parametrize(
    ("calls", "groups"),
    [
        ("a>b a>c", [2]),
        ("a>b b>c", [1, 1]),  # reads what was written
        ("a>b c>a", [1, 1]),  # writes what is still read
        ("a>b c>b", [1, 1]),  # writes the same
        ("a>b d>e b>f d>g", [2, 2]),
        ("a>c b>e C>g", [2, 1]),  # a part of it
        ("a>b | a>c d>e", [1, 0, 2]),
    ],
)
def test_calls_that_follow_one_another_are_one_job_where_none_writes_what_another_touches(calls, groups):
    lists = Lists({}, 0, 1, 1)
    jobs = together(lists if text == "|" else call(*text.split(">")) for text in calls.split())
    assert [0 if isinstance(job, Lists) else len(job) for job in jobs] == groups


def test_all_parameters_are_updated_in_one_job():
    network = small()
    optimiser, params = SGD(0.1), network.initial(0)
    x, labels = random(9, 6, 7, 3).astype(np.float32), np.arange(9) % 4
    network.train_step(params, optimiser.slots(params), x, labels, cost=CrossEntropy(), optimiser=optimiser)
    found = programs.plans.newest(network)
    assert found is not None
    last = found.planned.jobs[-1]
    assert not isinstance(last, Lists)
    assert [call.launch.node for call in last] == list(network.parameters)


def recorded(examples: int) -> stages.Recorded:
    network = small()
    functions = programs.Recording()
    with recording(sliced=True) as recorder:
        x = {"x": recorder.array((examples, 6, 7, 3), np.float32, "input", "x")}
        params = {
            name: recorder.array(w.shape, np.float32, "parameter", name) for name, w in network.initial(0).items()
        }
        y = Layerwise(functions).predict(network, params, x, Run())["dense"]
    return stages.Recorded(examples, recorder.launches, {"value:dense": recorder.place(y)})


def test_what_is_used_at_the_same_time_never_overlaps():
    launches = recorded(3).launches
    places, size = stages.packed(launches, ())
    spans: dict[int, list[int]] = {}
    for number, launch in enumerate(launches):
        for buffer in (*launch.reads, *launch.writes):
            if buffer.address in places:
                spans.setdefault(buffer.address, []).append(number)
    sizes = {b.address: b.size for launch in launches for b in launch.writes}
    for a in spans:
        assert places[a] + sizes[a] <= size
        for b in spans:
            if a < b and spans[a][0] <= spans[b][-1] and spans[b][0] <= spans[a][-1]:
                assert places[a] + sizes[a] <= places[b] or places[b] + sizes[b] <= places[a]


def test_weights_are_packed_once_and_examples_go_deep():
    order = stages.order(recorded(2).launches)
    assert [len(stage) for stage in order.once] == [2]
    assert [len(stage) for stage in order.deep] == [4]


def test_flat_and_deep_give_the_same():
    network = small()
    params, x = network.initial(0), random(10, 6, 7, 3).astype(np.float32)
    whole = recorded(10)
    results = []
    for planned in (
        stages.flat(whole), stages.deep([recorded(10)], 10, 10), stages.deep([recorded(4), recorded(2)], 10, 4),
        stages.deep([recorded(2), recorded(1)], 10, 3),
    ):  # fmt: skip
        y = np.full((10, 4), np.nan, np.float32)
        arrays = {name: np.zeros(size, np.uint8) for name, size in planned.arrays.items()}
        given = arrays | params | {"x": x, "value:dense": y}
        planned.program.run({name: arena.address(array) for name, array in given.items()}, None)
        results.append(y)
    assert all(np.array_equal(y, network.predict(params, x)) for y in results)
