"""The elements that are no convolutions beside PyTorch's: forward, error and gradient of each, at three sizes.

    python benchmarks/elements.py --threads 1 --out elements-1.json [--only NAME ...] [--size L2 L3 memory]

Ours and PyTorch's (contiguous and channels_last, the better one counts) run in turn, in one process, on the same
float32 numbers, and what they give is compared first. Times hold everything a caller pays for, allocation included.
Each line says microseconds: ours, those of our kernels by themselves, and theirs; the ratio of theirs to ours, above 1
where we are faster, and of theirs to our kernels, which programs do without the Python of a call; and how near we come
to the bandwidth of memory: the bytes that must be read and written, in one second, against those of a copy. The copy is
a kernel of ours over as many bytes, by as many threads; what it reads and what it writes both count.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- its usual name

import faltung as ft
from faltung.elements.element import Run
from faltung.engine.host import arena, workers
from faltung.engine.kernels.elementwise import code, elementwise, launch
from faltung.engine.lower import lowerings
from faltung.engine.programs import ready

SIZES = {"L2": (2, 32, 32, 32), "L3": (16, 32, 32, 64), "memory": (28, 64, 64, 64)}
"""Examples, height, width and channels of x: 0.25, 4 and 28 MB, where a core's L2 has 1 MB, and the shared L3 32. From
32 MB on, the system's allocator would take fresh pages for each output of PyTorch's, which costs five times the work.
"""
ROWS = {"L2": (64, 1000), "L3": (1024, 1000), "memory": (7168, 1000)}
"""Examples and classes."""
PRODUCTS = ("forward", "error", "gradient", "both")
"""Of a cost only the last: J and the error signal at y, which are always wanted together."""
ROUNDS, LEAST = 7, 0.004
"""Rounds of each contestant, and the seconds that one round lasts at least."""
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
aten = torch.ops.aten


@dataclass
class Case:
    """One element as both sides see it.

    ``peer(dy, *x, *params)`` gives PyTorch's functions for some of the products. ``reads`` says what the error must
    read besides dy: "x", "y", or nothing.
    """

    element: Any
    peer: Callable[..., dict[str, Callable[[], Any]]]
    reads: str = ""
    inputs: int = 1
    rows: bool = False
    name: str = ""
    draw: Callable[..., Any] | None = None
    """What x is drawn by, if not from the normal distribution; or the target of a cost."""
    random: bool = False
    """Is the result drawn by lot, so that it cannot be compared?"""

    def __post_init__(self):
        self.name = self.name or repr(self.element)


def derived(forward, back):
    """Functions of PyTorch's own: y = forward(x), dx = back(dy, x, y)."""

    def peer(dy, x):
        y = forward(x)
        return {"forward": lambda: forward(x), "error": lambda: back(dy, x, y)}

    return peer


def differentiated(forward):
    """What PyTorch composes of several functions: the error by its own automatic differentiation."""

    def peer(dy, *x):
        with torch.enable_grad():
            leaves = [a.detach().requires_grad_() for a in x]
            y = forward(*leaves)
        return {
            "forward": lambda: forward(*x),
            "error": lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True),
        }

    return peer


def concat(dy, *x):
    """The error's parts are copied, as ours are: what comes next wants them so."""
    half = dy.shape[1] // 2
    return {
        "forward": lambda: torch.cat(x, 1),
        "error": lambda: (dy[:, :half].clone(memory_format=torch.preserve_format).contiguous(), dy[:, half:].clone()),
    }


def batch_norm(dy, x, scale, shift):
    state = torch.zeros_like(scale), torch.ones_like(scale)
    _, mean, deviation = aten.native_batch_norm(x, scale, shift, *state, True, 0.1, 1e-5)

    def back(*mask):
        return aten.native_batch_norm_backward(dy, x, scale, *state, mean, deviation, True, 1e-5, mask)

    return {
        "forward": lambda: aten.native_batch_norm(x, scale, shift, *state, True, 0.1, 1e-5)[0],
        "error": lambda: back(True, False, False)[0],
        "gradient": lambda: back(False, True, True)[1:],
    }


