"""The ends of networks in strips: a few positions at a time, forward and back, where examples are few and long."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import faltung as ft
from faltung.elements import Affine, Conv, CrossEntropy, Gate, GlobalPool, MaxPool, ReLU, SquaredError, Sum, Tanh
from faltung.elements.element import Run
from faltung.engine import networks as programs
from faltung.engine import strips
from faltung.engine.host.machine import host
from faltung.engine.programs.program import Lists
from faltung.engine.programs.remake import needed
from faltung.models.wavenet import network
from faltung.network import Chain, Graph, Network, Node
from wavenets import KINDS, arrays


def given(kind: str, streams: int, samples: int, warmup: int, dtype: Any = np.float32) -> tuple[Any, ...]:
    settings = KINDS[kind]
    net = network(settings, warmup)
    x = {
        name: array.astype(dtype) if array.dtype.kind == "f" else array
        for name, array in arrays(settings, streams=streams, samples=samples).items()
    }
    targets = np.random.default_rng(1).integers(0, settings.classes, (streams, samples - warmup))
    return net, net.initial(seed=3, dtype=dtype), x, targets


def lists(net: Network) -> list[Lists]:
    """What the newest plan does deep."""
    plan = programs.plans.newest(net)
    assert plan is not None
    return [job for job in plan.planned.jobs if isinstance(job, Lists)]


def names(part: strips.Part) -> list[str]:
    return [step.name for step in part.steps]


@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize("kind", ["plain", "scalar", "everything"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wavenets_compute_the_same_in_strips(kind, warmup, dtype, monkeypatch):
    monkeypatch.setattr(strips, "POSITIONS", 20)
    for streams, samples in ((1, 61), (3, 30)):
        net, params, x, targets = given(kind, streams, samples, warmup, dtype)
        weight = np.random.default_rng(2).random(targets.shape)
        for weights in (None, weight):
            back = net.backpropagate(params, x, targets, cost=CrossEntropy(), weight=weights, keep=())
            assert len(lists(net)) == 1
            law = net.on_executor("reference").backpropagate(
                params, x, targets, cost=CrossEntropy(), weight=weights, keep=()
            )
            assert np.isclose(back.cost, law.cost, rtol=1e-6)
            assert list(back.gradients) == list(law.gradients)
            for name, gradient in law.gradients.items():
                error = np.abs(back.gradients[name] - gradient).max()
                assert error <= (2e-4 if dtype == np.float32 else 1e-11) * np.abs(gradient).max(initial=1e-30), name


def test_any_number_of_workers_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr(strips, "host", lambda: replace(host(), l2=32 << 10))
    net, params, x, targets = given("plain", 1, 6000, 0)
    done = []
    for threads in (1, 2, 3, 8):
        monkeypatch.setenv("FALTUNG_THREADS", str(threads))
        done.append(net.backpropagate(params, x, targets, cost=CrossEntropy(), keep=()))
    [deep] = lists(net)
    assert deep.slices == 8
    assert deep.together < deep.share
    for back in done[1:]:
        assert back.cost == done[0].cost
        for name, gradient in done[0].gradients.items():
            np.testing.assert_array_equal(back.gradients[name], gradient)


def test_steps_of_training_agree_with_those_of_the_definition():
    net, params, x, targets = given("plain", 1, 2500, 0)
    adam = ft.Adam(1e-2)
    done = []
    for executor in ("native", "reference"):
        other, own, slots = net.on_executor(executor), params, adam.slots(params)
        trained = None
        for step in range(3):
            trained = other.train_step(
                own, slots, x, targets, cost=CrossEntropy(), optimiser=adam, run=Run(training=True, step=step)
            )
            own, slots = trained.params, trained.slots
        assert trained is not None
        done.append((trained.cost, own))
        if executor == "native":
            assert lists(other)
    assert np.isclose(done[0][0], done[1][0], rtol=1e-4)
    for name, w in done[1][1].items():
        np.testing.assert_allclose(done[0][1][name], w, atol=2e-3)


def test_values_that_are_asked_for_are_all_there(monkeypatch):
    monkeypatch.setattr(strips, "POSITIONS", 20)
    net, params, x, targets = given("plain", 1, 50, 0)
    back = net.backpropagate(params, x, targets, cost=CrossEntropy(), keep=("skips5", "skip3"))
    assert {*back.values} == {*back.errors} == {"skip3", "skips5"}
    assert not lists(net)


def test_the_end_of_a_wavenet_is_its_skips_and_what_follows():
    net = network(KINDS["plain"])
    found = strips.split(net, CrossEntropy())
    assert found is not None
    assert found.through == "skips5"
    assert [name for name in names(found.end) if name.startswith("gate")] == [f"gate{n}.gate" for n in range(1, 6)]
    assert names(found.end)[-5:] == ["skips5", "relu1", "end1", "relu2", "end2"]
    assert found.end.inputs == tuple(f"gate{n}.conv" for n in range(1, 6))
    assert "residual1" not in names(found.end)
    assert "residual1" in names(found.start)
    assert found.start.outputs == ("skips5",)
    assert {"skip1", "skips5"} <= {*names(found.start)}
    assert "end1" not in names(found.start)


def ends(count: int) -> dict[str, Any]:
    return {f"end{n}": Conv(4, kernel=1) for n in range(count)}


@pytest.mark.parametrize(
    "net",
    [
        Chain(conv=Conv(4, kernel=3)).on((None, 2)),  # sees several positions
        Chain(conv=Conv(4, kernel=3), end=Conv(4, kernel=1)).on((None, 2)),  # one convolution is not worth it
        Chain(**ends(2), pool=GlobalPool("mean"), dense=Affine(3)).on((None, 2)),  # the end sees all positions
        Chain(**ends(2), pool=MaxPool(2)).on((None, 2)),
        Graph(
            a=Node(Conv(2, kernel=1), "x"), b=Node(Conv(2, kernel=3, padding="same"), "a"),
            c=Node(Conv(2, kernel=1), "b", weights="a"), d=Node(Conv(2, kernel=1), "c"),
        ).on((9, 2)),  # weights are shared with what is before
    ],
)  # fmt: skip
def test_networks_without_such_an_end_are_left_whole(net):
    assert strips.split(net, CrossEntropy()) is None


def test_other_costs_are_left_whole():
    assert strips.split(network(KINDS["plain"]), SquaredError()) is None


def test_an_end_goes_through_the_first_value_that_all_of_it_needs():
    net = Graph(
        a=Node(Conv(4, kernel=3, padding="same"), "x"),
        b=Node(Conv(4, kernel=1), "a"), c=Node(Tanh(), "b"), d=Node(Conv(4, kernel=1), "a"),
        sum=Node(Sum(), "c", "d"), e=Node(Conv(2, kernel=1), "sum"), f=Node(ReLU(), "e"),
    ).on((None, 2))  # fmt: skip
    found = strips.split(net, CrossEntropy())
    assert found is not None
    assert found.through == "sum"
    assert names(found.end) == ["b", "c", "d", "sum", "e", "f"]
    assert names(found.start) == ["a", "b", "c", "d", "sum"]
    assert set(found.start.parameters) == {f"{node}.{end}" for node in "abd" for end in "wb"}


def test_a_network_that_is_all_end_works(monkeypatch):
    monkeypatch.setattr(strips, "POSITIONS", 20)
    net = Chain(one=Conv(8, kernel=1), gate=Gate(), two=Conv(3, kernel=1)).on((None, 5))
    params, x = net.initial(), np.random.default_rng(0).normal(size=(2, 300, 5)).astype(np.float32)
    labels = np.arange(600).reshape(2, 300) % 3
    back = net.backpropagate(params, x, labels, cost=CrossEntropy(), keep=())
    law = net.on_executor("reference").backpropagate(params, x, labels, cost=CrossEntropy(), keep=())
    assert lists(net)
    for name, gradient in law.gradients.items():
        np.testing.assert_allclose(back.gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_what_is_never_read_is_not_done():
    class Fake:
        def __init__(self, reads: str, writes: str):
            self.reads, self.writes = [*map(Address, reads)], [*map(Address, writes)]

    class Address:
        def __init__(self, address: str):
            self.address, self.buffer = address, self

    launches: Any = [Fake("x", "a"), Fake("a", "b"), Fake("x", "c"), Fake("c", "d")]
    results: Any = [Address("b")]
    assert needed(launches, results) == launches[:2]
