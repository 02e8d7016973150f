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
_NEW = "new-"
"""How the name of an unfinished entry begins."""
_CHECKSUM = 32
_since_trimmed = 0


@dataclass(frozen=True)
class Contents:
    """What lies in the cache, unfinished entries included."""

    folder: Path | None
    """None where the cache is off."""
    entries: int = 0
    bytes: int = 0
    damaged: int = 0
    """Entries that are not what was put there; their kernels will be compiled again."""
    foreign: int = 0
    """Files that are not ours."""
    oldest: float = 0.0
    """When the entry was last used that goes first where there are too many, in seconds since 1970."""
    newest: float = 0.0


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
        code = _sound(key, entry.read_bytes())
        if code is not None:
            with suppress(OSError):
                os.utime(entry)  # used just now
        return code
    return None


def put(key: str, code: bytes) -> None:
    """Keep the code under this key."""
    entry = _entry(key)
    if entry is None:
        return
    try:
        handle, scratch = tempfile.mkstemp(_SUFFIX, _NEW, entry.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_checksum(key, code) + code)
            Path(scratch).replace(entry)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
        _trim(entry.parent)
    except FileNotFoundError:  # somebody has cleared the cache in this moment
        return
    except OSError as error:
        _warn(f"cannot write to {entry.parent}: {error.strerror}")


def show() -> Contents:
    """What lies in the cache; every entry is read. Raises: OSError where the folder cannot be read."""
    place = folder()
    if place is None or not place.exists():
        return Contents(place)
    entries = list(_entries(place))
    damaged = sum(_is_damaged(path) for path, _, _ in entries if not path.name.startswith(_NEW))
    foreign = sum(not path.name.endswith(_SUFFIX) for path in place.iterdir())
    total, used = sum(size for _, size, _ in entries), [time for _, _, time in entries] or [0.0]
    return Contents(place, len(entries), total, damaged, foreign, min(used), max(used))


def clear() -> int:
    """Remove all entries, and return how many there were. Raises: OSError where one cannot be removed."""
    place, count = folder(), 0
    for path, _, _ in _entries(place) if place else ():
        path.unlink(missing_ok=True)
        count += 1
    return count


def problem(place: Path) -> str | None:
    """Why the cache cannot be used there, or None; the folder is made where it is missing."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            place.mkdir(mode=0o700)
        status = place.stat()
    except OSError as error:
        return str(error.strerror)
    if os.name == "posix" and (status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return "others may write to it"
    return None


def _checksum(key: str, code: bytes) -> bytes:
    return hashlib.sha256(key.encode() + code).digest()


def _sound(key: str, content: bytes) -> bytes | None:
    """The code in an entry of this key, if it is what was put there."""
    code = content[_CHECKSUM:]
    return code if content[:_CHECKSUM] == _checksum(key, code) else None


def _is_damaged(path: Path) -> bool:
    try:
        return _sound(path.name.removesuffix(_SUFFIX), path.read_bytes()) is None
    except FileNotFoundError:  # gone meanwhile
        return False
    except OSError:
        return True


def _entry(key: str) -> Path | None:
    place = folder()
    if place is None:
        return None
    if (why := problem(place)) is not None:
        _warn(f"cannot use {place}: {why}")
        return None
    return place / (key + _SUFFIX)


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
        for path in place.iterdir():
            if path.name.endswith(_SUFFIX) and path.is_file():
                with suppress(FileNotFoundError):  # gone meanwhile
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
