"""What can be typed after ``faltung wavenet``; the work of each command lies in a file of its own."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option, Typer

wavenet = Typer(help="WaveNet: learn from recordings, and speak.", rich_markup_mode=None)


def _option(metavar: str, help: str) -> Any:
    return Option(metavar=metavar, help=help, show_default=False)


@wavenet.command()
def train(
    data: Annotated[
        Path | None, Argument(metavar="DIR", help="A folder of WAV or FLAC files.", show_default=False)
    ] = None,
    setting: Annotated[str | None, _option("NAME", "nv (default), small, ibab or paper240.")] = None,
    steps: Annotated[int | None, _option("N", "Steps of training (default 10,000).")] = None,
    seed: Annotated[int | None, _option("N", "Of initial parameters and windows (default 0).")] = None,
    mel: Annotated[bool, Option("--mel", help="Train a vocoder: from log-mel spectrograms to waves.")] = False,
    out: Annotated[Path | None, _option("RUN", "The folder of the run (default runs/NAME-1, -2, ...).")] = None,
    resume: Annotated[Path | None, _option("RUN", "Go on with the run in this folder.")] = None,
) -> None:
    """Train a network on recordings, of any rate, mono or stereo.

    Of ten files, in the order of their names, one is for validation and one is left for tests of one's own.
    """
    from faltung.cli.wavenet_train import begin, go_on

    options = {"data": data and str(data.resolve()), "setting": setting, "steps": steps, "seed": seed}
    given = {name: value for name, value in (options | {"mel": mel or None}).items() if value is not None}
    if resume is None:
        raise Exit(begin(given, out))
    raise Exit(go_on([*given, *(["out"] if out else [])], resume))
