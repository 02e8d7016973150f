"""Data: what training consumes, and where it comes from (IDX files, folders of images, the embedded set)."""

from faltung.data.dataset import Arrays, Data, Images, Redrawn, batches
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
