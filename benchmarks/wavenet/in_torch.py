"""WaveNets in PyTorch, written as well as its users can, and how they train.

One convolution for both halves of a gate, a running sum of skips, an embedding for the codes. Each form keeps the
samples in another order:

    "contiguous"     (n, channels, samples): Conv1d
    "channels_last"  (n, channels, 1, samples) in memory format channels_last, which only images have: Conv2d
    "matrices"       (n, samples, channels): each tap a matrix product with x shifted in time
"""

import os

import torch
from torch import nn
from torch.nn import functional

from .works import CLASSES

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))


class Series(nn.Module):
    """A causal convolution on (n, channels, samples)."""

    def __init__(self, before, channels, kernel=1, dilation=1):
        super().__init__()
        self.ahead = (kernel - 1) * dilation
        self.conv = nn.Conv1d(before, channels, kernel, dilation=dilation)

    def forward(self, x):
        return self.conv(functional.pad(x, (self.ahead, 0)) if self.ahead else x)

    def put(self, w, b):
        self.conv.weight.copy_(w.permute(2, 1, 0))
        self.conv.bias.copy_(b)

    def get(self):
        return self.conv.weight.permute(2, 1, 0), self.conv.bias


class Image(nn.Module):
    """A causal convolution on (n, channels, 1, samples), channels last in memory."""

    def __init__(self, before, channels, kernel=1, dilation=1):
        super().__init__()
        self.ahead = (kernel - 1) * dilation
        self.conv = nn.Conv2d(before, channels, (1, kernel), dilation=(1, dilation))
        self.conv.to(memory_format=torch.channels_last)

    def forward(self, x):
        return self.conv(functional.pad(x, (self.ahead, 0)) if self.ahead else x)

    def put(self, w, b):
        self.conv.weight.copy_(w.permute(2, 1, 0)[:, :, None])
        self.conv.bias.copy_(b)

    def get(self):
        return self.conv.weight[:, :, 0].permute(2, 1, 0), self.conv.bias


class Matrices(nn.Module):
    """A causal convolution on (n, samples, channels)."""

    def __init__(self, before, channels, kernel=1, dilation=1):
        super().__init__()
        self.dilation = dilation
        self.taps = nn.ModuleList(nn.Linear(before, channels, bias=k == kernel - 1) for k in range(kernel))

    def forward(self, x):
        y = self.taps[-1](x)
        for steps, tap in enumerate(reversed(self.taps[:-1]), 1):
            ahead = steps * self.dilation
            y = y + functional.pad(tap(x[:, :-ahead]), (0, 0, ahead, 0))
        return y

    def put(self, w, b):
        for tap, matrix in zip(self.taps, w, strict=True):
            tap.weight.copy_(matrix.T)
        self.taps[-1].bias.copy_(b)

    def get(self):
        return torch.stack([tap.weight.T for tap in self.taps]), self.taps[-1].bias


FORMS = {"contiguous": Series, "channels_last": Image, "matrices": Matrices}
"""Each form's convolution."""


class WaveNet(nn.Module):
    """Logits (n, samples, classes) of codes, in the order in memory that the form has."""

    def __init__(self, work, form):
        super().__init__()
        self.form, count, conv = form, len(work.dilations), FORMS[form]
        self.front = nn.ModuleList(nn.Embedding(CLASSES, work.residual) for _ in range(work.kernel))
        self.gates = nn.ModuleList(conv(work.residual, 2 * work.gate, work.kernel, d) for d in work.dilations)
        self.skips = nn.ModuleList(conv(work.gate, work.skip) for _ in range(count))
        self.residuals = nn.ModuleList(conv(work.gate, work.residual) for _ in range(count - 1))
        self.end1, self.end2 = conv(work.skip, work.skip), conv(work.skip, CLASSES)

    def forward(self, codes):
        x = self.front[0](codes)
        for back, rows in enumerate(self.front[1:], 1):
            x = x + functional.pad(rows(codes[:, :-back]), (0, 0, back, 0))
        if self.form != "matrices":
            x = x.transpose(1, 2)
        if self.form == "channels_last":
            x = x[:, :, None]
        skips, axis = None, -1 if self.form == "matrices" else 1
        for k, gate in enumerate(self.gates):
            a, b = gate(x).chunk(2, axis)
            z = torch.tanh(a) * torch.sigmoid(b)
            skip = self.skips[k](z)
            skips = skip if skips is None else skips.add_(skip)
            if k < len(self.residuals):
                x = x + self.residuals[k](z)
        y = self.end2(torch.relu(self.end1(torch.relu(skips))))
        return y if self.form == "matrices" else y.flatten(2).transpose(1, 2)

    def named(self):
        """The embeddings and the convolutions by Faltung's names."""
        front = {"front.now": self.front[0]} | {f"front.past{k}": rows for k, rows in enumerate(self.front[1:], 1)}
        convs = {"end1": self.end1, "end2": self.end2}
        for name, parts in (("gate{}.conv", self.gates), ("skip{}", self.skips), ("residual{}", self.residuals)):
            convs |= {name.format(k): conv for k, conv in enumerate(parts, 1)}
        return front, convs


def compile(function):
    """``torch.compile`` as if it were the first of the process."""
    torch.compiler.reset()
    return torch.compile(function)


class Training:
    """Steps of backpropagation and update, on one batch."""

    def __init__(self, work, params, x, targets, form="contiguous", compiled=False):
        self.network = WaveNet(work, form)
        front, convs = self.network.named()
        with torch.no_grad():
            for name, rows in front.items():
                rows.weight.copy_(torch.from_numpy(params[f"{name}.w"]))
            for name, conv in convs.items():
                conv.put(torch.from_numpy(params[f"{name}.w"]), torch.from_numpy(params[f"{name}.b"]))
        self.optimiser = torch.optim.Adam(self.network.parameters(), work.rate, fused=True)
        self.cost = compile(self._cost) if compiled else self._cost
        self.x, self.targets = torch.from_numpy(x), torch.from_numpy(targets)

    def _cost(self, x, targets):
        return functional.cross_entropy(self.network(x).flatten(0, 1), targets.flatten())

    def step(self):
        self.optimiser.zero_grad()
        cost = self.cost(self.x, self.targets)
        cost.backward()
        self.optimiser.step()
        return cost.detach()

    def gradients(self):
        """The cost and all gradients, by Faltung's names. After that the parameters are lost."""
        self.optimiser.zero_grad()
        cost = self.cost(self.x, self.targets)
        cost.backward()
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.copy_(parameter.grad)  # so that ``get`` gives gradients
            front, convs = self.network.named()
            found = {f"{name}.w": rows.weight for name, rows in front.items()}
            for name, conv in convs.items():
                found[f"{name}.w"], found[f"{name}.b"] = conv.get()
            return cost.item(), {name: tensor.numpy().copy() for name, tensor in found.items()}
