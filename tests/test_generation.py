"""The loop over samples in machine code: it does what the interpreter and the NumPy steps do, and nothing beside it."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from differences import assert_close
from elf import LINKERS_OWN, undefined
from emission import for_arm, spills
from faltung.engine.host import arena, dispatch, processors
from faltung.engine.host.compile import assembly, compile, object_code, source
from faltung.engine.host.machine import AVX512, NEON, Machine, host
from faltung.engine.loops import interpreter
from faltung.engine.loops.effects import effects
from faltung.engine.loops.language import F32, I32, I64, INDEX, Function, pointer
from faltung.engine.loops.printer import text
from faltung.engine.stream import generator
from faltung.engine.stream.columns import Columns, bfloat16, columns, product
from faltung.engine.stream.generation import generate
from faltung.engine.stream.generator import Generator
from faltung.engine.stream.halves import by_two
from faltung.engine.stream.layout import Layout, Sizes
from faltung.engine.stream.pace import Paced, PacedGenerator
from faltung.errors import EngineError
from faltung.models.wavenet.stepwise import Stepwise
from guard import copied, guarded, surround
from lowered import machines

every_machine = pytest.mark.parametrize("name", machines())
affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
halves = pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])


@pytest.fixture
def this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Tells this machine which one to be."""

    def be(name: str) -> None:
        monkeypatch.setenv("FALTUNG_MACHINE", name)
        host.cache_clear()

    yield be
    monkeypatch.undo()
    host.cache_clear()


# A product


def multiply(matrix: Columns, w: Any, x: Any, machine: Machine, end: bool, before: int = 0) -> Any:
    """y = 1 + x w, by machine code between guards; x is (taps, streams, inputs)."""
    f = Function("multiply", w=pointer(I32 if matrix.half else F32), x=pointer(F32), y=pointer(F32))
    _, taps, y = f.arguments
    _, streams, inputs = x.shape
    size = matrix.vectors * matrix.lanes
    product(
        f, matrix, f.arguments[0], [(f.at(taps, tap * streams * inputs), inputs) for tap in range(len(x))],
        lambda s, o: f.constant(1.0, F32.times(matrix.lanes)),
        lambda s, o, total: f.store(total, y, o + s * size), before,
    )  # fmt: skip
    result = guarded((streams, size), np.float32, end)
    arrays = copied(matrix.pack(w), end), copied(x.astype(np.float32), end), result
    compile([f], {f.name}, machine).functions[f.name](*(array.ctypes.data for array in arrays))
    return result


@every_machine
@halves
def test_a_product_is_exact_on_whole_numbers(name, half):
    random, machine = np.random.default_rng(0), host(name)
    for taps, inputs, outputs, streams in (
        (1, 1, 1, 1),
        (2, 7, 40, 1),
        (1, 16, 600, 2),
        (3, 5, 100, 5),
        (1, 33, 17, 8),
    ):
        w, x = random.integers(-9, 10, (taps, inputs, outputs)), random.integers(-9, 10, (taps, streams, inputs))
        matrix = columns(taps, inputs, outputs, streams, half, machine)
        for end in (True, False):
            got = multiply(matrix, w, x, machine, end, before=taps - 1)
            assert np.array_equal(got[:, :outputs], 1 + np.einsum("tsi,tio->so", x, w))
            assert (got[:, outputs:] == 1).all(), "outputs that do not exist have weights of 0"


def test_sums_are_rounded_alike_for_any_number_of_streams():
    random = np.random.default_rng(0)
    w, x = random.normal(size=(2, 50, 70)), random.normal(size=(2, 9, 50))
    all_of_them = multiply(columns(2, 50, 70, 9, False, host()), w, x, host(), True)
    for streams in (1, 2, 4):
        some = multiply(columns(2, 50, 70, streams, False, host()), w, x[:, :streams], host(), True)
        assert np.array_equal(some, all_of_them[:streams])


def test_groups_hold_all_streams_and_each_number_meets_a_pair_of_vectors():
    for outputs in (1, 16, 40, 64, 128):
        for streams in (1, 2, 3, 7, 8):
            for machine in (AVX512, NEON):
                matrix = columns(2, 32, outputs, streams, False, machine)
                groups = matrix.groups()
                assert [s for group in groups for s in group] == list(range(streams))
                sums = [len(group) * width * matrix.sets for group in groups for _, _, width in matrix.blocks()]
                assert max(sums) <= matrix.sums
                assert len(groups) == 1 or max(width for _, _, width in matrix.blocks()) == min(2, matrix.vectors)


