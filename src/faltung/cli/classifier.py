"""A trained model that tells images apart: network, parameters, and the names of the classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faltung.cli.data import Size
from faltung.data import read_image
from faltung.elements.element import Array, Params
from faltung.elements.softmax import softmax
from faltung.errors import DataError, ModelFileError
from faltung.exchange.modelfile import load_model
from faltung.network import Network


@dataclass(frozen=True)
class Classifier:
    """What ``faltung train`` has made."""

    path: Path
    network: Network
    params: Params
    classes: tuple[str, ...]
    about: dict[str, Any]

    @property
    def size(self) -> Size | None:
        """To what the images were resized in training, and so are those to come."""
        size = self.about.get("size")
        return (size[0], size[1]) if size else None

    def read(self, image: Path) -> Array:
        """An image as the network takes it: (1, height, width, channels), from 0 to 1.

        Raises: DataError where it cannot be read, or has not the size of a network of fixed size.
        """
        (shape,) = self.network.inputs.values()
        pixels = read_image(image, shape[-1] or 1, size=self.size)
        self.admit(f"{image} is", pixels.shape)
        return np.divide(pixels[np.newaxis], 255, dtype=np.float32)

    def admit(self, what: str, shape: tuple[int, ...]) -> None:
        """Refuse images of a shape that the network does not take; ``what`` begins the message."""
        (expected,) = self.network.inputs.values()
        if any(want not in (None, got) for want, got in zip(expected, shape, strict=True)):
            got, want = (" x ".join("any" if n is None else str(n) for n in sizes) for sizes in (shape, expected))
            raise DataError(f"{what} {got}, but {self.path} takes {want}", way_out="resize the images")

    def probabilities(self, x: Array) -> Array:
        """Of each class, for each image: (batch, classes)."""
        return softmax(self.network.predict(self.params, x))


def open_classifier(path: Path) -> Classifier:
    """The classifier in a model file.

    Raises: ModelFileError where the file is damaged, or holds a network that does not tell images apart.
    """
    network, params, about = load_model(path)
    inputs, outputs = list(network.inputs.values()), [network.shapes[name] for name in network.outputs]
    classes: Any = about.get("classes")
    size: Any = about.get("size")
    images = len(inputs) == 1 and len(inputs[0]) == 3 and inputs[0][-1] in (1, 3)
    named = _is_list(classes, str) and outputs == [(len(classes),)]
    if not (images and named and (size is None or (_is_list(size, int) and len(size) == 2 and min(size) > 0))):
        raise ModelFileError(
            f"{path}: got a network from {inputs} to {outputs}, expected one from images (height, width, 1 or 3 "
            "channels) to one logit for each of its named classes",
            way_out="make one with faltung train",
        )
    return Classifier(path, network, params, tuple(classes), about)


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(part) is kind for part in value)
