"""How convolutions fall into parts: bands, spans of columns and ranges of outputs; slices, chunks and pieces of sums.

A machine of tiny caches cuts small sizes as the real one cuts large ones.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from faltung.elements import Affine, Conv, ConvTranspose
from faltung.engine.host import machine as machines
from faltung.engine.kernels import launch
from faltung.engine.kernels.launch import Call
from faltung.engine.lower.conv import convolution_of
from faltung.engine.lower.convolution import Convolution
from guard import surround
from lowered import FLOATS, compare

LONG = Conv(20, kernel=2, dilation=5, padding="causal"), (700, 6)
"""One example is one long row."""


def forget() -> None:
    """Whatever the engine remembers of machines."""
    for name, module in list(sys.modules.items()):
        if name.startswith("faltung.engine"):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


@contextmanager
def caches(l2: int) -> Iterator[None]:
    """A machine with an L2 cache of so many bytes, else like the one at hand."""
    forget()
    other = replace(machines.host(), l2=l2)
    with ExitStack() as last, pytest.MonkeyPatch.context() as patch:
        last.callback(forget)
        for name, module in list(sys.modules.items()):
            if name.startswith("faltung.engine") and hasattr(module, "host"):
                patch.setattr(module, "host", lambda name=None: other)
        yield


@pytest.fixture
def tiny():
    """A machine with an L2 cache of 4 KB."""
    with caches(4096):
        yield


def check(element: Any, *shape: int, end: bool = True, batch: int = 1, dtype: Any = np.float32) -> None:
    """All three products of small integers are exact."""
    rng = np.random.default_rng(1)
    params = {name: rng.integers(-3, 4, asks.shape).astype(dtype) for name, asks in element.parameters(shape).items()}
    compare(element, params, rng.integers(-3, 4, (batch, *shape)).astype(dtype), end=end)


def call_of(convolution: Convolution) -> Call:
    """The call that reads x and w of one example as they are."""
    [part] = convolution._rows(1, across=False)
    assert isinstance(part.call, Call)
    return part.call


def numbers(call: Call) -> dict[str, int]:
    """The run-time numbers by name."""
    return dict(zip(launch.SIZES, call._sizes[0].tolist(), strict=True))


def test_a_long_row_of_one_example_falls_into_spans_and_slices(guards):
    call = call_of(convolution_of(LONG[0], LONG[1], np.dtype(np.float32)))
    assert numbers(call)["spans"] > 4
    assert call.slices == 5  # of at least 128 columns each
    check(LONG[0], *LONG[1], end=guards)


@pytest.mark.parametrize("element", [LONG[0], Conv(20, kernel=3, dilation=2, padding="same"), Conv(9, kernel=4)])
@pytest.mark.parametrize("width", [130, 257, 511, 513])
def test_rows_of_all_paddings_and_lengths_around_spans_and_slices(element, width, guards):
    check(element, width, 3, end=guards)


def test_a_large_image_of_one_example_falls_into_slices_of_rows(guards):
    call = call_of(convolution_of(Conv(8, kernel=3), (50, 60, 2), np.dtype(np.float32)))
    assert call._slices == (8, 1, 6, 58)
    check(Conv(8, kernel=3), 50, 60, 2, end=guards)
    check(Conv(8, kernel=3, padding=1), 3, 500, 2, end=guards)  # of few rows: slices of columns


def test_outputs_are_divided_where_weights_outweigh_pixels(guards):
    call = call_of(convolution_of(Conv(300, kernel=3, padding="same"), (3, 4, 16), np.dtype(np.float32)))
    assert numbers(call)["ranges"] > 1
    check(Conv(300, kernel=3, padding="same"), 3, 4, 16, end=guards)


@pytest.mark.parametrize("pixels", [1, 8, 200])
def test_weights_that_few_pixels_meet_are_read_in_place(pixels, guards):
    for filters in (10, 64, 77):
        conv = Conv(filters, kernel=1)
        call = call_of(convolution_of(conv, (pixels, 33), np.dtype(np.float32)))
        in_place = pixels < 200 and (machines.host().masks or filters == 64)
        assert bool(call.tile.filters) == in_place
        check(conv, pixels, 33, end=guards)
    check(Affine(10), 37, end=guards)
    check(Conv(12, kernel=2, groups=3), 3, 2, 6, end=guards)
    check(Conv(64, kernel=(2, 1, 2)), 2, 1, 3, 5, end=guards)
    check(Conv(16, kernel=2, padding=1, dilation=2), 2, 1, 5, end=guards)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("end", [True, False])
def test_chunks_and_pieces_of_sums_on_a_machine_of_tiny_caches(tiny, monkeypatch, end, dtype):
    surround(monkeypatch, end)
    call = call_of(convolution_of(Conv(40, kernel=3), (9, 80, 16), np.dtype(np.float32)))
    *_, together, band, span, _, wide = call._cut(call.slices)[0]
    assert together == 1
    assert band == 1
    assert span < 78
    assert wide < 16
    for element in (Conv(40, kernel=3), Conv(130, kernel=1), Conv(33, kernel=3, stride=2, padding=1)):
        check(element, 9, 80, 16, end=end, dtype=dtype)
    check(Conv(20, kernel=3, padding=1), 9, 80, 2, end=end, batch=3, dtype=dtype)  # taps and channels joined
    check(Conv(5, kernel=(5, 4), stride=(1, 3), padding=2), 40, 300, 1, end=end, dtype=dtype)
    check(LONG[0], *LONG[1], end=end, dtype=dtype)


@pytest.mark.parametrize("l2", [1 << 20, 5 << 18, 3 << 19, 1 << 21])
def test_a_few_bands_keep_two_workers_busy_for_as_long(l2):
    with caches(l2):
        found = numbers(call_of(convolution_of(Conv(256, kernel=3, padding=1), (56, 56, 256), np.dtype(np.float32))))
    tasks, band = found["tasks"], found["band"]
    assert tasks == found["bands"]
    assert tasks >= 2 * launch.SLICES or -(-tasks // 2) * band == 28  # half of all rows


def test_rows_across_the_batch_in_several_sweeps(tiny):
    conv = Conv(33, kernel=3, padding="same")
    [part] = convolution_of(conv, (4, 5, 160), np.dtype(np.float32))._forward(9)
    assert isinstance(part.call, Call)
    assert part.call.rows.across
    assert part.call.tile.channels < 160
    check(conv, 4, 5, 160, batch=9)


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize(
    "conv",
    [
        Conv(33, kernel=3, padding="same"),
        Conv(16, kernel=(2, 1, 5), padding=2, stride=(2, 1, 3)),
        Conv(20, kernel=(1, 2, 3), padding=((0, 0), (1, 0), (6, 6)), dilation=(1, 1, 6)),  # a tap that sees no pixel
        Conv(40, kernel=(3, 3, 2), padding="causal", groups=2),
    ],
    ids=str,
)
def test_volumes_tap_by_tap(conv, end, tiny, monkeypatch):
    surround(monkeypatch, end)
    call = call_of(convolution_of(conv, (3, 4, 5, 160), np.dtype(np.float32)))
    assert call.tile.apart
    assert call._pieces[0] == 1  # plane
    check(conv, 3, 4, 5, 160, end=end)


def test_volumes_of_many_channels_fall_into_blocks_and_planes(guards):
    check(Conv(130, kernel=3, padding="same"), 5, 3, 4, 256, end=guards)
    check(ConvTranspose(130, kernel=3, stride=(1, 2, 1)), 2, 3, 4, 256, end=guards)
