"""Data: what training consumes, and where it comes from (IDX files, folders of images, the embedded set).

What reads files is imported when it is first used: a network that meets no files needs no image library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from faltung.data.dataset import Arrays, Data, Images, Redrawn, batches

if TYPE_CHECKING:
    from faltung.data.embedded import fashion
    from faltung.data.folder import read_folder
    from faltung.data.idx import read_idx, write_idx
    from faltung.data.image import read_image

__all__ = [
    "Arrays",
    "Data",
    "Images",
    "Redrawn",
    "batches",
    "fashion",
    "read_folder",
    "read_idx",
    "read_image",
    "write_idx",
]

_HOMES = {"fashion": "embedded", "read_folder": "folder", "read_idx": "idx", "write_idx": "idx", "read_image": "image"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"faltung.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'faltung.data' has no attribute {name!r}")
