"""IDX files, the format of MNIST: a header of big-endian numbers, then the array, often all of it gzipped.

    00 00   type   rank   size of each axis (rank x 4 bytes)   the elements, last axis fastest

Source: Y. LeCun, C. Cortes, C. Burges, *The MNIST database of handwritten digits*, section "File formats".
"""

import gzip
import io
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.errors import DataError, SettingError
from faltung.exchange import atomic

_TYPES = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_BLOCK = 1 << 20  # a header may promise any size: memory grows only with the bytes that are really there
_FETCH = "fetch the file again"


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array in an IDX file, in native byte order; its content, not its name, tells whether it is gzipped.

    Raises: ``DataError`` where the file is missing, is no IDX file, is longer or shorter than its header says, or its
    gzip stream is damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_idx(Path(folder, "two.gz"), np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    ...     read_idx(Path(folder, "two.gz")).tolist()
    [[1, 2, 3], [4, 5, 6]]
    """
    try:
        with Path(path).open("rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            return _parse(path, gzip.GzipFile(fileobj=file) if gzipped else file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: its gzip stream is damaged ({error})", way_out=_FETCH) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", way_out="check the path") from error


def _parse(path: str | os.PathLike[str], stream: io.BufferedReader | gzip.GzipFile) -> NDArray[Any]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise DataError(
            f"{path}: it begins with {magic.hex(' ') or 'nothing'}, "
            "expected 00 00, a type (08, 09, 0b, 0c, 0d or 0e) and a rank",
            way_out="is it an IDX file?",
        )
    dtype, rank = _TYPES[magic[2]], magic[3]
    header = stream.read(4 * rank)
    if len(header) < 4 * rank:
        raise DataError(f"{path}: its header ends after {4 + len(header)} of {4 + 4 * rank} bytes", way_out=_FETCH)
    shape = tuple(np.frombuffer(header, ">u4").tolist())
    expected = math.prod(shape) * dtype.itemsize
    body = _read(stream, expected)
    if len(body) != expected:
        got = f"only {len(body)}" if len(body) < expected else "more"
        sizes = " x ".join(map(str, shape))
        raise DataError(
            f"{path}: its header promises {expected} bytes ({sizes} of {dtype.name}), got {got}", way_out=_FETCH
        )
    try:
        array = np.frombuffer(body, dtype).reshape(shape)
    except ValueError as error:  # without elements the other sizes may be anything
        raise DataError(f"{path}: its header is no shape of an array ({error})", way_out=_FETCH) from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read(stream: io.BufferedReader | gzip.GzipFile, expected: int) -> bytearray:
    """What follows, up to one byte more than expected: so a longer file shows, and gzip compares its checksum."""
    body = bytearray()
    try:
        while len(body) <= expected and (block := stream.read1(min(_BLOCK, expected + 1 - len(body)))):
            body += block
    except EOFError:  # a gzip stream without its end
        if len(body) >= expected:
            raise
    return body


def write_idx(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write an array as an IDX file, gzipped where the name ends in .gz.

    It holds uint8, int8, int16, int32, float32 or float64. The same array gives the same bytes: the gzip header
    tells neither a time nor a name.

    Raises: ``SettingError`` for another dtype, ``FileError`` where the file cannot be written.
    Example: see ``read_idx``.
    """
    codes = {dtype.newbyteorder("="): code for code, dtype in _TYPES.items()}
    native = array.dtype.newbyteorder("=")
    if native not in codes:
        raise SettingError(
            f"an IDX file holds {', '.join(dtype.name for dtype in codes)}, got {native}", way_out="convert with astype"
        )
    code = codes[native]
    header = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    body = array.astype(_TYPES[code]).tobytes()
    if os.fspath(path).endswith(".gz"):
        atomic.write(path, _gzip(header + body))
    else:
        atomic.write(path, header, body)


def _gzip(content: bytes) -> bytes:
    stream = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=stream, mtime=0) as file:
        file.write(content)
    return stream.getvalue()
