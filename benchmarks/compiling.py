"""How long compiling takes: kernels and networks, cold and from the cache, each in a process of its own.

    python benchmarks/compiling.py --out compiling.json [--runs 3]

The time is that of the first call less that of the second: writing the text, LLVM, loading, and the cache. LLVM itself
is loaded before. With an empty cache folder it is cold; with the folder that such a process has left, cached.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CONVOLUTIONS = {
    "9x9, 1 to 20": ((28, 28, 1), {"filters": 20, "kernel": 9}),
    "3x3, 3 to 64": ((32, 32, 3), {"filters": 64, "kernel": 3, "padding": 1}),
    "3x3, 64 to 64": ((32, 32, 64), {"filters": 64, "kernel": 3, "padding": 1}),
    "3x3, 64 channels by themselves": ((32, 32, 64), {"filters": 64, "kernel": 3, "padding": 1, "groups": 64}),
}
PRODUCTS = ("forward", "error", "gradient")
NETWORKS = {
    "30 convolutions, three widths": [16] * 10 + [32] * 10 + [64] * 10,
    "30 convolutions, each another width": [16 + 4 * n for n in range(30)],
}
"""Filters of convolutions 3x3, each with a normalisation and a rectifier; then a mean and a dense layer."""


def subject(name):
    """What is called twice."""
    import faltung as ft
    from faltung.engine.lower import lowerings

    rng = np.random.default_rng(0)
    if name in NETWORKS:
        parts = {}
        for n, filters in enumerate(NETWORKS[name]):
            conv = ft.Conv(filters, kernel=3, padding="same", stride=2 if n in (10, 20) else 1, bias=False)
            parts |= {f"conv{n}": conv, f"norm{n}": ft.BatchNorm(), f"relu{n}": ft.ReLU()}
        net = ft.Chain(**parts, mean=ft.GlobalPool("mean"), dense=ft.Affine(10)).on((32, 32, 3)).on_executor("native")
        params, x = net.initial(), rng.normal(size=(4, 32, 32, 3)).astype(np.float32)
        return lambda: net.backpropagate(params, x, np.zeros(4, int), cost=ft.CrossEntropy(), keep=())
    name, product = name.rsplit(", ", 1)
    shape, settings = CONVOLUTIONS[name]
    conv = ft.Conv(**settings, bias=False)
    x = rng.normal(size=(1, *shape)).astype(np.float32)
    params = {"w": rng.normal(size=conv.parameters(shape)["w"].shape).astype(np.float32)}
    dy = rng.normal(size=(1, *conv.output(shape))).astype(np.float32)
    function = lowerings()[ft.Conv][PRODUCTS.index(product)]
    return lambda: function(conv, params, x) if product == "forward" else function(conv, params, x, dy)


def child(name):
    """Call it twice, and print what the first call took longer."""
    import faltung as ft
    from faltung.engine.host.compile import counters

    ft.Chain(ft.Crop(1)).on((4, 1)).on_executor("native").predict({}, np.zeros((1, 4, 1), np.float32))
    run, times = subject(name), []
    before = counters.compiled + counters.loaded
    for _ in range(3):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    milliseconds = 1000 * (times[0] - min(times[1:]))
    print(json.dumps({"objects": counters.compiled + counters.loaded - before, "milliseconds": milliseconds}))


def measured(name, folder):
    """What a fresh process prints."""
    command = [sys.executable, __file__, "--child", name]
    environment = os.environ | {"FALTUNG_CACHE": str(folder), "FALTUNG_THREADS": "1"}
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def row(name, runs):
    """Medians of cold and cached processes, in turn."""
    cold, cached = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(measured(name, folder))
            cached.append(measured(name, folder))
    cold_ms, cached_ms = (statistics.median(r["milliseconds"] for r in results) for results in (cold, cached))
    return {"name": name, "objects": cold[0]["objects"], "cold": cold_ms, "cached": cached_ms}


def main():
    """Measure all and write the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    names = [f"{name}, {product}" for name in CONVOLUTIONS for product in PRODUCTS] + list(NETWORKS)
    rows = []
    print(f"{'':44} {'objects':>7} {'cold':>9} {'cached':>9}   milliseconds")
    for name in names:
        rows.append(row(name, options.runs))
        r = rows[-1]
        print(f"{name:44} {r['objects']:7} {r['cold']:9.1f} {r['cached']:9.1f}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
