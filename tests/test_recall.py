"""Kernels that were made before are neither written nor compiled again, whether or not they were ever needed."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faltung.engine.host import compile, recall
from faltung.engine.host.machine import host
from faltung.engine.host.promise import Module
from faltung.engine.host.recall import recalled
from faltung.engine.host.recording import recording
from faltung.engine.loops.language import F64, Function, pointer

written: list[float] = []


def filler(machine: object, number: float) -> list[Function]:
    """Write a kernel that stores a number."""
    written.append(number)
    f = Function("fill", y=pointer(F64))
    f.store(number, f.arguments[0])
    return [f]


@pytest.fixture(autouse=True)
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> compile.Counters:
    """Nothing was made yet."""
    host()  # what LLVM says of it is remembered elsewhere
    tmp_path.chmod(0o700)
    monkeypatch.setenv("FALTUNG_CACHE", str(tmp_path))
    monkeypatch.setattr(compile, "counters", compile.Counters())
    compile._load.cache_clear()
    written.clear()
    return compile.counters


def promise(number: float) -> Any:
    with recording(sliced=False):
        return recalled(filler, host(), number).functions["fill"]


def fills(function: Any) -> float:
    y = np.zeros(1)
    function(y.ctypes.data)
    return y[0]


def test_what_nobody_ever_calls_is_written_once(counters):
    first, second = promise(1.5), promise(1.5)
    assert written == [1.5]
    assert (counters.compiled, counters.loaded) == (0, 0)
    assert (second.name, second.argtypes, second.effects) == (first.name, first.argtypes, first.effects)
    assert second.effects == (frozenset(), frozenset({0}))


def test_what_is_called_later_than_it_was_promised_is_compiled_then(counters):
    promise(2.5)
    assert fills(promise(2.5)) == 2.5
    assert (written, counters.compiled) == ([2.5, 2.5], 1)
    assert fills(promise(2.5)) == fills(recalled(filler, host(), 2.5).functions["fill"]) == 2.5
    assert (written, counters.compiled, counters.loaded) == ([2.5, 2.5], 1, 2)


def test_other_settings_are_another_kernel():
    assert [fills(promise(number)) for number in (0.5, -0.5, 0.5)] == [0.5, -0.5, 0.5]
    assert written == [0.5, -0.5]


def test_an_entry_whose_code_is_gone_is_made_anew(counters, tmp_path):
    assert fills(promise(3.5)) == 3.5
    for entry in tmp_path.iterdir():
        if b"\x7fELF" in entry.read_bytes():
            entry.unlink()
    compile._load.cache_clear()
    assert fills(promise(3.5)) == 3.5
    assert (written, counters.compiled) == ([3.5, 3.5], 2)


def test_nothing_is_remembered_of_sources_that_have_changed(monkeypatch):
    monkeypatch.setattr(recall, "STAMPS", [])
    assert [fills(promise(4.5)) for _ in range(2)] == [4.5, 4.5]
    assert written == [4.5, 4.5]


def test_what_is_promised_to_several_threads_is_made_once_for_good():
    """Whoever knows the address of the first one must not be left with freed memory."""
    barrier, codes = threading.Barrier(2), []

    def make(text: str | None) -> compile.Code:
        barrier.wait()
        code = compile.Code({})
        codes.append(code)
        return code

    module = Module(make, None)
    with ThreadPoolExecutor(2) as threads:
        one, other = (asked.result() for asked in [threads.submit(module.code) for _ in range(2)])
    assert len(codes) == 2
    assert one is other is module.code()
