"""Object code that lies in memory without LLVM does what LLVM's own linking of it does."""

import gc
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from faltung.engine.host import compile, emit
from faltung.engine.host.image import image
from faltung.engine.host.machine import host
from faltung.engine.loops.language import F64, INDEX, Function, pointer

X86 = sys.platform == "linux" and platform.machine() == "x86_64"
only_x86 = pytest.mark.skipif(not X86, reason="LLVM links objects of this system")

DATA = """
@numbers = {kind} [2 x double] [double 0.5, double 0.25]
define void @f(ptr %y, i64 %n) nounwind {{
  %at = getelementptr [2 x double], ptr @numbers, i64 0, i64 %n
  %number = load double, ptr %at
  store double %number, ptr %y
  ret void
}}
"""
CALL = """
declare void @missing(ptr)
define void @f(ptr %y, i64 %n) nounwind {
  call void @missing(ptr %y)
  ret void
}
"""


def functions() -> list[Function]:
    """``sums`` calls a function of its module for each number, and both have constants in memory."""
    halved = Function("halved", y=pointer(F64), k=INDEX)
    y, k = halved.arguments
    halved.store(halved.load(y, k) * 0.1 + 0.7, y, k)
    sums = Function("sums", y=pointer(F64), count=INDEX)
    y, count = sums.arguments
    with sums.loop("i", count) as i:
        sums.call(halved, y, i)
        sums.store(sums.load(y, i) - 1.3, y, i)
    return [halved, sums]


def code_of(text: str) -> bytes:
    return emit.emit(text, host())


@only_x86
def test_code_does_the_same_as_when_llvm_links_it():
    code = compile.object_code(compile.source(functions(), {"sums"}, host()), host())
    signatures = compile.types(compile.signatures(functions(), {"sums"}))
    ours = compile._linked(code, signatures, host())["sums"]
    owner, place = compile._by_llvm(code, host())
    llvms = type(ours)(place("sums"))
    y, z = np.arange(5.0), np.arange(5.0)
    ours(y.ctypes.data, 4)
    llvms(z.ctypes.data, 4)
    assert np.array_equal(y, z)
    assert y.tolist()[3:] == [3 * 0.1 + 0.7 - 1.3, 4.0]
    del owner


@only_x86
def test_constants_lie_beside_the_code():
    found = image(code_of(DATA.format(kind="internal constant")))
    assert found is not None
    addresses, memory = dict(found.addresses), found.memory
    assert addresses.keys() >= {"f"}
    signatures = (("f", compile.C_TYPES["pointer"], compile.C_TYPES["index"]),)
    function = compile._linked(code_of(DATA.format(kind="internal constant")), signatures, host())["f"]
    del found, memory
    gc.collect()
    y = np.zeros(1)
    for n, number in enumerate((0.5, 0.25)):
        function(y.ctypes.data, n)
        assert y[0] == number


@pytest.mark.parametrize("text", [CALL, DATA.format(kind="global")])
def test_code_that_calls_a_library_or_has_data_of_its_own_is_left_to_llvm(text):
    assert image(code_of(text)) is None


def test_files_of_other_systems_are_left_to_llvm():
    code = code_of(DATA.format(kind="internal constant"))
    assert image(b"") is None
    assert image(b"\xcf\xfa\xed\xfe" + code[4:]) is None  # macOS
    assert image(code[:18] + b"\xb7\0" + code[20:]) is None  # for ARM
    assert image(code[:16] + b"\3\0" + code[18:]) is None  # a shared library


STEP = """
import sys
import numpy as np
import faltung as ft
net = ft.Chain(conv=ft.Conv(2, kernel=3), sigm=ft.Sigmoid(), flat=ft.Flatten(), dense=ft.Affine(3)).on((6, 6, 1))
params, sgd = net.initial(seed=0), ft.SGD(0.1)
x, labels = np.random.default_rng(0).random((8, 6, 6, 1), np.float32), np.arange(8) % 3
done = net.train_step(params, sgd.slots(params), x, labels, cost=ft.CrossEntropy(), optimiser=sgd)
print("llvmlite.binding" in sys.modules, *(w.tobytes().hex() for w in done.params.values()))
"""


@only_x86
def test_where_all_code_is_cached_llvm_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tmp_path.chmod(0o700)
    monkeypatch.setenv("FALTUNG_CACHE", str(tmp_path))
    answers = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
        answers.append(done.stdout.split())
    assert [answer[0] for answer in answers] == ["True", "False"]
    assert answers[0][1:] == answers[1][1:]
