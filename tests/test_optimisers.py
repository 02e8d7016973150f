"""Optimisers: their formulas in plain Python numbers, a peer's numbers, dtypes, and messages."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung import training
from faltung.engine.lower.update import move
from faltung.errors import SettingError
from faltung.training import SGD, Adam, AdamW, Averaged, Cosine, Optimiser, Piecewise, StepDecay, WarmUp

NUMBERS = st.floats(-4, 4)
GRADIENTS = [[0.5, -1.0, 2.0], [-0.25, 3.0, 0.0], [1.0, 1.0, 1.0], [0.125, -4.0, 2.5]]


def run(optimiser, w, gradients, dtype=np.float64):
    params = {"a": np.array(w, dtype)}
    slots = optimiser.slots(params)
    for step, dw in enumerate(gradients):
        params, slots = optimiser.update(params, {"a": np.array(dw, dtype)}, slots, step)
    return params["a"], slots


@settings(max_examples=40, deadline=None)
@given(w=NUMBERS, gradients=st.lists(NUMBERS, min_size=1, max_size=6), decay=st.sampled_from([0.0, 0.1]))
def test_sgd_is_its_formula(w, gradients, decay):
    rate, momentum = StepDecay(0.1, 0.5, 2), Piecewise(((0, 0.5), (3, 0.9)))
    for nesterov in (False, True):
        x, v = w, 0.0
        for step, dw in enumerate(gradients):
            pull = rate(step) * (dw + decay * x)
            v = momentum(step) * v - pull
            x = x + momentum(step) * v - pull if nesterov else x + v
        got, slots = run(
            SGD(rate, momentum=momentum, nesterov=nesterov, weight_decay=decay), [w], [[g] for g in gradients]
        )
        assert got.item() == pytest.approx(x, rel=1e-12, abs=1e-12)
        assert slots["velocity"]["a"].item() == pytest.approx(v, rel=1e-12, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(w=NUMBERS, gradients=st.lists(NUMBERS, min_size=1, max_size=6), decay=st.sampled_from([0.0, 0.1]))
def test_adam_is_its_formula(w, gradients, decay):
    for optimiser, decoupled in ((Adam(0.1, weight_decay=decay), 0.0), (AdamW(0.1, weight_decay=decay), decay)):
        x, m, v = w, 0.0, 0.0
        for t, dw in enumerate(gradients, start=1):
            g = dw + (decay - decoupled) * x
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            step = (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
            x = x - 0.1 * step - 0.1 * decoupled * x
        got, slots = run(optimiser, [w], [[g] for g in gradients])
        assert got.item() == pytest.approx(x, rel=1e-10, abs=1e-10)
        assert slots["mean"]["a"].item() == pytest.approx(m, rel=1e-10, abs=1e-12)
        assert slots["square"]["a"].item() == pytest.approx(v, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("optimiser", [SGD(0.1, momentum=0.9), Adam(0.1)], ids=repr)
def test_an_average_is_its_formula(optimiser):
    averaged, params = Averaged(optimiser, decay=0.8), {"a": np.array([1.0, -2.0, 0.5]), "state": np.ones(2)}
    slots, path = averaged.slots({"a": params["a"]}), []
    plain, own = dict(params), optimiser.slots({"a": params["a"]})
    assert averaged.result(params, slots, 0) is params
    for step, dw in enumerate(GRADIENTS):
        params, slots = averaged.update(params, {"a": np.array(dw)}, slots, step)
        plain, own = optimiser.update(plain, {"a": np.array(dw)}, own, step)
        assert np.array_equal(params["a"], plain["a"])
        path.append(plain["a"])
        weights = 0.8 ** np.arange(step, -1, -1)
        result = averaged.result(params, slots, step + 1)
        assert result["a"] == pytest.approx(weights @ np.array(path) / weights.sum(), rel=1e-12)
        assert result["state"] is params["state"]
    assert optimiser.result(plain, own, 4) is plain


@pytest.mark.parametrize(
    ("optimiser", "expected"),
    [
        (SGD(0.1, momentum=0.9, weight_decay=0.01), [0.6847210633509999, -2.240692376702, -0.6304127281495]),
        (SGD(0.1, momentum=0.9, nesterov=True), [0.5864699999999999, -2.13319, -1.06502]),
        (
            Adam(0.01, betas=(0.8, 0.95), weight_decay=0.1),
            [0.9712789517580952, -1.9968247407062925, 0.4672032192286784],
        ),
        (AdamW(0.01, weight_decay=0.1), [0.9708136178536061, -1.9909723593319297, 0.4654405172209744]),
    ],
    ids=repr,
)
def test_pytorch_has_the_same_numbers_at_a_constant_rate(optimiser, expected):
    got, _ = run(optimiser, [1.0, -2.0, 0.5], GRADIENTS)  # expected: torch.optim 2.13, float64
    assert got.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "optimiser", [SGD(0.1, momentum=0.9, weight_decay=0.1), Adam(weight_decay=0.1), AdamW(), Averaged(Adam())], ids=repr
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_new_arrays_of_the_same_dtype(optimiser, dtype):
    random = np.random.default_rng(0)
    params = {"a": random.normal(size=(2, 3)).astype(dtype), "state": np.ones(2, dtype)}
    gradients = {"a": random.normal(size=(2, 3)).astype(dtype)}
    slots = optimiser.slots({"a": params["a"]})
    kept = [array.copy() for array in (params["a"], gradients["a"], *(slot["a"] for slot in slots.values()))]
    new, after = optimiser.update(params, gradients, slots, 0)
    now = (params["a"], gradients["a"], *(slot["a"] for slot in slots.values()))
    assert all(np.array_equal(a, b) for a, b in zip(kept, now, strict=True))
    assert new["state"] is params["state"]
    assert new["a"].dtype == dtype
    assert not np.array_equal(new["a"], params["a"])
    assert after.keys() == slots.keys()
    assert all(slot["a"].dtype == dtype for slot in after.values())
    assert all(slot.keys() == {"a"} for slot in after.values())


@pytest.mark.parametrize(
    "optimiser",
    [
        SGD(0.1, momentum=0.9, weight_decay=0.1),
        SGD(0.1, momentum=0.9, nesterov=True),
        Adam(0.1, weight_decay=0.1),
        AdamW(0.1),
        Averaged(Adam(0.1), decay=0.7),
        Averaged(SGD(0.1, momentum=0.5), decay=0.9),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_formulas_do_what_move_does(optimiser, dtype):
    random = np.random.default_rng(0)
    w, dw = random.normal(size=(2, 13)).astype(dtype)
    slots = {name: abs(random.normal(size=13)).astype(dtype) for name in optimiser.remembers}
    update = optimiser.formulas(step=3)
    moved, after = move(update.formulas, optimiser.remembers, w, dw, slots, update.numbers)
    expected, remembered = optimiser.move(w, dw, slots, 3)
    near = 8 * float(np.finfo(dtype).eps)
    assert moved == pytest.approx(expected, rel=near, abs=near)
    assert after.keys() == remembered.keys()
    for name, slot in after.items():
        assert slot == pytest.approx(remembered[name], rel=near, abs=near), name


def test_an_average_of_an_optimiser_without_formulas_has_none():
    @dataclass(frozen=True, repr=False)
    class Signs(Optimiser):
        remembers = ()

        def move(self, w, dw, slots, step):
            return w - np.sign(dw), {}

    assert Averaged(Signs()).formulas(0) is None


def test_the_first_step_of_adam_is_the_rate_whatever_the_gradient():
    got, _ = run(Adam(0.5), [0.0, 0.0, 0.0], [[1e-4, -3.0, 1e4]])
    assert got.tolist() == pytest.approx([-0.5, 0.5, -0.5], rel=1e-3)


def test_repr_is_the_call():
    assert repr(SGD(0.1, momentum=0.9)) == "SGD(0.1, momentum=0.9)"
    assert repr(Adam(StepDecay(0.1, 0.5, 9), epsilon=1e-6)).endswith("every=9), epsilon=1e-06)")
    warm = WarmUp(5, Cosine(0.1, steps=100, final=0.01))
    for optimiser in (
        SGD(warm, momentum=Piecewise(((0, 0.5), (2, 0.9))), nesterov=True),
        Adam(),
        AdamW(betas=(0, 0.5)),
        Averaged(SGD(0.1), decay=0.5),
    ):
        assert eval(repr(optimiser), dict(vars(training))) == optimiser


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0.0), r"SGD\(0.0\): got rate=0.0, expected a number above 0; choose another value of rate"),
        (lambda: SGD(-1), "got rate=-1, expected a number of at least 0"),
        (lambda: SGD(math.nan), "got rate=nan"),
        (lambda: SGD(True), "got rate=True"),
        (lambda: SGD(StepDecay(0.0, 0.5, 9)), r"got rate=StepDecay\(initial=0.0.*, expected a number above 0"),
        (lambda: SGD(0.1, momentum=1.0), "got momentum=1.0, expected a number of at least 0 and below 1"),
        (lambda: SGD(0.1, weight_decay=-0.1), "got weight_decay=-0.1"),
        (lambda: Adam(0), "got rate=0, expected a number above 0"),
        (lambda: Adam(betas=(0.9, 1.0)), "got betas=1.0, expected a number of at least 0 and below 1"),
        (lambda: Adam(betas=0.9), r"got betas=0.9, expected two numbers, such as \(0.9, 0.999\)"),  # pyright: ignore[reportArgumentType] -- the mistake
        (lambda: Adam(epsilon=0.0), "got epsilon=0.0, expected a number of at least 1e-30"),
        (lambda: AdamW(weight_decay=-1.0), "got weight_decay=-1.0"),
        (lambda: Averaged(Averaged(SGD(0.1))), r"got optimiser=Averaged\(.*, expected another optimiser, such as Adam"),
        (lambda: Averaged(0.1), "got optimiser=0.1, expected another optimiser"),  # pyright: ignore[reportArgumentType] -- the mistake
        (lambda: Averaged(SGD(0.1), decay=1.0), "got decay=1.0, expected a number of at least 0 and below 1"),
        (lambda: SGD(10**400), "got rate=10000.*, expected a number of at least 0"),
        (
            lambda: SGD(np.float64(0.1)),
            r"got rate=.*0\.1.*, expected a number of at least 0; make it a plain number",
        ),
        (lambda: SGD(0.1, nesterov="yes"), "got nesterov='yes', expected one of True, False; choose another value"),  # pyright: ignore[reportArgumentType] -- the mistake
    ],
)
def test_settings_that_make_no_sense(make, message):
    with pytest.raises(SettingError, match=message):
        make()


def test_a_momentum_that_leaves_its_range_later_is_found_then():
    optimiser = SGD(0.1, momentum=Piecewise(((0, 0.5), (2, 9.5))))
    run(optimiser, [1.0], [[1.0], [1.0]])
    with pytest.raises(SettingError, match=r"got momentum=9\.5, expected a number of at least 0 and below 1"):
        run(optimiser, [1.0], [[1.0], [1.0], [1.0]])
