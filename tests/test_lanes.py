"""Vectors of numbers side by side: all of them are moved, and no other ones."""

from typing import Any

import numpy as np
import pytest

from faltung.engine.host.compile import compile
from faltung.engine.host.machine import host
from faltung.engine.kernels.lanes import Part, blocks, copy, fill, parts
from faltung.engine.loops.interpreter import run
from faltung.engine.loops.language import F32, F64, I8, I32, INDEX, Function, Type, pointer
from faltung.engine.loops.printer import text
from guard import copied, guarded
from lowered import machines

KINDS = [F32.times(16), F64.times(4), F64.times(8), I32.times(8), I8.times(16), I8.times(8)]


def both(f: Function, machine: str, *arguments: Any) -> None:
    """Run a function compiled; then the interpreter, which refuses to reach outside, and must leave the same."""
    before = [argument.copy() if isinstance(argument, np.ndarray) else argument for argument in arguments]
    compiled = compile([f], {f.name}, host(machine)).functions[f.name]
    compiled(*(argument.ctypes.data if isinstance(argument, np.ndarray) else argument for argument in arguments))
    run(f, *before)
    for one, other in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("machine", machines())
@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_vector_moves_as_many_numbers_as_it_has(kind, masks, machine):
    for count in range(1, kind.lanes + 1):
        for end in (True, False):
            part = Part(2, kind.lanes, count, masks)
            f = Function("move", x=pointer(kind), y=pointer(kind))
            x, y = f.arguments
            part.store(f, part.load(f, x), y)
            source, target = copied(np.arange(2 + count, dtype=kind.dtype), end), guarded(3 + count, kind.dtype, end)
            both(f, machine, source, target)
            np.testing.assert_array_equal(target[2 : 2 + count], source[2:])
            np.testing.assert_array_equal(np.isnan(target) | (target < 0), [True, True, *[False] * count, True])


@pytest.mark.parametrize("machine", machines())
@pytest.mark.parametrize("masks", [True, False])
def test_narrowed_numbers_are_stored_one_byte_each(masks, machine):
    for count in range(1, 17):
        f = Function("narrow", x=pointer(I32), y=pointer(I8))
        x, y = f.arguments
        Part(0, 16, count, masks).store(f, f.convert("narrow", f.load(x, 0, 16), I8), y)
        numbers, target = np.arange(16, dtype=np.int32), np.full(20, -1, np.int8)
        both(f, machine, numbers, target)
        assert target.tolist() == [*range(count), *[-1] * (20 - count)]


@pytest.mark.parametrize("count", [1, 7, 8, 31, 32, 33, 64, 75])
def test_blocks_are_all_vectors_once(count):
    kind = F32.times(8)
    f = Function("double", x=pointer(kind))
    (x,) = f.arguments

    def write(c: Any, vectors: list[Part]) -> None:
        for part in vectors:
            part.store(f, 2 * part.load(f, x, c), x, c)

    blocks(f, parts(count, kind, masks=True), 4, write)
    numbers = copied(np.arange(count, dtype=np.float32))
    both(f, machines()[0], numbers)
    np.testing.assert_array_equal(numbers, 2 * np.arange(count))


@pytest.mark.parametrize("kind", [F32.times(16), F64.times(4)], ids=str)
def test_runs_of_any_length_are_filled_and_copied(kind):
    f = Function("both", x=pointer(kind), y=pointer(kind), count=INDEX)
    x, y, count = f.arguments
    copy(f, y, x, count, kind)
    fill(f, f.at(y, count), count, 1.5, kind)
    for length in (0, 1, 3, 4, 5, 15, 16, 17, 40):
        source, target = copied(np.arange(length, dtype=kind.dtype)), guarded(2 * length, kind.dtype)
        both(f, machines()[0], source, target, length)
        np.testing.assert_array_equal(target, [*source, *[1.5] * length])


@pytest.mark.parametrize("machine", machines())
def test_what_is_fetched_ahead_may_lie_outside_of_all_memory(machine):
    f = Function("ahead", x=pointer(F32), far=INDEX)
    x, far = f.arguments
    f.prefetch(x, far + 5)
    assert text(f) == "ahead(x: f32*, far: index)\n    prefetch(x[far + 5])"
    for distance in (0, 10**6, -(10**6), 10**12):
        both(f, machine, guarded(3), distance)


def test_only_places_are_fetched_from():
    f = Function("ahead", x=Type("f32"))
    with pytest.raises(TypeError, match="ahead: 1 lanes at f32"):
        f.prefetch(f.arguments[0])
