"""``faltung cache``: the machine code of kernels that this user's processes have compiled and kept."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from faltung.engine.host import cache
from faltung.errors import FileError

ANOTHER = "name another folder in FALTUNG_CACHE"


def show() -> None:
    """Print where the cache lies, what is in it, and whether it can be used."""
    with _told("read"):
        found = cache.show()
    if found.folder is None:
        print("the cache is off, since FALTUNG_CACHE says so: kernels are compiled anew in each process")
        return
    print(f"folder    {found.folder}")
    print(f"entries   {found.entries:,}, {found.bytes:,} bytes of at most {cache.LIMIT:,}")
    if found.entries:
        print(f"used      {_time(found.oldest)} (the oldest) to {_time(found.newest)}")
    if found.damaged:
        print(f"damaged   {found.damaged:,}; they are compiled again when they are needed")
    if found.foreign:
        print(f"not ours  {found.foreign:,}; they are left alone")
    if (problem := cache.problem(found.folder)) is not None:
        print(f"not used  {problem}; {ANOTHER}")
    elif not os.access(found.folder, os.W_OK):
        print(f"not written to: what is there is used, but nothing new is kept; {ANOTHER}")


def clear() -> None:
    """Remove all entries, and print how many there were."""
    with _told("clear"):
        count = cache.clear()
    place = cache.folder()
    print("the cache is off: nothing to remove" if place is None else f"removed {count:,} entries from {place}")


@contextmanager
def _told(what: str) -> Iterator[None]:
    """What the system refuses is said in one line."""
    try:
        yield
    except OSError as error:
        raise FileError(f"cannot {what} {cache.folder()}: {error.strerror}", way_out=ANOTHER) from error


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