def layer_norm(dy, x, scale, shift):
    """Over the last axis, so of numbers with the channels last."""
    x, dy, shape = x.permute(0, 2, 3, 1), dy.permute(0, 2, 3, 1), scale.shape
    _, mean, deviation = aten.native_layer_norm(x, shape, scale, shift, 1e-5)

    def back(*mask):
        return aten.native_layer_norm_backward(dy, x, shape, mean, deviation, scale, shift, mask)

    return {
        "forward": lambda: aten.native_layer_norm(x, shape, scale, shift, 1e-5)[0].permute(0, 3, 1, 2),
        "error": lambda: back(True, False, False)[0].permute(0, 3, 1, 2),
        "gradient": lambda: back(False, True, True)[1:],
    }


def group_norm(groups):
    """Over the positions and the channels of a group: of all of them, or of each by itself."""

    def peer(dy, x, scale, shift):
        n, c, pixels, g = len(x), x.shape[1], x.shape[2] * x.shape[3], groups or x.shape[1]
        _, mean, deviation = aten.native_group_norm(x, scale, shift, n, c, pixels, g, 1e-5)

        def back(*mask):
            return aten.native_group_norm_backward(dy, x, mean, deviation, scale, n, c, pixels, g, mask)

        return {
            "forward": lambda: aten.native_group_norm(x, scale, shift, n, c, pixels, g, 1e-5)[0],
            "error": lambda: back(True, False, False)[0],
            "gradient": lambda: back(not x.is_contiguous(), True, True)[1:],  # PyTorch 2.13 crashes without
        }

    return peer


def max_pool(kernel, stride):
    def peer(dy, x):
        at = aten.max_pool2d_with_indices(x, kernel, stride)[1]
        back = aten.max_pool2d_with_indices_backward
        return {
            "forward": lambda: aten.max_pool2d_with_indices(x, kernel, stride)[0],
            "error": lambda: back(dy, x, [kernel] * 2, [stride] * 2, [0, 0], [1, 1], False, at),
        }

    return peer


def mean_pool(dy, x):
    rest = (False, True, None)
    return {
        "forward": lambda: aten.avg_pool2d(x, [2, 2]),
        "error": lambda: aten.avg_pool2d_backward(dy, x, [2, 2], [2, 2], [0, 0], *rest),
    }


def dropout(dy, x):
    mask = aten.native_dropout(x, 0.5, True)[1]
    return {
        "forward": lambda: aten.native_dropout(x, 0.5, True)[0],
        "error": lambda: aten.native_dropout_backward(dy, mask, 2.0),
    }


def embedding(dy, x, w):
    return {
        "forward": lambda: F.embedding(x, w),
        "gradient": lambda: aten.embedding_dense_backward(dy, x, len(w), -1, False),
    }


def cross_entropy(y, target):
    total = torch.tensor(float(target.numel()))
    loss, back = (aten.nll_loss_forward, aten.nll_loss_backward) if y.ndim == 2 else (
        aten.nll_loss2d_forward, aten.nll_loss2d_backward)  # fmt: skip

    def both():
        logs = torch.log_softmax(y, 1)
        J, _ = loss(logs, target, None, 1, -100)
        slopes = back(ONE, logs, target, None, 1, -100, total)
        return J, aten._log_softmax_backward_data(slopes, logs, 1, torch.float32)

    return {"both": both}


def squared_error(y, target):
    share = torch.tensor(0.5 / len(y))

    def both():
        return F.mse_loss(y, target, reduction="sum") * share, aten.mse_loss_backward(share, y, target, 2)

    return {"both": both}


def binary(y, target):
    def both():
        J = F.binary_cross_entropy_with_logits(y, target)
        return J, torch.sigmoid(y).sub_(target).mul_(1 / y.numel())

    return {"both": both}


ONE = torch.tensor(1.0)


