"""From functions of the loop language to machine code that Python can call.

LLVM is loaded when the first module is compiled: where the cache holds all code, never.
"""

import ctypes
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from faltung.engine.host import cache, emit, image, known
from faltung.engine.host.llvm import module as source
from faltung.engine.host.machine import Machine
from faltung.engine.loops.effects import effects
from faltung.engine.loops.language import Function

C_TYPES = {
    "pointer": ctypes.c_void_p,
    "f32": ctypes.c_float,
    "f64": ctypes.c_double,
    "i8": ctypes.c_int8,
    "i32": ctypes.c_int32,
    "i64": ctypes.c_int64,
    "index": ctypes.c_int64,
}
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
_emitted: dict[str, bytes] = {}
"""Object code by its key, while somebody is about to load it."""
_seen: set[str] = set()
"""The keys of what this process has loaded before."""


@dataclass(frozen=True)
class Code:
    """Machine code in memory, as functions by name. Each of them keeps the memory alive."""

    functions: Mapping[str, Callable[..., None]]
    key: str = ""
    """The name of its object in the cache."""


def compile(
    functions: Sequence[Function], public: AbstractSet[str], machine: Machine, *, text: str | None = None
) -> Code:
    """Compile a module whose public functions can be called from Python: pointers are addresses, numbers numbers.

    The same functions are compiled once in a process, and once at all while the cache keeps them. Any thread may ask.
    ``text`` is that of the module, where it is written already.

    Raises: EngineError where the system refuses memory for machine code.
    """
    ir, known = text or source(functions, public, machine), signatures(functions, public)
    return described(load(ir, types(known), machine), known, lambda: functions)


@contextmanager
def side_by_side(texts: Iterable[str], machine: Machine, threads: int) -> Iterator[None]:
    """Within it, these modules are compiled already: by several threads, and while later texts were written."""

    def is_new(ir: str) -> bool:
        key = object_key(ir, machine)
        return key not in _seen and cache.get(key) is None

    with _lock:
        for ir, code in emit.emit_all(filter(is_new, texts), machine, threads).items():
            _emitted[object_key(ir, machine)] = code
        try:
            yield
        finally:
            _emitted.clear()


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
    return emit.assembly(source(functions, public, machine), machine)


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
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), emit.target(machine))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine, engine.get_function_address


def object_code(ir: str, machine: Machine) -> bytes:
    """The module as an object file: from the cache, or compiled and put there."""
    key = object_key(ir, machine)
    _seen.add(key)
    code = cache.get(key)
    if code is None:
        counters.compiled += 1
        code = _emitted.pop(key, None) or emit.emit(ir, machine)
        cache.put(key, code)
    else:
        counters.loaded += 1
    return code


def object_key(ir: str, machine: Machine) -> str:
    """The name of a module's object code in the cache."""
    return cache.key(ir, machine.cpu, machine.features, *system())


def system() -> tuple[str, str, str]:
    """What object code depends on, beside its text and the processor."""
    return known.known().triple, known.known().version, emit.RECIPE


def _check_executable_memory() -> None:
    """Do what LLVM will do, write memory and then execute it; LLVM itself does not notice that it was refused."""
    if hasattr(mmap, "PROT_EXEC"):
        image.protect(mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
