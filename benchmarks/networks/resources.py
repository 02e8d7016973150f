"""Memory, start and download: what a user pays beside the time of a step."""

import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from importlib.metadata import requires, version
from pathlib import Path

import numpy as np

from . import child
from .in_faltung import initial
from .sides import OURS, TRAINERS
from .tables import comparison, table
from .works import WORKS

ALWAYS_CACHED = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
"""Else JAX keeps only what took long to compile."""


def memory(options):
    """Peak resident memory after five steps at the batch, less that of the same program at batch 1.

    Each program is a fresh process, and all of them ran once before, so that what is cached is there.
    """
    rows = []
    with parameters() as folder:
        for name in options.only or WORKS:
            for batch in options.batch or WORKS[name].batches[-1:]:
                found = {side: [] for side in options.sides or TRAINERS}
                for number in range(options.rounds + 1):
                    for side in found:
                        big, small = (_peak(side, name, folder, size) for size in (batch, 1))
                        if number:
                            found[side].append(big - small)
                medians = {side: statistics.median(values) for side, values in found.items()}
                rows.append({"work": name, "batch": batch, "bytes": medians, "rounds": found})
    return rows, comparison("Memory above that of batch 1, MB", rows, "bytes", 1e-6, OURS)


def _peak(side, name, folder, batch):
    caches = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/jax"} | ALWAYS_CACHED
    return child.run(side, WORKS[name], folder / f"{name}.npz", batch=batch, environment=caches)["peak"]


def start(options):
    """Seconds to import a side, NumPy's own not counted; and to its first UFLDL step after that, cold and cached.

    The first step holds all that the import put off: making the network, loading parameters, compiling.
    """
    rows, work = [], WORKS["ufldl"]
    found = {side: {"import": [], "cold": [], "cached": []} for side in options.sides or TRAINERS}
    with parameters() as folder:
        bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
        for side in found:  # as where it is installed: Python keeps the bytecode of all modules
            child.run(side, work, folder / "ufldl.npz", batch=32, steps=1, environment=bytecode)
        for _ in range(options.rounds):
            for side in found:
                with tempfile.TemporaryDirectory() as caches:
                    places = ("FALTUNG_CACHE", "JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
                    environment = {place: f"{caches}/{place}" for place in places} | ALWAYS_CACHED
                    environment |= bytecode
                    for key in ("cold", "cached"):
                        answer = child.run(side, work, folder / "ufldl.npz", batch=32, steps=1, environment=environment)
                        found[side][key].append(answer["first"])
                        found[side]["import"].append(answer["import"])
    for side, kinds in found.items():
        rows.append({"side": side, "seconds": {kind: statistics.median(times) for kind, times in kinds.items()}})
    header = ["", "import", "first step, cold", "first step, cached"]
    return rows, table("Start, seconds", header, [[row["side"], *row["seconds"].values()] for row in rows])


def download(options):
    """Bytes of all files that pip fetches for a side on this system, dependencies included."""
    rows = []
    for side in (OURS, "torch", "jax", "onnxruntime"):
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", folder]
            subprocess.run([*pip, *_needed(side)], check=True, stderr=subprocess.DEVNULL)
            files = {path.name: path.stat().st_size for path in Path(folder).iterdir()}
        rows.append({"side": side, "bytes": sum(files.values()), "files": files})
    body = [[row["side"], row["bytes"] / 1e6, len(row["files"])] for row in rows]
    return rows, table("Download of all runtime dependencies", ["", "MB", "files"], body)


def _needed(side):
    """What pip is asked for: the versions that are installed here; our package itself may not be published yet."""
    if side != OURS:
        return [f"{side}=={version(side)}"]
    names = [re.split("[<>=!~ ]", line)[0] for line in requires(OURS) or () if "extra ==" not in line]
    return [f"{name}=={version(name)}" for name in names]


@contextmanager
def parameters():
    """A folder with the initial parameters of each network, as .npz files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, work in WORKS.items():
            np.savez(Path(folder, f"{name}.npz"), **initial(work))
        yield Path(folder)
