"""A WaveNet is composed as its settings say: names, sizes, conditions, files, and what is refused."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import faltung as ft
from faltung.check import gradient_check
from faltung.errors import DataError, ModelFileError, SettingError, ShapeError
from faltung.models.wavenet import SETTINGS, Context, Settings, WaveNet, find_settings, network
from faltung.network.table import receptive_fields
from wavenets import KINDS, TINY, arrays

every_kind = pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)


# The settings


def test_the_named_settings_are_those_of_their_sources():
    for name, layers, channels in (
        ("ibab", 50, (32, 32, 512, 512)),  # tensorflow-wavenet: 5 cycles of 1 .. 512
        ("nv", 16, (64, 64, 256, 256)),  # nv-wavenet: 16 layers, dilations to 128
    ):
        settings = SETTINGS[name]
        assert len(settings.dilations) == layers
        assert (settings.residual, settings.gate, settings.skip, settings.end) == channels
    assert SETTINGS["ibab"].receptive_field == 5117
    assert SETTINGS["nv"].receptive_field == 512
    assert max(SETTINGS["nv"].dilations) == 128
    assert SETTINGS["paper240"].milliseconds >= 240
    assert {settings.rate for settings in SETTINGS.values()} == {16_000}
    assert find_settings("small") is SETTINGS["small"]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_receptive_field_is_that_of_the_graph(name):
    _field_of_the_graph(SETTINGS[name])


@pytest.mark.parametrize(
    "settings",
    [
        TINY,
        replace(TINY, kernel=3),
        replace(TINY, input="scalar"),
        replace(TINY, condition=3),
        replace(TINY, context=Context((1, 2, 4), pool=6)),
        replace(TINY, context=Context((1,), kernel=3, pool=2)),
    ],
)
def test_and_so_it_is_for_other_kernels_and_contexts(settings):
    _field_of_the_graph(settings)


def _field_of_the_graph(settings: Settings) -> None:
    net = network(settings)
    (view,) = receptive_fields(net)[net.outputs[0]]
    assert not isinstance(view, str)
    assert view.size == settings.receptive_field
    assert view.of(10_000).stop == 10_001  # the sample itself, and none after it


# The network


def test_nodes_have_the_names_that_others_build_on():
    names = list(network(replace(TINY, dilations=(1, 2))).shapes)
    assert names == [
        *("x", "front.now", "front.past1", "front.padded1", "front.moved1", "front.sum"),
        *("gate1.conv", "gate1.gate", "skip1", "residual1", "sum1"),
        *("gate2.conv", "gate2.gate", "skip2", "skips2"),
        *("relu1", "end1", "relu2", "end2"),
    ]
    everything = network(KINDS["everything"])
    assert [name.removeprefix("gate2.") for name in everything.shapes if name.startswith("gate2.")] == [
        *("conv", "from_local", "from_context", "inside", "from_h", "offset", "gate")
    ]
    assert list(everything.inputs) == ["x", "speaker", "local"]


@every_kind
def test_it_gives_one_logit_a_class_after_each_sample_on_either_executor(settings):
    net, inputs = network(settings), arrays(settings, streams=2, samples=45)
    params = net.initial(seed=1)
    native, law = (net.on_executor(name).predict(params, inputs) for name in ("native", "reference"))
    assert native.shape == (2, 45, settings.classes)
    assert np.max(np.abs(native - law)) < 1e-5


@every_kind
def test_after_a_warm_up_the_logits_are_those_of_the_whole(settings):
    warmup = 7
    inputs = arrays(settings, streams=2, samples=30)
    params = network(settings).initial(seed=1)
    whole, rest = (network(settings, skipped).predict(params, inputs) for skipped in (0, warmup))
    assert network(settings, warmup).parameters == network(settings).parameters
    assert np.array_equal(rest, whole[:, warmup:])


def test_after_a_full_warm_up_nothing_before_the_window_matters():
    for settings in (TINY, replace(TINY, kernel=3), replace(TINY, input="scalar")):
        field = settings.receptive_field
        inputs = arrays(settings, streams=1, samples=2 * field + 9)
        params = network(settings).initial(seed=1, dtype=np.float64)
        whole = network(settings).predict(params, inputs)
        window = network(settings, field - 1).predict(params, inputs["x"][:, field + 2 :])
        assert window.shape[1] == 8
        assert np.allclose(window, whole[:, -8:], rtol=0, atol=1e-12)
        early = network(settings, field - 2).predict(params, inputs["x"][:, field + 2 :])
        assert not np.allclose(early[:, 0], whole[:, -9], rtol=0, atol=1e-9)  # one sample less, and zeros are seen


def test_the_front_is_the_convolution_of_one_hot_codes():
    for kernel in (2, 3):
        settings = replace(TINY, kernel=kernel)
        inputs = arrays(settings, streams=2, samples=9)
        params = network(settings).initial(seed=0)
        taps = [params[f"front.past{back}.w"] for back in range(kernel - 1, 0, -1)] + [params["front.now.w"]]
        conv = ft.Conv(settings.residual, kernel=kernel, padding="causal", bias=False)
        one_hot = np.eye(settings.classes, dtype=np.float32)[inputs["x"]]
        expected, _ = conv.forward({"w": np.stack(taps)}, one_hot)
        values = network(settings).forward(params, inputs).values
        assert np.allclose(values["front.sum"], expected, rtol=0, atol=1e-6)


@every_kind
def test_one_sample_is_enough(settings):
    inputs = arrays(settings, streams=1, samples=1)
    assert network(settings).predict(network(settings).initial(), inputs).shape == (1, 1, settings.classes)


@every_kind
def test_gradients_pass_the_check(settings):
    context = settings.context and replace(settings.context, dilations=(2,))
    settings = replace(settings, dilations=(1, 2), context=context)
    net, inputs = network(settings), arrays(settings, streams=2, samples=11)
    target = np.random.default_rng(1).integers(0, settings.classes, (2, 11))
    params = net.initial(seed=2, dtype=np.float64)
    report = gradient_check(net, params, inputs, target, cost=ft.CrossEntropy(), entries=3)
    assert report.passed(1e-6), report


def test_a_speaker_changes_every_logit_and_a_vector_of_zeros_none():
    settings = replace(TINY, condition=3)
    inputs = arrays(settings, streams=1, samples=20)
    params = network(settings).initial(seed=0)
    silent = {name: w for name, w in params.items() if "from_h" not in name}
    without = network(TINY).predict(silent, inputs["x"])
    assert np.allclose(network(settings).predict(params, inputs | {"h": np.zeros((1, 3))}), without, rtol=0, atol=1e-6)
    other = network(settings).predict(params, inputs)
    assert np.all(np.any(other != without, axis=-1))


def test_nearest_and_transposed_upsampling_last_as_long_as_their_frames():
    for upsampling in ("transposed", "nearest"):
        settings = replace(TINY, local=2, upsample=(2, 3, 5), upsampling=upsampling)
        assert settings.hop == 30
        net = network(settings)
        values = net.forward(net.initial(), arrays(settings, streams=1, samples=61)).values
        series = values["upsample.up3" if upsampling == "transposed" else "upsample.conv3"]
        assert series.shape == (1, 90, 2)
        assert np.array_equal(values["local_series"], series[:, :61])


# The model


def test_a_model_shows_its_dilations():
    text = str(WaveNet.initial(SETTINGS["nv"]))
    assert (
        "WaveNet: 16 layers, kernel 2, 757,184 parameters, receptive field 512 samples (32.0 ms at 16,000 Hz)" in text
    )
    assert "9-16  1 2 4 8 16 32 64 128           512  32.0" in text


@every_kind
def test_a_model_file_gives_back_the_model(settings, tmp_path):
    model = WaveNet(settings, network(settings).initial(seed=3), {"bits": 2.5})
    model.save(tmp_path / "speech.safetensors")
    again = WaveNet.load(tmp_path / "speech.safetensors")
    assert again.settings == settings
    assert again.about == {"bits": 2.5}
    assert all(np.array_equal(w, again.params[name]) for name, w in model.params.items())
    assert Settings.read(json.loads(json.dumps(settings.plain()))) == settings


def test_a_file_that_is_no_wavenet_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    net = ft.Chain(dense=ft.Affine(2)).on((3,))
    model = ft.Model(net, net.initial())
    model.save(path)
    with pytest.raises(ModelFileError, match=r"model.safetensors: got a model that is no WaveNet; make one with: falt"):
        WaveNet.load(path)
    ft.Model(net, net.initial(), {"wavenet": TINY.plain()}).save(path)
    with pytest.raises(ModelFileError, match=r"the file is damaged \(its parameters are not those of its settings\)"):
        WaveNet.load(path)
    for plain in ({}, [1, 2], {**TINY.plain(), "kernel": "two"}, {**TINY.plain(), "context": 3}):
        ft.Model(net, net.initial(), {"wavenet": plain}).save(path)
        with pytest.raises(ModelFileError, match=r"model.safetensors: the file is damaged \(got .*; take an undamaged"):
            WaveNet.load(path)
    with pytest.raises(ModelFileError, match="absent"):
        WaveNet.load(tmp_path / "absent")


# What is refused


def bad(change: dict[str, Any], message: str) -> Any:
    return pytest.param(change, message, id=", ".join(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        bad({"dilations": ()}, r"got dilations=\(\), expected a tuple of whole numbers of at least 1"),
        bad({"dilations": [1, 2]}, r"got dilations=\[1, 2\], expected a tuple"),
        bad({"dilations": (1, 0)}, "got dilations="),
        bad({"kernel": 1}, "got kernel=1, expected a whole number of at least 2"),
        bad({"residual": 0}, "got residual=0, expected a whole number of at least 1"),
        bad({"gate": 1.5}, "got gate=1.5, expected"),
        bad({"skip": None}, "got skip=None, expected"),
        bad({"end": 0}, "got end=0, expected"),
        bad({"rate": -1}, "got rate=-1, expected"),
        bad({"classes": 1}, "got classes=1, expected a whole number of at least 2"),
        bad({"input": "mel"}, "got input='mel', expected one of 'onehot', 'scalar'"),
        bad({"upsampling": "linear"}, "got upsampling='linear', expected one of 'transposed', 'nearest'"),
        bad({"condition": -1}, "got condition=-1, expected a whole number of at least 0"),
        bad({"speakers": 2}, "got condition=0, expected the channels of a speaker's vector, as there are speakers"),
        bad({"local": 3}, r"got upsample=\(\), expected a tuple of whole numbers of at least 1"),
        bad({"upsample": (2,)}, r"got upsample=\(2,\), expected \(\) where there is no local condition"),
        bad({"context": (1, 2)}, r"got context=\(1, 2\), expected a Context, or None"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(SettingError, match=f"WaveNet: {message}"):
        replace(TINY, **change)


def test_so_are_those_of_a_context():
    for change, message in (({"pool": 0}, "pool=0"), ({"kernel": 1}, "kernel=1"), ({"dilations": 3}, "dilations=3")):
        with pytest.raises(SettingError, match=f"Context: got {message}, expected"):
            replace(Context((1,), pool=2), **change)


def test_an_unknown_setting_is_refused():
    with pytest.raises(SettingError, match=r"WaveNet: got the setting 'large', expected one of small, ibab, nv, pap"):
        find_settings("large")


CODES = np.array([[3, 1, 2, 0, 5]])


@pytest.mark.parametrize(
    ("settings", "codes", "conditions", "error", "message"),
    [
        (
            {},
            CODES,
            {"h": [[1.0]]},
            SettingError,
            "got the conditions h, expected none; give those that it was trained",
        ),
        ({"local": 2, "upsample": (2,)}, CODES, {}, SettingError, "got the conditions none, expected local"),
        ({}, CODES[0], {}, ShapeError, r"got codes of shape \(5,\), expected \(streams, samples\); give codes\[None\]"),
        ({}, CODES + 20, {}, DataError, r"got code 23 at \(0, 0\), expected 0 to 15"),
        ({}, CODES / 2, {}, DataError, "got codes of float64, expected integers"),
        ({"condition": 3}, CODES, {"h": [[1.0, 2.0]]}, ShapeError, r"got h of shape \(1, 2\), expected \(1, 3\); give"),
        ({"condition": 2}, CODES, {"h": np.ones((2, 2))}, ShapeError, r"got h of shape \(2, 2\), expected \(1, 2\)"),
        (
            {"condition": 1},
            CODES,
            {"h": [[np.nan]]},
            DataError,
            r"got h nan at \(0, 0\), expected finite numbers; repair",
        ),
        ({"condition": 1}, CODES, {"h": [["a"]]}, DataError, "got h of <U1, expected numbers; convert it"),
        (
            {"local": 2, "upsample": (2,)},
            CODES,
            {"local": np.ones((1, 9, 3))},
            ShapeError,
            r"got local of shape \(1, 9, 3\), expected \(1, frames, 2\)",
        ),
        (
            {"local": 2, "upsample": (2,)},
            CODES,
            {"local": np.ones((1, 2, 2))},
            ShapeError,
            "got a local condition of 2 frames of 2 samples each, expected at least 3 frames for 5 samples; give more",
        ),
        ({"condition": 2, "speakers": 3}, CODES, {"speaker": [1.5]}, DataError, "got speaker of float64, expected num"),
        (
            {"condition": 2, "speakers": 3},
            CODES,
            {"speaker": [3]},
            DataError,
            r"got speaker 3 at \(0,\), expected 0 to 2",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(settings, codes, conditions, error, message):
    with pytest.raises(error, match=message):
        WaveNet.initial(replace(TINY, **settings)).inputs(codes, **conditions)
