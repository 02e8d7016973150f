"""Build the embedded data set, a balanced sixth of Fashion-MNIST, from its four full files.

    python tools/build_fashion.py SOURCE_DIR [TARGET_DIR]

Of each class the first 1,000 training and the first 200 test images are taken; they keep the order of the full files.
The full files: https://github.com/zalandoresearch/fashion-mnist
"""

import sys
from pathlib import Path

import numpy as np

from faltung.data.folder import IDX_NAMES
from faltung.data.idx import read_idx, write_idx

TARGET = Path(__file__).resolve().parent.parent / "src/faltung/data/fashion"
CLASSES = 10
FULL = {"train": 60_000, "t10k": 10_000}
EACH = {"train": 1_000, "t10k": 200}


def build(source: Path, target: Path) -> None:
    """Read the full files from one folder, write the small ones into another."""
    for part, (images_name, labels_name) in IDX_NAMES.items():
        images, labels = read_idx(source / f"{images_name}.gz"), read_idx(source / f"{labels_name}.gz")
        if images.shape != (FULL[part], 28, 28) or labels.shape != (FULL[part],):
            sys.exit(f"{source}: got {images.shape} images and {labels.shape} labels, expected {FULL[part]} of 28 x 28")
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == k)[: EACH[part]] for k in range(CLASSES)]))
        if len(chosen) != CLASSES * EACH[part]:
            sys.exit(f"{source}: a class has less than {EACH[part]} images")
        write_idx(target / f"{images_name}.gz", images[chosen])
        write_idx(target / f"{labels_name}.gz", labels[chosen])


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    build(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else TARGET)
