"""Object code into memory without LLVM: where all of it was compiled before, no process needs to load LLVM at all.

Kernels are position-independent and call no library. So in an object file for Linux on x86-64 only distances are left
to be filled in: from an instruction to a function or constant of the same file. Whatever else is found there, and
objects of other systems, LLVM links.
"""

import ctypes
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faltung.errors import EngineError

_ELF = b"\x7fELF\x02\x01"  # of 64 bits, little-endian
_RELOCATABLE, _X86 = 1, 62
_BYTES, _SYMBOLS, _RELOCATIONS = 1, 2, 4
_WRITTEN, _TAKES_MEMORY = 1, 2
_DISTANCES = (2, 4)
"""R_X86_64_PC32 and R_X86_64_PLT32, the same where nothing lies in another file."""


@dataclass(frozen=True)
class Image:
    """Machine code in memory, which stays there as long as somebody holds ``memory``."""

    addresses: Mapping[str, int]
    memory: Any


def image(code: bytes) -> Image | None:
    """An object file in memory; None where LLVM must link it.

    Raises: EngineError where the system refuses memory for machine code.
    """
    if code[: len(_ELF)] != _ELF or struct.unpack_from("<HH", code, 16) != (_RELOCATABLE, _X86):
        return None
    [table], (step, count) = struct.unpack_from("<Q", code, 40), struct.unpack_from("<HH", code, 58)
    # name, kind, flags, address, offset, size, link, info, alignment, step
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, table + n * step) for n in range(count)]
    places, size = {}, 0
    for number, (_, kind, flags, _, _, length, _, _, alignment, _) in enumerate(sections):
        if flags & _TAKES_MEMORY:
            if flags & _WRITTEN or kind != _BYTES:
                return None
            places[number] = size = -(-size // alignment) * alignment
            size += length
    content = bytearray(size)
    for number, place in places.items():
        offset, length = sections[number][4:6]
        content[place : place + length] = code[offset : offset + length]
    symbols = [symbol for section in sections if section[1] == _SYMBOLS for symbol in _symbols(code, sections, section)]
    for section in sections:
        if section[1] == _RELOCATIONS and section[7] in places:
            for at, info, beyond in struct.iter_unpack("<QQq", code[section[4] : section[4] + section[5]]):
                _, of, value = symbols[info >> 32]
                if info & 0xFFFFFFFF not in _DISTANCES or of not in places:
                    return None
                at += places[section[7]]
                struct.pack_into("<i", content, at, places[of] + value + beyond - at)
    memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:size] = bytes(content)
    begin = protect(memory)
    return Image({name: begin + places[of] + value for name, of, value in symbols if name and of in places}, memory)


def _symbols(code: bytes, sections: list[Any], section: Any) -> list[tuple[str, int, int]]:
    """The symbols of a table: name, section, and where in it."""
    found, strings = [], sections[section[6]][4]
    for name, _, _, of, value, _ in struct.iter_unpack("<IBBHQQ", code[section[4] : section[4] + section[5]]):
        start = strings + name
        found.append((code[start : code.index(b"\0", start)].decode(), of, value))
    return found


def protect(memory: mmap.mmap) -> int:
    """From now on this memory is executed and no longer written; its address.

    Raises: EngineError where the system refuses that.
    """
    place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    change = ctypes.CDLL(None).mprotect
    if change(ctypes.c_void_p(place), ctypes.c_size_t(len(memory)), mmap.PROT_READ | mmap.PROT_EXEC):
        raise EngineError("the system refuses memory for machine code", way_out='use executor="reference"')
    return place