def test_blocks_hold_all_vectors():
    for outputs in (1, 16, 100, 320, 544, 592, 1088):
        for streams in (1, 2, 3, 8):
            for half in (False, True):
                matrix = columns(1, 4, outputs, streams, half, AVX512)
                seen = [v for begin, end, width in matrix.blocks() for v in range(begin, end) if width]
                assert seen == list(range(matrix.vectors))
                assert all((end - begin) % width == 0 for begin, end, width in matrix.blocks())


def test_bfloat16_is_the_nearest_number():
    x = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    near = bfloat16(x)
    assert not (near.view(np.uint32) & 0xFFFF).any()
    below = (x.view(np.uint32) & 0xFFFF0000).view(np.float32)
    above = ((x.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32)
    assert (abs(x - near) == np.minimum(abs(x - below), abs(above - x))).all()
    tie = np.array([0x3F808000, 0x3F818000], np.uint32).view(np.float32)
    assert bfloat16(tie).view(np.uint32).tolist() == [0x3F800000, 0x3F820000]


# All steps


def weights(kernel: int, residual: int, gate: int, skip: int, end: int, classes: int, layers: int) -> dict[str, Any]:
    """Random ones, as ``Generator`` wants them, and gate biases as one step's starts."""
    shapes = {
        "front": (2, classes + 1, residual),
        "gate": (layers, kernel, residual, 2, gate),
        "residual": (layers, gate, residual), "residual.b": (layers, residual),
        "skip": (layers, gate, skip), "skip.b": (layers, skip),
        "end1": (skip, end), "end1.b": (end,), "end2": (end, classes), "end2.b": (classes,),
        "starts": (1, 1, layers, 2, gate),
    }  # fmt: skip
    random = np.random.default_rng(0)
    return {name: random.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}


def said(machine: Any, arrays: dict[str, Any], steps: int, blocks: int = 2, **settings: Any) -> tuple[Any, Any]:
    """The codes that it draws, and the logits, in so many blocks."""
    streams, random = settings.pop("streams"), np.random.default_rng(1)
    first = arrays["front"].shape[1] - 1
    codes, state, kept = np.full((streams, 2 + blocks * steps), first, np.int32), machine.begin(), []
    codes[:, 1] = 0
    for block in range(blocks):
        some = np.ascontiguousarray(codes[:, block * steps :][:, : steps + 2])
        numbers = random.random((streams, steps))
        kept.append(machine.run(state, some, arrays["starts"], numbers, keep=True, **settings))
        codes[:, block * steps :][:, : steps + 2] = some
    return codes, np.concatenate(kept)


SMALL = (2, 5, 3, 7, 4, 6, 3)
WIDE = (3, 33, 18, 50, 21, 40, 2)


@every_machine
@halves
@pytest.mark.parametrize("end", [True, False])
def test_between_guards_it_does_what_numpy_does(monkeypatch, this_machine, name, half, end):
    this_machine(name)
    surround(monkeypatch, end)
    for shape, streams, dilations in ((SMALL, 1, (1, 2, 4)), (WIDE, 3, (3, 1))):
        arrays = weights(*shape)
        got, law = (
            said(make(dilations, arrays, streams, half), arrays, 15, streams=streams) for make in (Generator, Stepwise)
        )
        assert np.array_equal(got[0], law[0])
        assert_close(got[1], law[1], 2e-6)


@halves
def test_it_does_what_its_statements_mean(monkeypatch, half):
    """Bit for bit, and the interpreter sees every number that lies outside of its array."""
    arrays, streams = weights(*SMALL), 2
    compiled = said(Generator((1, 2, 1), arrays, streams, half), arrays, 3, streams=streams, temperature=0.7)

    def interpreted(machine: Machine, sizes: Sizes) -> Any:
        (function,) = generate(machine, sizes)
        return [lambda *given: interpreter.run(function, *given, fused=machine.fused)]

    monkeypatch.setattr(generator, "_loops", interpreted)
    monkeypatch.setattr(arena, "address", lambda array: array.reshape(-1))
    monkeypatch.setattr(dispatch, "sharing", lambda: (3 * [np.zeros(1, np.int64)], None))
    meant = said(Generator((1, 2, 1), arrays, streams, half), arrays, 3, streams=streams, temperature=0.7)
    for one, other in zip(compiled, meant, strict=True):
        assert np.array_equal(one, other)


@halves
def test_two_workers_say_the_same(half):
    for shape, streams, dilations in (
        (SMALL, 1, (1, 2, 4)),
        (WIDE, 3, (3, 1)),
        ((2, 32, 32, 512, 512, 256, 1), 2, (5,)),
    ):
        arrays = weights(*shape)
        made = Generator(dilations, arrays, streams, half, 2), by_two(dilations, arrays, streams, half)
        alone, *shared = (
            said(one, arrays, 40, streams=streams) for one in (Generator(dilations, arrays, streams, half), *made)
        )
        for got in shared:
            assert np.array_equal(alone[0], got[0])
            assert np.array_equal(alone[1], got[1])


@pytest.mark.parametrize("streams", [1, 2, 5])
def test_others_go_on_from_what_was_heard(streams):
    arrays, dilations = weights(*SMALL), (1, 4, 2)
    makers: Any = Generator, by_two
    one, two = (make(dilations, arrays, streams) for make in makers)
    law = said(one, arrays, 30, streams=streams)
    for first, second in ((one, two), (two, one)):
        codes, numbers = law[0][:, :31].copy(), np.random.default_rng(1).random((streams, 30))
        before, after = first.begin(), second.begin()
        first.run(before, codes[:, :22], arrays["starts"], numbers[:, :20])
        second.hear(after, *first.heard(before))
        codes[:, 22:] = -1
        rest = second.run(after, codes[:, 20:], arrays["starts"], numbers[:, 20:29], keep=True)
        assert rest is not None
        assert np.array_equal(codes, law[0][:, :31])
        assert np.array_equal(rest, law[1][20:29])


@affinity
def test_two_workers_never_share_a_processor():
    """Also where the first one has moved since the second one was there."""
    allowed, seen = os.sched_getaffinity(0), []

    def look(elsewhere: Callable[[], None]) -> None:
        elsewhere()
        seen.append(os.sched_getaffinity(0))

    with ThreadPoolExecutor(1) as other:
        for place in (*allowed, *allowed):
            os.sched_setaffinity(0, {place})
            os.sched_setaffinity(0, allowed)
            with processors.apart() as elsewhere:
                here = os.sched_getaffinity(0)
                other.submit(look, elsewhere).result()
            assert len(here) == 1
            assert seen.pop() == (allowed - here or allowed)
            assert os.sched_getaffinity(0) == allowed


def test_whoever_is_faster_goes_on_and_says_the_same(monkeypatch: pytest.MonkeyPatch):
    """Two workers are slow for the first 3000 steps, and fast from then on."""
    arrays, dilations = weights(*SMALL), (1, 2, 4)
    law = said(Generator(dilations, arrays, 3), arrays, 2500, streams=3, temperature=0.9)
    turns: list[tuple[int, int]] = []

    def done(self: Paced, who: int, steps: int, seconds: float) -> None:
        before = sum(count for _, count in turns)
        turns.append((who, steps))
        honest(self, who, steps, steps * (2.0 if who == 0 else 4.0 if before < 3000 else 1.0))

    honest = Paced.done
    monkeypatch.setattr(Paced, "done", done)
    got = said(PacedGenerator(dilations, arrays, 3), arrays, 2500, streams=3, temperature=0.9)
    for one, other in zip(law, got, strict=True):
        assert np.array_equal(one, other)
    assert turns[:4] == [(0, 200), (1, 200), (0, 600), (1, 200)], "both are tried, and after 1000 steps again"
    assert sum(steps for who, steps in turns if who == 1) > 1500
    assert turns[-1][0] == 1


def test_all_outputs_belong_to_one_of_two_workers():
    for shape in (*NETS.values(), (2, 64, 16, 16, 16, 16, 2), (2, 16, 64, 16, 16, 16, 2)):
        layout = Layout(Sizes(*shape, workers=2), AVX512)
        first, second = layout.shares
        _, *matrices = layout.products
        for one, other, matrix in zip(vars(first).values(), vars(second).values(), matrices, strict=True):
            assert (one[0], one[1], other[1]) == (0, other[0], matrix.vectors)
        assert first.both[1] * layout.lanes >= layout.residual, "the other one knows no residuals"


# Two threads that wait for each other


def told() -> tuple[Function, Function]:
    """One doubles each number when it is told to; the other one tells, waits, and adds 1."""
    functions = []
    for name in ("ask", "double"):
        f = Function(name, x=pointer(I64), clocks=pointer(I64), pause=pointer(I64), system=pointer(I64), count=INDEX)
        x, clocks, pause, system, count = f.arguments
        with f.loop("i", count) as i:
            time = f.convert("bits", i + 1, I64)
            if name == "ask":
                f.store(f.convert("bits", i, I64), x, i)
                f.tell(time, clocks)
                f.wait(time, clocks, 8, pause, system)
                f.store(f.load(x, i) + 1, x, i)
            else:
                f.wait(time, clocks, 0, pause, system)
                f.store(f.load(x, i) * 2, x, i)
                f.tell(time, clocks, 8)
        functions.append(f)
    return functions[0], functions[1]


def test_who_is_told_sees_what_was_stored_before():
    ask, double = told()
    code = compile([ask, double], {"ask", "double"}, host()).functions
    x, clocks = np.zeros(20_000, np.int64), np.zeros(16, np.int64)
    arguments = (x.ctypes.data, clocks.ctypes.data, *dispatch.sharing()[0][1:], len(x))
    other = threading.Thread(target=code["double"], args=arguments)
    other.start()
    code["ask"](*arguments)
    other.join()
    assert np.array_equal(x, 2 * np.arange(len(x)) + 1)


def test_telling_and_waiting_as_text_and_in_the_interpreter():
    ask, double = told()
    lines = [line.strip() for line in text(ask).splitlines()]
    assert "tell(clocks[0] = bits(i + 1))" in lines or "tell(clocks[0] = bits)" in lines
    assert any(line.startswith("wait(clocks[8] >= bits") for line in lines)
    assert effects(double) == ({0, 1}, {0, 1})
    x, clocks, nothing = np.arange(3), np.array([3, *15 * [0]]), np.zeros(1, np.int64)
    interpreter.run(double, x, clocks, nothing, nothing, 3)
    assert (x.tolist(), clocks[8]) == ([0, 2, 4], 3)
    with pytest.raises(
        EngineError, match=r"ask: wait\(clocks\[8\] >= .*\): waits for another thread, but there is none"
    ):
        interpreter.run(ask, np.arange(3), np.zeros(16, np.int64), nothing, nothing, 3)


def test_a_number_close_to_1_draws_the_last_class_that_can_be():
    arrays = weights(*SMALL)
    arrays["end2"][:], arrays["end2.b"][:] = 0, [0, 0, 0, 0, -500, -500]
    machine = Generator((1, 2, 1), arrays)
    for number, code in ((0.0, 0), (1 - 2.0**-24, 3)):
        codes = np.zeros((1, 42), np.int32)
        machine.run(machine.begin(), codes, arrays["starts"], np.full((1, 40), number))
        assert (codes[0, 2:] == code).all()


# What is emitted

NETS = {
    "nv": (2, 64, 64, 256, 256, 256, 2),
    "ibab": (2, 32, 32, 512, 512, 256, 2),
}


@every_machine
@halves
@pytest.mark.parametrize("net", NETS)
def test_sums_stay_in_registers(name, half, net):
    """Each product would store and load hundreds otherwise; a few constants may lie on the stack."""
    for streams in (1, 8):
        functions = generate(host(name), Sizes(*NETS[net], streams, half))
        inner, outer = spills(assembly(functions, {"generate"}, host(name)))
        assert inner + outer <= (8 if host(name).fused else 130), streams


@every_machine
@halves
def test_objects_ask_their_linker_for_nothing(name, half):
    for streams in (1, 3):
        functions = generate(host(name), Sizes(*WIDE[:6], 2, streams, half))
        assert undefined(object_code(source(functions, {"generate"}, host(name)), host(name))) <= LINKERS_OWN


@halves
def test_nor_do_they_on_arm(half):
    functions = generate(NEON, Sizes(*WIDE[:6], 2, 3, half))
    module, arm = for_arm(source(functions, {"generate"}, NEON))
    assert undefined(arm.emit_object(module)) <= LINKERS_OWN
