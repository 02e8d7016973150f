"""One side alone in a fresh process, told what to do by JSON and answering in JSON: memory, first steps, sizes.

python -m benchmarks.networks.child '{"side": "faltung", "work": {"network": "ufldl", ...}, "batch": 256, ...}'
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(side, work, params, *, batch=1, steps=5, sizes=(), threads=None, environment=None):
    """What ``main`` answers in a process of its own; ``params`` is the path of an .npz file."""
    order = {
        "side": side, "work": asdict(work), "params": str(params), "batch": batch,
        "steps": steps, "sizes": sizes, "threads": threads,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(order)],
        cwd=ROOT, env=os.environ | (environment or {}), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main(order):
    """Import, first step, some more steps, then steps at other sizes of images; and the peak of memory at the end."""
    from .sides import FRAMEWORKS, SETTINGS, limit, training
    from .works import Work, examples

    if order["threads"]:
        limit(order["threads"])
    import numpy as np

    began = time.perf_counter()
    import_module(FRAMEWORKS[SETTINGS[order["side"]][0]])
    imported = time.perf_counter()
    work = Work(**{key: tuple(value) if isinstance(value, list) else value for key, value in order["work"].items()})
    params = dict(np.load(order["params"]))
    trained = training(order["side"])(work, params, *examples(work, order["batch"]))
    float(trained.step())
    answer = {"import": imported - began, "first": time.perf_counter() - imported}
    answer["steps"] = [_seconds(trained) for _ in range(order["steps"] - 1)]
    answer["peak"] = peak()
    if order["sizes"]:
        before = compilations(order["side"], trained)
        answer["sizes"] = []
        for height, width in order["sizes"]:
            sized = Work(work.network, (height, width, work.shape[2]), arguments=work.arguments)
            trained.feed(*examples(sized, order["batch"]))
            answer["sizes"].append(_seconds(trained))
        answer["compilations"] = compilations(order["side"], trained) - before
    print(json.dumps(answer))


def _seconds(trained):
    began = time.perf_counter()
    float(trained.step())
    return time.perf_counter() - began


def peak():
    """The largest resident memory of this process, in bytes.

    Not ``ru_maxrss`` where Linux knows better: after vfork and exec that begins with the parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def compilations(side, trained):
    """How many programs this process has compiled or loaded, as far as the side counts them."""
    if side == "faltung":
        from faltung.engine.host.compile import counters

        return counters.compiled + counters.loaded
    if side == "jax":
        return trained.advance._cache_size()
    if side == "torch compile":
        from torch._dynamo.utils import counters as dynamo

        return dynamo["stats"]["unique_graphs"]
    return 0


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
