"""``faltung predict``: which class, and how probable."""

import json
from collections.abc import Sequence
from pathlib import Path

from faltung.cli.classifier import open_classifier
from faltung.text import percent

SHOWN = 3


def predict(model: Path, images: Sequence[Path], *, as_json: bool) -> None:
    """Print one line an image: the most probable classes, or a JSON object with the probability of every class."""
    classifier = open_classifier(model)
    for image in images:
        (p,) = classifier.probabilities(classifier.read(image))
        best = (-p).argsort(kind="stable")
        if as_json:
            probabilities = {classifier.classes[k]: float(p[k]) for k in best}
            print(
                json.dumps({"image": str(image), "class": classifier.classes[best[0]], "probabilities": probabilities})
            )
        else:
            named = (f"{classifier.classes[k]} {percent(p[k])}" for k in best[:SHOWN])
            print(f"{image}: {', '.join(named)}")
