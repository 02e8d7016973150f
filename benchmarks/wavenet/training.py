"""A training step: whether all sides compute the same, its time, and its memory."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..networks.tables import comparison, table
from ..networks.timing import medians, rounds
from .sides import OURS, SETTINGS, training
from .works import BATCHES, WORKS, examples

ROOT = Path(__file__).parents[2]
TOLERANCES = {"cost": 1e-5, "gradients": 1e-4}
SMALL = (2, 600)
"""Examples and samples that are enough to see whether all sides compute the same."""
STEPS = 3
"""After so many the peak of memory is read."""


def check(options):
    """Cost and gradients of the same parameters: by how much each side differs from ours, relative to the largest."""
    found = []
    for name in options.only or WORKS:
        params = initial(name)
        differences = of_gradients(WORKS[name], params, _sides(options))
        found += [{"work": name, "side": side, "differences": kinds} for side, kinds in differences.items()]
    body = [[row["work"], row["side"], *(f"{row['differences'][kind]:.1e}" for kind in TOLERANCES)] for row in found]
    header = ["network", "", *(f"{kind} (at most {most:.0e})" for kind, most in TOLERANCES.items())]
    return found, table("Relative differences from ours", header, body)


def of_gradients(work, params, sides):
    """By side, how far its cost and its gradients are from ours."""
    x, targets = examples(*SMALL)
    done = {side: training(side)(work, dict(params), x, targets).gradients() for side in sides}
    cost, gradients = done.pop(OURS)
    return {
        side: {
            "cost": abs(their_cost - cost) / cost,
            "gradients": max(float(np.max(abs(w - theirs[n])) / np.max(abs(w))) for n, w in gradients.items()),
        }
        for side, (their_cost, theirs) in done.items()
    }


def train(options):
    """Steps of backpropagation and update by Adam, in turn."""
    rows = []
    for name in options.only or WORKS:
        params, sides = initial(name), _sides(options)
        for side, kinds in of_gradients(WORKS[name], params, sides).items():
            for kind, difference in kinds.items():
                if not difference <= TOLERANCES[kind]:
                    raise SystemExit(f"{name}: {kind} of {side} differ by {difference:.1e}")
        for batch in options.batch or BATCHES:
            x, targets = examples(*batch)
            steps = {side: training(side)(WORKS[name], dict(params), x, targets).step for side in sides}
            times = rounds(steps, options.rounds)
            rows.append({"work": name, "batch": _shown(batch), "seconds": medians(times), "rounds": times})
    return rows, comparison("Training step, milliseconds", rows, "seconds", 1e3, OURS)


def memory(options):
    """Peak resident memory after some steps in fresh processes, which run on what others have cached; then less what
    was resident before the first step."""
    rows = []
    sides = [side for side in _sides(options) if side != "torch compile"]
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or WORKS:
            np.savez(Path(folder, name), **initial(name))
            for batch in options.batch or BATCHES:
                found = {side: [] for side in sides}
                for number in range(options.rounds + 1):
                    for side in sides:
                        answer = _alone(side, name, f"{folder}/{name}.npz", batch)
                        if number:
                            found[side].append(answer)
                row = {"work": name, "batch": _shown(batch), "rounds": found}
                for kind in ("peak", "above"):
                    row[kind] = {side: statistics.median(a[kind] for a in answers) for side, answers in found.items()}
                rows.append(row)
    texts = [
        comparison("Peak memory, MB", rows, "peak", 1e-6, OURS),
        comparison("Peak memory above that before the first step, MB", rows, "above", 1e-6, OURS),
    ]
    return rows, "\n".join(texts)


def _alone(side, name, params, batch):
    """What ``main`` answers in a process of its own."""
    order = json.dumps({"side": side, "work": name, "params": params, "batch": batch})
    done = subprocess.run(
        [sys.executable, "-m", __name__, order], cwd=ROOT, env=os.environ, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main(order):
    """Some steps of one side, and the peak of its memory."""
    from ..networks.child import peak

    x, targets = examples(*order["batch"])
    trained = training(order["side"])(WORKS[order["work"]], dict(np.load(order["params"])), x, targets)
    before = peak()
    for _ in range(STEPS):
        float(trained.step())
    print(json.dumps({"peak": peak(), "above": peak() - before}))


def initial(name):
    """The parameters that every side begins with."""
    from .in_faltung import initial

    return initial(WORKS[name])


def _sides(options):
    return [OURS, *(side for side in SETTINGS if side != OURS and side in (options.sides or SETTINGS))]


def _shown(batch):
    return f"{batch[0]} x {batch[1]:,}"


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
