"""The UFLDL recipe in Faltung: python -m benchmarks.networks.mnist.with_faltung FOLDER"""

import sys

import faltung as ft
from faltung.models import find_recipe


def main(folder):
    train, test = ft.data.read_folder(folder)
    recipe = find_recipe("ufldl-tutorial")
    network = recipe.network((28, 28, 1), classes=10)
    fitted = ft.fit(
        network, network.initial(seed=0), train, test=test, cost=ft.CrossEntropy(),
        optimiser=recipe.optimiser(len(train), recipe.batch), epochs=recipe.epochs, batch=recipe.batch,
        drop_last=recipe.drop_last, progress=False,
    )  # fmt: skip
    for row in fitted.history:
        print(f"epoch {row['epoch']}: accuracy {row['test_accuracy']:.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
