"""The real data set that comes with the package: a balanced part of Fashion-MNIST (see ``fashion/README.md``)."""

from dataclasses import replace
from importlib.resources import as_file, files

from faltung.data.dataset import Images
from faltung.data.folder import read_folder

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def fashion() -> tuple[Images, Images]:
    """10,000 training and 2,000 test images of clothes, 28 x 28, grey: 1,000 and 200 of each of ten classes.

    Source: H. Xiao, K. Rasul, R. Vollgraf, *Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms* (2017), arXiv 1708.07747; MIT licence.

    >>> train, test = fashion()
    >>> train, test
    (Images(10000 of 28 x 28 x 1, 10 classes), Images(2000 of 28 x 28 x 1, 10 classes))
    >>> [train.classes[k] for k in train.labels[:2]], train.pixels[:2].sum(axis=(1, 2, 3)).tolist()
    (['Ankle boot', 'T-shirt/top'], [76247, 84598])
    """
    with as_file(files("faltung.data") / "fashion") as folder:
        train, test = read_folder(folder)
    return replace(train, classes=CLASSES), replace(test, classes=CLASSES)
