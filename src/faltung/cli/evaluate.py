"""``faltung evaluate``: how good a model is, and what it mistakes for what."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faltung.cli.classifier import Classifier, open_classifier
from faltung.cli.data import EMBEDDED, load
from faltung.data import Images
from faltung.elements.costs import CrossEntropy
from faltung.errors import DataError
from faltung.text import aligned, percent

Counts = NDArray[np.int64]
BATCH = 256
WIDEST = 12
"""With more classes than that, the counts of the confusion matrix would not fit a line."""


def evaluate(model: Path, data: Path | None) -> None:
    """Print cost and accuracy on the test images, and the confusion matrix."""
    classifier = open_classifier(model)
    trained_on = classifier.about.get("data")
    folder = data or (Path(trained_on) if isinstance(trained_on, str) else None)
    _, images = load(folder, classifier.size)
    classifier.admit("the test images are", images.pixels.shape[1:])
    _check_classes(classifier, images)
    confusion, cost = _measure(classifier, images)
    right = int(confusion.trace())
    print(f"{len(images):,} test images of {folder or EMBEDDED}")
    print(f"cost {cost:.4f}, accuracy {percent(right / len(images))} ({right:,} right)\n")
    print(_table(confusion, classifier.classes))


def _check_classes(classifier: Classifier, images: Images) -> None:
    """Refuse images of other classes than the network knows."""
    numbered = tuple(map(str, range(len(images.classes))))  # what an IDX file says: labels without names
    if images.classes != classifier.classes and not (
        images.classes == numbered and len(numbered) <= len(classifier.classes)
    ):
        raise DataError(
            f"got images of the classes {', '.join(images.classes)}, but {classifier.path} knows "
            f"{', '.join(classifier.classes)}",
            way_out="use the classes that it was trained on",
        )


def _measure(classifier: Classifier, images: Images) -> tuple[Counts, float]:
    """How many images of each class (row) were taken for each (column), and the mean cost."""
    confusion = np.zeros((len(classifier.classes),) * 2, np.int64)
    total = 0.0
    for start in range(0, len(images), BATCH):
        x, labels = images[start : start + BATCH]
        y = classifier.network.predict(classifier.params, x)
        total += CrossEntropy(reduction="sum").forward(y, labels)[0]
        np.add.at(confusion, (labels, y.argmax(-1)), 1)
    return confusion, total / len(images)


def _table(confusion: Counts, classes: tuple[str, ...]) -> str:
    """One line a class: how many of its images were right, and for which class the others were taken."""
    wide = len(classes) > WIDEST
    header = ("", "class", "images", "right", *(("most taken for",) if wide else map(str, range(len(classes)))))
    rows = []
    for k, (name, row) in enumerate(zip(classes, confusion, strict=True)):
        count, wrong = row.sum(), np.where(np.arange(len(row)) == k, 0, row)
        most = f"{classes[wrong.argmax()]} ({wrong.max()})" if wrong.any() else ""
        right = percent(row[k] / count) if count else "-"
        rows.append((str(k), name, f"{count:,}", right, *((most,) if wide else map(str, row))))
    return aligned(header, rows, left=(1, 4) if wide else (1,))
