"""All windows of an array at once, and the way back: the pair on which convolution and pooling rest.

    unfold   u[n, position, tap, c] = x[n, position*stride + tap*dilation - before, c]     (padding gives ``fill``)
    fold     dx = the sum of du over all (position, tap) that read the same x              (its adjoint)

>>> from faltung.geometry import Window
>>> x = np.arange(5.0).reshape(1, 5, 1)
>>> u = unfold(x, (Window(3, stride=2),))
>>> u[0, :, :, 0].tolist()
[[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]
>>> fold(u, (Window(3, stride=2),), (5,)).ravel().tolist()
[0.0, 1.0, 4.0, 3.0, 4.0]
"""

import itertools

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from faltung.elements.element import Array
from faltung.geometry import Window


def unfold(x: Array, windows: tuple[Window, ...], fill: float = 0.0) -> Array:
    """A view (batch, *positions, *taps, channels) of x (batch, *axes, channels); do not write into it."""
    rank = len(windows)
    pads = [window.pads(size) for window, size in zip(windows, x.shape[1:-1], strict=True)]
    if any(before or after for before, after in pads):
        x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)
    spans = tuple(window.span for window in windows)
    views = sliding_window_view(x, spans, axis=tuple(range(1, rank + 1)))
    positions = tuple(slice(None, None, window.stride) for window in windows)
    taps = tuple(slice(None, None, window.dilation) for window in windows)
    return np.moveaxis(views[(slice(None), *positions, slice(None), *taps)], rank + 1, -1)


def fold(du: Array, windows: tuple[Window, ...], sizes: tuple[int, ...]) -> Array:
    """The adjoint of ``unfold`` for an input whose axes have these sizes."""
    rank = len(windows)
    pads = [window.pads(size) for window, size in zip(windows, sizes, strict=True)]
    padded = [before + size + after for size, (before, after) in zip(sizes, pads, strict=True)]
    dx = np.zeros((du.shape[0], *padded, du.shape[-1]), du.dtype)
    positions = du.shape[1 : rank + 1]
    for tap in itertools.product(*(range(window.kernel) for window in windows)):
        read = tuple(
            slice(k * w.dilation, k * w.dilation + (count - 1) * w.stride + 1, w.stride)
            for k, w, count in zip(tap, windows, positions, strict=True)
        )
        dx[(slice(None), *read)] += du[(slice(None),) * (rank + 1) + tap]
    inside = tuple(slice(before, before + size) for size, (before, _) in zip(sizes, pads, strict=True))
    return dx[(slice(None), *inside)]
