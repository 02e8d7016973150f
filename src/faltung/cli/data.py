"""The images that a command works on."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from faltung.data import Images, fashion, read_folder
from faltung.data.image import all_resized
from faltung.errors import SettingError

Size = tuple[int, int]
EMBEDDED = "the part of Fashion-MNIST that comes with the package"


def load(folder: Path | None, size: Size | None) -> tuple[Images, Images]:
    """The training and the test images of a folder, or of the embedded set; all of one size."""
    if folder is not None:
        return read_folder(folder, size=size)
    train, test = fashion()
    if size is None:
        return train, test
    return replace(train, pixels=all_resized(train.pixels, size)), replace(test, pixels=all_resized(test.pixels, size))


def balanced(images: Images, limit: int | None) -> Images:
    """At most ``limit`` of the images, evenly from all classes: the first of each class, the second of each, and so on.

    They keep their order.

    >>> images = Images(np.zeros((5, 1, 1, 1), np.uint8), np.array([0, 0, 0, 1, 1]), ("cat", "dog"))
    >>> balanced(images, 3).labels.tolist()
    [0, 0, 1]
    """
    if limit is None:
        return images
    if limit < 1:
        raise SettingError(f"got --limit {limit}, expected at least 1", way_out="give the number of images")
    rank = np.empty(len(images), np.int64)
    for k in range(len(images.classes)):
        members = np.flatnonzero(images.labels == k)
        rank[members] = np.arange(len(members))
    chosen = np.sort(np.lexsort((images.labels, rank))[:limit])
    return replace(images, pixels=images.pixels[chosen], labels=images.labels[chosen])


def parse_size(text: str) -> Size:
    """Height and width.

    >>> parse_size("28x32")
    (28, 32)
    """
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if match is None:
        raise SettingError(f"got --size {text}, expected HxW", way_out="give height and width, such as 28x28")
    return int(match[1]), int(match[2])


def parse_sizes(text: str) -> tuple[int, ...]:
    """The sizes of as many axes as there are.

    >>> parse_sizes("16000"), parse_sizes("28x32")
    ((16000,), (28, 32))
    """
    if not re.fullmatch(r"[1-9]\d{0,8}(x[1-9]\d{0,8})*", text):
        raise SettingError(
            f"got --size {text}, expected HxW, or one number an axis", way_out="give such as 28x28 or 100"
        )
    return tuple(map(int, text.split("x")))
