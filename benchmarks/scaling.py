"""What two workers gain over one, on convolution kernels and on multiply-adds without memory, in the same run.

    python benchmarks/scaling.py --out scaling.json [--only A B]

A loop of fused multiply-adds that touches no memory, compiled by the same engine and run by the same workers, says what
two processors of this machine are worth at this moment. Kernel and loop, with one thread and with two, run in turn; now
this one goes first, now the other: the first turn of two threads comes after 20 ms in which the worker has slept, and a
processor that wakes up may take milliseconds until it is as fast as before.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
from kernels import PRODUCTS, SHAPES, Layer

from faltung.engine.host import workers
from faltung.engine.host.machine import host
from faltung.engine.kernels.elementwise import code
from faltung.engine.kernels.speed import SUMS, TASKS, multiply_adds

ROUNDS, LEAST, WANTED = 10, 0.01, 0.93
"""Rounds, an even number, so that kernel and loop go first as often; seconds that a turn lasts; and the aim."""


def peak(count):
    """Multiply-adds in registers, ``count`` times ``SUMS`` vectors a task; and how many operations that is in all."""
    lanes = host().lanes(4)
    kernel, sums = code(multiply_adds, np.float32), np.zeros(TASKS * lanes, np.float32)
    work = 2 * TASKS * SUMS * lanes * count
    return (lambda: workers.launch(kernel, sums, count, tasks=TASKS, work=work)), work


def seconds(run, threads, repeats):
    """The time of one run with so many threads."""
    os.environ["FALTUNG_THREADS"] = str(threads)
    run()
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - began) / repeats


def gains(runs):
    """The gain of two threads over one for each run, and its seconds with one."""
    repeats = [max(1, int(LEAST / seconds(run, 1, 1))) for run in runs]
    times = {(n, threads): [] for threads in (1, 2) for n in range(len(runs))}
    for number in range(ROUNDS):
        for threads, n in itertools.product((1, 2), range(len(runs))):
            turn = (n + number) % len(runs)
            times[turn, threads].append(seconds(runs[turn], threads, repeats[turn]))
    median = {key: statistics.median(values) for key, values in times.items()}
    return [(median[n, 1] / median[n, 2], median[n, 1]) for n in range(len(runs))]


def main():
    """Measure all kernels and write the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", help="names of shapes")
    options = parser.parse_args()
    rows = []
    loop, work = peak(4000)
    print(f"{'kernel':14} {'GFLOP/s':>8} {'gain':>6} {'of the loop':>12} {'share':>6}")
    for entry in SHAPES:
        if options.only and entry["name"] not in options.only:
            continue
        layer = Layer(entry)
        for product in PRODUCTS:
            (gain, alone), (ideal, once) = gains([layer.ours[product], loop])
            rows.append({"shape": entry["name"], "product": product, "gflops": layer.flops / alone / 1e9,
                         "gain": gain, "loop": ideal, "share": gain / ideal, "peak": work / once / 1e9})  # fmt: skip
            row = rows[-1]
            print(f"{row['shape']} {product:12} {row['gflops']:8.1f} {gain:6.2f} {ideal:12.2f} {row['share']:6.2f}",
                  flush=True)  # fmt: skip
    shares = [row["share"] for row in rows]
    print(f"geometric mean {statistics.geometric_mean(shares):.2f}, least {min(shares):.2f}, "
          f"below {WANTED}: {sum(share < WANTED for share in shares)} of {len(shares)}; "
          f"the loop alone: {statistics.median(row['peak'] for row in rows):.0f} GFLOP/s with one thread")  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
