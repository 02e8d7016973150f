"""What an object file asks its linker for: a kernel must not call a library.

LLVM turns some patterns into calls: ``memset`` for a loop that writes zeros, ``fmaf`` where there is no such
instruction. They work by luck, slowly, and not on every system.
"""

import struct

from faltung.engine.host.compile import object_code, source
from faltung.engine.host.machine import Machine
from faltung.engine.loops.language import Function

LINKERS_OWN = {"_GLOBAL_OFFSET_TABLE_"}


def library_calls(functions: list[Function], public: set[str], machine: Machine) -> set[str]:
    """The names that the compiled functions do not define; empty also on systems whose object files are not ELF."""
    return undefined(object_code(source(functions, public, machine), machine)) - LINKERS_OWN


def undefined(code: bytes) -> set[str]:
    """The undefined symbols of an ELF object of 64 bits."""
    if code[:6] != b"\x7fELF\x02\x01":
        return set()
    (at,) = struct.unpack_from("<Q", code, 0x28)
    size, count = struct.unpack_from("<HH", code, 0x3A)
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, at + n * size) for n in range(count)]
    names = set()
    for _, kind, _, _, offset, length, link, _, _, step in sections:
        if kind == 2:  # a table of symbols; its names lie in the section that it is linked to
            strings = sections[link][4]
            for place in range(offset, offset + length, step):
                name, _, _, section = struct.unpack_from("<IBBH", code, place)
                if section == 0 and name:
                    names.add(code[strings + name : code.index(b"\0", strings + name)].decode())
    return names
