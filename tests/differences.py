"""The derivative by central differences, against which the written-down ones are tested in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def slope(f: Callable[[Array], Any], x: Array, dy: Any = 1.0, step: float = 1e-5) -> Array:
    """The derivative of <dy, f(x)> by each entry of x."""
    result = np.empty(x.shape)
    for at in np.ndindex(x.shape):
        shift = np.zeros(x.shape)
        shift[at] = step
        result[at] = np.sum(dy * (f(x + shift) - f(x - shift))) / (2 * step)
    return result


def assert_close(got: Array, expected: Array, tolerance: float = 1e-8) -> None:
    """Compare relative to the largest entry; NaN is never close, nor is another shape."""
    assert got.shape == expected.shape
    worst = np.max(np.abs(got - expected), initial=0.0)
    assert worst <= tolerance * max(1.0, np.max(np.abs(expected), initial=0.0)), worst
