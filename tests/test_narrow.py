"""The kernel for few outputs against the definition: bit for bit on small integers, between guards."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elf import library_calls
from faltung.elements.products import correlate, correlate_error
from faltung.engine.host import compile, workers
from faltung.engine.host.machine import AVX512, NEEDS, host
from faltung.engine.kernels import correlate as correlating
from faltung.engine.kernels import narrow, tiles
from faltung.engine.kernels.launch import Axis, Steps, Taps
from faltung.engine.loops.language import F32, F64, Function
from faltung.geometry import Window
from guard import copied, guarded
from lowered import host_as

KINDS = {np.float32: F32, np.float64: F64}
Windows = tuple[Window, Window, Window]
MACHINES = [name for name in NEEDS if name != "neon"]


@dataclass(frozen=True)
class Case:
    """A convolution with stride 1 in depth, on a batch of inputs."""

    windows: Windows
    extent: tuple[int, int, int]
    channels: int
    filters: int
    groups: int = 1
    batch: int = 2
    dtype: Any = np.float32

    @property
    def positions(self) -> tuple[int, ...]:
        return tuple(w.output(size) or 0 for w, size in zip(self.windows, self.extent, strict=True))

    @property
    def tap_steps(self) -> tuple[int, int, int]:
        """Numbers in w from one tap of each axis to the next."""
        tap, (_, kh, kw) = self.channels // self.groups * self.filters, (window.kernel for window in self.windows)
        return kh * kw * tap, kw * tap, tap

    def numbers(self, seed: int = 0, exact: bool = True) -> tuple[Any, Any, Any]:
        """Random x, w and dy: small whole numbers, or not."""
        rng = np.random.default_rng(seed)
        w_shape = (*(w.kernel for w in self.windows), self.channels // self.groups, self.filters)
        shapes = (self.batch, *self.extent, self.channels), w_shape, (self.batch, *self.positions, self.filters)
        x, w, dy = (rng.integers(-4, 5, shape) if exact else rng.normal(size=shape) for shape in shapes)
        return x.astype(self.dtype), w.astype(self.dtype), dy.astype(self.dtype)

    def error_call(self) -> tuple[narrow.Call, int]:
        """The call that gives dx, and where it begins in w: dy is spread over dx; depth taps are counted backwards."""
        d, h, w = self.windows
        d_tap, h_tap, w_tap = self.tap_steps
        rows = narrow.Rows(
            KINDS[self.dtype], self.filters // self.groups, self.channels // self.groups, h.kernel, w.kernel, w.stride,
            w.dilation, self.filters, self.channels,
        )  # fmt: skip
        spread = [
            Axis(size, output, window.kernel, window.stride, window.dilation, -window.pads(size)[0])
            for window, size, output in zip((h, w), self.extent[1:], self.positions[1:], strict=True)
        ]
        start = d.pads(self.extent[0])[0] - (d.kernel - 1) * d.dilation
        axes = (Axis(self.positions[0], self.extent[0], d.kernel, 1, d.dilation, start), spread[0], spread[1])
        taps = Taps(-d_tap, h_tap, w_tap, 1, self.filters, self.filters // self.groups)
        x, y = steps(self.positions, self.filters), steps(self.extent, self.channels)
        return narrow.Call(rows, axes, self.batch, x, y, taps, self.groups), (d.kernel - 1) * d_tap

    def forward_call(self) -> tuple[narrow.Call, int]:
        """The call that gives y, where the strides are 1: x is spread over y, and its taps are counted backwards."""
        d, h, w = self.windows
        d_tap, h_tap, w_tap = self.tap_steps
        outputs = self.filters // self.groups
        rows = narrow.Rows(
            KINDS[self.dtype], self.channels // self.groups, outputs, h.kernel, w.kernel, 1, w.dilation, self.channels,
            self.filters,
        )  # fmt: skip
        spread = [
            Axis(output, size, window.kernel, 1, window.dilation, window.pads(size)[0] - (window.span - 1))
            for window, size, output in zip((h, w), self.extent[1:], self.positions[1:], strict=True)
        ]
        depth = Axis(self.extent[0], self.positions[0], d.kernel, 1, d.dilation, -d.pads(self.extent[0])[0])
        taps = Taps(d_tap, -h_tap, -w_tap, self.filters, 1, outputs)
        x, y = steps(self.extent, self.channels), steps(self.positions, self.filters)
        call = narrow.Call(rows, (depth, spread[0], spread[1]), self.batch, x, y, taps, self.groups)
        return call, (h.kernel - 1) * h_tap + (w.kernel - 1) * w_tap


def steps(extent: tuple[int, ...], channels: int) -> Steps:
    d, h, w = extent
    return Steps(d * h * w * channels, h * w * channels, w * channels)


def run(call_and_begin: tuple[narrow.Call, int], x: Any, w: Any, y: Any, bias: Any = None) -> Any:
    call, begin = call_and_begin
    call.correlate(x.ctypes.data, w.ctypes.data + w.itemsize * begin, bias, y.ctypes.data)
    return y


def check(case: Case, *, biased: bool = False, end: bool = True, seed: int = 0) -> None:
    """Dx, and y where the strides are 1, agree exactly with the definition; nothing outside the arrays is touched."""
    x, w, dy = case.numbers(seed)
    directions: list[Any] = [(case.error_call(), dy, correlate_error(dy, w, case.windows, case.groups, case.extent))]
    if all(window.stride == 1 for window in case.windows):
        directions.append((case.forward_call(), x, correlate(x, w, case.windows, case.groups)))
    for call, source, expected in directions:
        if narrow.schedule(call[0].rows, host()) is None:
            continue  # this machine has too few registers for so many outputs
        bias = np.arange(1, expected.shape[-1] + 1).astype(case.dtype) if biased else None
        result = run(call, copied(source, end), copied(w, end), guarded(expected.shape, case.dtype, end), bias)
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected if bias is None else expected + bias)


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Any:
    """Kernels are made for the machine that the parameter names."""
    with host_as(request.param, narrow.spreader) as described:
        yield described


COMPILED = [
    # dtype, taps of height and width, stride and dilation of the width, channels, filters, groups
    (np.float32, (3, 3), 1, 1, 3, 4, 1),
    (np.float32, (9, 9), 1, 1, 1, 5, 1),  # several blocks of height taps
    (np.float32, (3, 2), 2, 1, 20, 3, 1),  # steps of more than a vector
    (np.float32, (2, 3), 3, 2, 2, 2, 1),  # lanes without a tap between those with one
    (np.float32, (2, 4), 1, 3, 4, 6, 2),
    (np.float64, (4, 4), 2, 1, 9, 6, 3),
    (np.float64, (1, 3), 3, 1, 5, 1, 1),
    (np.float64, (3, 3), 2, 3, 2, 8, 1),
]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """One of few compiled kernels, with any run-time sizes."""
    dtype, (kh, kw), stride, dilation, channels, filters, groups = draw(st.sampled_from(COMPILED))
    padding = st.tuples(st.integers(0, 6), st.integers(0, 6))
    any_stride = st.just(1) if stride == 1 else st.integers(1, 4)
    height = Window(kh, draw(any_stride), draw(st.integers(1, 3)), draw(padding))
    width = Window(kw, stride, dilation, draw(padding))
    depth = Window(draw(st.integers(1, 2)), 1, draw(st.integers(1, 2)), draw(padding))
    extent = []
    for window, most in ((depth, 2), (height, 8), (width, 40)):
        least = max(1, window.span - sum(window.pads(1)))
        extent.append(least + draw(st.integers(0, most)))
    return Case((depth, height, width), tuple(extent), channels, filters, groups, draw(st.integers(1, 3)), dtype)


@given(cases(), st.booleans(), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_agrees_exactly_over_random_geometries(case, biased, end, seed):
    check(case, biased=biased, end=end, seed=seed)


def image(kernel: int, size: int, channels: int = 3, filters: int = 8, **window: Any) -> Case:
    one = Window(kernel, **window)
    return Case((Window(), one, one), (1, size, size), channels, filters)


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
def test_every_machine_agrees(machine):
    check(image(3, 9, padding=1), biased=True, end=False)
    check(replace(image(4, 13, 2, 3, stride=2, padding=2), dtype=np.float64))
    rows = image(3, 9).error_call()[0].rows
    plan = narrow.schedule(rows, machine)
    assert plan
    code = [*narrow.correlate("correlate", rows, plan, machine), narrow.pack("pack", rows, plan)]
    assert library_calls(code, {"correlate", "pack"}, machine) == set()


@pytest.mark.parametrize("width", [*range(1, 18), 27, 28, 29, 43])
def test_widths_around_every_tile(width):
    case = image(3, 5, padding=1)
    check(replace(case, extent=(1, 3, width)))


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 6, 15, 16, 17, 33])
def test_channels_around_every_vector(channels):
    check(image(2, 6, channels, 3, padding=1), biased=True)


def test_rows_of_the_output_that_nothing_reaches_are_the_bias():
    case = Case((Window(), Window(2, 5), Window(2)), (1, 23, 7), 3, 4)
    check(case, biased=True)


def test_large_images_are_cut_into_bands():
    for case in (image(3, 70, padding=1), image(5, 131, stride=2), image(3, 90, dilation=2)):
        call = case.error_call()[0]
        assert dict(zip(narrow.SIZES, call._sizes.tolist(), strict=True))["bands"] > 1
        check(replace(case, batch=1))


@pytest.mark.parametrize("end", [True, False])
def test_the_scratch_is_large_enough(end, monkeypatch):
    def launch(function: Any, *arguments: Any, tasks: int, work: float, scratch: int = 0) -> None:
        memory = guarded(scratch, np.uint8, end)
        function(*map(workers._number, arguments), memory.ctypes.data, 0, tasks)

    monkeypatch.setattr(workers, "launch", launch)
    for case in (image(3, 17, padding=1), image(9, 23, 1), image(4, 20, 5, stride=3, dilation=2), image(3, 9, 20, 2)):
        check(case)


def test_bits_depend_neither_on_the_batch_nor_on_bands_nor_on_threads(monkeypatch):
    case = replace(image(5, 64, filters=33, stride=2), batch=17)
    x, w, dy = case.numbers(exact=False)
    together = run(case.error_call(), dy, w, np.empty_like(x))
    alone = run(replace(case, batch=1).error_call(), dy[4:5], w, np.empty_like(x[:1]))
    np.testing.assert_array_equal(together[4:5], alone)
    monkeypatch.setenv("FALTUNG_THREADS", "1")
    np.testing.assert_array_equal(run(case.error_call(), dy, w, np.empty_like(x)), together)


@pytest.mark.parametrize("settings", [{}, {"dilation": 2}, {"stride": 2, "dilation": 3}])
def test_an_infinite_error_signal_stays_in_its_receptive_field(settings):
    case = image(3, 15, 2, 3, **settings)
    x, w, dy = case.numbers()
    w[w == 0] = 1
    dy[0, 0, 1, 2, 1] = np.inf
    dx = run(case.error_call(), dy, w, np.empty_like(x))
    np.testing.assert_array_equal(np.isfinite(dx), np.isfinite(correlate_error(dy, w, case.windows, 1, case.extent)))


FIRST_LAYERS = [
    image(9, 28, 1, 20),
    image(3, 32, 3, 64, padding=1),
    image(7, 224, 3, 64, padding=3, stride=2),
    image(3, 224, 3, 32, padding=1, stride=2),
    image(11, 227, 3, 96, stride=4),
    image(4, 32, 3, 64, padding=1, stride=2),
]


@pytest.mark.parametrize("case", FIRST_LAYERS)
def test_the_errors_of_first_layers_pay(case):
    assert case.error_call()[0].pays(AVX512)


@pytest.mark.parametrize("layer", [(3, 28, 64, 64), (3, 28, 32, 128), (1, 28, 3, 64), (5, 9, 500, 8)])
def test_others_do_not(layer):
    assert not image(*layer).error_call()[0].pays(AVX512)


def test_what_does_not_fit_does_not_pay():
    assert not image(2, 28, stride=3).error_call()[0].pays(AVX512)  # gaps between the taps
    long = Case((Window(), Window(), Window(2)), (1, 1, 8_000), 4, 16)
    assert long.error_call()[0].pays(AVX512)
    assert not replace(long, extent=(1, 1, 100_000)).error_call()[0].pays(AVX512)  # a row larger than the cache


def test_a_forward_convolution_to_few_outputs_pays_unless_most_of_it_is_thrown_away():
    assert image(3, 32, 64, 3, padding=1).forward_call()[0].pays(AVX512)
    assert not image(3, 3, 64, 3).forward_call()[0].pays(AVX512)


@pytest.mark.skipif(host().name != "avx512", reason="looks at registers of AVX-512")
@pytest.mark.parametrize("case", FIRST_LAYERS)
def test_tiles_stay_in_registers(case):
    rows = case.error_call()[0].rows
    plan = narrow.schedule(rows, host())
    assert plan
    assert not spilled(narrow.tile(rows, plan, plan.pixels))


@pytest.mark.skipif(host().name != "avx512", reason="looks at registers of AVX-512")
@pytest.mark.parametrize(("inputs", "outputs", "taps", "stride"), [(3, 64, 3, 1), (3, 32, 3, 2), (1, 20, 9, 1)])
def test_tiles_of_first_layers_stay_in_registers_although_their_pixels_overlap(inputs, outputs, taps, stride):
    rows = correlating.Rows(F32, inputs, outputs, taps, stride, 1, inputs, outputs, padded=True)
    plan = tiles.schedule(rows, taps, host())
    assert len(spilled(correlating.tile(rows, plan, plan.pixels))) <= 2  # one vector may step aside; it was all of them


def spilled(tile: Function) -> list[str]:
    """The instructions that move vectors to the stack and back."""
    text = compile.assembly([tile], {tile.name}, host())
    assert "zmm" in text
    return [line for line in text.splitlines() if "mm" in line and "%rsp" in line]
