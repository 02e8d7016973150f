"""What can be typed: commands, options and their help. The work of each command lies in a file of its own.

Those files are imported when their command runs, so that help comes at once.
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option, Typer

from faltung.cli.arguments import Model, option
from faltung.cli.wavenet import wavenet

app = Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(wavenet, name="wavenet")


def _version(wanted: bool) -> None:
    if wanted:
        from faltung import __version__

        print(f"faltung {__version__}")
        raise Exit


Data = Annotated[
    Path | None,
    option("DIR", "Four IDX files under their MNIST names, gzipped or not; or images, one folder a class."),
]


@app.callback()
def faltung(
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Convolutional networks on ordinary CPUs, with every derivative written down, visible and checked."""


@app.command()
def train(
    data: Data = None,
    network: Annotated[str | None, option("NAME", "ufldl (default), ufldl-tutorial, lenet5 or allconv.")] = None,
    epochs: Annotated[int | None, option("N", "How often every image is seen.")] = None,
    batch: Annotated[int | None, option("N", "Images a step.")] = None,
    rate: Annotated[float | None, option("R", "The learning rate, at the beginning.")] = None,
    momentum: Annotated[float | None, option("M", "The momentum, from 0 to below 1.")] = None,
    seed: Annotated[int | None, option("N", "Of initial parameters and order of images (default 0).")] = None,
    size: Annotated[str | None, option("HxW", "Resize all images, as in 28x28.")] = None,
    limit: Annotated[int | None, option("N", "Train and test on N images at most, evenly from all classes.")] = None,
    out: Annotated[Path | None, option("DIR", "The folder of the run (default runs/NAME-1, -2, ...).")] = None,
    resume: Annotated[Path | None, option("DIR", "Go on with the run in this folder; with --epochs at most.")] = None,
) -> None:
    """Train a network on images.

    Without options: the network of the UFLDL tutorial, on 10,000 images of clothes that come with the package. What is
    not given is taken from the network's recipe.
    """
    from faltung.cli.train import begin, go_on

    options = {"network": network, "data": data and str(data.resolve()), "size": size, "limit": limit}
    options |= {"epochs": epochs, "batch": batch, "rate": rate, "momentum": momentum, "seed": seed}
    given = {name: value for name, value in options.items() if value is not None}
    if resume is None:
        raise Exit(begin(given, out))
    if out is not None:
        given["out"] = out
    raise Exit(go_on(given, resume))


@app.command()
def predict(
    model: Model,
    images: Annotated[list[Path], Argument(metavar="IMAGE...", help="Image files.", show_default=False)],
    json: Annotated[bool, Option("--json", help="One JSON object an image, with all probabilities.")] = False,
) -> None:
    """Tell the class of images, and how probable it is."""
    from faltung.cli.predict import predict

    predict(model, images, as_json=json)


@app.command()
def evaluate(model: Model, data: Data = None) -> None:
    """Measure a model on test images, by default those of its training: cost, accuracy, confusion matrix."""
    from faltung.cli.evaluate import evaluate

    evaluate(model, data)


@app.command()
def describe(model: Model) -> None:
    """Show a model: its nodes as a table, its size, and how it was trained."""
    from faltung.cli.describe import describe

    describe(model)


@app.command()
def check(model: Model) -> None:
    """Compare every derivative of a model with difference quotients; exit code 1 where they disagree."""
    from faltung.cli.check import check

    if not check(model):
        raise Exit(1)


@app.command()
def trace(
    model: Model,
    image: Annotated[Path, Argument(metavar="IMAGE", help="An image file.", show_default=False)],
    out: Annotated[Path, option("FILE", "The .npz file to write.")],
    label: Annotated[str | None, option("CLASS", "What it should be (default: the predicted class).")] = None,
) -> None:
    """Write all values, error signals and gradients for one image into a .npz file.

    Its arrays are called value/NODE, error/NODE and gradient/NODE.PARAMETER.
    """
    from faltung.cli.trace import trace

    trace(model, image, out, label)


@app.command()
def explain(
    model: Model,
    size: Annotated[str | None, option("HxW", "The size of open axes, as in 128x128 or 16000.")] = None,
    batch: Annotated[int, Option(metavar="N", min=1, help="Examples at once.")] = 32,
    predicting: Annotated[bool, Option("--predict", help="A prediction instead of a step of training.")] = False,
    predictor: Annotated[bool, Option("--predictor", help="The same by a predictor.")] = False,
    ir: Annotated[str | None, option("NODE", "Print the loops of this node instead.")] = None,
) -> None:
    """Show how a model runs: the order of the calls, what passes between them, and the time of each."""
    from faltung.cli.data import parse_sizes
    from faltung.cli.explain import explain

    asked = "predictor" if predictor else "predict" if predicting else "train"
    explain(model, parse_sizes(size) if size else None, batch, asked, ir)


@app.command()
def cache(clear: Annotated[bool, Option("--clear", help="Remove all entries.")] = False) -> None:
    """Show the compiled kernels that are kept on disk, or remove them.

    They lie in the user's cache folder, or in the one that FALTUNG_CACHE names; "off" there means that none are kept.
    """
    from faltung.cli import cache

    cache.clear() if clear else cache.show()
