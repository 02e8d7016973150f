"""The networks in Faltung, and how they train and predict. The same functions, in the same order, as in the peers'."""

import faltung as ft
from faltung.elements.element import Run
from faltung.models import find_recipe

from .works import CLASSES


def ufldl():
    return find_recipe("ufldl").compose(CLASSES)


def lenet5():
    return find_recipe("lenet5").compose(CLASSES)


def vgg():
    return ft.Chain(
        conv1=conv(32), relu1=ft.ReLU(), conv2=conv(32), relu2=ft.ReLU(), pool1=ft.MaxPool(2),
        conv3=conv(64), relu3=ft.ReLU(), conv4=conv(64), relu4=ft.ReLU(), pool2=ft.MaxPool(2),
        conv5=conv(128), relu5=ft.ReLU(), conv6=conv(128), relu6=ft.ReLU(), pool3=ft.MaxPool(2),
        flat=ft.Flatten(), dense=ft.Affine(CLASSES),
    )  # fmt: skip


def residual():
    return ft.Chain(
        conv=conv(16, bias=False), norm=ft.BatchNorm(), relu=ft.ReLU(),
        block1=block(16), block2=block(32, stride=2), block3=block(64, stride=2),
        pool=ft.GlobalPool("mean"), dense=ft.Affine(CLASSES),
    )  # fmt: skip


def block(channels, stride=1):
    """y = relu(x + f(x)); where the stride is not 1, x is projected by a 1x1 convolution of that stride."""
    nodes = {
        "conv1": ft.Node(conv(channels, stride=stride, bias=False), "x"), "norm1": ft.Node(ft.BatchNorm(), "conv1"),
        "relu1": ft.Node(ft.ReLU(), "norm1"),
        "conv2": ft.Node(conv(channels, bias=False), "relu1"), "norm2": ft.Node(ft.BatchNorm(), "conv2"),
    }  # fmt: skip
    if stride != 1:
        nodes["project"] = ft.Node(ft.Conv(channels, kernel=1, stride=stride, bias=False, initial="he"), "x")
        nodes["norm3"] = ft.Node(ft.BatchNorm(), "project")
    shortcut = "x" if stride == 1 else "norm3"
    return ft.Graph(**nodes, sum=ft.Node(ft.Sum(), shortcut, "norm2"), relu=ft.Node(ft.ReLU(), "sum"))


def unet():
    return ft.Graph(
        down1=ft.Node(pair(32), "x"), pool1=ft.Node(ft.MaxPool(2), "down1"),
        down2=ft.Node(pair(64), "pool1"), pool2=ft.Node(ft.MaxPool(2), "down2"),
        bottom=ft.Node(pair(128), "pool2"),
        up2=ft.Node(up(64), "bottom"), skip2=ft.Node(ft.Concat(), "down2", "up2"), pair2=ft.Node(pair(64), "skip2"),
        up1=ft.Node(up(32), "pair2"), skip1=ft.Node(ft.Concat(), "down1", "up1"), pair1=ft.Node(pair(32), "skip1"),
        score=ft.Node(ft.Conv(CLASSES, kernel=1), "pair1"),
    )  # fmt: skip


def pair(channels):
    return ft.Chain(conv1=conv(channels), relu1=ft.ReLU(), conv2=conv(channels), relu2=ft.ReLU())


def up(channels):
    return ft.ConvTranspose(channels, kernel=2, stride=2, initial="he")


def stack(channels, depth):
    parts = {}
    for k in range(1, depth + 1):
        parts |= {f"conv{k}": conv(channels), f"relu{k}": ft.ReLU()}
    return ft.Chain(**parts, pool=ft.GlobalPool("mean"), dense=ft.Affine(CLASSES))


def conv(channels, stride=1, bias=True):
    return ft.Conv(channels, kernel=3, stride=stride, padding=1, bias=bias, initial="he")


def network(work):
    """The network of a work; a stack is bound to images of any size."""
    shape = (None, None, work.shape[-1]) if work.network == "stack" else work.shape
    return globals()[work.network](*work.arguments).on(shape)


def initial(work):
    """The parameters that every side begins with, by name."""
    return network(work).initial(seed=0)


class Training:
    """Steps of backpropagation and update, on one batch."""

    def __init__(self, work, params, x, labels):
        self.network = network(work)
        self.optimiser = ft.SGD(work.rate, momentum=work.momentum)
        self.params = params
        self.slots = self.optimiser.slots({name: params[name] for name in self.network.parameters})
        self.count = 0
        self.feed(x, labels)

    def feed(self, x, labels):
        self.x, self.labels = x, labels

    def step(self):
        done = self.network.train_step(
            self.params, self.slots, self.x, self.labels, cost=ft.CrossEntropy(), optimiser=self.optimiser,
            run=Run(training=True, step=self.count),
        )  # fmt: skip
        self.params, self.slots = done.params, done.slots
        self.count += 1
        return done.cost

    def parameters(self):
        return self.params


class Prediction:
    """The logits of one batch, as often as they are asked for.

    Parameters belong to the caller, who may change them between calls; those of a predictor (``frozen``) stay as they
    are, as those of ONNX Runtime and torch.compile do.
    """

    def __init__(self, work, params, x, frozen=False):
        self.network, self.params, self.x = network(work), params, x
        self.predictor = self.network.predictor(params) if frozen else None

    def __call__(self):
        return self.predictor(self.x) if self.predictor else self.network.predict(self.params, self.x)

    logits = __call__
