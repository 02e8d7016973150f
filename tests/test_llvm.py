"""Compiled functions do what the interpreter does, bit for bit, on every machine that this one can be."""

import math
import platform
import threading
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elf import LINKERS_OWN, library_calls, undefined
from faltung.engine.host.compile import assembly, compile, object_code, source
from faltung.engine.host.machine import NEEDS, NEON, Machine, host
from faltung.engine.loops.interpreter import run
from faltung.engine.loops.language import F32, F64, I8, I32, I64, INDEX, Function, Type, Value, pointer
from faltung.engine.loops.operations import CONVERSIONS, OPERATIONS
from faltung.engine.loops.statements import Let
from faltung.errors import SettingError
from guard import copied


def _machines() -> Iterator[Machine]:
    for name in NEEDS:
        try:
            yield host(name)
        except SettingError:  # this machine cannot run it
            continue


MACHINES = list(_machines())
machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
WHOLE = {F32: I32, F64: I64}


@pytest.fixture(autouse=True, scope="module")
def no_cache() -> Iterator[None]:
    """Random programs are not worth keeping."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FALTUNG_CACHE", "off")
        yield


def agree(functions: list[Function], machine: Machine, *arguments: Any) -> list[Any]:
    """Run the last function compiled and interpreted; arrays must hold the same bits after both, but for NaNs."""
    interpreted = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    run(functions[-1], *interpreted, fused=machine.fused)
    for end in (True, False):
        compiled = [copied(a, end) if isinstance(a, np.ndarray) else a for a in arguments]
        code = compile(functions, {functions[-1].name}, machine)
        code.functions[functions[-1].name](*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in compiled))
        for one, other in zip(compiled, interpreted, strict=True):
            if isinstance(one, np.ndarray):
                bits = f"i{one.itemsize}"
                differ = one.view(bits) != other.view(bits)
                if one.dtype.kind == "f":
                    differ &= ~(np.isnan(one) & np.isnan(other))
                where = np.flatnonzero(differ)
                assert not where.size, f"{machine.name}: {one[where]} != {other[where]} at {where}"
    return interpreted


SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    2.5,
    3.5,
    math.inf,
    -math.inf,
    math.nan,
    1e-40,
    1e30,
    -7.25,
    0.1,
    1 / 3,
    123456.75,
    -2.0,
]
NUMBERS = [0, 1, -1, 2, 7, -7, 8, 2**31 - 1, -(2**31), 12345, -99, 3, 5, 1 << 20, 31, -31]
OPERANDS = {"negate": 1, "sqrt": 1, "abs": 1, "round": 1, "fma": 3}
"""How many, where it is not two."""


class Writer:
    """A function that stores many results: floating ones in y, whole ones in m."""

    def __init__(self, kind: Type, lanes: int):
        self.kind, self.whole, self.lanes = kind, WHOLE[kind], lanes
        self.f = Function("program", x=pointer(kind), n=pointer(self.whole), y=pointer(kind), m=pointer(self.whole))
        self.x, self.n, self.y, self.m = self.f.arguments
        self.stored = {"y": 0, "m": 0}

    def keep(self, value: Value) -> None:
        """Store it behind what is stored already."""
        if value.type.kind == "bool":
            value = self.f.select(value, self.f.constant(1.0, self.kind), 0.0)
        place = self.y if value.type.floating else self.m
        self.f.store(value, place, self.stored[place.name])
        self.stored[place.name] += value.type.lanes

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """Room for all that is stored."""
        return np.full(self.stored["y"], np.nan, self.kind.dtype), np.full(self.stored["m"], -1, self.whole.dtype)


def everything(kind: Type, lanes: int) -> Writer:
    """Every operation on vectors of so many lanes."""
    writer = Writer(kind, lanes)
    f, keep, whole = writer.f, writer.keep, writer.whole
    a, b, c = (f.load(writer.x, number * lanes, lanes) for number in range(3))
    i, j = (f.load(writer.n, number * lanes, lanes) for number in range(2))
    some = f.first_lanes(lanes - 1, lanes) if lanes > 1 else b < c
    for op, operation in OPERATIONS.items():
        for floating, operands in ((True, [a, b, c]), (False, [i, j])):
            if op == "select":
                operands = [some, *operands[:2]]
            elif op in ("quotient", "remainder"):
                operands = [i, (j & 15) + 1]
            elif "shift" in op:
                operands = [i, j & 15]
            if operation.text(floating) is not None:
                keep(f.op(op, *operands[: 3 if op == "select" else OPERANDS.get(op, 2)]))
    few = f.min(f.max(a, -1000.0), 1000.0)
    keep(f.convert("to_int", few, whole))
    keep(f.convert("to_float", i, kind))
    keep(f.convert("bits", few, whole))
    keep(f.convert("bits", i & 0x3FFFFFFF, kind))
    if kind == F32:
        keep(f.convert("narrow", f.convert("widen", a, F64) * 1.5, F32))
        keep(f.convert("narrow", f.convert("widen", i, I64) * f.convert("widen", j, I64) >> 7, I32))
    keep((a < b) | some)
    keep((a <= b) & a.not_equal(c))
    keep(a.equal(a) ^ some)
    if lanes > 1:
        keep(f.shuffle(a, b, [(3 * lane + 1) % (2 * lanes) for lane in range(lanes)]))
    keep(f.sum_lanes(b))
    keep(f.max_lanes(i))
    return writer


@machines
@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("kind", [F32, F64], ids=str)
def test_every_operation_on_every_kind_of_number(kind, lanes, machine):
    writer = everything(kind, lanes)
    written = {statement.op for statement in writer.f.body if isinstance(statement, Let)}
    not_here = {"place"} | ({"widen", "narrow"} if kind == F64 else set())
    assert written >= {*OPERATIONS, *CONVERSIONS} - not_here
    for turn in range(16):
        x = np.array([SPECIAL[(turn * 5 + n * (n // lanes + 1)) % 16] for n in range(3 * lanes)], kind.dtype)
        n = np.array([NUMBERS[(turn * 3 + n * (n // lanes + 1)) % 16] for n in range(2 * lanes)], writer.whole.dtype)
        agree([writer.f], machine, x, n, *writer.outputs())
    assert library_calls([writer.f], {writer.f.name}, machine) == set()


def random_program(draw: Callable[[st.SearchStrategy], Any], kind: Type) -> list[Function]:
    """Loops, conditions, variables, calls, masks and shuffles; reads 64 numbers of x, writes to 256 of y and 1 of m."""
    lanes = draw(st.sampled_from([2, 4, 8, 16]))
    adder = Function("adder", y=pointer(kind), i=INDEX, v=kind.times(lanes))
    y, i, v = adder.arguments
    adder.store(adder.load(y, i, lanes) + v, y, i)

    f = Function("program", x=pointer(kind), y=pointer(kind), m=pointer(INDEX), count=INDEX)
    x, y, m, count = f.arguments
    floats = [f.load(x, 0, lanes), f.broadcast(f.load(x, 20), lanes)]
    places = [f.constant(3), f.min(count, 9)]  # all below 10
    masks = [f.first_lanes(count, lanes)]
    variables = [f.variable("v", draw(st.sampled_from(floats))) for _ in range(2)]
    with f.loop("i", 256, step=lanes) as i:
        f.store(f.constant(0.0, kind.times(lanes)), y, i)

    def steps(depth: int) -> None:
        for _ in range(draw(st.integers(1, 4))):
            one, other, third = (draw(st.sampled_from(floats)) for _ in range(3))
            place, mask = draw(st.sampled_from(places)), draw(st.sampled_from(masks))
            variable = draw(st.sampled_from(variables))
            action = draw(st.sampled_from(range(12)))
            if action == 0:
                op = draw(st.sampled_from(["add", "sub", "mul", "div", "min", "max", "sign_of"]))
                floats.append(f.op(op, one, other))
            elif action == 1:
                floats.append(f.fma(one, other, third))
            elif action == 2:
                masks.append(
                    draw(st.sampled_from([one < other, one <= third, mask & (one > 0.5), f.first_lanes(place, lanes)]))
                )
            elif action == 3:
                floats.append(f.select(mask, one, other))
            elif action == 4:
                picked = draw(st.lists(st.integers(0, 2 * lanes - 1), min_size=lanes, max_size=lanes))
                floats.append(f.shuffle(one, other, picked))
            elif action == 5:
                floats.append(f.broadcast(f.sum_lanes(one), lanes))
            elif action == 6:
                floats.append(f.load(x, place * 4, lanes, draw(st.sampled_from([mask, None]))))
            elif action == 7:
                f.store(one, y, place * lanes, draw(st.sampled_from([mask, None])))
            elif action == 8:
                variable.set(f.fma(one, other, variable.value))
                floats.append(variable.value)
            elif action == 9:
                f.call(adder, f.at(y, place), place, one)
            elif action == 10:
                places.append(f.take(m) % 10)
            elif depth < 3:
                kept = len(floats), len(places), len(masks)
                if draw(st.booleans()):
                    with f.loop("i", place, draw(st.integers(0, 3)), draw(st.integers(1, 3))) as i:
                        places.append(i)
                        steps(depth + 1)
                else:
                    with f.where(place < draw(st.integers(0, 9))):
                        steps(depth + 1)
                del floats[kept[0] :], places[kept[1] :], masks[kept[2] :]

    steps(0)
    for number, value in enumerate([variables[0].value, variables[1].value, floats[-1]]):
        f.store(value, y, 200 + number * lanes)
    return [adder, f]


@machines
@pytest.mark.parametrize("kind", [F32, F64], ids=str)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_random_programs(kind, machine, data):
    functions = random_program(data.draw, kind)
    numbers = st.floats(-8, 8, width=32)
    x = np.resize(np.array(data.draw(st.lists(numbers, min_size=1, max_size=16)), kind.dtype), 64)
    count = data.draw(st.integers(0, 20))
    agree(functions, machine, x, np.full(256, np.nan, kind.dtype), np.zeros(1, np.int64), count)


@machines
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 40])
def test_masks_keep_a_loop_inside_its_buffers(count, machine):
    f = Function("twice", x=pointer(F32), y=pointer(F32), count=INDEX)
    x, y, size = f.arguments
    with f.loop("i", size, step=16) as i:
        mask = f.first_lanes(size - i, 16)
        f.store(f.load(x, i, 16, mask) * 2.0, y, i, mask)
    x = np.arange(count, dtype=np.float32)
    agree([f], machine, x, np.full(count, np.nan, np.float32), count)


@machines
def test_small_whole_numbers_are_kept_in_bytes(machine):
    f = Function("f", n=pointer(I32), b=pointer(I8), m=pointer(I32), count=INDEX)
    n, b, m, count = f.arguments
    with f.loop("i", count, step=16) as i:
        mask = f.first_lanes(count - i, 16)
        f.store(f.convert("narrow", f.load(n, i, 16, mask), I8), b, i, mask)
        f.store(f.convert("widen", f.load(b, i, 16, mask), I32), m, i, mask)
    n = np.arange(-19, 20, dtype=np.int32)
    _, b, m, _ = agree([f], machine, n, np.zeros(39, np.int8), np.zeros(39, np.int32), 39)
    assert np.array_equal(n, b)
    assert np.array_equal(n, m)


@machines
def test_places_lie_in_argument_blocks(machine):
    f = Function("f", block=pointer(INDEX))
    (block,) = f.arguments
    x, y = (f.convert("place", f.load(block, n), pointer(F64)) for n in (0, 1))
    with f.loop("i", f.load(block, 2)) as i:
        f.store(f.load(x, i) * 2.0, y, i)
    x, y = np.arange(3.0), np.full(3, np.nan)
    arguments = np.array([x.ctypes.data, y.ctypes.data, 3])
    compile([f], {"f"}, machine).functions["f"](arguments.ctypes.data)
    assert y.tolist() == [0, 2, 4]


@machines
def test_no_two_threads_take_the_same_number(machine):
    f = Function("f", counter=pointer(INDEX), seen=pointer(INDEX), count=INDEX)
    counter, seen, count = f.arguments
    with f.loop("i", count):
        f.take(f.at(seen, f.take(counter)))
    counter, seen = np.zeros(1, np.int64), np.zeros(40_000, np.int64)
    called = compile([f], {"f"}, machine).functions["f"]
    arguments = (counter.ctypes.data, seen.ctypes.data, 10_000)
    threads = [threading.Thread(target=called, args=arguments) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.all(seen == 1)


def loops(kind: Type) -> list[Function]:
    """What LLVM likes to turn into memset, memcpy and library calls."""
    f = Function("f", x=pointer(kind), y=pointer(kind), count=INDEX)
    x, y, count = f.arguments
    with f.loop("i", count) as i:
        f.store(0.0, y, i)
    with f.loop("i", count) as i:
        f.store(f.load(x, i), y, i)
    with f.loop("i", 4096) as i:
        f.store(f.op("round", f.op("sqrt", f.fma(f.load(x, i), 2.0, 1.0))), y, i)
    return [f]


@machines
@pytest.mark.parametrize("kind", [F32, F64], ids=str)
def test_compiled_functions_call_no_library(kind, machine):
    assert library_calls(loops(kind), {"f"}, machine) == set()


@pytest.mark.parametrize("functions", [loops(F32), loops(F64), [everything(F32, 4).f], [everything(F64, 2).f]])
def test_nor_do_they_on_arm(functions):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple("aarch64-linux-gnu")
    except RuntimeError:
        pytest.skip("this LLVM does not know ARM")
    module = llvm.parse_assembly(source(functions, {functions[0].name}, NEON))
    module.triple = target.triple
    assert undefined(target.create_target_machine(features="+neon", reloc="pic").emit_object(module)) <= LINKERS_OWN


@pytest.mark.skipif(platform.system() != "Linux", reason="reads ELF")
def test_a_library_call_would_be_seen():
    text = "declare void @expf()\ndefine void @f() {\n  call void @expf()\n  ret void\n}\n"
    assert undefined(object_code(text, MACHINES[-1])) == {"expf"}


def test_the_text_keeps_the_names_of_the_kernel():
    f = Function("axpy", a=F32, x=pointer(F32), y=pointer(F32), count=INDEX)
    a, x, y, count = f.arguments
    total = f.variable("total", a)
    with f.loop("i", count) as i:
        total.set(f.fma(a, f.load(x, i), total.value))
    f.store(total.value, y)
    assert (
        source([f], {"axpy"}, MACHINES[0]).split("attributes")[0]
        == """\
