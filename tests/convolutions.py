"""Convolutions drawn at random, and their three products by plain loops, written from the formula of ``Conv``."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from faltung.geometry import Window

Array = NDArray[Any]

LARGEST = {1: (9, 4), 2: (5, 3), 3: (3, 2)}
"""By the number of axes: how much larger than the smallest that fits an axis may be, and the largest kernel."""


@dataclass(frozen=True)
class Case:
    """The settings of a convolution over some axes, an input that fits it, and a seed for the numbers."""

    windows: tuple[Window, ...]
    groups: int
    filters: int
    shape: tuple[int, ...]
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """As an element takes them."""
        axes = ("kernel", "stride", "dilation", "padding")
        by_axis = {name: tuple(getattr(window, name) for window in self.windows) for name in axes}
        return by_axis | {"groups": self.groups}

    def integers(self, shape: tuple[int, ...], salt: int = 0, dtype: Any = np.float64) -> Array:
        """Small integers: sums of their products are exact in float32 and in float64."""
        return np.random.default_rng([self.seed, salt]).integers(-4, 5, shape).astype(dtype)


@st.composite
def cases(draw) -> Case:
    rank = draw(st.integers(1, 3))
    room, kernel = LARGEST[rank]
    whole = st.integers(0, 3)
    paddings = st.one_of(st.sampled_from(["valid", "same", "full", "causal"]), st.tuples(whole, whole))
    windows = draw(
        st.tuples(*[st.builds(Window, st.integers(1, kernel), st.integers(1, 3), st.integers(1, 2), paddings)] * rank)
    )
    groups, inputs, outputs = (draw(st.integers(1, most)) for most in (3, 2, 2))
    sizes = (smallest(window) + draw(st.integers(0, room)) for window in windows)
    return Case(windows, groups, groups * outputs, (*sizes, groups * inputs), draw(st.integers(0, 2**16)))


def smallest(window: Window) -> int:
    """The smallest axis that, padded, holds the kernel."""
    return next(size for size in itertools.count(1) if size + sum(window.pads(size)) >= window.span)


def reads(window: Window, size: int) -> list[list[tuple[int, int]]]:
    """For each position of the kernel, the pairs (tap, place) that lie on the axis and not in its padding."""
    before, after = window.pads(size)
    last = size + after - window.span  # where the last kernel may start
    return [
        [(k, at + k * window.dilation) for k in range(window.kernel) if 0 <= at + k * window.dilation < size]
        for at in range(-before, last + 1, window.stride)
    ]


def products(x: Array, w: Array, windows: tuple[Window, ...], groups: int, dy: Array | None = None) -> Any:
    """Y, or with dy (dx, dw): every product x w that y[n, t, o] sums, one after the other."""
    by_axis = [reads(window, size) for window, size in zip(windows, x.shape[1:-1], strict=True)]
    within, filters = w.shape[-2], w.shape[-1]
    y = np.zeros((len(x), *map(len, by_axis), filters), x.dtype)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for n, *t, o in np.ndindex(y.shape):
        first = o // (filters // groups) * within  # the first channel of this filter's group
        for taps in itertools.product(*(axis[position] for axis, position in zip(by_axis, t, strict=True))):
            for i in range(within):
                read = (n, *(place for _, place in taps), first + i)
                weight = (*(k for k, _ in taps), i, o)
                y[n, *t, o] += x[read] * w[weight]
                if dy is not None:
                    dx[read] += dy[n, *t, o] * w[weight]
                    dw[weight] += dy[n, *t, o] * x[read]
    return y if dy is None else (dx, dw)
