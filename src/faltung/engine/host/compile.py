"""From functions of the loop language to machine code that Python can call.

LLVM is loaded when the first module is compiled: where the cache holds all code, never.
"""

import ctypes
import mmap
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from faltung.engine.host import cache, image, known
from faltung.engine.host.llvm import module as source
from faltung.engine.host.machine import Machine
from faltung.engine.loops.effects import effects
from faltung.engine.loops.language import Function

if TYPE_CHECKING:
    import llvmlite.binding as llvm

C_TYPES = {
    "pointer": ctypes.c_void_p,
    "f32": ctypes.c_float,
    "f64": ctypes.c_double,
    "i8": ctypes.c_int8,
    "i32": ctypes.c_int32,
    "i64": ctypes.c_int64,
    "index": ctypes.c_int64,
}
RECIPE = "sroa, opt=2, pic, small"
"""What becomes of the text: the passes, and how the machine code is made. Part of the cache's key."""

_lock = threading.RLock()

if hasattr(os, "register_at_fork"):  # the child of a fork must not wait for a thread that it does not have
    os.register_at_fork(before=_lock.acquire, after_in_child=_lock.release, after_in_parent=_lock.release)


@dataclass
class Counters:
    """What this process has done: objects compiled, objects loaded from the cache, and the time of both."""

    compiled: int = 0
    loaded: int = 0
    milliseconds: float = 0.0


counters = Counters()


@dataclass(frozen=True)
class Code:
    """Machine code in memory, as functions by name. Each of them keeps the memory alive."""

    functions: Mapping[str, Callable[..., None]]
    key: str = ""
    """The name of its object in the cache."""


def compile(functions: Sequence[Function], public: AbstractSet[str], machine: Machine) -> Code:
    """Compile a module whose public functions can be called from Python: pointers are addresses, numbers numbers.

    The same functions are compiled once in a process, and once at all while the cache keeps them. Any thread may ask.

    Raises: EngineError where the system refuses memory for machine code.
    """
    ir, known = source(functions, public, machine), signatures(functions, public)
    return described(load(ir, types(known), machine), known, lambda: functions)


Signature = list[Any]
"""Of a function: its name, the kinds of its arguments, and the numbers of those that it reads and writes through."""


def signatures(functions: Sequence[Function], public: AbstractSet[str]) -> list[Signature]:
    """What must be known of the public functions to call them."""
    found = []
    for function in functions:
        if function.name in public:
            kinds = ["pointer" if a.type.pointer else a.type.kind for a in function.arguments]
            found.append([function.name, kinds, *map(sorted, effects(function))])
    return found


def link(code: bytes, known: list[Signature], machine: Machine, write: Callable[[], Sequence[Function]]) -> Code:
    """The functions of an object that was compiled before."""
    counters.loaded += 1
    with _lock:
        return described(Code(_linked(code, types(known), machine)), known, write)


def types(known: list[Signature]) -> tuple[tuple[Any, ...], ...]:
    """The names of functions, each with the C types of its arguments."""
    return tuple((name, *(C_TYPES[kind] for kind in kinds)) for name, kinds, *_ in known)


def described(code: Code, known: list[Signature], write: Callable[[], Sequence[Function]]) -> Code:
    """The code, whose functions say what they read and write, and how they were written."""
    for name, _, reads, writes in known:
        called: Any = code.functions[name]
        called.name, called.effects, called.write = name, (frozenset(reads), frozenset(writes)), write
    return code


def assembly(functions: Sequence[Function], public: AbstractSet[str], machine: Machine) -> str:
    """The assembly text, for reading and for counting spills."""
    return _target(machine).emit_assembly(_optimised(source(functions, public, machine), machine))


def load(ir: str, signatures: tuple[tuple[Any, ...], ...], machine: Machine) -> Code:
    """The functions of a module in LLVM's language; a signature is a name and the C types of the arguments."""
    with _lock:
        return _load(ir, signatures, machine)


@lru_cache(maxsize=1024)
def _load(ir: str, signatures: tuple[tuple[Any, ...], ...], machine: Machine) -> Code:
    return Code(_linked(object_code(ir, machine), signatures, machine), object_key(ir, machine))


def _linked(code: bytes, signatures: tuple[tuple[Any, ...], ...], machine: Machine) -> dict[str, Any]:
    began = time.perf_counter()
    linked = image.image(code)
    owner, place = (linked, linked.addresses.__getitem__) if linked else _by_llvm(code, machine)
    functions = {}
    for name, *arguments in signatures:
        called = functions[name] = ctypes.CFUNCTYPE(None, *arguments)(place(name))
        called.owner = owner  # pyright: ignore[reportAttributeAccessIssue] -- so the memory outlives its functions
    counters.milliseconds += 1000 * (time.perf_counter() - began)
    return functions


def _by_llvm(code: bytes, machine: Machine) -> tuple[Any, Callable[[str], int]]:
    """What keeps the code in memory, linked by LLVM, and where a function lies."""
    import llvmlite.binding as llvm

    _check_executable_memory()
    # The engine takes the target machine over, so each one needs its own.
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target(machine))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine, engine.get_function_address


def object_code(ir: str, machine: Machine) -> bytes:
    """The module as an object file: from the cache, or compiled and put there."""
    key = object_key(ir, machine)
    code = cache.get(key)
    if code is None:
        counters.compiled += 1
        code = _emitter(machine).emit_object(_optimised(ir, machine))
        cache.put(key, code)
    else:
        counters.loaded += 1
    return code


def object_key(ir: str, machine: Machine) -> str:
    """The name of a module's object code in the cache."""
    return cache.key(ir, machine.cpu, machine.features, *system())


def system() -> tuple[str, str, str]:
    """What object code depends on, beside its text and the processor."""
    return known.known().triple, known.known().version, RECIPE


@lru_cache
def _emitter(machine: Machine) -> "llvm.TargetMachine":
    """What compiles modules for this machine, one after the other."""
    return _target(machine)


def _optimised(ir: str, machine: Machine) -> "llvm.ModuleRef":
    """The module after the one pass that is needed: stack slots become registers."""
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(ir)
    module.verify()
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.run(module, llvm.create_pass_builder(_emitter(machine), llvm.create_pipeline_tuning_options(speed_level=1)))
    return module


def _target(machine: Machine) -> "llvm.TargetMachine":
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=2, reloc="pic", codemodel="small", jit=True
    )


def _check_executable_memory() -> None:
    """Do what LLVM will do, write memory and then execute it; LLVM itself does not notice that it was refused."""
    if hasattr(mmap, "PROT_EXEC"):
        image.protect(mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