def cases(size):
    """All of them; what the elements here do not have is left out."""
    examples, height, width, channels = SIZES[size]

    def upsample(method, *rest):
        forward, back = getattr(aten, f"upsample_{method}2d"), getattr(aten, f"upsample_{method}2d_backward")
        shape, double = [examples, channels, height, width], [2 * height, 2 * width]
        return derived(lambda x: forward(x, double, *rest), lambda dy, x, y: back(dy, double, shape, *rest))

    def bump(x):
        return x * torch.exp(-x * x)

    edge = {"reflect": aten.reflection_pad2d_backward, "edge": aten.replication_pad2d_backward}
    yield from (
        Case(ft.ReLU(), derived(torch.relu, lambda dy, x, y: aten.threshold_backward(dy, y, 0)), "y"),
        Case(ft.LeakyReLU(), derived(
            aten.leaky_relu, lambda dy, x, y: aten.leaky_relu_backward(dy, x, 0.01, False)), "x"),
        Case(ft.ELU(), derived(F.elu, lambda dy, x, y: aten.elu_backward(dy, 1.0, 1.0, 1.0, False, x)), "x"),
        Case(ft.Sigmoid(), derived(torch.sigmoid, lambda dy, x, y: aten.sigmoid_backward(dy, y)), "y"),
        Case(ft.Tanh(), derived(torch.tanh, lambda dy, x, y: aten.tanh_backward(dy, y)), "y"),
        Case(ft.Softplus(), derived(F.softplus, lambda dy, x, y: aten.softplus_backward(dy, x, 1.0, 20.0)), "x"),
        Case(ft.GELU(), derived(F.gelu, lambda dy, x, y: aten.gelu_backward(dy, x)), "x"),
        Case(ft.SiLU(), derived(F.silu, lambda dy, x, y: aten.silu_backward(dy, x)), "x"),
        Case(ft.Pointwise("x * exp(-x**2)"), differentiated(bump), "x", name="Pointwise x exp(-x^2)"),
        Case(ft.Pointwise("sin(x)"), derived(torch.sin, lambda dy, x, y: dy * torch.cos(x)), "x", name="Pointwise sin"),
        Case(ft.Sum(), lambda dy, *x: {"forward": lambda: x[0] + x[1]}, inputs=2),
        Case(ft.Sum(), lambda dy, *x: {"forward": lambda: x[0] + x[1] + x[2] + x[3]}, inputs=4, name="Sum() of 4"),
        Case(ft.Product(), lambda dy, *x: {
            "forward": lambda: x[0] * x[1], "error": lambda: (dy * x[1], dy * x[0])}, "x", inputs=2),
        Case(ft.Concat(), concat, inputs=2),
        Case(ft.Pad(1), lambda dy, x: {"forward": lambda: F.pad(x, (1, 1, 1, 1))}),  # the error is a view, for both
        *(Case(ft.Pad(1, mode=mode), derived(
            lambda x, how=how: F.pad(x, (1, 1, 1, 1), how),
            lambda dy, x, y, mode=mode: edge[mode](dy, x, [1, 1, 1, 1])))
          for mode, how in (("reflect", "reflect"), ("edge", "replicate"))),
        Case(ft.Crop(1), lambda dy, x: {"error": lambda: F.pad(dy, (1, 1, 1, 1))}),
        Case(ft.Softmax(), derived(
            lambda x: torch.softmax(x, 1), lambda dy, x, y: aten._softmax_backward_data(dy, y, 1, x.dtype)), "y"),
        Case(ft.LogSoftmax(), derived(
            lambda x: torch.log_softmax(x, 1), lambda dy, x, y: aten._log_softmax_backward_data(dy, y, 1, x.dtype)),
            "y"),
        Case(ft.Softmax(), derived(
            lambda x: torch.softmax(x, 1), lambda dy, x, y: aten._softmax_backward_data(dy, y, 1, x.dtype)), "y",
            rows=True, name="Softmax() of 1000"),
        Case(ft.CrossEntropy(), cross_entropy, draw=_labels),
        Case(ft.CrossEntropy(), cross_entropy, draw=_labels, rows=True, name="CrossEntropy() of 1000"),
        Case(ft.SquaredError(), squared_error, draw=_targets),
        Case(ft.BinaryCrossEntropy(), binary, draw=_targets),
        Case(ft.Dropout(0.5), dropout, random=True),
        Case(ft.BatchNorm(), batch_norm, "x"),
        Case(ft.LayerNorm(), layer_norm, "x"),
        Case(ft.LayerNorm(axes="all"), group_norm(1), "x"),
        Case(ft.MaxPool(2), max_pool(2, 2), "y"),
        Case(ft.MaxPool(3, stride=2), max_pool(3, 2), "y"),
        Case(ft.MeanPool(2), mean_pool),
        Case(ft.LpPool(2), differentiated(lambda x: F.lp_pool2d(x, 2.0, 2)), "x"),
        Case(ft.GlobalPool("mean"), differentiated(lambda x: x.mean((2, 3)))),
        Case(ft.GlobalPool("max"), differentiated(lambda x: F.adaptive_max_pool2d(x, 1)[..., 0, 0]), "x"),
        Case(ft.AdaptivePool(7, "mean"), derived(
            lambda x: aten._adaptive_avg_pool2d(x, [7, 7]),
            lambda dy, x, y: aten._adaptive_avg_pool2d_backward(dy, x))),
        Case(ft.AdaptivePool(7, "max"), differentiated(lambda x: F.adaptive_max_pool2d(x, 7)), "y"),
        Case(ft.Resize(2), upsample("nearest")),
        Case(ft.Resize(2, method="linear"), upsample("bilinear", False)),
        Case(ft.Embedding(1000, channels), embedding, draw=lambda rng, shape: rng.integers(0, 1000, shape[:-1])),
    )  # fmt: skip


