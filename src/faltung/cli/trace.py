"""``faltung trace``: every value, error signal and gradient of one image, as arrays in a file."""

import io
from pathlib import Path

import numpy as np

from faltung.cli.classifier import Classifier, open_classifier
from faltung.elements.costs import CrossEntropy
from faltung.elements.element import Run
from faltung.errors import SettingError
from faltung.exchange import atomic
from faltung.text import percent


def trace(model: Path, image: Path, out: Path, label: str | None) -> None:
    """Write what backpropagation finds for one image, and print what was written."""
    classifier = open_classifier(model)
    x = classifier.read(image)
    (p,) = classifier.probabilities(x)
    predicted = int(p.argmax())
    target = predicted if label is None else _index(classifier, label)
    back = classifier.network.backpropagate(
        classifier.params, x, np.array([target]), cost=CrossEntropy(), run=Run(training=False)
    )
    kinds = {"value": back.values, "error": back.errors, "gradient": back.gradients}
    arrays = {f"{kind}/{name}": array for kind, found in kinds.items() for name, array in found.items()}
    file = io.BytesIO()
    np.savez(file, **arrays)  # pyright: ignore[reportArgumentType] -- the stubs take the names for its own options
    atomic.write(out, file.getvalue())
    of = (
        "the predicted class"
        if label is None
        else f"predicted: {classifier.classes[predicted]} {percent(p[predicted])}"
    )
    print(f"label {classifier.classes[target]} ({of}), cost {back.cost:.4f}")
    for name, array in arrays.items():
        print(f"  {name}  {' x '.join(map(str, array.shape))}")
    print(f"wrote {out}; read it with numpy.load")


def _index(classifier: Classifier, label: str) -> int:
    """The number of the class that is called so, or has this number."""
    if label in classifier.classes:
        return classifier.classes.index(label)
    if label.isdecimal() and int(label) < len(classifier.classes):
        return int(label)
    known = ", ".join(f"{k} {name}" for k, name in enumerate(classifier.classes))
    raise SettingError(f"got --label {label}, expected one of the classes {known}", way_out="give a name or a number")
