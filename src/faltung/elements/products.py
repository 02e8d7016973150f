"""The three products of a convolution, closed under each other.

    correlate            y  = unfold(x) w
    correlate_error      dx = fold(dy w^T)
    correlate_gradient   dw = unfold(x)^T dy

Shapes: x (batch, *axes, in), w (*taps, in / groups, out), y (batch, *positions, out). With x unfolded into a matrix,
one row a position and one column a (tap, channel), a convolution is one matrix product, and its derivatives are the
two others that the same three matrices admit. Groups are a leading axis of all three.

``<dy, y> = <dx, x> = <dw, w>`` holds for all x, w and dy, exactly so on small integers. Source: memo p. 9-10, whose
``dx = dy * flip(w)`` is the second line for stride 1, and whose ``dw = x * dy`` is the third.
"""

import numpy as np

from faltung.elements.element import Array
from faltung.elements.windows import fold, unfold
from faltung.geometry import Window

Windows = tuple[Window, ...]


def correlate(x: Array, w: Array, windows: Windows, groups: int) -> Array:
    """y[n, t, o] = sum over taps k and channels i of x[n, t*stride + k*dilation - before, i] w[k, i, o].

    >>> x, w = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1), np.array([1.0, 10.0]).reshape(2, 1, 1)
    >>> correlate(x, w, (Window(2),), groups=1).ravel().tolist()
    [21.0, 32.0, 43.0]
    """
    positions = [window.output(size) or 0 for window, size in zip(windows, x.shape[1:-1], strict=True)]
    y = _columns(x, windows, groups) @ _split(w, groups)
    return _join(y).reshape(len(x), *positions, w.shape[-1])


def correlate_error(dy: Array, w: Array, windows: Windows, groups: int, sizes: tuple[int, ...]) -> Array:
    """The dx of ``correlate``, for an input whose axes have these sizes.

    >>> dy, w = np.array([1.0, 0.0, -1.0]).reshape(1, 3, 1), np.array([1.0, 10.0]).reshape(2, 1, 1)
    >>> correlate_error(dy, w, (Window(2),), groups=1, sizes=(4,)).ravel().tolist()
    [1.0, 10.0, -1.0, -10.0]
    """
    taps, channels = w.shape[:-2], w.shape[-2]
    du = _split(dy, groups) @ _split(w, groups).swapaxes(1, 2)
    du = du.reshape(groups, *dy.shape[:-1], *taps, channels)
    du = np.moveaxis(du, 0, -2).reshape(*dy.shape[:-1], *taps, groups * channels)
    return fold(du, windows, sizes)


def correlate_gradient(x: Array, dy: Array, windows: Windows, groups: int) -> Array:
    """The dw of ``correlate``, summed over the batch.

    >>> x, dy = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1), np.array([1.0, 0.0, -1.0]).reshape(1, 3, 1)
    >>> correlate_gradient(x, dy, (Window(2),), groups=1).ravel().tolist()
    [-2.0, -2.0]
    """
    taps = tuple(window.kernel for window in windows)
    dw = _columns(x, windows, groups).swapaxes(1, 2) @ _split(dy, groups)
    return _join(dw).reshape(*taps, x.shape[-1] // groups, dy.shape[-1])


def _columns(x: Array, windows: Windows, groups: int) -> Array:
    """x unfolded: (groups, batch * positions, taps * channels in a group)."""
    u = unfold(x, windows)
    rows, taps = u.shape[: len(windows) + 1], u.shape[len(windows) + 1 : -1]
    channels = x.shape[-1] // groups
    u = np.moveaxis(u.reshape(*rows, *taps, groups, channels), -2, 0)
    return u.reshape(groups, int(np.prod(rows)), int(np.prod(taps)) * channels)


def _split(a: Array, groups: int) -> Array:
    """(..., channels) to (groups, all before, channels in a group): rows of dy, or of w."""
    return np.moveaxis(a.reshape(int(np.prod(a.shape[:-1])), groups, a.shape[-1] // groups), 1, 0)


def _join(a: Array) -> Array:
    """(groups, rows, channels in a group) to (rows, channels)."""
    return np.moveaxis(a, 0, 1).reshape(a.shape[1], a.shape[0] * a.shape[2])
