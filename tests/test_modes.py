"""Subnormal numbers are zeros within a step, on every thread that works for it, and as before afterwards."""

import threading

import llvmlite.binding as llvm
import numpy as np
import pytest

from faltung.engine.host import modes, workers
from faltung.engine.host.compile import compile
from faltung.engine.host.machine import host
from faltung.engine.host.modes import flushed
from faltung.engine.loops.language import F32, F64, INDEX, Function, pointer

pytestmark = pytest.mark.skipif(modes.text() == modes.OTHER, reason="this processor's mode stays as it is")

# A normal number, and a factor that makes it subnormal.
SMALL = {np.float32: (1e-30, 1e-10), np.float64: (1e-300, 1e-20)}
DTYPES = list(SMALL)


def results(dtype, count=33):
    """What becomes of results that are subnormal."""
    number, factor = SMALL[dtype]
    return np.full(count, number, dtype) * dtype(factor)


def operands(dtype):
    """What becomes of operands that are subnormal; they are made by their bits."""
    subnormal = np.full(9, 1000, f"i{dtype().itemsize}").view(dtype)
    return (subnormal * dtype(1e30)).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_results_and_operands_are_zeros_inside_and_not_outside(dtype):
    for _ in range(2):
        assert np.all(results(dtype) > 0)
        assert all(operands(dtype))
        with flushed():
            assert not results(dtype).any()
            assert not any(operands(dtype))
            assert results(dtype).dtype == dtype
        assert np.all(results(dtype) > 0)
        assert all(operands(dtype))


def test_it_may_be_entered_again():
    with flushed():
        with flushed():
            assert not results(np.float32).any()
        assert not results(np.float32).any()
    assert results(np.float32).all()


def test_the_mode_of_the_caller_is_restored_after_an_exception():
    with pytest.raises(ZeroDivisionError), flushed():
        _ = 1 // 0
    assert results(np.float32).all()


def test_other_threads_keep_their_mode():
    entered, found = threading.Event(), []

    def other():
        entered.wait(20)
        found.append(results(np.float32))

    thread = threading.Thread(target=other)
    thread.start()
    with flushed():
        entered.set()
        thread.join()
    assert found[0].all()


def multiply(kind, name):
    """y[i] = x[i] * a for the tasks i."""
    f = Function(name, x=pointer(kind), a=kind, y=pointer(kind), scratch=pointer(kind), first=INDEX, last=INDEX)
    x, a, y, _, first, last = f.arguments
    with f.loop("i", last, first) as i:
        f.store(f.load(x, i) * a, y, i)
    return compile([f], {name}, host()).functions[name]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_flush_on_the_calling_thread_and_in_workers(dtype, threads):
    kernel = multiply({np.float32: F32, np.float64: F64}[dtype], "multiply")
    number, factor = SMALL[dtype]
    x = np.full(10_000, number, dtype)
    for _ in range(20):
        y = np.full(10_000, np.nan, dtype)
        workers.launch(kernel, x.ctypes.data, factor, y.ctypes.data, tasks=10_000, work=workers.SMALL, threads=threads)
        assert not y.any()
        assert results(dtype).all()


def test_the_flags_of_earlier_errors_stay_as_they_were():
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        with flushed(), pytest.raises(FloatingPointError):
            np.divide(np.ones(3), np.zeros(3))
        assert (np.ones(3) + 1).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("processor", "triple", "instruction"),
    [
        ("x86_64", "x86_64-unknown-linux-gnu", "ldmxcsr"),
        ("AMD64", "x86_64-pc-windows-msvc", "ldmxcsr"),
        ("aarch64", "aarch64-unknown-linux-gnu", "fpcr"),
        ("arm64", "arm64-apple-macosx", "fpcr"),
        ("riscv64", "riscv64-unknown-linux-gnu", "ret"),
    ],
)
def test_every_processor_has_a_text_that_llvm_understands(processor, triple, instruction):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip(f"this LLVM does not know {triple}")
    module = llvm.parse_assembly(modes.text(processor))
    module.verify()
    assert instruction in target.create_target_machine().emit_assembly(module).lower()
