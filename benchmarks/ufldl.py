"""The UFLDL recipe on full MNIST beside PyTorch: the same costs step by step, and seconds an epoch, interleaved.

    python benchmarks/ufldl.py ../shared/data/mnist

Both begin with the same parameters and see the same examples in the same order. First the costs of 100 steps are
compared; then each trains whole epochs in turn, and medians are printed.
"""

import statistics
import sys
import time

import numpy as np
import torch

import faltung as ft
from faltung.models import find_recipe
from faltung.training.job import order

STEPS, BATCH, EPOCHS = 100, 256, 3


class Peer:
    """The recipe in PyTorch, channels first; its momentum rule equals ours while the rate stands still."""

    def __init__(self, params):
        self.w, self.b = (torch.tensor(params[f"conv1.{n}"].copy(), requires_grad=True) for n in "wb")
        self.dense_w, self.dense_b = (torch.tensor(params[f"dense.{n}"].copy(), requires_grad=True) for n in "wb")
        self.velocity = [torch.zeros_like(p) for p in self.params]

    @property
    def params(self):
        return self.w, self.b, self.dense_w, self.dense_b

    def step(self, x, labels, rate, momentum):
        images = torch.from_numpy(x).permute(0, 3, 1, 2)
        a = torch.sigmoid(torch.nn.functional.conv2d(images, self.w.permute(3, 2, 0, 1), self.b))
        pooled = torch.nn.functional.avg_pool2d(a, 2).permute(0, 2, 3, 1).flatten(1)
        cost = torch.nn.functional.cross_entropy(pooled @ self.dense_w + self.dense_b, torch.from_numpy(labels))
        gradients = torch.autograd.grad(cost, self.params)
        with torch.no_grad():
            for p, v, g in zip(self.params, self.velocity, gradients, strict=True):
                v.mul_(momentum).sub_(g, alpha=rate)
                p.add_(v)
        return float(cost)


class Ours:
    """The recipe in Faltung."""

    def __init__(self, network, params):
        self.network, self.params = network, params
        self.slots = ft.SGD(0.1, momentum=0.5).slots(params)

    def step(self, x, labels, rate, momentum):
        back = self.network.backpropagate(self.params, x, labels, cost=ft.CrossEntropy(), keep=())
        optimiser = ft.SGD(rate, momentum=momentum)
        self.params, self.slots = optimiser.update(self.params, back.gradients, self.slots, 0)
        return back.cost


def steps(data, epoch):
    """The batches of one epoch, with the recipe's momentum."""
    sequence = order(0, epoch, len(data))
    for step in range(len(data) // BATCH):
        x, labels = data[sequence[step * BATCH : (step + 1) * BATCH]]
        yield x, labels, 0.1, 0.5 if epoch == 0 and step < 19 else 0.95


def main(folder):
    """Print the agreement, then the times."""
    train, _ = ft.data.read_folder(folder)
    network = find_recipe("ufldl").network((28, 28, 1), classes=10)
    params = network.initial(seed=0)
    ours, peer = Ours(network, params), Peer(params)
    costs = []
    for step, arguments in enumerate(steps(train, 0)):
        if step == STEPS:
            break
        costs.append((ours.step(*arguments), peer.step(*arguments)))
    a, b = np.array(costs).T
    print(f"costs of {STEPS} steps: largest relative difference {np.max(abs(a - b) / b):.1e}")
    seconds = {"faltung": [], "torch": []}
    for epoch in range(EPOCHS):
        for name, contestant in (("faltung", ours), ("torch", peer)):
            began = time.perf_counter()
            for arguments in steps(train, epoch + 1):
                contestant.step(*arguments)
            seconds[name].append(time.perf_counter() - began)
    for name, times in seconds.items():
        print(f"{name}: {statistics.median(times):.2f} s an epoch ({60_000 / statistics.median(times):,.0f} images/s)")
    print(f"ratio: {statistics.median(seconds['torch']) / statistics.median(seconds['faltung']):.2f}")


if __name__ == "__main__":
    main(sys.argv[1])
