"""How parameters begin: named rules, drawn from an explicit seed.

Each array is drawn from a generator of its own, seeded by (seed, name): adding a node leaves the others' parameters as
they were. Drawn in float64, so that float32 parameters are the rounded float64 ones.

>>> w = draw("he", (3, 3, 1, 64), fans=(9, 576), seed=0, name="conv1.w")
>>> print(w.std().round(2), np.sqrt(2 / 9).round(2))
0.45 0.47
"""

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from faltung.randomness import generator

Rule = Callable[[np.random.Generator, tuple[int, ...], int, int], NDArray[np.float64]]


def glorot(random, shape, fan_in, fan_out):
    """Uniform within +-sqrt(6 / (fan in + fan out)): Glorot & Bengio 2010, equation 16."""
    limit = np.sqrt(6 / (fan_in + fan_out))
    return random.uniform(-limit, limit, shape)


def he(random, shape, fan_in, fan_out):
    """Normal with the deviation sqrt(2 / fan in), for rectifiers: He et al. 2015, equation 10."""
    return random.normal(0, np.sqrt(2 / fan_in), shape)


def ufldl(random, shape, fan_in, fan_out):
    """The UFLDL exercise's: convolutions 0.1 * normal, dense layers uniform within +-sqrt(6 / (in + out + 1))."""
    if len(shape) > 2:
        return 0.1 * random.normal(size=shape)
    limit = np.sqrt(6 / (fan_in + fan_out + 1))
    return random.uniform(-limit, limit, shape)


def normal(random, shape, fan_in, fan_out):
    """Normal with deviation 1, as for embeddings."""
    return random.normal(size=shape)


def zeros(random, shape, fan_in, fan_out):
    """All 0."""
    return np.zeros(shape)


def ones(random, shape, fan_in, fan_out):
    """All 1."""
    return np.ones(shape)


def bilinear(random, shape, fan_in, fan_out):
    """Linear interpolation along every axis, each channel to itself: for upsampling by ``ConvTranspose``.

    A kernel of k = 2 s (or 2 s - 1) taps interpolates for stride s; weights are 1 - |tap - middle| / s.
    Long et al. 2015, who keep such kernels fixed.

    >>> bilinear(None, (4, 1, 1), 4, 4).ravel().tolist()
    [0.25, 0.75, 0.75, 0.25]
    """
    *taps, inputs, outputs = shape
    kernel = np.ones(())
    for k in taps:
        stride, middle = (k + 1) // 2, (k - 1) / 2
        kernel = np.multiply.outer(kernel, 1 - abs(np.arange(k) - middle) / stride)
    return np.multiply.outer(kernel, np.eye(inputs, outputs))


RULES: dict[str, Rule] = {rule.__name__: rule for rule in (glorot, he, ufldl, normal, zeros, ones, bilinear)}


def draw(rule: str, shape: tuple[int, ...], fans: tuple[int, int], seed: int, name: str) -> NDArray[np.float64]:
    """The array ``name``, of this shape, by this rule; raises SettingError where the seed is none."""
    return RULES[rule](generator(seed, zlib.crc32(name.encode())), shape, *fans)
