"""WaveNets as programs: time is open, examples may be few and long."""

from typing import Any

import numpy as np
import pytest

from faltung.elements import CrossEntropy
from faltung.engine import networks as programs
from faltung.models.wavenet import network
from faltung.network import Network
from wavenets import KINDS, arrays


def plans_of(network: Network) -> list[Any]:
    return [known.plan for known in programs.plans._plans.get(network, {}).values()]


def assert_near(one: Any, other: Any) -> None:
    assert np.isclose(one.cost, other.cost, rtol=1e-5)
    for name, gradient in other.gradients.items():
        assert np.abs(one.gradients[name] - gradient).max() <= 2e-4 * np.abs(gradient).max(initial=1e-30), name


def given(kind: str, streams: int, samples: int, warmup: int) -> tuple[Any, ...]:
    settings = KINDS[kind]
    net = network(settings, warmup)
    params = net.initial(seed=3)
    x = {
        name: array.astype(np.float32) if array.dtype.kind == "f" else array
        for name, array in arrays(settings, streams=streams, samples=samples).items()
    }
    targets = np.random.default_rng(1).integers(0, settings.classes, (streams, samples - warmup))
    return net, params, x, targets


@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs_as_a_program_at_every_size(kind, warmup):
    for streams, samples in ((1, 30), (3, 41), (5, 30)):
        net, params, x, targets = given(kind, streams, samples, warmup)
        back = net.backpropagate(params, x, targets, cost=CrossEntropy(), keep=())
        law = net.on_executor("reference").backpropagate(params, x, targets, cost=CrossEntropy(), keep=())
        assert_near(back, law)
        assert plans_of(net)
        assert None not in plans_of(net)


def test_any_number_of_workers_gives_the_same_bits(monkeypatch):
    for streams, samples in ((1, 3000), (2, 1500)):
        net, params, x, targets = given("plain", streams, samples, 0)
        done = []
        for threads in (1, 2, 3, 8):
            monkeypatch.setenv("FALTUNG_THREADS", str(threads))
            done.append(net.backpropagate(params, x, targets, cost=CrossEntropy(), keep=()))
        for back in done[1:]:
            assert back.cost == done[0].cost
            for name, gradient in done[0].gradients.items():
                np.testing.assert_array_equal(back.gradients[name], gradient)
