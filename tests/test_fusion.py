"""Fusion: launches that become one give the same bits as one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emission import made_for
from faltung.elements import (
    ELU,
    Affine,
    BatchNorm,
    Conv,
    ConvTranspose,
    CrossEntropy,
    Flatten,
    GlobalPool,
    LayerNorm,
    LeakyReLU,
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
from faltung.engine.host.machine import NEEDS
from faltung.engine.programs import explain, plan
from faltung.models import find_recipe
from faltung.network import Chain, Graph, Network, Node
from sketches import assert_same, filled, random, sketches


@contextmanager
def without_fusion() -> Iterator[None]:
    fused, plan.fused = plan.fused, lambda launches, results: tuple(launches)
    try:
        yield
    finally:
        plan.fused = fused


def both_ways(network: Network, *arguments: Any, **settings: Any) -> Any:
    """Backpropagation by a program with fusion, after a check that it gives the bits of the one without."""
    with without_fusion():
        plain = network.on_executor("native").backpropagate(*arguments, **settings)
    back = network.backpropagate(*arguments, **settings)
    assert_same(back, plain)
    assert newest(network) is not None
    return back


def newest(network: Network) -> Any:
    return programs.plans.newest(network)


def calls(network: Network) -> list[tuple[str, str]]:
    """Node and kernel of all launches of the newest plan."""
    found = explain._jobs(newest(network).planned)
    return [(call.launch.node, call.launch.function.name) for _, _, calls, _ in found for call in calls]


def images(examples: int, *shape: int, dtype: Any = np.float32) -> tuple[Any, Any]:
    return random(examples, *shape).astype(dtype), np.arange(examples) % 3


def filled_as(network: Network, dtype: Any) -> dict[str, Any]:
    return {name: (0.3 * w).astype(dtype) for name, w in filled(network).items()}


def residual() -> Network:
    def block(channels: int, stride: int) -> Graph:
        conv = Conv(channels, kernel=3, stride=stride, padding=1, bias=False)
        return Graph(
            conv1=Node(conv, "x"), norm1=Node(BatchNorm(), "conv1"), relu1=Node(ReLU(), "norm1"),
            conv2=Node(Conv(channels, kernel=3, padding=1, bias=False), "relu1"), norm2=Node(BatchNorm(), "conv2"),
            project=Node(Conv(channels, kernel=1, stride=stride), "x"), norm3=Node(BatchNorm(), "project"),
            sum=Node(Sum(), "norm3", "norm2"), relu=Node(ReLU(), "sum"),
        )  # fmt: skip

    return Chain(
        conv=Conv(4, kernel=3, padding=1), norm=BatchNorm(), relu=ReLU(), block1=block(4, 1), block2=block(6, 2),
        pool=GlobalPool("mean"), dense=Affine(3),
    ).on((7, 6, 2))  # fmt: skip


NETWORKS = {
    "residual": residual(),
    "convolutions": Chain(
        conv1=Conv(20, kernel=3, padding=1), relu1=ReLU(), conv2=Conv(3, kernel=3, stride=2, padding=1), relu2=ReLU(),
        wide=Conv(17, kernel=(2, 3), padding=1), relu3=ReLU(), up=ConvTranspose(2, kernel=2, stride=2), relu4=ReLU(),
        each=Conv(4, kernel=3, groups=2), relu5=ReLU(), alone=Conv(4, kernel=3, groups=4, padding=1), relu6=ReLU(),
        point=Conv(5, kernel=1), relu7=ReLU(), flat=Flatten(), dense=Affine(3),
    ).on((9, 8, 3)),
    "poolings": Chain(
        conv1=Conv(5, kernel=3, padding=1), tanh=Tanh(), max=MaxPool(2), conv2=Conv(5, kernel=3), relu=ReLU(),
        mean=MeanPool(2, stride=1), norm=LayerNorm(), sigmoid=Sigmoid(), flat=Flatten(), dense=Affine(3),
    ).on((9, 8, 3)),
    "keeping x": Chain(
        conv1=Conv(5, kernel=3), elu=ELU(), conv2=Conv(4, kernel=3), leaky=LeakyReLU(), flat=Flatten(), dense=Affine(3)
    ).on((7, 6, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", NEEDS)
def test_the_same_bits_on_every_machine(name):
    dtype = np.float32 if name in ("avx512", "plain") else np.float64
    with made_for(name):
        for network in NETWORKS.values():
            check(network.on_executor("native"), dtype)


def check(network: Network, dtype: Any) -> None:
    """With fusion, without, and where all is kept, so that little can be fused: the same bits."""
    run, params = Run(training=True), filled_as(network, dtype)
    x, labels = images(19, *(size or 0 for size in network.shapes["x"]), dtype=dtype)
    back = both_ways(network, params, x, labels, cost=CrossEntropy(), keep=(), run=run)
    assert any(" + " in node for node, _ in calls(network))
    kept = network.backpropagate(params, x, labels, cost=CrossEntropy(), keep="all", run=run)
    assert kept.cost == back.cost
    assert all(np.array_equal(back.gradients[name], kept.gradients[name]) for name in kept.gradients)
    y = network.predict(params, x)
    with without_fusion():
        assert np.array_equal(y, network.on_executor("native").predict(params, x))


@pytest.mark.parametrize("recipe", ["ufldl", "lenet5", "allconv"])
def test_recipes_give_the_same_bits(recipe):
    network = find_recipe(recipe).compose(10).on((28, 28, 1))
    x, labels = images(21, 28, 28, 1)
    for keep in ((), "all"):
        both_ways(network, filled_as(network, np.float32), x, labels, cost=CrossEntropy(), keep=keep)


@settings(max_examples=25, deadline=None)
@given(sketches(), st.integers(1, 20), st.sampled_from([np.float32, np.float64]))
def test_random_graphs_give_the_same_bits(sketch, examples, dtype):
    network = sketch.network()
    x = random(examples, *sketch.shape, seed=sketch.seed).astype(dtype)
    targets = {name: random(examples, *network.shapes[name], seed=7).astype(dtype) for name in network.outputs}
    costs = dict.fromkeys(network.outputs, SquaredError())
    both_ways(network, filled_as(network, dtype), x, targets, cost=costs, keep=())


def test_what_is_fused():
    network = residual()
    x, labels = images(8, 7, 6, 2)
    run = Run(training=True)
    network.backpropagate(filled_as(network, np.float32), x, labels, cost=CrossEntropy(), keep=(), run=run)
    found = calls(network)
    assert ("norm + relu", "channelwise_elementwise") in found
    assert ("block1.norm3 + block1.sum + block1.relu", "channelwise_elementwise_elementwise") in found
    assert ("block1.conv2 + block1.relu1", "correlate_elementwise") in found  # its error, and the derivative behind it
    assert not any(node in ("relu", "block1.relu1", "block1.sum") for node, _ in found)
    planned = newest(network).planned
    assert "block1.sum" in explain.nodes(planned)
    assert explain.listing(planned, "block1.sum").startswith("channelwise_elementwise_elementwise(")


def test_what_the_caller_keeps_is_not_fused_away():
    network = Chain(conv=Conv(3, kernel=2), relu=ReLU(), flat=Flatten(), dense=Affine(3)).on((4, 5, 2))
    x, labels = images(8, 4, 5, 2)
    params = filled_as(network, np.float32)
    network.backpropagate(params, x, labels, cost=CrossEntropy(), keep=())
    assert ("conv + relu", "correlate_elementwise") in calls(network)
    back = network.backpropagate(params, x, labels, cost=CrossEntropy(), keep=("conv",))
    assert ("conv", "correlate") in calls(network)
    law = network.on_executor("reference").backpropagate(params, x, labels, cost=CrossEntropy(), keep=("conv",))
    for part in ("values", "errors"):
        np.testing.assert_allclose(getattr(back, part)["conv"], getattr(law, part)["conv"], rtol=1e-4, atol=1e-6)
