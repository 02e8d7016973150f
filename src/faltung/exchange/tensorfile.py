"""Named arrays and a few texts in one safetensors file, with a checksum over all of them.

Both model files and checkpoints are written so: atomically, and without pickle. The texts lie in the metadata of the
file's header, beside ``format`` (what kind of file it is), ``version`` and ``checksum``. Any other reader of
safetensors can open them. Source: https://huggingface.co/docs/safetensors, "Format".
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from faltung.elements.element import Array
from faltung.errors import ModelFileError
from faltung.exchange import atomic

VERSION = "1"
COPY = "take an undamaged copy of the file"


def write(path: str | os.PathLike[str], kind: str, tensors: Mapping[str, Array], texts: Mapping[str, str]) -> None:
    """Write a file of this kind.

    Raises: FileError where it cannot be written; a file of this name is then as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "a"), "numbers", {"w": np.array([1.5, 2.5])}, {"note": "halves"})
    ...     tensors, texts = read(Path(folder, "a"), "numbers")
    >>> tensors["w"].tolist(), texts["note"]
    ([1.5, 2.5], 'halves')
    """
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    metadata = {"format": kind, "version": VERSION, **texts}
    atomic.write(path, save(arrays, metadata | {"checksum": _checksum(arrays, metadata)}))


def read(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Array], dict[str, str]]:
    """The tensors and texts of a file of this kind.

    Raises: ModelFileError where the file is missing, damaged, of another kind or of a newer version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}", way_out="check the name of the file") from error
    metadata = _metadata(path, data, kind)
    try:
        tensors = {name: np.array(tensor) for name, tensor in load(data).items()}
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a dtype that NumPy lacks
        raise ModelFileError(f"{path}: the file is damaged ({error})", way_out=COPY) from error
    checksum = metadata.pop("checksum", None)
    if checksum != _checksum(tensors, metadata):
        raise ModelFileError(f"{path}: the file is damaged (its checksum does not agree)", way_out=COPY)
    return tensors, metadata


def _metadata(path: str | os.PathLike[str], data: bytes, kind: str) -> dict[str, str]:
    """The texts of the header, once format and version are what they should be."""
    size = int.from_bytes(data[:8], "little")
    try:
        header: Any = json.loads(data[8 : 8 + size])
        metadata = header.get("__metadata__", {})
        found, version = metadata.get("format"), metadata.get("version")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path}: the file is damaged, or not a {kind} file", way_out=COPY) from error
    if found != kind:
        raise ModelFileError(
            f"{path}: got a file of the format {found!r}, expected {kind!r}", way_out="name a file written by faltung"
        )
    if version != VERSION:
        raise ModelFileError(
            f"{path}: the file was written by a newer version ({version!r}, this one reads {VERSION!r})",
            way_out="upgrade faltung",
        )
    return metadata


def _checksum(tensors: Mapping[str, Array], texts: Mapping[str, str]) -> str:
    """SHA-256 of all names, texts, dtypes, shapes and bytes."""
    digest = hashlib.sha256(json.dumps(sorted(texts.items())).encode())
    for name, tensor in sorted(tensors.items()):
        little = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)
        digest.update(json.dumps([name, little.dtype.str, little.shape]).encode())
        digest.update(little.tobytes())
    return digest.hexdigest()
