"""Convolution kernels beside PyTorch's: forward, error and gradient of single layers, one line each.

    python benchmarks/kernels.py --threads 1 --out kernels-1.json [--only NAME]

Ours and PyTorch (contiguous and channels_last, the better one counts) run in turn, in one process, on the same
numbers, which are compared first. Times hold everything a caller pays for: packing of weights, allocation, dispatch.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch

SHAPES = [
    {"name": "A", "batch": 64, "in": [28, 28], "channels": 1, "kernel": [9, 9], "filters": 20}, {"name": "B", "batch":
    32, "in": [32, 32], "channels": 3, "kernel": [3, 3], "filters": 64, "pad": [1, 1]}, {"name": "C", "batch": 32,
    "in": [32, 32], "channels": 64, "kernel": [3, 3], "filters": 64, "pad": [1, 1]}, {"name": "D", "batch": 32, "in":
    [16, 16], "channels": 128, "kernel": [3, 3], "filters": 128, "pad": [1, 1]}, {"name": "E", "batch": 32, "in": [8,
    8], "channels": 256, "kernel": [3, 3], "filters": 256, "pad": [1, 1]}, {"name": "F", "batch": 8, "in": [56, 56],
    "channels": 64, "kernel": [1, 1], "filters": 256}, {"name": "G", "batch": 32, "in": [32, 32], "channels": 64,
    "kernel": [3, 3], "filters": 128, "pad": [1, 1], "stride": [2, 2]}, {"name": "H", "batch": 1, "in": [16064],
    "channels": 64, "kernel": [2], "filters": 128, "dilation": [64]},
]  # fmt: skip
PRODUCTS = ("forward", "error", "gradient")
ROUNDS, LEAST, REST = 7, 0.02, 0.02
"""Rounds of each contestant, the seconds one lasts at least, and those before it, in which others' threads sleep."""


class Layer:
    """One layer as both sides see it."""

    def __init__(self, entry):
        import faltung as ft
        from faltung.engine.lower.conv import LOWERINGS

        rank = len(entry["in"])
        stride, dilation, pad = (
            tuple(entry.get(k, [d] * rank)) for k, d in (("stride", 1), ("dilation", 1), ("pad", 0))
        )
        groups = entry.get("groups", 1)
        self.conv = ft.Conv(
            entry["filters"], kernel=tuple(entry["kernel"]), stride=stride, dilation=dilation,
            padding=tuple((p, p) for p in pad) if rank > 1 else pad[0], groups=groups, bias=False,
        )  # fmt: skip
        shape = (*entry["in"], entry["channels"])
        work = self.conv.multiplications(shape)
        batch = entry.get("batch") or max(1, min(64, round(1.0e9 / work)))
        self.flops = 2 * batch * work
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(batch, *shape)).astype(np.float32)
        self.params = {"w": rng.normal(size=self.conv.parameters(shape)["w"].shape).astype(np.float32)}
        self.dy = rng.normal(size=(batch, *self.conv.output(shape))).astype(np.float32)
        ours = dict(zip(PRODUCTS, LOWERINGS[ft.Conv], strict=True))
        self.ours = {
            "forward": lambda: ours["forward"](self.conv, self.params, self.x)[0],
            "error": lambda: ours["error"](self.conv, self.params, self.x, self.dy),
            "gradient": lambda: ours["gradient"](self.conv, self.params, self.x, self.dy)["w"],
        }
        back = torch.ops.aten.convolution_backward
        last = (0, *range(2, rank + 2), 1)
        first = (0, rank + 1, *range(1, rank + 1))
        self.peers = {}
        formats = {"contiguous": torch.contiguous_format}
        formats |= {2: {"channels_last": torch.channels_last}, 3: {"channels_last": torch.channels_last_3d}}.get(
            rank, {}
        )
        for name, layout in formats.items():
            x, dy = (torch.from_numpy(a).permute(first).contiguous(memory_format=layout) for a in (self.x, self.dy))
            w = (
                torch.from_numpy(self.params["w"])
                .permute(rank + 1, rank, *range(rank))
                .contiguous(memory_format=layout)
            )
            arguments = (None, stride, pad, dilation, False, [0] * rank, groups)

            def forward(x=x, w=w):
                return torch.convolution(x, w, None, stride, pad, dilation, False, [0] * rank, groups)

            def error(x=x, w=w, dy=dy, a=arguments):
                return back(dy, x, w, *a, [True, False, False])[0]

            def gradient(x=x, w=w, dy=dy, a=arguments):
                return back(dy, x, w, *a, [False, True, False])[1]

            self.peers[name] = {"forward": forward, "error": error, "gradient": gradient}
        self.order = {"forward": last, "error": last, "gradient": (*range(2, rank + 2), 1, 0)}

    def check(self, product):
        """Refuse to time what is not equal."""
        ours = self.ours[product]()
        for peer in self.peers.values():
            theirs = peer[product]().permute(self.order[product]).numpy()
            scale = np.abs(theirs).max()
            if not np.abs(ours - theirs).max() <= 2e-4 * scale:
                raise SystemExit(f"{self.conv} {product}: results differ by {np.abs(ours - theirs).max() / scale:.1e}")

    def time(self, product):
        """Median seconds of each contestant, in turn."""
        contestants = {"faltung": self.ours[product]} | {name: peer[product] for name, peer in self.peers.items()}
        repeats = {name: max(1, int(LEAST / max(_seconds(run, 1), 1e-6))) for name, run in contestants.items()}
        times = {name: [] for name in contestants}
        for _ in range(ROUNDS):
            for name, run in contestants.items():
                time.sleep(REST)
                run()  # wakes the contestant's own threads
                times[name].append(_seconds(run, repeats[name]))
        return {name: statistics.median(seconds) for name, seconds in times.items()}


def _seconds(run, repeats):
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - began) / repeats


def main():
    """Time all layers and write the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    os.environ["FALTUNG_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    layers = SHAPES + json.loads((Path(__file__).parent / "layers.json").read_text())["layers"]
    rows = []
    with torch.no_grad():
        for entry in layers:
            if (
                options.only
                and not any(word in entry["name"] for word in options.only if len(word) > 1)
                and (entry["name"] not in options.only)
            ):
                continue
            layer = Layer(entry)
            for product in PRODUCTS:
                layer.check(product)
                times = layer.time(product)
                best = min((seconds, name) for name, seconds in times.items() if name != "faltung")
                rows.append({"layer": entry["name"], "product": product, "ratio": best[0] / times["faltung"],
                             "gflops": layer.flops / times["faltung"] / 1e9, "peer": layer.flops / best[0] / 1e9,
                             "format": best[1]})  # fmt: skip
                row = rows[-1]
                print(
                    f"{row['layer']:34} {product:9} {row['gflops']:7.1f} {row['peer']:7.1f} {row['ratio']:6.2f}",
                    flush=True,
                )
            del layer
    ratios = [row["ratio"] for row in rows]
    below = [ratio for ratio in ratios if ratio <= 2]
    print(f"{len(ratios)} ratios: geometric mean {statistics.geometric_mean(ratios):.2f}, "
          f"without those above 2 {statistics.geometric_mean(below):.2f}, least {min(ratios):.2f}, "
          f"below 0.95: {sum(r < 0.95 for r in ratios)}")  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