declare float @llvm.fma.f32(float, float, float)

define void @axpy(float %a, ptr %x, ptr %y, i64 %count) #0 {
entry:
  %total.slot = alloca float
  store float %a, ptr %total.slot
  %i.any = icmp slt i64 0, %count
  br i1 %i.any, label %i.body, label %i.end
i.body:
  %i = phi i64 [ 0, %entry ], [ %i.up, %i.body ]
  %x.at1 = getelementptr float, ptr %x, i64 %i
  %xv = load float, ptr %x.at1, align 4
  %total.1 = load float, ptr %total.slot
  %fma = call float @llvm.fma.f32(float %a, float %xv, float %total.1)
  store float %fma, ptr %total.slot
  %i.up = add nsw i64 %i, 1
  %i.more = icmp slt i64 %i.up, %count
  br i1 %i.more, label %i.body, label %i.end
i.end:
  %total.2 = load float, ptr %total.slot
  store float %total.2, ptr %y, align 4
  ret void
}
"""
    )


@pytest.mark.skipif(MACHINES[0].name != "avx512", reason="tells the instructions of AVX-512")
def test_a_tile_stays_in_registers():
    f = Function("tile", x=pointer(F32), w=pointer(F32), y=pointer(F32), count=INDEX)
    x, w, y, count = f.arguments
    acc = [f.variable(f"acc{number}", 0.0, F32.times(16)) for number in range(24)]
    with f.loop("k", count) as k:
        weights = [f.load(w, k * 64 + v * 16, 16) for v in range(4)]
        for p in range(6):
            pixel = f.broadcast(f.load(x, k + p), 16)
            for v in range(4):
                acc[p * 4 + v].set(f.fma(pixel, weights[v], acc[p * 4 + v].value))
    for number in range(24):
        f.store(acc[number].value, y, number * 16)
    text = assembly([f], {"tile"}, MACHINES[0])
    assert text.count("vfmadd") == 24
    assert "(%rsp)" not in text
