"""The chosen tiles stay in registers: what their innermost loops store on the stack, beside what they compute.

The bound is in vector registers stored or loaded for each multiply-add. NEON's tiles fill 30 or 31 of 32 registers, of
which LLVM wants a few for itself.
"""

import re
from dataclasses import dataclass
from typing import Any

import pytest

from emission import for_arm, spills
from faltung.engine.host.compile import assembly
from faltung.engine.host.llvm import module as source
from faltung.engine.host.machine import NEON, Machine, host
from faltung.engine.kernels import correlate, gradient
from faltung.engine.kernels.tiles import Rows, Tile, schedule
from faltung.engine.loops.language import F32, F64, Type
from faltung.errors import SettingError


@dataclass(frozen=True)
class Layer:
    """Channels, filters, and the taps of a row and their steps."""

    channels: int
    filters: int
    taps: int = 3
    stride: int = 1
    dilation: int = 1

    def rows(self, kind: Type) -> Rows:
        steps = (self.taps, self.stride, self.dilation)
        return Rows(kind, self.channels, self.filters, *steps, self.channels, self.filters, padded=self.taps > 1)


DEEP = [
    Layer(64, 64), Layer(128, 128), Layer(256, 256), Layer(64, 256, taps=1), Layer(64, 128, stride=2),
    Layer(64, 128, taps=2, dilation=64), Layer(256, 128, taps=1), Layer(512, 512),
]  # fmt: skip
FIRST = [Layer(1, 20, taps=9), Layer(3, 64), Layer(3, 64, taps=7, stride=2)]
"""Layers whose windows overlap within one unrolled sweep: LLVM loads what they share once, and keeps it."""
FEW = [
    *[Layer(1, 20, taps=taps) for taps in (4, 5, 7)], Layer(1, 12, taps=4), Layer(1, 24, taps=5), Layer(8, 40, taps=5),
    Layer(1, 32), Layer(3, 16), Layer(3, 32), Layer(64, 12), Layer(16, 8), Layer(6, 16, taps=5), Layer(32, 32, taps=2),
]  # fmt: skip
"""Layers of few filters: taps go together, and their weights stand beside the sums."""
MACHINES = ("avx512", "avx2", "neon")
KINDS = pytest.mark.parametrize("kind", [F32, F64], ids=str)


def share(make: Any, rows: Rows, name: str) -> float:
    """Spills a multiply-add, in the innermost loop of the largest tile."""
    machine = _machine(name)
    if make is correlate:
        plan = schedule(rows, 3, machine)
        function = correlate.tile(rows, plan, plan.pixels)
    else:
        sums = gradient.schedule(rows, machine)
        function = gradient.tile(rows, sums, sums.inputs)
    if machine is NEON:
        module, arm = for_arm(source([function], {function.name}, machine))
        text = arm.emit_assembly(module)
        return spills(text, "arm")[0] / len(re.findall(r"\bfmla\b", text))
    text = assembly([function], {function.name}, machine)
    return spills(text)[0] / text.count("vfmadd")


def _machine(name: str) -> Machine:
    if name == "neon":
        return NEON
    try:
        return host(name)
    except SettingError:
        pytest.skip(f"this machine is no {name}")


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("layer", DEEP, ids=str)
@KINDS
def test_tiles_of_forward_and_error(kind, layer, name):
    assert share(correlate, layer.rows(kind), name) <= {"neon": 1 / 16}.get(name, 0)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("layer", [*DEEP, *FIRST], ids=str)
@KINDS
def test_tiles_of_the_gradient(kind, layer, name):
    assert share(gradient, layer.rows(kind), name) <= {"neon": 1 / 8}.get(name, 0)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("layer", [*FIRST, *FEW], ids=str)
@KINDS
def test_tiles_of_first_layers_and_of_few_filters(kind, layer, name):
    aside = 1 / 32 if layer in FEW else 0  # one vector of some dozens may step aside
    assert share(correlate, layer.rows(kind), name) <= {"neon": 1 / 6}.get(name, aside)


def test_a_tile_that_is_too_large_would_be_seen():
    rows = DEEP[0].rows(F32)
    function = correlate.tile(rows, Tile(lanes=4, vectors=8, pixels=14, channels=64), 14)
    module, arm = for_arm(source([function], {function.name}, NEON))
    assert spills(arm.emit_assembly(module), "arm")[0] > 50
    assert spills(assembly([function], {function.name}, host("plain")))[0] > 50
