"""Gradients by fewer multiplications against the definition: bit for bit on small integers, between guards."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import faltung as ft
from elf import library_calls
from faltung.engine.host import arena, workers
from faltung.engine.host.machine import AVX512, NEEDS
from faltung.engine.host.recording import recording
from faltung.engine.kernels import winograd_sums
from faltung.engine.kernels.winograd import Rows
from faltung.engine.loops.language import F32
from faltung.engine.lower.conv import convolution_of
from guard import copied, guarded
from lowered import host_as
from test_winograd import Case, cases

MACHINES = [name for name in NEEDS if name != "neon"]


def check(case: Case, *, end: bool = True, seed: int = 0) -> None:
    """dw agrees exactly with the definition; nothing outside the arrays is touched."""
    x, w, _ = case.numbers(seed)
    shape = case.batch, *case.outputs, case.filters
    dy = np.random.default_rng(seed).integers(-4, 5, shape).astype(case.dtype)
    own_x, own_dy, dw = copied(x, end), copied(dy, end), guarded(w.shape, case.dtype, end)
    winograd_sums.Sums(case.call).gradient(own_x, own_dy, dw)
    np.testing.assert_array_equal(dw, case.conv.gradient({"w": w}, x, dy)["w"])


@given(cases(), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_agrees_exactly_over_random_geometries(case, end, seed):
    check(case, end=end, seed=seed)


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Any:
    """Kernels are made for the machine that the parameter names."""
    with host_as(request.param, winograd_sums.code) as described:
        yield described


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
def test_every_machine_agrees(machine):
    check(Case(9, 8, 16, 32), end=False)
    check(Case(5, 12, 5, 7, dtype=np.float64))
    rows = Rows(F32, 5, 7)
    plan = winograd_sums.schedule(rows, machine)
    code = [*winograd_sums.gradient("gradient", rows, plan), winograd_sums.unpack("unpack", rows, plan)]
    assert library_calls(code, {"gradient", "unpack"}, machine) == set()


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 33, 70])
def test_channels_around_every_vector(channels):
    check(Case(4, 5, channels, 3))
    check(Case(4, 5, 3, channels))


def test_several_chunks_of_tiles():
    for width in (125, 126, 127, 250):
        check(Case(3, width, 16, 32, batch=1))


@pytest.mark.parametrize("end", [True, False])
def test_scratch_and_sums_are_large_enough(end, monkeypatch):
    def launch(function: Any, *arguments: Any, tasks: int, work: float, scratch: int = 0) -> None:
        memory = guarded(scratch, np.uint8, end)
        function(*map(workers._number, arguments), memory.ctypes.data, 0, tasks)

    monkeypatch.setattr(workers, "launch", launch)
    monkeypatch.setattr(arena, "sums", lambda shape, dtype: guarded(shape, dtype, end))
    for case in (Case(20, 20, 16, 32), Case(9, 9, 7, 5), Case(11, 30, 33, 70, dtype=np.float64)):
        check(case, end=end)


@pytest.mark.parametrize("channels", [16, 128])
def test_rounding_is_a_few_times_that_of_the_definition(channels):
    case = Case(24, 24, channels, 32, batch=4)
    x, w, _ = case.numbers(exact=False)
    dy = np.random.default_rng(1).normal(size=(4, 24, 24, 32)).astype(np.float32)
    exact = case.conv.gradient({"w": w}, x.astype(np.float64), dy.astype(np.float64))["w"]
    dw = np.empty_like(w)
    winograd_sums.Sums(case.call).gradient(x, dy, dw)
    plain = convolution_of(case.conv, x.shape[1:], np.dtype(np.float32)).gradient(x, dy, w.shape)
    errors = [np.sqrt(np.mean((found - exact) ** 2)) for found in (dw, plain)]
    assert errors[0] < 6 * errors[1]
    assert errors[0] < 2e-6 * np.sqrt(np.mean(exact**2))


# Where it serves


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ((32, 32, 32, 32), True), ((16, 16, 64, 64), True), ((32, 32, 128, 128), True), ((128, 128, 64, 32), True),
        ((32, 32, 3, 32), False), ((8, 8, 128, 128), False), ((3, 3, 64, 64), False),
    ],
)  # fmt: skip
def test_which_layers_pay(layer, expected):
    assert winograd_sums.Sums(Case(*layer).call).pays(AVX512) == expected


@pytest.mark.parametrize(("sliced", "exact"), [(True, False), (True, True), (False, False)])
def test_it_serves_slices_whose_rounding_may_differ(sliced, exact):
    conv, shape = ft.Conv(32, kernel=3, padding="same"), (16, 16, 32)
    with recording(sliced=sliced, exact=exact) as recorder:
        x, dy = (recorder.array((2, *shape), np.float32, "input", name) for name in ("x", "dy"))
        convolution_of(conv, shape, np.dtype(np.float32)).gradient(x, dy, (3, 3, 32, 32))
    names = [launch.function.name for launch in recorder.launches]
    assert names == (["winograd_gradient", "winograd_unpack"] if sliced and not exact else ["gradient", "unpack"])
