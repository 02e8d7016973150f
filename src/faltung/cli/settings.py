"""What a run of ``faltung train`` was asked for: kept beside its checkpoint, and read again to resume it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from faltung.errors import DataError, SettingError
from faltung.exchange import atomic

NAME = "settings.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of ``faltung train``, but for its folders; None leaves a choice to the recipe, or to the data."""

    network: str = "ufldl"
    data: str | None = None
    size: str | None = None
    limit: int | None = None
    epochs: int
    batch: int
    rate: float | None = None
    momentum: float | None = None
    seed: int = 0

    def __post_init__(self):
        if self.seed < 0:
            raise SettingError(f"got --seed {self.seed}, expected at least 0", way_out="choose another seed")


def save(settings: Settings, folder: Path) -> None:
    """Write them into the folder of a run, which is made where it is missing."""
    atomic.make_folder(folder)
    atomic.write(folder / NAME, json.dumps(asdict(settings), indent=2).encode(), b"\n")


def load(folder: Path) -> Settings:
    """The settings of the run in a folder.

    Raises: DataError where there are none, or they are damaged.
    """
    path = folder / NAME
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", way_out="begin a new run") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error})", way_out="begin a new run") from error
    kinds = get_type_hints(Settings)
    known: dict[str, Any] = {name: found.get(name) for name in kinds} if isinstance(found, dict) else {}
    if not known or not all(isinstance(known[name], kind) for name, kind in kinds.items()):
        raise DataError(f"{path} is damaged", way_out="begin a new run")
    return Settings(**known)
