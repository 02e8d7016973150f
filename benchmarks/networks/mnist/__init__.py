"""The recipe of the UFLDL tutorial on full MNIST, as whole programs: loading, 3 epochs, an evaluation after each."""

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ..sides import OURS, SETTINGS
from ..tables import table

PROGRAMS = {
    OURS: ("with_faltung",),
    "torch": ("with_torch",),
    "torch compile": ("with_torch", "compile"),
    "jax": ("with_jax",),
}
"""Module of the program, and its further arguments."""


def mnist(options):
    """Seconds of each program in a fresh process, in turn, and what it reaches."""
    sides = {side: PROGRAMS[side] for side in PROGRAMS if side in (options.sides or SETTINGS)}
    seconds, accuracies = ({side: [] for side in sides} for _ in range(2))
    for _ in range(options.rounds):
        for side, (module, *more) in sides.items():
            command = [sys.executable, "-m", f"{__name__}.{module}", str(options.data.resolve()), *more]
            began = time.perf_counter()
            done = subprocess.run(
                command, cwd=Path(__file__).parents[3], env=os.environ, check=True, stdout=subprocess.PIPE, text=True
            )
            seconds[side].append(time.perf_counter() - began)
            accuracies[side].append(float(re.findall(r"accuracy ([\d.]+)", done.stdout)[-1]))
    rows = [
        {"side": side, "seconds": statistics.median(seconds[side]), "rounds": seconds[side],
         "accuracy": statistics.median(accuracies[side])}
        for side in sides
    ]  # fmt: skip
    header = ["", "seconds, end to end", "test accuracy"]
    return rows, table(
        "The UFLDL recipe on MNIST", header, [[r["side"], r["seconds"], f"{r['accuracy']:.2%}"] for r in rows]
    )
