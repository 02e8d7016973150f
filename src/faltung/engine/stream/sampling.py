"""A class drawn from logits: the smallest k at which the sums of the probabilities up to k exceed a number of [0, 1).

    p[k] = exp(scale (logits[k] - the largest logit)),  c[k] = p[0] + ... + p[k],  k = how many c are <= number c[last]

``scale`` is 1 / temperature. Beyond measure it leaves 1 for the largest logit and 0 for all others; then the number 0
draws the first of the largest. Sums never fall, or a class might be drawn whose probability is 0: each lane of a vector
adds consecutive classes one after the other, and begins with the sum of those before, which is made in the same way.
"""

import math
from typing import Any

from numpy.typing import NDArray

from faltung.engine.kernels import mathematics
from faltung.engine.loops.language import I32, Function, Type, Value

COLDEST = 1e30
"""The scale for a temperature of 0."""


def in_lanes(classes: NDArray[Any], lanes: int) -> NDArray[Any]:
    """The last axis in the order in which classes lie, whose vectors hold every so manieth one.

    >>> import numpy as np
    >>> in_lanes(np.arange(8), 4).tolist(), by_number(in_lanes(np.arange(8), 4), 4).tolist()
    ([0, 2, 4, 6, 1, 3, 5, 7], [0, 1, 2, 3, 4, 5, 6, 7])
    """
    return classes.reshape(*classes.shape[:-1], lanes, -1).swapaxes(-1, -2).reshape(classes.shape)


def by_number(classes: NDArray[Any], lanes: int) -> NDArray[Any]:
    """The last axis by the numbers of the classes, from the order ``in_lanes``."""
    return in_lanes(classes, classes.shape[-1] // lanes)


def draw(f: Function, kind: Type, y: Value, c: Value, classes: int, scale: Value, number: Value) -> Value:
    """The class that the number there draws from logits y, which lie ``in_lanes``; at c is memory for as many numbers.

    Classes fill whole vectors; those that do not exist have logits of -inf.
    """
    lanes, zeros = kind.lanes, f.constant(0.0, kind)
    most, total = f.variable("most", -math.inf, kind), f.variable("total", zeros)
    with f.loop("k", classes, step=lanes) as k:
        most.set(f.max(most.value, f.load(y, k, lanes)))
    top = f.max_lanes(most.value)
    with f.loop("k", classes, step=lanes) as k:  # the sums of each lane for itself
        total.set(total.value + mathematics.decay((top - f.load(y, k, lanes)) * scale))
        f.store(total.value, c, k)
    before = zeros
    for lane in range(lanes - 1):
        before = before + f.shuffle(total.value, zeros, [lane if later > lane else lanes for later in range(lanes)])
    ends, below = before + total.value, f.variable("below", zeros)
    last = f.shuffle(ends, ends, [lanes - 1])
    target = f.load(number) * last
    with f.loop("k", classes, step=lanes) as k:
        sums = before + f.load(c, k, lanes)
        below.set(below.value + f.select((sums <= target) & (sums < last), f.constant(1.0, kind), 0.0))
    return f.convert("to_int", f.sum_lanes(below.value), I32)
