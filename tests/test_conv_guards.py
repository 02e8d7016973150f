"""Convolutions between memory that nobody may touch: outputs, packed weights, sums and scratch included."""

from typing import Any

import numpy as np
import pytest

from emission import made_for
from faltung.elements import Affine, Conv, ConvTranspose
from faltung.engine.host.machine import NEEDS
from guard import surround
from lowered import FLOATS, compare


def check(element: Any, *shape: int, end: bool, batch: int = 2, dtype: Any = np.float32) -> None:
    """All three products of small integers are exact."""
    rng = np.random.default_rng(1)
    params = {name: rng.integers(-3, 4, asks.shape).astype(dtype) for name, asks in element.parameters(shape).items()}
    compare(element, params, rng.integers(-3, 4, (batch, *shape)).astype(dtype), end=end)


SAME = {"kernel": 3, "padding": "same"}


ELEMENTS = [
    (Conv(20, **SAME), (5, 9, 7), 2),  # correlate, gradient
    (Conv(9, kernel=(2, 3), stride=2, dilation=(1, 2), padding=(1, 2), groups=3), (9, 8, 6), 2),  # several phases
    (Conv(33, **SAME), (5, 6, 16), 8),  # rows across the batch
    (Conv(24, kernel=3, padding=1, bias=False), (7, 13, 3), 2),  # narrow error
    (Conv(2, kernel=3, padding=1), (7, 13, 24), 2),  # narrow forward
    (Conv(19, kernel=3, stride=2, padding="same", groups=19), (6, 9, 19), 2),  # depthwise
    (Conv(21, kernel=1), (9, 11, 5), 2),  # long rows
    (Conv(5, kernel=(2, 3, 2), padding="full"), (3, 4, 5, 3), 2),
    (ConvTranspose(4, kernel=3, stride=2, padding=1), (4, 5, 3), 2),
    (ConvTranspose(18, kernel=3, stride=(3, 2), dilation=2, groups=2), (3, 4, 6), 2),
    (Affine(10), (37,), 5),
    (Affine(33, bias=False), (3, 7), 131),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NEEDS)
def test_every_kernel_on_every_machine(name, dtype):
    with made_for(name) as emitted, pytest.MonkeyPatch.context() as patch:
        for end in (True, False):
            surround(patch, end)
            for element, shape, batch in ELEMENTS:
                check(element, *shape, end=end, batch=batch, dtype=dtype)
    assert len(emitted) > 2 * len(ELEMENTS)


@pytest.mark.parametrize("width", [*range(1, 16), 27, 28, 29, 43])
def test_widths_around_every_tile(width, guards):
    check(Conv(20, **SAME), 3, width, 4, end=guards)
    check(Conv(20, kernel=2), 2, width + 1, 17, end=guards)
    check(ConvTranspose(3, kernel=4, stride=2, padding=1), 3, width, 5, end=guards)


@pytest.mark.parametrize("filters", [1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130])
def test_filters_around_every_block(filters, guards):
    check(Conv(filters, **SAME), 3, 5, 4, end=guards)
    check(Affine(filters), 9, end=guards)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 15, 16, 17, 33, 129])
def test_channels_around_every_panel_and_unrolling(channels, guards):
    check(Conv(18, kernel=(2, 3), padding="same"), 3, 5, channels, end=guards)
    check(Conv(3, kernel=2, stride=2), 4, 6, channels, end=guards)


@pytest.mark.parametrize("pixels", [1, 95, 96, 97, 200])
def test_pixels_around_the_long_row(pixels, guards):
    check(Conv(21, kernel=1), pixels, 5, end=guards)
    check(Affine(6), 3, end=guards, batch=pixels)


@pytest.mark.parametrize("batch", [0, 1, 7, 8, 9, 17])
def test_examples_around_slices_and_rows_across_the_batch(batch, guards):
    check(Conv(20, **SAME), 5, 7, 16, end=guards, batch=batch)
    check(Conv(6, kernel=3), 5, 7, 2, end=guards, batch=batch)


def test_bands_of_large_images_and_sweeps_of_many_channels(guards):
    check(Conv(8, **SAME), 190, 200, 3, end=guards, batch=1)
    check(Conv(70, **SAME), 5, 6, 1024, end=guards, batch=1)
    check(Conv(8, kernel=(5, 3), stride=(2, 1), dilation=(3, 1), padding="same"), 190, 100, 3, end=guards, batch=1)
