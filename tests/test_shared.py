"""Convolutions whose pixels share vectors, on small integers and between guards; their tiles stay in registers."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from emission import made_for, spills
from faltung.elements import Conv
from faltung.engine.host.compile import assembly
from faltung.engine.host.machine import AVX2, AVX512, NEEDS, NEON, Machine, host
from faltung.engine.kernels import correlate, gradient
from faltung.engine.kernels.shared import sharing
from faltung.engine.kernels.tiles import Rows, schedule
from faltung.engine.loops.language import F32, F64, Type
from faltung.engine.lower.conv import LOWERINGS
from faltung.errors import SettingError
from lowered import compare


def check(conv: Conv, *shape: int, end: bool, dtype: Any = np.float32) -> None:
    """All three products of small integers are exact."""
    rng = np.random.default_rng(1)
    params = {name: rng.integers(-3, 4, asks.shape).astype(dtype) for name, asks in conv.parameters(shape).items()}
    compare(conv, params, rng.integers(-3, 4, (2, *shape)).astype(dtype), end=end)


@pytest.mark.parametrize("filters", [1, 2, 3, 5, 8, 17, 20, 36])
def test_filters_and_channels(filters, guards):
    for channels, stride in ((1, 1), (3, 1), (1, 2)):
        check(Conv(filters, kernel=(2, 5), stride=stride, padding=2), 3, 9, channels, end=guards)


@pytest.mark.parametrize("width", [*range(1, 13), 19, 20, 21, 27, 28, 29, 57])
def test_widths(width, guards):
    for filters, kernel in ((20, 9), (6, 5), (3, 1)):
        check(Conv(filters, kernel=(2, kernel)), 3, width + kernel - 1, 1, end=guards)
    check(Conv(6, kernel=3, padding="same"), 3, width, 2, end=guards)


@pytest.mark.parametrize("name", NEEDS)
def test_machines(name):
    with made_for(name):
        for filters, channels in product((2, 5, 20), (1, 3)):
            check(Conv(filters, kernel=3, padding=1), 4, 11, channels, end=True)


def test_infinities_stay_where_they_are():
    w, x = np.ones((3, 3, 1, 20), np.float32), np.zeros((1, 3, 20, 1), np.float32)
    x[0, :, 9] = np.inf
    y, _ = LOWERINGS[Conv][0](Conv(20, kernel=3, bias=False), {"w": w}, x)
    assert np.isinf(y[0, 0]).all(axis=-1).tolist() == [6 < t < 10 for t in range(18)]
    assert not y[0, 0, :7].any()
    assert not y[0, 0, 10:].any()


@pytest.mark.parametrize(("outputs", "step", "machine", "members"), [
    (20, 1, AVX512, 4), (20, 5, AVX512, 4), (20, 6, AVX512, 2), (20, 16, AVX512, None), (24, 1, AVX512, 2),
    (25, 1, AVX512, None), (1, 1, AVX512, 16), (3, 1, AVX512, 4), (17, 1, AVX512, 16), (16, 1, AVX512, None),
    (20, 1, AVX2, 2), (20, 2, AVX2, None), (6, 1, AVX2, None), (2, 1, NEON, 2), (3, 1, NEON, None),
])  # fmt: skip
def test_how_many_share_a_vector(outputs: int, step: int, machine: Machine, members: int | None):
    shared = sharing(F32, outputs, step, machine)
    assert (shared and shared.members) == members


@pytest.mark.parametrize("name", ["avx512", "avx2"])
@pytest.mark.parametrize("layer", [(1, 20, 9), (1, 6, 5), (3, 20, 3), (1, 36, 5), (1, 10, 5)], ids=str)
@pytest.mark.parametrize("kind", [F32, F64], ids=str)
def test_tiles_stay_in_registers(kind: Type, layer: tuple[int, int, int], name: str):
    channels, filters, taps = layer
    try:
        machine = host(name)
    except SettingError:
        pytest.skip(f"this machine is no {name}")
    rows = Rows(kind, channels, filters, taps, 1, 1, channels, filters, padded=False)
    tile, sums = schedule(rows, taps, machine), gradient.schedule(rows, machine)
    found = [
        spills(assembly([function], {function.name}, machine))
        for plan, function in (
            (tile, correlate.tile(rows, tile, tile.pixels)), (sums, gradient.tile(rows, sums, sums.inputs)),
        )
        if plan.shared
    ]  # fmt: skip
    assert set(found) <= {(0, 0)}
