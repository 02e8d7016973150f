"""No output of a WaveNet knows of a later sample: by values and by error signals, for all settings and conditions."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

import faltung as ft
from faltung.errors import ShapeError
from faltung.models.wavenet import SETTINGS, Causality, Context, Settings, WaveNet, causality, network
from wavenets import KINDS, TINY, arrays

NARROW = {"residual": 2, "gate": 2, "skip": 2, "end": 2, "classes": 4}
CONDITIONS = {
    "alone": {},
    "conditioned": {"condition": 2, "local": 2, "upsample": (8, 10)},
    "in context": {"context": Context((1, 2, 4, 8), pool=50, residual=2, gate=2, skip=2)},
}


def alive(settings: Settings) -> WaveNet:
    """A model whose ReLUs all pass what they get, so that whatever can be seen is seen."""
    params = network(settings).initial(seed=0, dtype=np.float64)
    speaking = {"skip1.b", "end1.b", "context.skip1.b"} & params.keys()
    return WaveNet(settings, params | {name: params[name] + 9 for name in speaking})


def proof(settings: Settings, samples: int, at: Iterable[int] | None = None) -> Causality:
    inputs = arrays(settings, streams=1, samples=samples)
    codes = np.random.default_rng(0).integers(0, settings.classes, (1, samples))
    conditions = {name: array for name, array in inputs.items() if name != "x"}
    return causality(alive(settings), codes, at, **conditions)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_every_sample_of_small_networks_of_every_kind(settings):
    samples = settings.receptive_field + 9
    found = proof(settings, samples)
    assert found.holds
    assert list(found.changed) == list(found.reached) == list(range(samples))
    for t in range(samples):
        first = t - settings.receptive_field + 1
        assert found.changed[t] == range(t, min(t + settings.receptive_field, samples)) or settings.context
        assert found.reached[t] == range(max(first, 0), t + 1) or settings.context
        assert (found.changed[t].start, found.reached[t].stop) == (t, t + 1)
        assert found.reached[t].start >= first
    if settings.context:  # so far it sees at most, where a frame has just begun
        assert any(found.reached[t].start == t - settings.receptive_field + 1 for t in range(samples))


@pytest.mark.parametrize("conditions", CONDITIONS.values(), ids=CONDITIONS)
@pytest.mark.parametrize("name", SETTINGS)
def test_all_named_settings_with_and_without_conditions(name, conditions):
    settings = replace(SETTINGS[name], **NARROW, **conditions)
    field = SETTINGS[name].receptive_field
    samples = field + 20
    at = [0, 49, field - 1, samples - 1]
    found = proof(settings, samples, at)
    assert found.holds
    assert all((found.changed[t].start, found.reached[t].stop) == (t, t + 1) for t in at)
    if settings.context is None:
        assert [found.reached[t].start for t in at] == [max(t - field + 1, 0) for t in at]


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
@pytest.mark.parametrize("upsample", [(6,), (2, 3), (5, 2, 3)])
def test_the_frames_that_are_looked_at_are_those_that_the_settings_name(upsampling, upsample):
    settings = replace(TINY, local=2, upsample=upsample, upsampling=upsampling)
    samples = 6 * settings.hop + 1
    at = range(0, samples, max(settings.hop // 6, 1))
    found = proof(settings, samples, at)
    for t in at:
        named = settings.frames(t)
        assert found.frames[t] == range(max(named.start, 0), min(named.stop, 7))
        assert named.stop <= t // settings.hop + 3


def test_what_looks_ahead_is_seen(monkeypatch):
    model = alive(TINY)
    nodes = dict(model.network.composite.nodes)
    gate = nodes["gate1"].element
    assert isinstance(gate, ft.Graph)
    ahead = ft.Node(ft.Conv(2 * TINY.gate, kernel=2, padding=(0, 1)), "x")
    nodes["gate1"] = ft.Node(ft.Graph(conv=ahead, gate=gate.nodes["gate"]), "front")
    monkeypatch.setitem(vars(model), "network", ft.Graph(outputs=None, **nodes).on((None,)))
    found = causality(model, np.arange(12)[None])
    assert not found.holds
    assert found.changed[5].start == 4
    assert found.reached[5].stop == 7


def test_either_way_of_seeing_it_is_enough():
    assert Causality({3: range(3, 5)}, {3: range(1, 4)}, {}).holds
    assert Causality({3: range(0)}, {3: range(0)}, {}).holds
    assert not Causality({3: range(2, 5)}, {3: range(1, 4)}, {}).holds
    assert not Causality({3: range(3, 5)}, {3: range(1, 5)}, {}).holds


@pytest.mark.parametrize(("codes", "at"), [(np.zeros((2, 5), int), None), (np.zeros((1, 5), int), [5]), ([[1]], [])])
def test_it_wants_one_stream_and_places_in_it(codes, at):
    with pytest.raises(ShapeError, match=r"causality: got . streams of . samples, and places .*, expected one stream"):
        causality(WaveNet.initial(TINY), codes, at)


def test_a_prediction_never_knows_what_it_predicts():
    """In the words of training: the logits that stand beside the target x[t + 1] do not change with it."""
    settings = Settings((1, 2, 4), residual=4, gate=4, skip=4, classes=8)
    model = WaveNet.initial(settings)
    codes = np.random.default_rng(0).integers(0, 8, (1, 20))
    for t in range(19):
        other = codes.copy()
        other[0, t + 1] = (codes[0, t + 1] + 3) % 8
        assert np.array_equal(model.logits(other)[0, : t + 1], model.logits(codes)[0, : t + 1])
