"""How options and arguments are declared, and those that several commands have."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option


def _in_folder(model: Path) -> Path:
    return model / "model.safetensors" if model.is_dir() else model


Model = Annotated[
    Path,
    Argument(metavar="MODEL", callback=_in_folder, help="A model file, or the folder of a run.", show_default=False),
]


def option(metavar: str, help: str) -> Any:
    """An option whose default the help does not show."""
    return Option(metavar=metavar, help=help, show_default=False)
