"""The same network, parameters, data order and steps in Faltung and in PyTorch: do they learn the same?

python -m benchmarks.wavenet.agreement FOLDER [--steps 500] [--out FILE.json] [--picture FILE.svg]

FOLDER holds recordings. The mean training cost of the last 50 steps must agree within 1 %.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any library counts the cores
os.environ.setdefault("FALTUNG_THREADS", "1")

import numpy as np
import torch

import faltung as ft
from faltung.elements.element import Run
from faltung.models.wavenet import Settings, WaveNet
from faltung.models.wavenet.corpus import read_corpus
from faltung.models.wavenet.windows import Windows, training_network, warmup

from .in_torch import WaveNet as TorchNet
from .lines import lines
from .works import Work, cycles

DILATIONS, RATE = cycles(2, 64), 1e-3
BATCH, LENGTH, LAST = 4, 1000, 50
SETTINGS = Settings(DILATIONS, residual=32, gate=32, skip=64)


def in_faltung(params, batches):
    """The cost of each step."""
    network, adam = training_network(SETTINGS, LENGTH), ft.Adam(RATE)
    slots = adam.slots(params)
    for step, (x, target) in enumerate(batches):
        run = Run(training=True, step=step)
        done = network.train_step(params, slots, x, target, cost=ft.CrossEntropy(ignore=-1), optimiser=adam, run=run)
        params, slots = done.params, done.slots
        yield done.cost


def in_torch(params, batches):
    """The cost of each step."""
    network = TorchNet(Work(DILATIONS, SETTINGS.residual, SETTINGS.gate, SETTINGS.skip), "contiguous")
    rows, convs = network.named()
    with torch.no_grad():
        for name, embedding in rows.items():
            embedding.weight.copy_(torch.from_numpy(params[f"{name}.w"]))
        for name, conv in convs.items():
            conv.put(torch.from_numpy(params[f"{name}.w"]), torch.from_numpy(params[f"{name}.b"]))
    adam = torch.optim.Adam(network.parameters(), RATE, fused=True)
    for x, target in batches:
        logits = network(torch.from_numpy(x["x"]))[:, warmup(SETTINGS) :]
        cost = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), torch.from_numpy(target).flatten(), ignore_index=-1
        )
        adam.zero_grad()
        cost.backward()
        adam.step()
        yield cost.item()


def drawn(costs):
    """Both curves, smoothed, as SVG."""
    smooth = {
        name: [(k, float(np.mean(own[k - 10 : k])) / np.log(2)) for k in range(10, len(own) + 1, 2)]
        for name, own in costs.items()
    }
    title = "The same WaveNet trained by Faltung and by PyTorch"
    return lines(title, "step", "training cost, bits per sample (mean of 10 steps)", smooth)


def main():
    """Train both, step by step in turn, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    windows = Windows(read_corpus(options.folder, SETTINGS).clips["training"], SETTINGS, LENGTH, options.steps * BATCH)
    params = WaveNet.initial(SETTINGS, seed=0).params
    sides = {"faltung": in_faltung, "torch": in_torch}
    running = {
        name: side(params, (windows[np.arange(k, k + BATCH)] for k in range(0, len(windows), BATCH)))
        for name, side in sides.items()
    }
    costs, seconds = {name: [] for name in sides}, dict.fromkeys(sides, 0.0)
    for step in range(options.steps):
        for name, side in running.items():
            begun = time.perf_counter()
            costs[name].append(next(side))
            seconds[name] += time.perf_counter() - begun
        if step % 50 == 49:
            print(step + 1, {name: round(own[-1], 5) for name, own in costs.items()}, flush=True)
    ours, theirs = (np.array(costs[name]) for name in sides)
    last = {name: float(np.mean(own[-LAST:])) for name, own in costs.items()}
    found = {
        "network": repr(SETTINGS),
        "batch": BATCH,
        "length": LENGTH,
        "rate": RATE,
        f"mean cost of the last {LAST} steps": last,
        "difference, %": 100 * abs(last["faltung"] / last["torch"] - 1),
        "largest difference of a step, %": 100 * float(np.max(abs(ours / theirs - 1))),
        "difference after the last step, %": 100 * float(abs(ours[-1] / theirs[-1] - 1)),
        "seconds": seconds,
        "torch": torch.__version__,
    }
    print(json.dumps(found, indent=1))
    assert found["difference, %"] < 1
    if options.out:
        options.out.write_text(json.dumps(found | {"costs": costs}))
    if options.picture:
        options.picture.write_text(drawn(costs))


if __name__ == "__main__":
    main()
