"""The contestants by name, each imported only when it is asked for."""

import shutil
from functools import partial
from importlib import import_module

OURS = "faltung"
SETTINGS = {
    OURS: ("in_faltung", {}),
    "torch": ("in_torch", {"form": "contiguous"}),
    "torch channels_last": ("in_torch", {"form": "channels_last"}),
    "torch matrices": ("in_torch", {"form": "matrices"}),
    "torch compile": ("in_torch", {"form": "contiguous", "compiled": True}),
}
if not any(map(shutil.which, ("g++", "clang++", "c++"))):
    del SETTINGS["torch compile"]  # it writes C++


def training(name):
    """What makes a ``Training`` of (work, params, x, targets)."""
    module, settings = SETTINGS[name]
    return partial(import_module(f".{module}", __package__).Training, **settings)
