"""Values that are made again: less memory, and the same bits."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements import Affine, Conv, CrossEntropy, Dropout, Gate, SquaredError
from faltung.engine import networks as programs
from faltung.engine.programs import plan, remake
from faltung.network import Chain, Network
from sketches import assert_same, filled, random, sketches


@pytest.fixture
def everything_flat(monkeypatch):
    monkeypatch.setattr(plan, "FEW", 1000)


def both_ways(network: Network, *arguments: Any, **goal: Any) -> list[Any]:
    """The plans without and with values that are made again, after a check that they give the same bits."""
    found = []
    for much in (1 << 62, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(remake, "MUCH", much)
            other = network.on_executor("native")
            found.append((other, other.backpropagate(*arguments, **goal, keep=())))
    (plain, one), (sparing, two) = found
    assert_same(one, two)
    return [programs.plans.newest(other) for other in (plain, sparing)]


def gates(layers: int) -> Network:
    parts = {}
    for n in range(layers):
        parts |= {f"conv{n}": Conv(16, kernel=2, padding="causal"), f"gate{n}": Gate()}
    return Chain(**parts, last=Conv(3, kernel=1)).on((None, 8))


def calls(found: Any, name: str) -> list[Any]:
    return [call for calls in found.planned.jobs for call in calls if name in call.launch.function.name]


@settings(max_examples=15, deadline=None)
@given(sketch=sketches(), examples=st.integers(1, 5), dtype=st.sampled_from([np.float32, np.float64]))
def test_random_graphs_have_the_same_bits(sketch, examples, dtype):
    network = sketch.network()
    params = {name: w.astype(dtype) for name, w in filled(network).items()}
    x = random(examples, *sketch.shape, seed=sketch.seed).astype(dtype)
    targets = {name: random(examples, *network.shapes[name], seed=7).astype(dtype) for name in network.outputs}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "FEW", 1000)
        plain, sparing = both_ways(network, params, x, targets, cost=dict.fromkeys(network.outputs, SquaredError()))
    assert sparing.planned.arrays[":area"] <= plain.planned.arrays[":area"]


def test_gates_are_made_again_on_the_way_back_and_take_no_memory_until_then(everything_flat):
    network = gates(6)
    params, x = network.initial(), random(2, 500, 8).astype(np.float32)
    labels = np.arange(1000).reshape(2, 500) % 3
    plain, sparing = both_ways(network, params, x, labels, cost=CrossEntropy())
    assert len(calls(plain, "gated")) == 6 + 6  # "ungated", too
    assert len(calls(sparing, "gated")) > 6 + 6
    values = 2 * 500 * 8 * 4
    assert sparing.planned.arrays[":area"] <= plain.planned.arrays[":area"] - 3 * values


def test_what_is_small_or_expensive_is_kept(everything_flat):
    network = gates(6)
    params, x = network.initial(), random(2, 50, 8).astype(np.float32)
    labels = np.arange(100).reshape(2, 50) % 3
    network.backpropagate(params, x, labels, cost=CrossEntropy(), keep=())
    assert len(calls(programs.plans.newest(network), "gated")) == 6 + 6
    plain, sparing = both_ways(network, params, x, labels, cost=CrossEntropy())
    assert len(calls(plain, "correlate")) == len(calls(sparing, "correlate"))


def test_random_numbers_are_drawn_again_alike(everything_flat):
    network = Chain(dense=Affine(9), drop=Dropout(0.5), gate=Affine(8), again=Gate(), last=Affine(3)).on((50, 7))
    params, x = filled(network), random(3, 50, 7)
    labels = np.arange(150).reshape(3, 50) % 3
    both_ways(network, params, x, labels, cost=CrossEntropy())