def _lines(array):
    """The array in memory that begins a cache line, as the outputs of elements do, and PyTorch's arrays."""
    lined = arena.empty(array.shape, array.dtype)
    lined[...] = array
    return lined


def _normal(rng, shape):
    return _lines(rng.normal(size=shape).astype(np.float32))


def _labels(rng, shape):
    return rng.integers(0, shape[-1], shape[:-1])


def _targets(rng, shape):
    return rng.random(shape, np.float32)


class Race:
    """A case at one size: both sides' functions, ready to run."""

    def __init__(self, case, size):
        self.case, rng = case, np.random.default_rng(0)
        shape = ROWS[size] if case.rows else SIZES[size]
        self.order = (0, *range(2, len(shape)), 1)
        is_cost = isinstance(case.element, ft.Cost)
        if case.draw and not is_cost:
            x = (_lines(case.draw(rng, shape)),)
        else:
            x = tuple(_normal(rng, shape) for _ in range(case.inputs))
        ours = lowerings()[type(case.element)]
        if is_cost:
            target = _lines(case.draw(rng, shape))
            arrays, trained = (*x, target), {}

            def both():
                J, kept = ours.forward(case.element, *x, target)
                return J, ours.error(case.element, kept)

            self.ours = {"both": both}
            self.bytes = {"both": _bytes(*arrays, x[0])}
        else:
            shapes = [a.shape[1:] for a in x]
            wanted = case.element.parameters(*shapes)
            trained = {name: _normal(rng, p.shape) for name, p in wanted.items()}
            state = {name: np.ones(p.shape, np.float32) for name, p in case.element.state(*shapes).items()}
            params = trained | state
            together, run = x if case.inputs > 1 else x[0], Run(training=True)
            y, kept = ours.forward(case.element, params, together, run)
            dy = _normal(rng, y.shape)
            arrays = (dy, *x)
            self.ours = {
                "forward": lambda: ours.forward(case.element, params, together, run)[0],
                "error": lambda: ours.error(case.element, params, kept, dy),
                "gradient": lambda: tuple(ours.gradient(case.element, params, kept, dy).values()),
            }
            read = {"x": x, "y": (y,), "": ()}[case.reads]
            held = tuple(trained.values())
            self.bytes = {
                "forward": _bytes(*x, y), "error": _bytes(dy, *read, *x), "gradient": _bytes(dy, *read, *held),
            }  # fmt: skip
        self.peers = {}
        for name in LAYOUTS if len(shape) == 4 else ["contiguous"]:
            tensors = [self._tensor(a, LAYOUTS[name]) for a in arrays]
            self.peers[name] = case.peer(*tensors, *map(torch.from_numpy, trained.values()))
        self.products = [product for product in PRODUCTS if product in self.peers["contiguous"]]

    def _tensor(self, array, layout):
        tensor = torch.from_numpy(array)
        if isinstance(self.case.element, ft.Embedding):
            return tensor
        return tensor.permute(0, 3, 1, 2).contiguous(memory_format=layout) if array.ndim == 4 else tensor

    def check(self, product):
        """Refuse to time what is not equal."""
        for peer in self.peers.values():
            ours, theirs = _several(self.ours[product]()), _several(peer[product]())
            for own, other in zip(ours, theirs, strict=True):
                if other.ndim == 4 and not isinstance(self.case.element, ft.Embedding):
                    other = other.permute(0, 2, 3, 1)
                own, other = np.asarray(own), other.numpy()
                if own.shape != other.shape:
                    raise SystemExit(f"{self.case.name} {product}: shapes {own.shape} and {other.shape}")
                off = abs(own - other).max() / max(abs(other).max(), 1e-30)
                if not (off <= 2e-4 or self.case.random):
                    raise SystemExit(f"{self.case.name} {product}: results differ by {off:.1e}")

    def time(self, product):
        """Median seconds of each contestant, in turn."""
        return race({"faltung": self.ours[product]} | {name: peer[product] for name, peer in self.peers.items()})


