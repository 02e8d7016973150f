"""Object code on disk, so that a kernel is compiled once on a machine and not once a process.

Who may write here decides what we execute: the folder belongs to this user and nobody else may write to it. An entry is
named by its key and begins with the checksum of key and code, so that a damaged or exchanged one is noticed, and
compiled again. Entries are written aside and renamed: another process sees a whole one or none.

The folder is the user's cache folder, or the one that ``FALTUNG_CACHE`` names; empty or "off" there means no cache.
Where it cannot be used, everything works without it, after one warning.
"""

import hashlib
import os
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import platformdirs

LIMIT = 256 * 2**20
"""Bytes of all entries; beyond it, those used least recently go."""
_SUFFIX = ".faltung"
_CHECKSUM = 32
_since_trimmed = 0


@dataclass(frozen=True)
class Contents:
    """What lies in the cache: its folder (None where it is off), and its entries and their bytes."""

    folder: Path | None
    entries: int
    bytes: int


def folder() -> Path | None:
    """Where the cache lies; None where it is off."""
    named = os.environ.get("FALTUNG_CACHE")
    if named is None:
        return platformdirs.user_cache_path("faltung", appauthor=False)
    return Path(named).expanduser() if named not in ("", "off") else None


def key(*parts: str) -> str:
    """The name of what is made from these.

    >>> key("text", "cpu")[:8], key("tex", "tcpu")[:8]
    ('cc6960b2', '3eb9f3bf')
    """
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def get(key: str) -> bytes | None:
    """The code of this key, or None: it is not there, or not what was put."""
    entry = _entry(key)
    if entry is None:
        return None
    with suppress(OSError):
        content = entry.read_bytes()
        if content[:_CHECKSUM] == _checksum(key, content[_CHECKSUM:]):
            with suppress(OSError):
                os.utime(entry)  # used just now
            return content[_CHECKSUM:]
    return None


def put(key: str, code: bytes) -> None:
    """Keep the code under this key."""
    entry = _entry(key)
    if entry is None:
        return
    try:
        handle, scratch = tempfile.mkstemp(_SUFFIX, "new-", entry.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_checksum(key, code) + code)
            Path(scratch).replace(entry)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
    except OSError as error:
        _warn(f"cannot write to {entry.parent}: {error.strerror}")
    else:
        _trim(entry.parent)


def show() -> Contents:
    """What lies in the cache."""
    place = folder()
    sizes = [size for _, size, _ in _entries(place)] if place else []
    return Contents(place, len(sizes), sum(sizes))


def clear() -> Contents:
    """Remove all entries; returns what was there."""
    before = show()
    for path, _, _ in _entries(before.folder) if before.folder else ():
        path.unlink(missing_ok=True)
    return before


def _checksum(key: str, code: bytes) -> bytes:
    return hashlib.sha256(key.encode() + code).digest()


def _entry(key: str) -> Path | None:
    place = folder()
    return place / (key + _SUFFIX) if place and _private(place) else None


def _private(place: Path) -> bool:
    """Make the folder, and see that nobody else may write to it."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            place.mkdir(mode=0o700)
        status = place.stat()
    except OSError as error:
        _warn(f"cannot use {place}: {error.strerror}")
        return False
    if os.name == "posix" and (status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        _warn(f"cannot use {place}: others may write to it")
        return False
    return True


@lru_cache
def _warn(problem: str) -> None:
    warnings.warn(
        f"{problem}; kernels are compiled anew in each process (name another folder in FALTUNG_CACHE, or 'off')",
        RuntimeWarning,
        stacklevel=2,
    )


def _entries(place: Path) -> Iterator[tuple[Path, int, float]]:
    """Every file of the cache, unfinished ones of dead processes included: path, bytes, time of last use."""
    with suppress(FileNotFoundError):
        for path in place.glob("*" + _SUFFIX):
            with suppress(FileNotFoundError):
                status = path.stat()
                yield path, status.st_size, status.st_mtime


def _trim(place: Path) -> None:
    """Now and then, where there is too much, drop what was used least recently, down to three quarters."""
    global _since_trimmed
    _since_trimmed = (_since_trimmed + 1) % 64
    if _since_trimmed != 1:
        return
    entries = sorted(_entries(place), key=lambda entry: entry[2])
    total = sum(size for _, size, _ in entries)
    if total <= LIMIT:
        return
    for path, size, _ in entries:
        if total <= LIMIT * 3 // 4:
            return
        with suppress(OSError):
            path.unlink()
        total -= size
