"""Machine code that Python can call: made once, kept while it can be called."""

import dataclasses
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

from faltung.engine.host import cache, compile
from faltung.engine.host.machine import host
from faltung.engine.loops.language import F32, F64, I32, I64, INDEX, Function, pointer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache on disk, and none in memory."""
    host()  # what LLVM says of it is remembered elsewhere
    monkeypatch.setenv("FALTUNG_CACHE", str(tmp_path))
    tmp_path.chmod(0o700)
    compile._load.cache_clear()
    yield tmp_path
    compile._load.cache_clear()


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> compile.Counters:
    counters = compile.Counters()
    monkeypatch.setattr(compile, "counters", counters)
    return counters


def filler(number: float) -> Function:
    f = Function("fill", y=pointer(F64), count=INDEX)
    y, count = f.arguments
    with f.loop("i", count) as i:
        f.store(number, y, i)
    return f


def fills(code: compile.Code) -> float:
    y = np.full(3, np.nan)
    code.functions["fill"](y.ctypes.data, 2)
    assert np.isnan(y[2])
    return y[1]


def test_arguments_are_passed_as_their_types():
    f = Function("f", y=pointer(F64), a=F32, b=F64, i=I32, j=I64, k=INDEX)
    y, a, b, i, j, k = f.arguments
    f.store(f.convert("widen", a, F64), y, 0)
    f.store(b, y, 1)
    for place, whole in enumerate((i, j, k), start=2):
        f.store(f.convert("to_float", whole, F64), y, place)
    y = np.zeros(5)
    compile.compile([f], {"f"}, host()).functions["f"](y.ctypes.data, 0.5, 0.1, -7, 2**40, -(2**40))
    assert y.tolist() == [0.5, 0.1, -7, 2**40, -(2**40)]


def test_only_public_functions_can_be_called():
    f = Function("f", y=pointer(F64))
    f.call(filler(3.0), f.arguments[0], 2)
    code = compile.compile([filler(3.0), f], {"f"}, host())
    assert list(code.functions) == ["f"]


def test_the_same_functions_are_compiled_once(counters):
    for _ in range(3):
        assert fills(compile.compile([filler(1.0)], {"fill"}, host())) == 1
    assert (counters.compiled, counters.loaded) == (1, 0)
    assert fills(compile.compile([filler(2.0)], {"fill"}, host())) == 2
    assert (counters.compiled, counters.loaded) == (2, 0)
    assert counters.milliseconds > 0


def test_another_process_loads_them(counters):
    compile.compile([filler(1.0)], {"fill"}, host())
    compile._load.cache_clear()  # as in a new process
    assert fills(compile.compile([filler(1.0)], {"fill"}, host())) == 1
    assert (counters.compiled, counters.loaded) == (1, 1)


def test_another_machine_compiles_them_again(counters):
    for cpu in ("", llvm.get_host_cpu_name()):
        compile.compile([filler(1.0)], {"fill"}, dataclasses.replace(host("plain"), cpu=cpu))
    assert counters.compiled == 2


def test_a_damaged_entry_is_compiled_again(counters, folder):
    compile.compile([filler(1.0)], {"fill"}, host())
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    compile._load.cache_clear()
    assert fills(compile.compile([filler(1.0)], {"fill"}, host())) == 1
    assert counters.compiled == 2
    compile._load.cache_clear()
    compile.compile([filler(1.0)], {"fill"}, host())
    assert counters.loaded == 1


def test_without_a_cache_everything_works(counters, folder, monkeypatch):
    monkeypatch.setenv("FALTUNG_CACHE", "off")
    for _ in range(2):
        compile._load.cache_clear()
        assert fills(compile.compile([filler(1.0)], {"fill"}, host())) == 1
    assert counters.compiled == 2
    assert cache.show().folder is None
    assert list(folder.iterdir()) == []


def test_a_function_keeps_its_code_alive():
    functions = [compile.compile([filler(float(n))], {"fill"}, host()).functions["fill"] for n in range(20)]
    compile._load.cache_clear()
    gc.collect()
    for number, function in enumerate(functions):
        y = np.full(2, np.nan)
        function(y.ctypes.data, 2)
        assert y.tolist() == [number, number]


def test_threads_may_compile_side_by_side(counters):
    answers: dict[int, float] = {}

    def work(number: int) -> None:
        answers[number] = fills(compile.compile([filler(number % 3)], {"fill"}, host()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: number % 3 for number in range(12)}
    assert counters.compiled == 3


def test_a_call_of_a_function_that_is_not_given_is_refused():
    f = Function("f", y=pointer(F64))
    f.call(filler(1.0), f.arguments[0], 1)
    with pytest.raises(RuntimeError, match="undefined value '@fill'"):
        compile.compile([f], {"f"}, host())


REFUSED = """
import ctypes
from faltung.engine.host.compile import compile
from faltung.engine.loops.language import F32, Function, pointer
from faltung.engine.host.machine import host
from faltung.errors import EngineError
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # from now on, no memory that was written may be executed
    raise SystemExit("skip")
f = Function("f", y=pointer(F32))
f.store(1.0, f.arguments[0])
try:
    compile([f], {"f"}, host())
except EngineError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to refuse")
def test_where_memory_for_code_is_refused_it_says_so():
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, check=False)
    if done.stderr.strip() == "skip":
        pytest.skip("this kernel cannot refuse")
    assert done.stdout == 'the system refuses memory for machine code; use executor="reference"\n', done.stderr
