"""Compiled depthwise convolutions against their definitions: bit for bit on small integers, however they are cut."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elf import library_calls
from faltung.elements import Conv, ConvTranspose
from faltung.engine.host import arena, compile
from faltung.engine.host.machine import Machine, host
from faltung.engine.kernels import boxes, depthwise, launch
from faltung.engine.kernels.launch import Axis
from faltung.engine.kernels.tiles import Rows
from faltung.engine.loops import interpreter
from faltung.engine.loops.language import F32, F64
from faltung.engine.lower import conv as lower_conv
from faltung.engine.lower import convolution
from faltung.engine.lower.conv import LOWERINGS
from guard import guarded
from lowered import FLOATS, compare, machines

SAME = {"kernel": 3, "padding": "same"}


@contextmanager
def on(machine: Machine) -> Iterator[None]:
    """Kernels and plans within are made for this machine."""
    caches = [value for module in (launch, lower_conv, convolution) for value in vars(module).values()]
    caches = [value for value in caches if hasattr(value, "cache_clear") and value is not host]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "host", lambda name=None: machine)
        for cached in caches:
            cached.cache_clear()
        yield
        for cached in caches:
            cached.cache_clear()


def check(conv: Conv | ConvTranspose, *shape: int, batch: int = 2, dtype: Any = np.float32, end: bool = True) -> None:
    """Forward, error and gradient of small integers are exact; inputs lie between guards."""
    rng = np.random.default_rng(1)
    params = {name: rng.integers(-3, 4, asks.shape).astype(dtype) for name, asks in conv.parameters(shape).items()}
    compare(conv, params, rng.integers(-3, 4, (batch, *shape)).astype(dtype), end=end)


def depthwise_of(channels: int, **settings: Any) -> Conv:
    return Conv(channels, groups=channels, **settings)


@pytest.fixture
def guards(end: bool, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Not only outputs but also the scratch lies beside memory that nobody may touch, and is full of NaN."""

    def scratch(count: int) -> SimpleNamespace:
        memory = guarded(count, np.uint8, end)
        memory.fill(255)
        return SimpleNamespace(address=memory.ctypes.data, memory=memory)

    monkeypatch.setattr(arena, "scratch", scratch)
    return end


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Conv, tuple[int, ...]]:
    rank = draw(st.integers(1, 3))
    kernel, stride, dilation = (
        tuple(draw(st.integers(1, most)) for _ in range(rank)) for most in (4 if rank < 3 else 2, 3, 3)
    )
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = tuple(span + draw(st.integers(0, 12 if rank < 3 else 4)) for span in spans)
    padding = draw(st.sampled_from(["valid", "same", "full", "causal", 1, (2, 0), (0, 3)]))
    channels = draw(st.sampled_from([2, 5, 16, 35]))
    bias = draw(st.booleans())
    conv = depthwise_of(channels, kernel=kernel, stride=stride, dilation=dilation, padding=padding, bias=bias)
    return conv, (*sizes, channels)


@given(convolutions(), st.sampled_from([1, 1 << 13, 1 << 20]), st.integers(1, 3), st.sampled_from(FLOATS))
@settings(max_examples=15, deadline=None)
def test_random_geometries_in_small_and_large_boxes_agree_exactly(drawn, l2, batch, dtype):
    conv, shape = drawn
    with on(replace(host(), l2=l2)):
        check(conv, *shape, batch=batch, dtype=dtype)


@pytest.mark.parametrize("name", machines())
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_machine_keeps_inside_its_buffers(name, dtype, guards):
    with on(replace(host(name), l2=1 << 14)):
        check(depthwise_of(19, **SAME), 6, 9, 19, dtype=dtype, end=guards)
        check(depthwise_of(32, kernel=(2, 3), stride=2, padding=1), 9, 20, 32, dtype=dtype, end=guards)


@pytest.mark.parametrize("width", range(1, 20))
def test_widths_around_every_tile(width, guards):
    check(depthwise_of(16, **SAME), 3, width, 16, end=guards)  # y is written at once
    check(depthwise_of(18, **SAME), 3, width, 18, end=guards)  # y is collected


