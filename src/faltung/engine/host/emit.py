"""From LLVM's language to object code, on several processors at once. LLVM is loaded with the first module.

llvmlite lets one thread at a time into LLVM. But what takes long, making machine code of a module, LLVM does in any
number of threads, if each has a context, a module and a target machine of its own. So this one function of LLVM is
called without llvmlite's lock.
"""

import ctypes
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from faltung.engine.host import processors, words
from faltung.engine.host.machine import Machine

if TYPE_CHECKING:
    import llvmlite.binding as llvm

RECIPE = f"sroa, opt=2, pic, small, words {words.version()}"
"""What becomes of the text: the passes, and how the machine code is made. Part of the cache's key."""


def emit(ir: str, machine: Machine) -> bytes:
    """The object file of a module. Raises: RuntimeError where LLVM does not understand the text."""
    from llvmlite.binding import ffi

    made, problem = target(machine), ffi.OutputString()
    with problem:
        memory = _emit_to_memory()(made, optimised(ir, made), 1, problem)
        if not memory:
            raise RuntimeError(str(problem))
    library = ffi.lib
    try:
        return ctypes.string_at(library.LLVMPY_GetBufferStart(memory), library.LLVMPY_GetBufferSize(memory))
    finally:
        library.LLVMPY_DisposeMemoryBuffer(memory)


def emit_all(texts: Iterable[str], machine: Machine, threads: int) -> dict[str, bytes]:
    """The object files of modules, by their texts; while this thread still writes texts, others begin."""
    waiting: SimpleQueue[str | None] = SimpleQueue()
    done: dict[str, bytes] = {}
    problems: list[Exception] = []

    def work(take: Callable[[], str | None]) -> None:
        while (ir := take()) is not None:
            done[ir] = emit(ir, machine)

    def help(away: Callable[[], None]) -> None:
        try:
            away()
            work(waiting.get)
        except Exception as problem:  # which is the caller's, not the thread's
            problems.append(problem)

    helpers: list[Thread] = []
    with processors.apart() as away:
        try:
            with suppress(RuntimeError):  # too many threads
                for _ in range(threads - 1):
                    helper = Thread(target=help, args=(away,), name="faltung compiler")
                    helper.start()
                    helpers.append(helper)
            for ir in texts:
                waiting.put(ir)
            with suppress(Empty):
                work(waiting.get_nowait)
        finally:
            for _ in helpers:
                waiting.put(None)
            for helper in helpers:
                helper.join()
    if problems:
        raise problems[0]
    return done


def assembly(ir: str, machine: Machine) -> str:
    """The assembly text of a module."""
    made = target(machine)
    return made.emit_assembly(optimised(ir, made))


def target(machine: Machine) -> "llvm.TargetMachine":
    """What makes machine code for this machine."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=2, reloc="pic", codemodel="small", jit=True
    )


def optimised(ir: str, made: "llvm.TargetMachine") -> "llvm.ModuleRef":
    """The module, in a context of its own, after the one pass that is needed: stack slots become registers."""
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(words.llvm(ir), llvm.create_context())
    module.verify()
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.run(module, llvm.create_pass_builder(made, llvm.create_pipeline_tuning_options(speed_level=1)))
    return module


@cache
def _emit_to_memory() -> Any:
    """LLVM's function for it, without llvmlite's lock."""
    from llvmlite.binding import ffi

    locked, library = ffi.lib.LLVMPY_TargetMachineEmitToMemory, ctypes.CDLL(ffi.lib._name)
    unlocked = library.LLVMPY_TargetMachineEmitToMemory
    unlocked.argtypes, unlocked.restype = locked.argtypes, locked.restype
    return unlocked
