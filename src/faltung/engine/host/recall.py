"""Kernels that were made before, found by what they are made from: nothing is written, translated or compiled again.

What is kept is named by the recipe of a module (the function that writes it, and its settings), the machine, and a
checksum of the engine's own sources; it says what can be called, and which object code belongs to it: none where fusion
has always replaced it. Where a recipe cannot be told, or sources have changed while this process runs, the module is
written as ever.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np

from faltung.engine.host import cache
from faltung.engine.host import compile as compiler
from faltung.engine.host.compile import Code
from faltung.engine.host.machine import Machine
from faltung.engine.host.promise import promised
from faltung.engine.loops.language import Function

PACKAGE = Path(__file__).parents[2]
SOURCES = sorted(path for room in ("engine", "formula") for path in (PACKAGE / room).rglob("*.py"))
"""The files that decide what is written."""
ALL: frozenset[str] = frozenset()
"""All functions of a module can be called."""


def _stamps() -> list[tuple[int, int]]:
    return [(state.st_mtime_ns, state.st_size) for state in (path.stat() for path in SOURCES)]


STAMPS = _stamps()
CHECKSUM = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()


def recalled(
    write: Callable[..., Sequence[Function]], machine: Machine, *settings: Any, public: frozenset[str] = ALL
) -> Code:
    """``compile(write(machine, *settings), public, machine)``; ``write`` depends on nothing else.

    The functions remember their ``recipe``: write, machine and settings.
    """
    code = _recalled(write, machine, settings, public)
    for function in code.functions.values():
        function.recipe = write, machine, settings  # pyright: ignore[reportFunctionMemberAccess] -- of ctypes
    return code


def _recalled(
    write: Callable[..., Sequence[Function]], machine: Machine, settings: tuple[Any, ...], public: frozenset[str]
) -> Code:
    try:
        recipe = told((write, tuple(sorted(public)), settings))
    except TypeError:
        recipe = ""
    name = cache.key(recipe, repr(machine), CHECKSUM, *compiler.system())
    written = lru_cache(partial(write, machine, *settings))

    def remember(**known: Any) -> dict[str, Any]:
        if recipe and _stamps() == STAMPS:
            cache.put(name, json.dumps(known).encode())
        return known

    entry = cache.get(name) if recipe else None
    if entry is not None:
        known = json.loads(entry)
    else:
        names = public or frozenset(function.name for function in written())
        known = remember(object="", functions=compiler.signatures(written(), names))
    signatures = known["functions"]
    code = cache.get(known["object"]) if known["object"] else None
    if code is not None:
        return promised(lambda _: compiler.link(code, signatures, machine, written), signatures, written)
    names = frozenset(name for name, *_ in signatures)

    def made(text: str | None) -> Code:
        code = compiler.compile(written(), names, machine, text=text)
        remember(object=code.key, functions=signatures)
        return code

    return promised(made, signatures, written, lambda: compiler.source(written(), names, machine))


def told(value: Any) -> str:
    """A text that tells this value from all others.

    Raises: TypeError where there is none: for functions without a name of their own, and for objects of other kinds.

    >>> from faltung.elements import LeakyReLU
    >>> told((LeakyReLU(0.5), np.dtype("f4"), sorted))
    '(faltung.elements.activations.LeakyReLU(0x1.0000000000000p-1,),float32,builtins.sorted,)'
    """
    match value:
        case None | bool() | int() | str():
            return repr(value)
        case float():
            return value.hex()
        case np.dtype():
            return str(value)
        case tuple() | list():
            return f"({''.join(f'{told(part)},' for part in value)})"
        case type() | FunctionType() | BuiltinFunctionType() if "<" not in value.__qualname__:
            return f"{value.__module__}.{value.__qualname__}"
    if is_dataclass(value):
        return told(type(value)) + told(tuple(getattr(value, field.name) for field in fields(value)))
    raise TypeError(f"no text tells {value!r}")
