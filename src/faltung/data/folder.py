"""A folder as a data set: the four files of MNIST, or images in one folder a class."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faltung.data.dataset import Images
from faltung.data.idx import read_idx
from faltung.data.image import all_resized, is_grey, read_image
from faltung.errors import DataError

IDX_NAMES = {part: (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")}
"""The image file and the label file of each part, as MNIST names them (and Kaggle: ``train-images.idx3-ubyte``)."""

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_EXPECTED = "one folder of images a class, or four IDX files (train-images-idx3-ubyte ...)"
_SORT = "put the images of each class into its own folder, directly in the data folder or in its folders train and test"

Files = dict[str, list[Path]]
"""The image files of each class."""


def read_folder(folder: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> tuple[Images, Images]:
    """The training and the test images of a folder; ``size`` (height, width) resizes all of them.

    The folder holds one of

    - four IDX files under their MNIST names, gzipped or not: ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
      ``t10k-images-idx3-ubyte``, ``t10k-labels-idx1-ubyte``; the classes are "0", "1", ...;
    - ``train`` and ``test``, each with one folder of images a class;
    - one folder of images a class; every tenth image of a class, in the order of their names, is then a test image.

    Classes and images are taken in the order of their names; hidden files, and files whose names do not end like an
    image's, are passed over. All images are colour (3 channels) unless all are grey (1 channel).

    Raises: ``DataError`` where the content is none of these, a file cannot be read, or images differ in size.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, shade in ("black", 0), ("white", 255):
    ...         Path(folder, name).mkdir()
    ...         for i in range(10):
    ...             Image.new("L", (2, 2), shade).save(Path(folder, name, f"{i}.png"))
    ...     train, test = read_folder(folder)
    >>> len(train), len(test), test.classes, test.labels.tolist(), test.pixels.max(axis=(1, 2, 3)).tolist()
    (18, 2, ('black', 'white'), [0, 1], [0, 255])
    """
    folder = Path(folder)
    names = {entry.name for entry in _visible(folder)}
    if any(names.intersection(_spellings(name)) for pair in IDX_NAMES.values() for name in pair):
        return _read_idx_files(folder, size)
    train, test = _split(folder, names)
    classes = tuple(train)
    if len(classes) == 1:
        raise DataError(f"{folder}: got one class, {classes[0]!r}, expected two or more", way_out=_SORT)
    if not any(test.values()):
        raise DataError(
            f"{folder}: no class has ten images, so that none is left for the test",
            way_out="add images, or make the folders train and test",
        )
    paths = [path for part in (train, test) for files in part.values() for path in files]
    labels = np.array([k for part in (train, test) for k, files in enumerate(part.values()) for _ in files])
    pixels = _read_images(paths, size)
    count = sum(map(len, train.values()))
    return Images(pixels[:count], labels[:count], classes), Images(pixels[count:], labels[count:], classes)


def _split(folder: Path, names: set[str]) -> tuple[Files, Files]:
    """The training and the test files, both with all classes in the same order."""
    if {"train", "test"} <= names:
        train, test = _files(folder / "train"), _files(folder / "test")
        if strangers := sorted(test.keys() - train.keys()):
            raise DataError(
                f"{folder}: class {strangers[0]!r} has test images but no training images",
                way_out="rename or remove it",
            )
        return train, {name: test.get(name, []) for name in train}
    files = _files(folder)
    train = {name: [path for i, path in enumerate(paths) if i % 10 != 9] for name, paths in files.items()}
    test = {name: paths[9::10] for name, paths in files.items()}
    return train, test


def _files(folder: Path) -> Files:
    """The image files of each class folder."""
    entries = _visible(folder)
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        loose = sum(map(_is_image, entries))
        raise DataError(f"{folder}: got no folders ({loose} loose images), expected {_EXPECTED}", way_out=_SORT)
    return {entry.name: _images(entry) for entry in classes}


def _images(folder: Path) -> list[Path]:
    entries = _visible(folder)
    if inner := [entry for entry in entries if entry.is_dir()]:
        raise DataError(f"{inner[0]}: got a folder in the folder of a class, expected images", way_out=_SORT)
    if not (images := [entry for entry in entries if _is_image(entry)]):
        raise DataError(
            f"{folder}: this class has no image ({' '.join(sorted(_SUFFIXES))})", way_out="add some or remove it"
        )
    return images


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES


def _visible(folder: Path) -> list[Path]:
    """What the folder holds, by name, without hidden entries."""
    try:
        return sorted((entry for entry in folder.iterdir() if entry.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}", way_out="check the path") from error


def _read_images(paths: list[Path], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    channels = 1 if all(map(is_grey, paths)) else 3
    first = read_image(paths[0], channels, size=size)
    pixels = np.empty((len(paths), *first.shape), np.uint8)
    for i, path in enumerate(paths):
        image = read_image(path, channels, size=size)
        if image.shape != first.shape:
            raise DataError(
                f"{path} is {_sizes(image)}, but {paths[0]} is {_sizes(first)}, expected one size",
                way_out=_resize(first),
            )
        pixels[i] = image
    return pixels


def _read_idx_files(folder: Path, size: tuple[int, int] | None) -> tuple[Images, Images]:
    (x, labels), (x_test, labels_test) = (_read_pair(folder, *pair) for pair in IDX_NAMES.values())
    if size is not None:
        x, x_test = all_resized(x, size), all_resized(x_test, size)
    if x.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{folder}: training images are {_sizes(x[0])}, test images {_sizes(x_test[0])}, expected one size",
            way_out=_resize(x[0]),
        )
    classes = tuple(map(str, range(1 + int(max(labels.max(), labels_test.max())))))
    return Images(x, labels, classes), Images(x_test, labels_test, classes)


def _read_pair(folder: Path, *names: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    paths = [_existing(folder, name) for name in names]
    images, labels = map(read_idx, paths)
    for path, array, rank in zip(paths, (images, labels), (3, 1), strict=True):
        if array.dtype != np.uint8 or array.ndim != rank or array.size == 0:
            raise DataError(
                f"{path}: got {array.dtype} {array.shape}, expected uint8, rank {rank}, not empty",
                way_out="are the files swapped?",
            )
    if len(images) != len(labels):
        raise DataError(
            f"{paths[0]}: {len(images)} images but {len(labels)} labels in {paths[1].name}",
            way_out="fetch the files again",
        )
    return images[..., np.newaxis], labels


def _spellings(name: str) -> list[str]:
    """The names that a file may have, the likeliest first."""
    return [stem + end for stem in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]


def _existing(folder: Path, name: str) -> Path:
    for spelling in _spellings(name):
        if (folder / spelling).is_file():
            return folder / spelling
    raise DataError(f"{folder / name} is missing, with or without .gz", way_out="fetch all four files of the set")


def _sizes(image: NDArray[np.uint8]) -> str:
    return " x ".join(map(str, image.shape[:2]))


def _resize(image: NDArray[np.uint8]) -> str:
    height, width, _ = image.shape
    return f"resize all images, as size=({height}, {width}) and faltung train --size {height}x{width} do"