@pytest.mark.parametrize("channels", [2, 3, 15, 16, 17, 31, 33, 127, 128, 129, 256, 272])
def test_channels_around_vectors_and_short_pixels(channels, guards):
    check(depthwise_of(channels, **SAME), 4, 5, channels, end=guards)


@pytest.mark.parametrize("l2", [1, 1 << 13, 1 << 16])
@pytest.mark.parametrize("dilation", [1, 2, (3, 1)])
def test_boxes_of_every_size_agree_exactly(l2, dilation, guards):
    conv = depthwise_of(16, kernel=3, padding="same", stride=(1, 2), dilation=dilation)
    with on(replace(host(), l2=l2)):
        check(conv, 21, 40, 16, end=guards)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"kernel": (6, 7), "padding": "same"}, (8, 9, 16)),
        ({"kernel": 31, "padding": "causal"}, (50, 16)),
        ({"kernel": (2, 3, 3), "padding": "same"}, (4, 5, 6, 16)),
        ({"kernel": 2, "dilation": 64, "padding": "causal"}, (100, 16)),
        ({"kernel": 2, "dilation": 9, "padding": 9}, (3, 4, 16)),
        ({"kernel": 1, "stride": 3}, (10, 11, 16)),
    ],
)
def test_many_taps_far_taps_and_single_ones(settings, shape, guards):
    check(depthwise_of(shape[-1], **settings), *shape, end=guards)


def test_transposed_convolutions(guards):
    for stride, dilation in ((1, 1), (2, 1), (3, 2)):
        conv = ConvTranspose(20, kernel=3, stride=stride, dilation=dilation, padding=1, groups=20)
        check(conv, 5, 6, 20, end=guards)


