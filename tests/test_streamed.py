"""Outputs that are streamed past the caches: the same bits, of whole and of short last vectors, on every machine."""

import numpy as np
import pytest

from faltung.elements import GELU, Concat, Crop, Pad, Product, ReLU, Sigmoid, Sum
from faltung.elements.element import Element, Run
from faltung.engine.host.compile import source
from faltung.engine.host.machine import host
from faltung.engine.host.recording import recording
from faltung.engine.kernels import elementwise
from faltung.engine.loops.interpreter import run
from faltung.engine.loops.language import F32
from faltung.engine.loops.printer import text
from faltung.engine.lower import lowerings
from faltung.engine.programs import ready
from lowered import compiled_for, machines

COUNT = 21_003  # each array is larger than what NumPy allocates, whose arrays do not begin cache lines


def results(element: Element, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """What forward and error give, asked for twice: by launches, and by a program."""
    rng = np.random.default_rng(0)
    ours = lowerings()[type(element)]
    x = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    together = tuple(x) if len(x) > 1 else x[0]
    y, kept = ours.forward(element, {}, together, Run(training=True, seed=1))
    dy = rng.normal(size=y.shape).astype(np.float32)
    found = []
    for _ in range(3):
        dx = ours.error(element, {}, kept, dy)
        found += [ours.forward(element, {}, together, Run(training=True, seed=1))[0]]
        found += dx if isinstance(dx, tuple) else [dx]
    return found


CASES = [
    *((element, [(3, COUNT)]) for element in (ReLU(), Sigmoid(), GELU())),
    *((element, [(3, COUNT)] * 2) for element in (Sum(), Product())),
    *((Concat(), [(COUNT, first), (COUNT, last)]) for first, last in ((16, 32), (16, 5), (3, 4))),
    *((Pad((2, 1), mode=mode), [(1, 2100, channels)]) for mode in ("constant", "reflect") for channels in (16, 20)),
    (Crop((2, 1)), [(2, 2100, 16)]),
]


@pytest.mark.parametrize("machine", machines())
@pytest.mark.parametrize(("element", "shapes"), CASES, ids=repr)
def test_the_bits_are_the_same(element, shapes, machine, monkeypatch):
    monkeypatch.setenv("FALTUNG_MACHINE", machine)
    with compiled_for(machine):
        usual = results(element, shapes)
        monkeypatch.setattr(elementwise, "STREAMED", 0)
        ready.known.clear()
        for expected, got in zip(usual, results(element, shapes), strict=True):
            np.testing.assert_array_equal(got, expected)
        ready.known.clear()


def test_only_whole_vectors_are_streamed_and_others_are_told():
    function = elementwise.elementwise(F32.times(16), 1, lambda x: [x + x], stream=True)
    lines = [line.strip() for line in text(function).splitlines() if "y0.1[" in line]
    assert [line.startswith("stream ") for line in lines] == [True, False]
    module = source([function], {"elementwise"}, host())
    assert module.count("!nontemporal !0") == 1
    assert "fence seq_cst\n  ret void" in module
    x, y = np.arange(40, dtype=np.float32), np.zeros(40, np.float32)
    run(function, x, y, 40, np.zeros(1, np.int64), 0, 1)
    np.testing.assert_array_equal(y, 2 * x)


def test_small_arrays_and_parts_of_others_are_not_streamed():
    few, some, many = (np.broadcast_to(np.float32(0), (count,)) for count in (8, 2**20, elementwise.STREAMED // 4))
    assert elementwise.streamed(some, many)
    assert not elementwise.streamed(some)
    assert not elementwise.streamed(few, many)
    with recording(sliced=False, parts=True):
        assert not elementwise.streamed(some, many)
