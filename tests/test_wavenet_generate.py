"""A WaveNet step by step is the same model: the logits of the full forward, in every setting; and what it draws."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from differences import assert_close
from faltung.errors import DataError, NonFiniteError, SettingError, ShapeError
from faltung.models.wavenet import SETTINGS, Settings, WaveNet, encode
from faltung.models.wavenet.generate import expected, generate
from faltung.models.wavenet.stepwise import MATRICES
from wavenets import KINDS, TINY, arrays

every_kind = pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
executors = pytest.mark.parametrize("executor", ["native", "reference"])


def model_of(settings: Settings, dtype: Any = np.float32) -> WaveNet:
    """A model whose biases are not 0."""
    random = np.random.default_rng(0)
    params = WaveNet.initial(settings, seed=0, dtype=dtype).params
    biases = {name: random.normal(0, 0.1, b.shape).astype(dtype) for name, b in params.items() if name.endswith(".b")}
    return WaveNet(settings, {**params, **biases})


def precision(settings: Settings) -> float:
    """Each layer rounds, and adds to what those before it have rounded."""
    return 2.0**-23 * (len(settings.dilations) + 8)


def given(settings: Settings, streams: int, samples: int) -> tuple[np.ndarray, Any]:
    """Codes, and the conditions that the settings ask for."""
    inputs: Any = arrays(replace(settings, input="onehot"), streams=streams, samples=samples)
    return inputs.pop("x"), inputs


def all_of(*arguments: Any, **settings: Any) -> np.ndarray:
    return np.concatenate(list(generate(*arguments, **settings)), axis=1)


# The same model


@every_kind
@executors
def test_step_by_step_it_expects_what_the_whole_network_does(settings, executor):
    model = model_of(settings)
    codes, conditions = given(settings, 2, 90)
    whole = model.logits(codes, **conditions)
    assert_close(expected(model, codes, executor=executor, **conditions), whole, precision(settings))


@pytest.mark.parametrize(
    "settings",
    [
        *SETTINGS.values(),
        replace(SETTINGS["small"], condition=16, speakers=4),
        replace(SETTINGS["small"], local=20, upsample=(8, 10)),
        replace(SETTINGS["nv"], local=20, upsample=(8, 10), upsampling="nearest", condition=3),
    ],
    ids=[*SETTINGS, "speakers", "local", "nearest"],
)
def test_and_so_it_does_at_each_of_4096_steps(settings):
    model = model_of(settings)
    codes, conditions = given(settings, 1, 4096)
    got, whole = expected(model, codes, **conditions), model.logits(codes, **conditions)
    assert got.shape == whole.shape == (1, 4096, 256)
    assert_close(got, whole, precision(settings))


def test_streams_of_any_number_and_channels_of_any_width():
    for streams, width in ((1, 1), (3, 17), (5, 33), (11, 16)):
        settings = Settings((1, 3, 2), residual=width, gate=width + 1, skip=2 * width, end=width, classes=width + 4)
        model, (codes, _) = model_of(settings), given(settings, streams, 20)
        for half in (False, True):
            law = expected(model, codes, bfloat16=half, executor="reference")
            assert_close(expected(model, codes, bfloat16=half), law, precision(settings))


def test_bfloat16_weights_are_rounded_and_all_else_is_not():
    model = model_of(TINY)
    bits = {name: w.view(np.uint32) & 0xFFFF0000 for name, w in model.params.items()}
    short = WaveNet(
        TINY,
        {
            name: w.view(np.float32) if name.endswith("w") and not name.startswith("front") else model.params[name]
            for name, w in bits.items()
        },
    )
    codes, _ = given(TINY, 2, 50)
    assert np.array_equal(expected(short, codes, bfloat16=True), expected(short, codes))
    assert abs(expected(model, codes, bfloat16=True) - expected(model, codes)).max() > 1e-4
    assert len(MATRICES) == 5


def test_float64_models_speak_in_float32():
    model = model_of(TINY, np.float64)
    codes, _ = given(TINY, 1, 50)
    law = expected(model, codes, executor="reference")
    assert_close(law, model.network.on_executor("reference").predict(model.params, codes), 1e-12)
    assert_close(expected(model, codes), law, precision(TINY))


def test_conditions_may_be_shared_by_all_streams():
    settings = KINDS["everything"]
    model = model_of(settings)
    codes, conditions = given(settings, 2, 60)
    shared: Any = {name: array[:1] for name, array in conditions.items()}
    repeated: Any = {name: np.repeat(array, 2, axis=0) for name, array in shared.items()}
    assert_close(expected(model, codes, **shared), expected(model, codes, **repeated), precision(settings))


# What is drawn


@every_kind
def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(settings):
    model = model_of(settings)
    _, conditions = given(settings, 2, 120)
    first = all_of(model, 120, streams=2, seed=1, **conditions)
    assert first.shape == (2, 120)
    assert first.dtype == np.float32
    assert np.array_equal(first, all_of(model, 120, streams=2, seed=1, **conditions))
    assert not np.array_equal(first, all_of(model, 120, streams=2, seed=2, **conditions))
    assert not np.array_equal(first[0], first[1])


def test_a_stream_says_the_same_in_any_company():
    model = model_of(SETTINGS["small"])
    alone = all_of(model, 100, seed=5)
    for streams in (2, 8, 11):
        assert np.array_equal(all_of(model, 100, streams=streams, seed=5)[:1], alone)
    for workers in (1, 2):
        assert np.array_equal(all_of(model, 20, workers=workers, seed=5), alone[:, :20])


def test_machine_code_draws_what_the_definition_draws():
    model = model_of(TINY)
    for temperature in (0, 0.5, 1, 3.0):
        native, law = (all_of(model, 400, temperature=temperature, executor=name) for name in ("native", "reference"))
        assert np.array_equal(native, law)


def test_each_code_is_the_one_that_the_logits_before_it_name():
    model = model_of(TINY)
    said = encode(all_of(model, 100, streams=3, temperature=0), 16).astype(int)
    heard = np.concatenate([np.full((3, 1), encode(0.0, 16)), said[:, :-1]], axis=1)
    assert np.array_equal(model.logits(heard).argmax(2), said)


def test_draws_follow_the_probabilities():
    """One layer that hears nothing: 40,000 independent draws. A temperature of 2 takes the root of all odds."""
    settings = replace(TINY, dilations=(1,), classes=5)
    model = WaveNet(settings, {name: 0 * w for name, w in WaveNet.initial(settings).params.items()})
    p = np.array([0.5, 0.3, 0.0, 0.15, 0.05])
    with np.errstate(divide="ignore"):
        model.params["end2.b"][:] = np.log(p).clip(-200)  # pyright: ignore[reportIndexIssue] -- a dictionary
    for temperature, odds in ((1, p), (2.0, p**0.5)):
        codes = encode(all_of(model, 5000, streams=8, temperature=temperature), 5)
        counted = np.bincount(codes.ravel(), minlength=5) / codes.size
        assert counted[2] == 0
        assert abs(counted - odds / odds.sum()).max() < 0.01


def test_primed_streams_go_on_from_what_was_said():
    model = model_of(KINDS["everything"])
    _, conditions = given(KINDS["everything"], 2, 180)
    said = all_of(model, 180, streams=2, seed=3, **conditions)
    before = np.concatenate([np.full((2, 1), encode(0.0, 16)), encode(said[:, :120], 16)], axis=1)
    assert np.array_equal(all_of(model, 60, streams=2, seed=3, prime=before, **conditions), said[:, 120:])


def test_blocks_come_as_they_are_made():
    model = model_of(replace(TINY, rate=3200))
    blocks = generate(model, 10**7, streams=2)
    assert [next(blocks).shape for _ in range(3)] == [(2, 100)] * 3


# What is refused


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"samples": 0}, SettingError, "generate: got samples=0, expected a whole number of at least 1"),
        ({"samples": 1.5}, SettingError, "generate: got samples=1.5, expected"),
        ({"streams": 0}, SettingError, "generate: got streams=0, expected a whole number of at least 1"),
        ({"temperature": -1}, SettingError, "generate: got temperature=-1, expected a number of at least 0"),
        ({"temperature": np.nan}, SettingError, "generate: got temperature=nan, expected a number of at least 0"),
        ({"seed": -1}, SettingError, "got seed=-1, expected a whole number from 0"),
        ({"bfloat16": 1.5}, SettingError, "generate: got bfloat16=1.5, expected one of True, False"),
        ({"workers": 3}, SettingError, "generate: got workers=3, expected one of 1, 2, None"),
        ({"executor": "fast"}, SettingError, "got executor='fast', expected one of reference, native"),
        ({"prime": [1, 2]}, ShapeError, r"generate: got codes of shape \(2,\), expected \(1 or 2, some samples\)"),
        ({"prime": [[1], [2], [3]]}, ShapeError, r"got codes of shape \(3, 1\), expected"),
        ({"prime": [[], []]}, ShapeError, r"got codes of shape \(2, 0\), expected"),
        ({"prime": [[1, 16]]}, DataError, r"mu-law: got code 16 at \(0, 1\), expected 0 to 15"),
        ({"prime": [[0.5]]}, DataError, "mu-law: got codes of float64, expected integers"),
        ({"h": [[1.0, 2.0]]}, SettingError, "WaveNet: got the conditions h, expected none"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        generate(model_of(TINY), **{"samples": 10, "streams": 2, **arguments})


@pytest.mark.parametrize(
    ("kind", "conditions", "error", "message"),
    [
        ("speakers", {}, SettingError, "WaveNet: got the conditions none, expected speaker"),
        ("speakers", {"speaker": 1}, ShapeError, r"WaveNet: got speaker of shape \(\), expected \(2\)"),
        ("speakers", {"speaker": [1, 2, 0]}, ShapeError, r"WaveNet: got speaker of shape \(3,\), expected \(2\)"),
        ("speakers", {"speaker": [3]}, DataError, r"got speaker 3 at \(0,\), expected 0 to 2"),
        ("speakers", {"speaker": [-1]}, DataError, r"got speaker -1 at \(0,\), expected 0 to 2"),
        ("global", {"h": [[1.0, np.nan]]}, DataError, r"WaveNet: got h nan at \(0, 1\), expected finite numbers"),
        ("nearest", {"local": np.zeros((1, 9, 2))}, ShapeError, r"shape \(1, 9, 2\), expected \(1, frames, 3\)"),
        ("nearest", {"local": np.zeros((2, 16, 3))}, ShapeError, "got a local condition of 16 frames of 6 samples "
         "each, expected at least 17 frames for 100 samples"),
        ("nearest", {"local": np.full((1, 17, 3), np.inf)}, DataError, r"got local inf at \(0, 0, 0\), expected"),
    ],
)  # fmt: skip
def test_bad_conditions(kind, conditions, error, message):
    with pytest.raises(error, match=message):
        generate(model_of(KINDS[kind]), 100, streams=2, **conditions)


def test_parameters_that_are_not_finite():
    model = model_of(TINY)
    model.params["gate2.conv.w"][1, 2, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"the parameter gate2\.conv\.w holds NaN or infinity; take an earlier"):
        generate(model, 10)
