"""The four files of MNIST for the peers' programs."""

import gzip
from pathlib import Path

import numpy as np


def read(folder, part):
    """Bytes (n, 28, 28) and labels (n,) of "train" or "t10k"; the files may be gzipped."""
    return _read(folder, f"{part}-images-idx3-ubyte", 16).reshape(-1, 28, 28), _read(
        folder, f"{part}-labels-idx1-ubyte", 8
    )


def _read(folder, name, header):
    path = Path(folder, name)
    content = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{name}.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=header)