def test_the_padding_of_a_box_is_zero_whatever_lay_in_the_scratch():
    conv = depthwise_of(16, **SAME)
    forward, error, gradient = LOWERINGS[Conv]
    x = np.ones((2, 3, 3, 16), np.float32)
    x[0] = np.nan
    params = {"w": np.ones((3, 3, 1, 16), np.float32), "b": np.zeros(16, np.float32)}
    y, kept = forward(conv, params, x)
    assert np.isnan(y[0]).all()
    assert y[1, :, :, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    assert error(conv, params, kept, x)[1, :, :, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    assert np.isfinite(gradient(conv, params, x[1:], x[1:])["w"]).all()


def test_the_bits_depend_neither_on_threads_nor_on_the_other_examples(monkeypatch):
    conv, rng = depthwise_of(40, kernel=3, padding="same", stride=2), np.random.default_rng(3)
    forward, error, gradient = LOWERINGS[Conv]
    x = rng.normal(size=(9, 33, 35, 40)).astype(np.float32)
    params = {
        name: rng.normal(size=asks.shape).astype(np.float32) for name, asks in conv.parameters(x.shape[1:]).items()
    }
    dy = rng.normal(size=(9, 17, 18, 40)).astype(np.float32)
    with on(replace(host(), l2=1 << 16)):
        results = []
        for threads in ("1", "2", "3", "8"):
            monkeypatch.setenv("FALTUNG_THREADS", threads)
            results.append(
                (forward(conv, params, x)[0], error(conv, params, x, dy), gradient(conv, params, x, dy)["w"])
            )
        for result in results[1:]:
            for one, other in zip(result, results[0], strict=True):
                np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(forward(conv, params, x[4:5])[0], results[0][0][4:5])
        np.testing.assert_array_equal(error(conv, params, x[4:5], dy[4:5]), results[0][1][4:5])


def test_a_gradient_has_at_most_eight_partial_sums_and_they_are_good_ones():
    conv, rng = depthwise_of(16, **SAME), np.random.default_rng(4)
    x = rng.uniform(0.5, 1, (30, 32, 32, 16)).astype(np.float32)
    dw = LOWERINGS[Conv][2](conv, {"w": np.ones((3, 3, 1, 16), np.float32)}, x, x)["w"]
    exact = conv.gradient({"w": np.ones((3, 3, 1, 16))}, x.astype(np.float64), x.astype(np.float64))["w"]
    # One sum after the other of 30,000 numbers would be wrong by some 1000 units of precision.
    assert np.abs(dw / exact - 1).max() < 40 * np.finfo(np.float32).eps


def test_nothing_is_compiled_for_a_new_size(monkeypatch):
    conv = depthwise_of(24, **SAME)
    check(conv, 9, 9, 24)
    counters = compile.Counters()
    monkeypatch.setattr(compile, "counters", counters)
    for size in range(1, 30):
        check(conv, size, 2 * size, 24, batch=1 + size % 3)
    assert counters == compile.Counters()


@pytest.mark.parametrize("name", machines())
@pytest.mark.parametrize(("taps", "stride"), [(3, 1), (5, 2)])
def test_tiles_keep_to_the_registers_and_call_no_library(name, taps, stride):
    machine = host(name)
    rows = Rows(F32, 1, 48, taps, stride, 1, 48, 48, padded=True, depthwise=True)
    plan = depthwise.schedule(rows, machine)
    functions = [depthwise.convolve("correlate", rows, plan), depthwise.gradient("gradient", rows, taps, plan)]
    public = {"correlate", "gradient"}
    assert library_calls(functions, public, machine) == set()
    spilled = re.compile(r"v?mov[au]p[sd]\s+%[xyz]mm\d+, -?\d*\(%rsp\)")
    # The bias may wait outside of the loops over tiles. Without fused multiply-adds products need registers, too.
    assert not machine.fused or len(spilled.findall(compile.assembly(functions, public, machine))) <= 1


@pytest.mark.parametrize("kind", [F32, F64])
def test_the_interpreter_finds_every_access_inside(kind):
    rows = Rows(kind, 1, 3, 2, 1, 1, 3, 3, padded=True, depthwise=True)
    lanes, axes = 4, (Axis(), Axis(2, 2, 2, start=-1), Axis(3, 3, 2, start=-1))
    plan = depthwise.Tiles(lanes, pixels=2, sums=3, collects=True)
    numbers, count, scratch = boxes.layout(rows, lanes, axes, (18, 18, 9, 18, 18, 9), l2=1)
    rng = np.random.default_rng(5)
    x, dy = (rng.integers(-3, 4, (1, 2, 3, 3)).astype(kind.dtype) for _ in range(2))
    w = rng.integers(-3, 4, (2, 2, 1, 3)).astype(kind.dtype)
    conv = depthwise_of(3, kernel=2, padding=(1, 0), bias=False)
    sizes, space = np.array(numbers), np.full(scratch // kind.size, np.nan, kind.dtype)
    y, dw = np.full(18, np.nan, kind.dtype), np.full(12, np.nan, kind.dtype)
    f = depthwise.convolve("correlate", rows, plan)
    interpreter.run(f, sizes, x.ravel(), w.ravel(), y, np.zeros(3, kind.dtype), 12, 6, 3, space, 0, count)
    np.testing.assert_array_equal(y.reshape(x.shape), conv.forward({"w": w}, x)[0])
    f = depthwise.gradient("gradient", rows, 2, plan)
    interpreter.run(f, sizes, x.ravel(), dy.ravel(), dw, count, count, 1, space, 0, 1)
    np.testing.assert_array_equal(dw.reshape(w.shape), conv.gradient({"w": w}, x, dy)["w"])


def test_an_axis_is_cut_evenly_and_its_room_is_kept():
    axis = Axis(size=100, output=98, taps=3)
    assert boxes.Cut.of(axis, room=1000) == boxes.Cut(every=1, step=1, length=98, parts=1, reach=100)
    assert boxes.Cut.of(axis, room=60) == boxes.Cut(every=1, step=1, length=49, parts=2, reach=51)
    assert boxes.Cut.of(axis, room=0, least=16).length == 14  # 7 parts of 14, not 6 of 16 and a rest
    assert boxes.Cut.of(Axis(100, 49, 3, stride=2, dilation=4), room=10) == boxes.Cut(2, 1, 7, 8, 9)
