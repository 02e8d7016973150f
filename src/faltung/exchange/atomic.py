"""Writing a file whole or not at all: whoever reads it finds the old bytes or the new ones, never a part of either."""

import errno
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from faltung.errors import FileError

_WAYS_OUT = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some space or choose another disk",
    errno.EFBIG: "raise the limit on the size of a file or choose another disk",
    errno.ENOENT: "make the folder first",
}


def write(path: str | os.PathLike[str], *chunks: bytes) -> None:
    """Write the chunks, one after the other, as the new content of a file.

    They go to a temporary file in the same folder, are forced to the disk, and the file then takes the place of the
    old one in one step. A symbolic link is followed; the permissions of the old file are kept.

    Raises: ``FileError`` where that fails; the temporary file is removed and the old file is as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "numbers"), bytes([1, 2]), bytes([3]))
    ...     list(Path(folder, "numbers").read_bytes())
    [1, 2, 3]
    """
    replaces = False
    try:
        target = Path(path).resolve()
        replaces = target.exists()
        if replaces and not target.is_file():
            raise FileError(f"cannot write {path}: it is not a file", way_out="choose another name")
        scratch = target.with_name(f".faltung-{secrets.token_hex(8)}.tmp")
        try:
            with scratch.open("xb") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            if replaces:
                shutil.copymode(target, scratch)
            scratch.replace(target)
        except BaseException:  # Ctrl-C included
            with suppress(OSError):
                scratch.unlink()
            raise
        _sync(target.parent)
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            f"cannot write {path}: {error.strerror}" + (" (the previous file is untouched)" if replaces else ""),
            way_out=_WAYS_OUT.get(error.errno or 0, "choose a folder that you may write to"),
        ) from error


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder, and those above it, where they are missing. Raises: ``FileError`` where that fails."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot make the folder {path}: {error.strerror}", way_out="choose a folder that you may write to"
        ) from error


def _sync(folder: Path) -> None:
    """Force the new name to the disk too, where the system knows how to open a folder."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
