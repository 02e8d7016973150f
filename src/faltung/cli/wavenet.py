"""What can be typed after ``faltung wavenet``; the work of each command lies in a file of its own."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option, Typer

from faltung.cli.arguments import Model, option

wavenet = Typer(help="WaveNet: learn from recordings, and speak.", rich_markup_mode=None)


@wavenet.command()
def train(
    data: Annotated[
        Path | None, Argument(metavar="DIR", help="A folder of WAV or FLAC files.", show_default=False)
    ] = None,
    setting: Annotated[str | None, option("NAME", "nv (default), small, ibab or paper240.")] = None,
    steps: Annotated[int | None, option("N", "Steps of training (default 10,000).")] = None,
    seed: Annotated[int | None, option("N", "Of initial parameters and windows (default 0).")] = None,
    mel: Annotated[bool, Option("--mel", help="Train a vocoder: from log-mel spectrograms to waves.")] = False,
    out: Annotated[Path | None, option("RUN", "The folder of the run (default runs/NAME-1, -2, ...).")] = None,
    resume: Annotated[Path | None, option("RUN", "Go on with the run in this folder.")] = None,
) -> None:
    """Train a network on recordings, of any rate, mono or stereo.

    Silence at both ends is cut off (40 dB below the loudest 20 ms). Of ten files, in the order of their names, one is
    for validation and one is left for tests of one's own.
    """
    from faltung.cli.wavenet_train import begin, go_on

    options = {"data": data and str(data.resolve()), "setting": setting, "steps": steps, "seed": seed}
    given = {name: value for name, value in (options | {"mel": mel or None}).items() if value is not None}
    if resume is None:
        raise Exit(begin(given, out))
    raise Exit(go_on([*given, *(["out"] if out else [])], resume))


@wavenet.command()
def generate(
    model: Model,
    out: Annotated[Path, option("FILE", "The WAV file to write; of several streams, FILE-1, FILE-2, ...")],
    seconds: Annotated[float | None, option("S", "How long (default 3, or as long as the condition).")] = None,
    condition: Annotated[
        Path | None, option("FILE", "A recording for a vocoder to say again; or an .npy file of what conditions it.")
    ] = None,
    speaker: Annotated[int | None, option("N", "Who speaks, of the speakers of the training.")] = None,
    temperature: Annotated[float, option("T", "Below 1 what is probable, above 1 the rest is said more often.")] = 1.0,
    seed: Annotated[int, option("N", "Of all that is drawn (default 0).")] = 0,
    streams: Annotated[int, option("B", "So many at once, which takes less time than one by one.")] = 1,
    bfloat16: Annotated[bool, Option("--bfloat16", help="Round the weights: twice as fast.")] = False,
    workers: Annotated[int | None, option("N", "1, or 2 that share each step (default: whichever is faster).")] = None,
) -> None:
    """Speak: sample by sample, each drawn from what the model expects after all before. Ctrl-C keeps what was said."""
    from faltung.cli.wavenet_generate import Asked, speak

    raise Exit(speak(model, Asked(out, seconds, condition, speaker, temperature, seed, streams, bfloat16, workers)))
