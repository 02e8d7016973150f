"""How time and memory grow: with batch, side of the images, channels and depth; with workers; with ever new sizes.

The network is a stack of 3x3 convolutions and rectifiers, a global mean and a dense layer. Each point is a process.
"""

import math
import statistics
import tempfile
from pathlib import Path

import numpy as np

from . import child
from .figure import figure
from .in_faltung import initial
from .resources import parameters
from .sides import OURS, SETTINGS
from .tables import table
from .works import WORKS, Work

SIDES = [OURS, "torch", "jax"]
BASE = {"batch": 32, "side": 32, "channels": 16, "depth": 4}
AXES = {
    "batch": (1, 4, 16, 64, 256),
    "side": (8, 16, 32, 64, 128),
    "channels": (4, 8, 16, 32, 64, 128),
    "depth": (1, 2, 4, 8, 16),
}


def growth(options):
    """The parts that ``--only`` names: one or more of the axes, workers, sizes."""
    rows, texts = [], []
    for part in options.only or [*AXES, "workers", "sizes"]:
        found, text = {"workers": workers, "sizes": sizes}.get(part, along)(options, part)
        rows += found
        texts.append(text)
    return rows, "\n".join(texts)


def along(options, axis):
    """Time of a step, and peak of memory above that of the smallest program, while one axis grows."""
    sides = options.sides or SIDES
    smallest = {side: _point(side, dict.fromkeys(AXES, 1) | {"side": 8})["peak"] for side in sides}
    rows = []
    for value in AXES[axis]:
        row = {"axis": axis, "value": value, "seconds": {}, "bytes": {}}
        for side in sides:
            answer = _point(side, BASE | {axis: value})
            row["seconds"][side] = statistics.median(answer["steps"])
            row["bytes"][side] = max(answer["peak"] - smallest[side], 0)
        rows.append(row)
    scaled = {"ms": ("seconds", 1e3), "MB": ("bytes", 1e-6)}
    if options.figures:
        panels = {
            unit: {side: [(row["value"], scale * row[key][side]) for row in rows] for side in sides}
            for unit, (key, scale) in scaled.items()
        }
        options.figures.mkdir(parents=True, exist_ok=True)
        (options.figures / f"growth-{axis}.svg").write_text(figure(f"A training step against {axis}", axis, panels))
    header = [axis, *(f"{side}, {unit}" for unit in scaled for side in sides)]
    body = [
        [row["value"], *(scale * row[key][side] for key, scale in scaled.values() for side in sides)] for row in rows
    ]
    slopes = [
        exponent([(row["value"], row[key][side]) for row in rows]) for key, _ in scaled.values() for side in sides
    ]
    return rows, table(
        f"Growth with {axis} (last row: its exponent, over the upper half)", header, [*body, ["", *slopes]]
    )


def exponent(points):
    """The slope of the straight line through the upper half of the points, both axes logarithmic.

    >>> exponent([(1, 7.0), (2, 20.0), (4, 80.0)])
    2.0
    """
    upper = [(math.log(a), math.log(b)) for a, b in points[len(points) // 2 :] if b > 0]
    return statistics.linear_regression(*zip(*upper, strict=True)).slope if len(upper) > 1 else None


def workers(options, _):
    """Each network at its largest batch with 1 and with 2 workers, in milliseconds, and how many times faster 2 are."""
    rows = []
    with parameters() as folder:
        for name, work in WORKS.items():
            for side in options.sides or SIDES:
                seconds = []
                for threads in (1, 2):
                    answer = child.run(
                        side, work, folder / f"{name}.npz", batch=work.batches[-1], steps=6, threads=threads
                    )
                    seconds.append(statistics.median(answer["steps"]))
                rows.append({"work": name, "side": side, "seconds": seconds})
    body = [
        [row["work"], row["side"], *(1e3 * s for s in row["seconds"]), row["seconds"][0] / row["seconds"][1]]
        for row in rows
    ]
    return rows, table("1 against 2 workers", ["network", "", "1: ms", "2: ms", "gain"], body)


def sizes(options, _):
    """Steps on images of ever new sizes in a row, a batch of 8: what each costs when it is met for the first time."""
    random = np.random.default_rng(0)
    chosen = [tuple(map(int, size)) for size in random.integers(16, 97, (options.sizes, 2))]
    rows = []
    for side in options.sides or [side for side in SETTINGS if side in (*SIDES, "torch compile")]:
        answer = _point(side, BASE | {"batch": 8}, sizes=chosen)
        rows.append({"side": side, "compilations": answer["compilations"], "seconds": answer["sizes"]})
    body = [
        [
            row["side"],
            row["compilations"],
            *(1e3 * f(row["seconds"]) for f in (statistics.mean, statistics.median, max)),
        ]
        for row in rows
    ]
    header = ["", "compilations", "mean, ms a size", "median", "largest"]
    return rows, table(f"{options.sizes} random sizes of images, from 16 to 96, in a row", header, body)


def _point(side, at, **settings):
    """What the second of two processes answers: the first one fills the caches of compiled code."""
    work = Work("stack", (at["side"], at["side"], 3), arguments=(at["channels"], at["depth"]))
    with tempfile.TemporaryDirectory() as folder:
        params = Path(folder, "stack.npz")
        np.savez(params, **initial(work))
        child.run(side, work, params, batch=at["batch"], steps=1)
        return child.run(side, work, params, batch=at["batch"], steps=6, **settings)
