"""The networks in PyTorch, as its users write them, and how they train and predict."""

import os
from collections import OrderedDict

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from .works import CLASSES

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))


def ufldl():
    return chain(
        conv1=nn.Conv2d(1, 20, 9), sigm=nn.Sigmoid(), pool=nn.AvgPool2d(2),
        flat=nn.Flatten(), dense=nn.Linear(2000, CLASSES),
    )  # fmt: skip


def lenet5():
    return chain(
        conv1=nn.Conv2d(1, 6, 5, padding=2), tanh1=nn.Tanh(), pool1=nn.AvgPool2d(2),
        conv2=nn.Conv2d(6, 16, 5), tanh2=nn.Tanh(), pool2=nn.AvgPool2d(2), flat=nn.Flatten(),
        dense1=nn.Linear(400, 120), tanh3=nn.Tanh(), dense2=nn.Linear(120, 84), tanh4=nn.Tanh(),
        dense3=nn.Linear(84, CLASSES),
    )  # fmt: skip


def vgg():
    return chain(
        conv1=conv(3, 32), relu1=relu(), conv2=conv(32, 32), relu2=relu(), pool1=nn.MaxPool2d(2),
        conv3=conv(32, 64), relu3=relu(), conv4=conv(64, 64), relu4=relu(), pool2=nn.MaxPool2d(2),
        conv5=conv(64, 128), relu5=relu(), conv6=conv(128, 128), relu6=relu(), pool3=nn.MaxPool2d(2),
        flat=nn.Flatten(), dense=nn.Linear(2048, CLASSES),
    )  # fmt: skip


def residual():
    return chain(
        conv=conv(3, 16, bias=False), norm=nn.BatchNorm2d(16), relu=relu(),
        block1=Block(16, 16), block2=Block(16, 32, stride=2), block3=Block(32, 64, stride=2),
        pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), dense=nn.Linear(64, CLASSES),
    )  # fmt: skip


class Block(nn.Module):
    def __init__(self, before, channels, stride=1):
        super().__init__()
        self.conv1, self.norm1 = conv(before, channels, stride, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = conv(channels, channels, bias=False), nn.BatchNorm2d(channels)
        self.relu1, self.relu = relu(), relu()
        self.project = None
        if stride != 1:
            self.project, self.norm3 = nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x):
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        shortcut = x if self.project is None else self.norm3(self.project(x))
        return self.relu(y + shortcut)


class unet(nn.Module):  # noqa: N801 -- its name is that of the network in the other files
    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = pair(3, 32), pair(32, 64), pair(64, 128)
        self.pool1, self.pool2 = nn.MaxPool2d(2), nn.MaxPool2d(2)
        self.up2, self.up1 = nn.ConvTranspose2d(128, 64, 2, 2), nn.ConvTranspose2d(64, 32, 2, 2)
        self.pair2, self.pair1 = pair(128, 64), pair(64, 32)
        self.score = nn.Conv2d(32, CLASSES, 1)

    def forward(self, x):
        down1 = self.down1(x)
        down2 = self.down2(self.pool1(down1))
        bottom = self.bottom(self.pool2(down2))
        pair2 = self.pair2(torch.cat([down2, self.up2(bottom)], 1))
        pair1 = self.pair1(torch.cat([down1, self.up1(pair2)], 1))
        return self.score(pair1)


def pair(before, channels):
    return chain(conv1=conv(before, channels), relu1=relu(), conv2=conv(channels, channels), relu2=relu())


def stack(channels, depth):
    parts = {}
    for k in range(1, depth + 1):
        parts |= {f"conv{k}": conv(3 if k == 1 else channels, channels), f"relu{k}": relu()}
    return chain(**parts, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), dense=nn.Linear(channels, CLASSES))


def chain(**parts):
    return nn.Sequential(OrderedDict(parts))


def conv(before, channels, stride=1, bias=True):
    return nn.Conv2d(before, channels, 3, stride, padding=1, bias=bias)


def relu():
    return nn.ReLU(inplace=True)


LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
ENDS = {"w": "weight", "b": "bias", "scale": "weight", "shift": "bias", "mean": "running_mean",
        "variance": "running_var"}  # fmt: skip


def load(work, params, layout):
    """The network of a work with these parameters, which are named and laid out as Faltung's."""
    network = globals()[work.network](*work.arguments).to(memory_format=LAYOUTS[layout])
    tensors = network.state_dict()
    for name, array in params.items():
        node, end = name.rsplit(".", 1)
        tensors[f"{node}.{ENDS[end]}"].copy_(torch.from_numpy(_channels_first(work, name, array)))
    return network


def _channels_first(work, name, array):
    if work.flattened and name == f"{work.flattened[0]}.w":
        return array.reshape(*work.flattened[1], -1).transpose(3, 2, 0, 1).reshape(array.shape[::-1])
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _channels_last(work, name, array):
    if work.flattened and name == f"{work.flattened[0]}.w":
        height, width, channels = work.flattened[1]
        return array.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(array.shape[::-1])
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def images(x, layout):
    """An array (n, height, width, channels) as a tensor of its own, channels first in name."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).clone(memory_format=LAYOUTS[layout])


def compile(function, **settings):
    """``torch.compile`` as if it were the first of the process.

    Else sizes that differ from those before are compiled as variables, and after eight versions none is compiled.
    """
    torch.compiler.reset()
    return torch.compile(function, **settings)


class Training:
    """Steps of backpropagation and update, on one batch."""

    def __init__(self, work, params, x, labels, layout="contiguous", compiled=False):
        self.work, self.layout, self.names = work, layout, list(params)
        self.network = load(work, params, layout).train()
        self.optimiser = torch.optim.SGD(self.network.parameters(), work.rate, work.momentum, fused=True)
        self.cost = compile(self._cost) if compiled else self._cost
        self.feed(x, labels)

    def feed(self, x, labels):
        self.x, self.labels = images(x, self.layout), torch.from_numpy(labels)

    def _cost(self, x, labels):
        return cross_entropy(self.network(x), labels)

    def step(self):
        self.optimiser.zero_grad()
        cost = self.cost(self.x, self.labels)
        cost.backward()
        self.optimiser.step()
        return cost.detach()

    def parameters(self):
        tensors = self.network.state_dict()
        return {
            name: _channels_last(self.work, name, tensors[f"{node}.{ENDS[end]}"].numpy().copy())
            for name in self.names
            for node, end in [name.rsplit(".", 1)]
        }


class Prediction:
    """The logits of one batch, as often as they are asked for."""

    def __init__(self, work, params, x, layout="contiguous", compiled=False):
        network = load(work, params, layout).eval()
        self.x = images(x, layout)
        if compiled:
            network = compile(network, options={"freezing": True})  # weights become constants, packed once
        self.network = network

    @torch.inference_mode()
    def __call__(self):
        return self.network(self.x)

    def logits(self):
        """The same, as an array with channels last."""
        y = self().numpy()
        return y.transpose(0, 2, 3, 1) if y.ndim == 4 else y
