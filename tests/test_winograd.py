"""Fewer multiplications against the definition: bit for bit on small integers, between guards; rounding stays small."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import faltung as ft
import faltung.engine.networks as programs
from elf import library_calls
from faltung.elements.products import correlate
from faltung.engine.host import workers
from faltung.engine.host.machine import AVX512, NEEDS
from faltung.engine.host.recording import recording
from faltung.engine.kernels import winograd
from faltung.engine.kernels.launch import Axis, Steps, Taps
from faltung.engine.loops.language import F32, F64
from faltung.engine.lower.conv import convolution_of
from faltung.engine.programs.program import Lists
from faltung.geometry import Window
from guard import copied, guarded
from lowered import host_as

KINDS = {np.float32: F32, np.float64: F64}
MACHINES = [name for name in NEEDS if name != "neon"]


@dataclass(frozen=True)
class Case:
    """A convolution of 3x3 taps on a batch of images."""

    height: int
    width: int
    channels: int
    filters: int
    pads: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1))
    batch: int = 2
    dtype: Any = np.float32

    @property
    def windows(self) -> tuple[Window, Window]:
        return Window(3, padding=self.pads[0]), Window(3, padding=self.pads[1])

    @property
    def conv(self) -> ft.Conv:
        return ft.Conv(self.filters, kernel=3, padding=self.pads, bias=False)

    @property
    def outputs(self) -> tuple[int, int]:
        (top, bottom), (left, right) = self.pads
        return self.height + top + bottom - 2, self.width + left + right - 2

    @property
    def call(self) -> winograd.Call:
        c, k = self.channels, self.filters
        starts = [-before for before, _ in self.pads]
        return self._call((self.height, self.width, c), (*self.outputs, k), starts, Taps(0, 3 * c * k, c * k, k, 1))

    @property
    def error(self) -> winograd.Call:
        """dx from dy; w begins at its last tap."""
        c, k = self.channels, self.filters
        starts = [before - 2 for before, _ in self.pads]
        return self._call((*self.outputs, k), (self.height, self.width, c), starts, Taps(0, -3 * c * k, -c * k, 1, k))

    def _call(self, x: tuple[int, int, int], y: tuple[int, int, int], starts: list[int], taps: Taps) -> winograd.Call:
        h, w = (Axis(size, output, 3, start=start) for size, output, start in zip(x[:2], y[:2], starts, strict=True))
        x_steps, y_steps = (Steps(math.prod(shape), 0, math.prod(shape[1:])) for shape in (x, y))
        return winograd.Call(winograd.Rows(KINDS[self.dtype], x[2], y[2]), (h, w), self.batch, x_steps, y_steps, taps)

    def numbers(self, seed: int = 0, exact: bool = True) -> tuple[Any, Any, Any]:
        """Random x, w and bias: small whole numbers, or not."""
        rng = np.random.default_rng(seed)
        shapes = (
            (self.batch, self.height, self.width, self.channels), (3, 3, self.channels, self.filters), (self.filters,),
        )  # fmt: skip
        return tuple(  # pyright: ignore[reportReturnType] -- three of them
            (rng.integers(-4, 5, shape) if exact else rng.normal(size=shape)).astype(self.dtype) for shape in shapes
        )


def run(case: Case, x: Any, w: Any, bias: Any, y: Any) -> Any:
    case.call.correlate(x.ctypes.data, w.ctypes.data, bias, y.ctypes.data)
    return y


def check(case: Case, *, biased: bool = True, end: bool = True, seed: int = 0) -> None:
    """y agrees exactly with the definition; nothing outside the arrays is touched."""
    x, w, bias = case.numbers(seed)
    expected = correlate(x, w, case.windows, 1)
    y = guarded(expected.shape, case.dtype, end)
    run(case, copied(x, end), copied(w, end), copied(bias, end) if biased else None, y)
    np.testing.assert_array_equal(y, expected + bias if biased else expected)


def check_error(case: Case, *, end: bool = True, seed: int = 0) -> None:
    """dx agrees exactly with the definition; nothing outside the arrays is touched."""
    x, w, _ = case.numbers(seed)
    shape = case.batch, *case.outputs, case.filters
    dy = np.random.default_rng(seed).integers(-4, 5, shape).astype(case.dtype)
    own_dy, own_w = copied(dy, end), copied(w, end)
    dx: Any = guarded(x.shape, case.dtype, end)
    case.error.correlate((own_dy, 0), (own_w, own_w[2, 2].ctypes.data - own_w.ctypes.data), None, (dx, 0))
    np.testing.assert_array_equal(dx, case.conv.error({"w": w}, x, dy))


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Any:
    """Kernels are made for the machine that the parameter names."""
    with host_as(request.param, winograd.code) as described:
        yield described


COMPILED = [(np.float32, 3, 5), (np.float32, 16, 32), (np.float32, 17, 70), (np.float64, 9, 8), (np.float64, 2, 1)]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """One of few compiled kernels, with any run-time sizes."""
    dtype, channels, filters = draw(st.sampled_from(COMPILED))
    pads = tuple((draw(st.integers(0, 4)), draw(st.integers(0, 4))) for _ in range(2))
    height, width = (
        max(1, 3 - sum(pair)) + draw(st.integers(0, most)) for pair, most in zip(pads, (9, 30), strict=True)
    )
    return Case(height, width, channels, filters, pads, draw(st.integers(1, 3)), dtype)  # pyright: ignore[reportArgumentType]


@given(cases(), st.booleans(), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_agrees_exactly_over_random_geometries(case, biased, end, seed):
    check(case, biased=biased, end=end, seed=seed)
    check_error(case, end=end, seed=seed)


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
def test_every_machine_agrees(machine):
    for wanted in (check, check_error):
        wanted(Case(9, 8, 16, 32), end=False)
        wanted(Case(5, 12, 5, 7, dtype=np.float64))
    rows = winograd.Rows(F32, 5, 7)
    plan = winograd.schedule(rows, machine)
    code = [*winograd.convolve("convolve", rows, plan), winograd.pack("pack", rows, plan)]
    assert library_calls(code, {"convolve", "pack"}, machine) == set()


@pytest.mark.parametrize("width", [*range(1, 8), 26, 27, 28, 47, 48, 49])
def test_widths_around_every_number_of_tiles(width):
    check(Case(3, width, 16, 32))


@pytest.mark.parametrize("channels", [1, 2, 4, 15, 16, 17, 33])
def test_channels_around_every_vector(channels):
    check(Case(4, 5, channels, 3))
    check(Case(4, 5, 3, channels), biased=False)
    check_error(Case(4, 5, channels, 3))
    check_error(Case(4, 5, 3, channels))


def test_many_chunks_bands_and_ranges():
    for case in (Case(40, 61, 8, 16, batch=1), Case(6, 12, 16, 200, batch=1)):
        numbers = dict(zip(winograd.SIZES, case.call._sizes.tolist(), strict=True))
        assert numbers["bands"] > 1 or numbers["ranges"] > 1
        assert numbers["tasks"] == numbers["bands"] * numbers["ranges"]
        check(case)


@pytest.mark.parametrize("end", [True, False])
def test_the_scratch_is_large_enough(end, monkeypatch):
    def launch(function: Any, *arguments: Any, tasks: int, work: float, scratch: int = 0) -> None:
        memory = guarded(scratch, np.uint8, end)
        function(*map(workers._number, arguments), memory.ctypes.data, 0, tasks)

    monkeypatch.setattr(workers, "launch", launch)
    for case in (Case(20, 20, 16, 32), Case(9, 9, 7, 5), Case(11, 30, 33, 70, dtype=np.float64)):
        check(case)
        check_error(case)


def test_bits_depend_neither_on_the_batch_nor_on_threads(monkeypatch):
    case = Case(22, 17, 20, 40, batch=9)
    x, w, bias = case.numbers(exact=False)
    y = np.empty(correlate(x, w, case.windows, 1).shape, np.float32)
    together = run(case, x, w, bias, y)
    alone = run(replace(case, batch=1), x[4:5], w, bias, np.empty_like(y[:1]))
    np.testing.assert_array_equal(together[4:5], alone)
    monkeypatch.setenv("FALTUNG_THREADS", "1")
    np.testing.assert_array_equal(run(case, x, w, bias, np.empty_like(y)), together)


@pytest.mark.parametrize("channels", [16, 128, 512])
def test_rounding_is_a_few_times_that_of_the_definition(channels):
    case = Case(12, 12, channels, 32, batch=4)
    x, w, bias = case.numbers(exact=False)
    exact = correlate(x.astype(np.float64), w.astype(np.float64), case.windows, 1) + bias
    y = run(case, x, w, bias, np.empty(exact.shape, np.float32))
    plain = convolution_of(ft.Conv(32, kernel=3, padding=1), x.shape[1:], np.dtype(np.float32)).forward(x, w, bias)
    errors = [np.sqrt(np.mean((found.reshape(exact.shape) - exact) ** 2)) for found in (y, plain)]
    assert errors[0] < 4 * errors[1]
    assert errors[0] < 1e-6 * np.sqrt(np.mean(exact**2))


# Where it serves


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ((32, 32, 16, 16), True), ((16, 16, 32, 64), True), ((8, 8, 128, 128), True), ((128, 128, 64, 32), True),
        ((32, 32, 3, 32), False), ((28, 28, 1, 20), False), ((4, 4, 256, 256), False), ((3, 3, 64, 64), False),
    ],
)  # fmt: skip
def test_which_layers_pay(layer, expected):
    assert Case(*layer).call.pays(AVX512) == expected


def kernels(conv: ft.Conv, shape: tuple[int, ...], *, exact: bool) -> list[str]:
    """The kernels of a forward pass and of the error."""
    with recording(sliced=False, exact=exact) as recorder:
        x = recorder.array((1, *shape), np.float32, "input", "x")
        w = recorder.array(conv.parameters(shape)["w"].shape, np.float32, "parameter", "w")
        convolution = convolution_of(conv, shape, np.dtype(np.float32))
        convolution.error(convolution.forward(x, w, None), w)
    return [launch.function.name for launch in recorder.launches]


def test_it_serves_where_rounding_may_differ():
    conv = ft.Conv(32, kernel=3, padding="same")
    assert kernels(conv, (16, 16, 32), exact=False) == ["pack", "convolve"] * 2
    assert kernels(conv, (16, 16, 32), exact=True) == ["pack", "correlate"] * 2


NETWORK = ft.Chain(
    conv1=ft.Conv(16, kernel=3, padding=1), relu1=ft.ReLU(), conv2=ft.Conv(32, kernel=3, padding=1), relu2=ft.ReLU(),
    pool=ft.MaxPool(2), conv3=ft.Conv(32, kernel=3, padding=1), flat=ft.Flatten(), dense=ft.Affine(5),
).on((12, 14, 16))  # fmt: skip


def trained(network: ft.Network, batch: int, dtype: Any) -> tuple[float, dict[str, Any], dict[str, Any]]:
    """The cost of a step of training, and the parameters before and after it."""
    rng, sgd = np.random.default_rng(0), ft.SGD(0.1)
    params = {name: w.astype(dtype) for name, w in network.initial(0).items()}
    x, labels = rng.normal(size=(batch, 12, 14, 16)).astype(dtype), np.arange(batch) % 5
    done = network.train_step(params, sgd.slots(params), x, labels, cost=ft.CrossEntropy(), optimiser=sgd)
    return done.cost, params, done.params


@pytest.mark.parametrize("batch", [1, 3, 9])
@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 1e-4), (np.float64, 1e-12)])
def test_steps_of_training_agree_with_the_definition(batch, dtype, most):
    cost, before, after = trained(NETWORK.on_executor("native"), batch, dtype)
    law, _, expected = trained(NETWORK.on_executor("reference"), batch, dtype)
    assert abs(cost - law) <= most * law
    for name, w in expected.items():
        change = w - before[name]
        assert np.abs(after[name] - w).max() <= most * np.abs(change).max(), name


@pytest.mark.parametrize("batch", [1, 9])
def test_steps_of_training_have_the_same_bits_for_any_number_of_workers(batch, monkeypatch):
    found = []
    for threads in ("1", "2", "3", "8"):
        monkeypatch.setenv("FALTUNG_THREADS", threads)
        found.append(trained(NETWORK.on_executor("native"), batch, np.float32)[2])
    assert all(np.array_equal(w, other[name]) for other in found for name, w in found[0].items())


def test_steps_of_training_use_it_and_backpropagation_does_not():
    network = NETWORK.on_executor("native")
    trained(network, 9, np.float32)
    names = names_of(network)
    assert sum("convolve" in name for name in names) == 5  # of x there is no error
    assert "winograd_gradient" in names
    params, x = network.initial(0), np.zeros((9, 12, 14, 16), np.float32)
    network.backpropagate(params, x, np.arange(9) % 5, cost=ft.CrossEntropy(), keep=())
    assert not any("convolve" in name or "winograd" in name for name in names_of(network))


def names_of(network: ft.Network) -> list[str]:
    """The kernels of the newest program, those for a few examples."""
    plan = programs.plans.newest(network)
    assert plan is not None
    return [
        call.launch.function.name for job in plan.planned.jobs if isinstance(job, Lists)
        for call in job.calls[job.together]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (ft.Conv(32, kernel=3, stride=2), (16, 16, 32)),
        (ft.Conv(32, kernel=3, dilation=2), (16, 16, 32)),
        (ft.Conv(32, kernel=(3, 5)), (16, 16, 32)),
        (ft.Conv(32, kernel=3, groups=2), (16, 16, 32)),
        (ft.Conv(32, kernel=(1, 3, 3)), (2, 16, 16, 32)),
        (ft.Conv(32, kernel=3), (1000, 32)),
    ],
)
def test_only_for_3x3_taps_of_images(conv, shape):
    assert "convolve" not in kernels(conv, shape, exact=False)
