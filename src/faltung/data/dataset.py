"""What training consumes: examples that are counted and fetched by their indices, batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from faltung.errors import DataError, SettingError

Indices = slice | NDArray[np.integer[Any]]
Batch = tuple[NDArray[Any], NDArray[Any]]
"""x (batch, *axes, channels) and the targets (batch, ...)."""
Given = tuple[Any, NDArray[Any]]
"""The same, where x may also be a dictionary of arrays by the names of a network's inputs."""


class Data(Protocol):
    """Anything that knows how many examples it has, and hands out those that are asked for.

    >>> class Squares:
    ...     def __len__(self):
    ...         return 4
    ...
    ...     def __getitem__(self, indices):
    ...         x = np.arange(4.0)[indices]
    ...         return x[:, np.newaxis], x**2
    >>> [target.tolist() for _, target in batches(Squares(), 3)]
    [[0.0, 1.0, 4.0], [9.0]]
    """

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Indices, /) -> Given: ...


@runtime_checkable
class Redrawn(Data, Protocol):
    """Data whose examples are others in each epoch, such as random parts of long recordings."""

    def epoch(self, number: int, /) -> Data:
        """The examples of an epoch, counted from 0: as many in each, and always the same ones for the same number."""
        ...


@dataclass(frozen=True, eq=False)
class Arrays:
    """Examples that already lie in two arrays: the inputs x, and what the network should answer.

    Shapes: x (n, *axes, channels), target (n, ...).
    Raises: ``DataError`` where the counts differ, or are zero.

    >>> data = Arrays(np.arange(8.0).reshape(4, 2), np.array([0, 1, 1, 0]))
    >>> x, target = data[1:3]
    >>> x.tolist(), target.tolist()
    ([[2.0, 3.0], [4.0, 5.0]], [1, 1])
    """

    x: NDArray[Any]
    target: NDArray[Any]

    def __post_init__(self):
        _same_count("examples", self.x, "targets", self.target)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, indices: Indices, /) -> Batch:
        return self.x[indices], self.target[indices]


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """x = pixels / 255: labelled images, bytes in memory; only those that are asked for become numbers from 0 to 1.

    Shapes: pixels (n, height, width, channels) in uint8, labels (n,), the indices of the classes' names.
    ``images[indices]`` gives x in float32 and the labels in int64.
    Raises: ``DataError`` where dtypes, shapes or counts do not fit, or a label names no class.

    >>> images = Images(np.array([[[[0]]], [[[51]]], [[[255]]]], np.uint8), np.array([1, 0, 1]), ("cat", "dog"))
    >>> images
    Images(3 of 1 x 1 x 1, 2 classes)
    >>> x, labels = images[np.array([2, 1])]
    >>> x.ravel().tolist(), labels.tolist()
    ([1.0, 0.20000000298023224], [1, 0])
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.integer[Any]]
    classes: tuple[str, ...]

    def __post_init__(self):
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4:
            raise DataError(
                f"pixels are {self.pixels.dtype} {self.pixels.shape}, expected uint8 (n, height, width, channels)",
                way_out="use Arrays for other inputs",
            )
        if self.labels.dtype.kind not in "iu" or self.labels.ndim != 1:
            raise DataError(
                f"labels are {self.labels.dtype} {self.labels.shape}, expected integers (n,)",
                way_out="give the index of each image's class",
            )
        _same_count("images", self.pixels, "labels", self.labels)
        lowest, highest = int(self.labels.min()), int(self.labels.max())
        if lowest < 0 or highest >= len(self.classes):
            raise DataError(
                f"labels go from {lowest} to {highest}, expected 0 to {len(self.classes) - 1}",
                way_out="count the classes from 0, and name all of them",
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, indices: Indices, /) -> Batch:
        x = np.divide(self.pixels[indices], 255, dtype=np.float32)
        return x, self.labels[indices].astype(np.int64)

    def __repr__(self) -> str:
        sizes = " x ".join(map(str, self.pixels.shape[1:]))
        return f"Images({len(self)} of {sizes}, {len(self.classes)} classes)"


def _same_count(name: str, array: NDArray[Any], other_name: str, other: NDArray[Any]) -> None:
    if len(array) != len(other):
        raise DataError(f"{len(array)} {name} but {len(other)} {other_name}", way_out="give one for each")
    if len(array) == 0:
        raise DataError(f"there are no {name}", way_out="give at least one")


def batches(
    data: Data, size: int, *, order: NDArray[np.integer[Any]] | None = None, drop_last: bool = False
) -> Iterator[Given]:
    """The examples in ``order`` (as they lie, if none is given), ``size`` at a time; the last batch may be smaller.

    Raises: as ``steps``.

    >>> data = Arrays(np.arange(5.0), np.arange(5))
    >>> [target.tolist() for _, target in batches(data, 2, order=np.array([4, 0, 3, 1, 2]))]
    [[4, 0], [3, 1], [2]]
    """
    if order is None:
        order = np.arange(len(data))
    count = steps(len(order), size, drop_last=drop_last)
    return (data[order[step * size : (step + 1) * size]] for step in range(count))


def steps(examples: int, batch: int, *, drop_last: bool = False) -> int:
    """How many batches so many examples make; with ``drop_last`` the last one must be full to count.

    Raises: ``SettingError`` where the batch is not positive; ``DataError`` where ``drop_last`` would leave none.

    >>> steps(100, 32), steps(100, 32, drop_last=True)
    (4, 3)
    """
    if batch < 1:
        raise SettingError(f"the batch size is {batch}, expected at least 1", way_out="choose another one")
    if drop_last and examples < batch:
        raise DataError(f"{examples:,} examples do not fill one batch of {batch:,}", way_out="use a smaller batch")
    return examples // batch if drop_last else -(-examples // batch)