def race(contestants):
    """Median seconds of each."""
    repeats = {name: max(1, int(LEAST / max(_seconds(run, 1), 1e-6))) for name, run in contestants.items()}
    times = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            times[name].append(_seconds(run, repeats[name]))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def kernels(run):
    """Seconds that the kernels of ``run`` take on one thread: each call less one of the same kernel without tasks."""
    launched, launch = [], workers.launch

    def noted(function, *arguments, **given):
        launched.append((function, arguments, given["tasks"], given.get("scratch", 0)))
        launch(function, *arguments, **given)

    workers.launch = noted
    ready.forget()  # so that they are launched, and no program is found
    results = run()  # whose arrays stay until the end
    workers.launch = launch
    total = 0.0
    for function, arguments, tasks, scratch in launched:
        numbers, memory = [_number(argument) for argument in arguments], arena.empty((scratch + 64,), np.uint8)

        def call(many, function=function, numbers=numbers, memory=memory):
            return lambda: function(*numbers, arena.address(memory), 0, many)

        times = race({"full": call(tasks), "empty": call(0)})
        total += times["full"] - times["empty"]
    del results
    return total


def _number(argument):
    if isinstance(argument, tuple):
        return arena.address(argument[0]) + argument[1]
    return arena.address(argument) if isinstance(argument, np.ndarray) else argument or 0


def _seconds(run, repeats):
    run()  # who comes next finds the arrays of another one in the caches
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - began) / repeats


def _several(results):
    return results if isinstance(results, tuple | list) else (results,)


def _bytes(*arrays):
    return sum(array.nbytes for array in arrays)


def _copying(kind):
    return elementwise(kind, 1, lambda x: [x])


@cache
def bandwidth(size):
    """Bytes in a second, read and written, of our copy of an array of this size."""
    x, y = (_lines(np.ones(np.prod(SIZES[size]), np.float32)) for _ in range(2))
    kernel = code(_copying, x.dtype)
    return 2 * x.nbytes / race({"copy": lambda: launch(kernel, x, y, count=x.size)})["copy"]


def main():
    """Time everything and write the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", help="parts of names")
    parser.add_argument("--size", nargs="*", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()
    os.environ["FALTUNG_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    rows = []
    for size in options.size:
        print(
            f"{size}: a copy moves {bandwidth(size) / 1e9:.1f} GB/s; "
            "microseconds ours, of our kernels, theirs, both ratios, share of it"
        )
        for case in cases(size):
            if options.only and not any(word in case.name for word in options.only):
                continue
            with torch.no_grad():
                contest = Race(case, size)
                for product in contest.products:
                    contest.check(product)
                    times = contest.time(product)
                    best = min((seconds, name) for name, seconds in times.items() if name != "faltung")
                    alone = kernels(contest.ours[product])
                    share = contest.bytes[product] / times["faltung"] / bandwidth(size)
                    rows.append({"element": case.name, "product": product, "size": size,
                                 "microseconds": times["faltung"] * 1e6, "kernels": alone * 1e6, "peer": best[0] * 1e6,
                                 "ratio": best[0] / times["faltung"], "share": share, "format": best[1]})  # fmt: skip
                    print(f"{case.name:30} {product:9}{size:7}{times['faltung'] * 1e6:9.1f}{alone * 1e6:9.1f}"
                          f"{best[0] * 1e6:9.1f}{rows[-1]['ratio']:7.2f}{best[0] / alone:7.2f}{share:7.2f}",
                          flush=True)  # fmt: skip
            del contest
    ratios = [row["ratio"] for row in rows]
    print(f"{len(ratios)} ratios: geometric mean {statistics.geometric_mean(ratios):.2f}, least {min(ratios):.2f}, "
          f"below 1.0: {sum(r < 1 for r in ratios)}")  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
