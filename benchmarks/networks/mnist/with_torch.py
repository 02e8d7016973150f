"""The UFLDL recipe in PyTorch: python -m benchmarks.networks.mnist.with_torch FOLDER [compile]

All images are converted once; a batch is then one gather.
"""

import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..in_torch import ufldl
from .files import read

EPOCHS, BATCH = 3, 256


def main(folder, compiled):
    torch.manual_seed(0)
    (x, labels), (x_test, labels_test) = (tensors(*read(folder, part)) for part in ("train", "t10k"))
    network = ufldl()
    nn.init.normal_(network.conv1.weight, std=0.1)
    nn.init.zeros_(network.conv1.bias)
    nn.init.uniform_(network.dense.weight, -(limit := (6 / 2011) ** 0.5), limit)
    nn.init.zeros_(network.dense.bias)
    optimiser = torch.optim.SGD(network.parameters(), 0.1, 0.5, fused=True)

    def cost(x, labels):
        return cross_entropy(network(x), labels)

    if compiled:
        cost = torch.compile(cost)
    for epoch in range(EPOCHS):
        for step, chosen in enumerate(torch.randperm(len(x)).split(BATCH)[: len(x) // BATCH]):
            if (epoch, step) == (0, 19):
                optimiser.param_groups[0]["momentum"] = 0.95
            optimiser.zero_grad()
            cost(x[chosen], labels[chosen]).backward()
            optimiser.step()
        optimiser.param_groups[0]["lr"] /= 2
        with torch.inference_mode():
            parts = zip(x_test.split(BATCH), labels_test.split(BATCH), strict=True)
            right = sum((network(x).argmax(1) == labels).sum().item() for x, labels in parts)
        print(f"epoch {epoch + 1}: accuracy {right / len(x_test):.4f}")


def tensors(pixels, labels):
    return torch.tensor(pixels[:, None], dtype=torch.float32).div_(255), torch.tensor(labels, dtype=torch.int64)


if __name__ == "__main__":
    main(sys.argv[1], "compile" in sys.argv[2:])
