"""The contestants by name, each imported only when it is asked for; and the limits under which all of them run."""

import os
import platform
import shutil
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

OURS, FROZEN = "faltung", "faltung predictor"
SETTINGS = {
    OURS: ("in_faltung", {}),
    FROZEN: ("in_faltung", {"frozen": True}),
    "torch": ("in_torch", {}),
    "torch channels_last": ("in_torch", {"layout": "channels_last"}),
    "torch compile": ("in_torch", {"compiled": True}),
    "jax": ("in_jax", {}),
    "onnxruntime": ("in_onnx", {}),
}
if not any(map(shutil.which, ("g++", "clang++", "c++"))):
    del SETTINGS["torch compile"]  # it writes C++
TRAINERS = [name for name in SETTINGS if name not in (FROZEN, "onnxruntime")]
PREDICTORS = list(SETTINGS)
FRAMEWORKS = {"in_faltung": "faltung", "in_torch": "torch", "in_jax": "jax.numpy", "in_onnx": "onnxruntime"}
"""What importing a side means."""


def training(name):
    """What makes a ``Training`` of (work, params, x, labels)."""
    module, settings = SETTINGS[name]
    return partial(import_module(f".{module}", __package__).Training, **settings)


def prediction(name):
    """What makes a ``Prediction`` of (work, params, x)."""
    module, settings = SETTINGS[name]
    return partial(import_module(f".{module}", __package__).Prediction, **settings)


def limit(threads):
    """Give this process, and those that it starts, so many cores and each library so many threads.

    JAX has no setting for it: it makes a thread for each core that it may use.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    for name in ("FALTUNG_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)


def machine():
    """The processor, and the versions of all sides."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(": ")[1] for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    )
    libraries = {name: version(name) for name in ("faltung", "numpy", "llvmlite", "torch", "jax", "onnxruntime")}
    return {"processor": names[0] if names else platform.processor(), "python": platform.python_version()} | libraries
