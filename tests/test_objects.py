"""Every lowering's machine code, for every machine: it stands alone, and ARM can have it, too."""

from typing import Any

import numpy as np
import pytest

import faltung as ft
from elf import LINKERS_OWN, undefined
from emission import for_arm, made_for
from faltung.engine.lower import lowerings
from lowered import FLOATS

MAP = (6, 7, 5)
SAMPLES: list[tuple[Any, tuple[int, ...]]] = [
    (ft.Conv(20, kernel=3, padding="same"), MAP),
    (ft.Conv(18, kernel=(2, 3), stride=2, dilation=(1, 2), padding=1, groups=3), (9, 8, 6)),
    (ft.Conv(33, kernel=3, padding="same"), (5, 6, 16)),  # rows across the batch
    (ft.Conv(64, kernel=3, padding=1), (16, 16, 3)),  # an error to few outputs
    (ft.Conv(2, kernel=3, padding=1), (16, 16, 64)),  # and a forward
    (ft.Conv(19, kernel=3, stride=2, padding="same", groups=19), (6, 9, 19)),  # channels by themselves
    (ft.Conv(9, kernel=1), MAP),
    (ft.ConvTranspose(4, kernel=3, stride=2, padding=1), MAP),
    (ft.Affine(10), (37,)),
    (ft.Dropout(0.4), MAP),
    (ft.Crop(((1, 2), (0, 1))), MAP),
    (ft.Pad(1), MAP),
    (ft.Pad(2, mode="reflect"), MAP),
    (ft.Embedding(7, 5), (6,)),
    (ft.Concat(), MAP),
    (ft.Sum(), MAP),
    (ft.Product(), MAP),
    (ft.Gate(), (9, 6)),
    (ft.Offset(), MAP),
    (ft.BatchNorm(), MAP),
    (ft.LayerNorm(), MAP),
    (ft.LayerNorm(axes="all"), MAP),
    (ft.Sigmoid(), MAP),
    (ft.Tanh(), MAP),
    (ft.ReLU(), MAP),
    (ft.LeakyReLU(), MAP),
    (ft.ELU(), MAP),
    (ft.Softplus(), MAP),
    (ft.GELU(), MAP),
    (ft.SiLU(), MAP),
    (ft.Pointwise("exp(-x**2) * log(2 + abs(x)) + abs(x)**1.7", derivative="sign(x)"), MAP),
    (ft.MaxPool(2), MAP),
    (ft.MaxPool(3, stride=2, padding=1), MAP),
    (ft.MeanPool((2, 3)), MAP),
    (ft.LpPool(2, p=3.5), MAP),
    (ft.Pool(2, "max(x) - min(x)"), MAP),
    (ft.AdaptivePool((2, 3), "mean"), MAP),
    (ft.GlobalPool("max"), MAP),
    (ft.Resize(2), MAP),
    (ft.Resize(1.5, method="linear"), MAP),
    (ft.Softmax(), MAP),
    (ft.LogSoftmax(), MAP),
    (ft.SquaredError(), MAP),
    (ft.BinaryCrossEntropy(), MAP),
    (ft.CrossEntropy(), MAP),
    (ft.CrossEntropy(class_weights=(1.0, 2.0, 3.0, 4.0, 5.0)), MAP),
]


def run(element: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """All products of an element, or of a cost."""
    forward, error, gradient, *_ = lowerings()[type(element)]
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 0.9, (8, *shape)).astype(dtype)
    if gradient is None:
        labels = rng.integers(0, shape[-1], x.shape[:-1])
        _, kept = forward(element, x, labels if isinstance(element, ft.CrossEntropy) else x, None)
        error(element, kept)
        return
    several = isinstance(element, ft.Sum | ft.Product | ft.Concat | ft.Offset)
    other = x[:, 0, 0] if isinstance(element, ft.Offset) else x
    shapes = (shape, other.shape[1:])[: 1 + several]
    asked = element.parameters(*shapes) | element.state(*shapes)
    params = {name: rng.uniform(0.5, 1, asks.shape).astype(dtype) for name, asks in asked.items()}
    if element.takes_indices:
        x = rng.integers(0, 7, x.shape)
    y, kept = forward(element, params, (x, other) if several else x, ft.Run(training=True))
    error(element, params, kept, np.ones_like(y))
    gradient(element, params, kept, np.ones_like(y))


def emitted(name: str, *dtypes: Any) -> dict[str, bytes]:
    """All modules of all samples, as LLVM's text and as objects."""
    with made_for(name) as modules:
        for element, shape in SAMPLES:
            for dtype in dtypes:
                run(element, shape, dtype)
    return dict(modules)


def test_every_lowering_has_a_sample():
    assert {type(element) for element, _ in SAMPLES} == lowerings().keys()


@pytest.mark.parametrize(
    ("name", "dtype"), [("avx512", np.float32), ("avx2", np.float64), ("plain", np.float32), ("plain", np.float64)]
)
def test_objects_ask_their_linker_for_nothing(name, dtype):
    objects = emitted(name, dtype)
    assert len(objects) > len(SAMPLES)
    for ir, code in objects.items():
        assert undefined(code) <= LINKERS_OWN, ir


@pytest.mark.parametrize("dtype", FLOATS)
def test_nor_do_they_on_arm(dtype):
    modules = [ir for ir in emitted("neon", dtype) if "@llvm.x86." not in ir]  # the modes and pauses of x86
    assert len(modules) > len(SAMPLES)
    for ir in modules:
        module, arm = for_arm(ir)
        assert undefined(arm.emit_object(module)) <= LINKERS_OWN, ir
