"""Convolution as a matrix: unrolled into vectors, row by row, y = C x; then dx = C^T dy.

    C[(t, o), (t*stride + k*dilation - before, i)] = w[k, i, o]

and 0 elsewhere; what would read the padding has no entry. ``matrix`` fills C with numbers, ``symbolic`` with the names
of the weights. The bias is no part of C. Needs SciPy: ``pip install 'faltung[matrix]'``.
Source: slides, "Convolution as a matrix operation"; guide, section 4.1.

>>> from faltung.elements import Conv
>>> print(render(symbolic(Conv(1, kernel=3), (4, 4, 1)).T))  # the slides' matrix, transposed as there
w0,0    0    0    0
w0,1 w0,0    0    0
w0,2 w0,1    0    0
   0 w0,2    0    0
w1,0    0 w0,0    0
w1,1 w1,0 w0,1 w0,0
w1,2 w1,1 w0,2 w0,1
   0 w1,2    0 w0,2
w2,0    0 w1,0    0
w2,1 w2,0 w1,1 w1,0
w2,2 w2,1 w1,2 w1,1
   0 w2,2    0 w1,2
   0    0 w2,0    0
   0    0 w2,1 w2,0
   0    0 w2,2 w2,1
   0    0    0 w2,2
"""

import math
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from faltung.elements.conv import Conv
from faltung.elements.conv_transpose import ConvTranspose
from faltung.elements.element import Array
from faltung.elements.windows import unfold
from faltung.errors import MissingExtraError, SettingError, ShapeError

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def matrix(element: Conv | ConvTranspose, shape: tuple[int, ...], w: Array) -> "csr_array":
    """The sparse C of a convolution of one example of this shape: y.ravel() = C @ x.ravel() for y less its bias.

    Shapes: shape (*axes, in), w as the element has it, C (entries of y, entries of x), with the dtype of w. That of a
    transposed convolution is the C^T of the convolution whose error it is.
    Raises: MissingExtraError without SciPy; ShapeError where shape, element and w do not fit.

    >>> from faltung.elements import Conv
    >>> C = matrix(Conv(1, kernel=2, stride=2, padding=1), (3, 1), np.array([1.0, 2.0]).reshape(2, 1, 1))
    >>> C.toarray().tolist()
    [[2.0, 0.0, 0.0], [0.0, 1.0, 2.0]]
    >>> (C.T @ np.array([1.0, 10.0])).tolist()
    [2.0, 10.0, 20.0]
    """
    try:
        from scipy.sparse import coo_array
    except ImportError as error:
        raise MissingExtraError("got no SciPy", element=element, way_out="pip install 'faltung[matrix]'") from error

    rows, columns, weights, size = _entries(element, shape)
    expected = element.parameters(shape)["w"].shape
    if w.shape != expected:
        raise ShapeError(
            f"got w of shape {w.shape}, expected {expected}", element=element, way_out="give the element's own w"
        )
    return coo_array((w.ravel()[weights], (rows, columns)), shape=size).tocsr()


def symbolic(element: Conv | ConvTranspose, shape: tuple[int, ...]) -> NDArray[np.str_]:
    """C with the name of a weight at each entry, "w" and its indices, and "0" elsewhere.

    Where there is one channel in and out the indices are those of the kernel, as in the slides; else those of w.

    >>> from faltung.elements import Conv
    >>> print(render(symbolic(Conv(1, kernel=3, stride=2, padding=1, groups=1), (5, 1))))
    w1 w2  0  0  0
     0 w0 w1 w2  0
     0  0  0 w0 w1
    """
    rows, columns, weights, size = _entries(element, shape)
    taps = element.parameters(shape)["w"].shape
    taps = taps[:-2] if taps[-2:] == (1, 1) else taps
    names = np.array(["w" + ",".join(map(str, index)) for index in np.ndindex(taps)])
    C = np.full(size, "0", names.dtype)
    C[rows, columns] = names[weights]
    return C


def render(table: NDArray[np.str_]) -> str:
    """The text of a symbolic matrix, its columns aligned."""
    width = max(map(len, table.ravel()))
    return "\n".join(" ".join(entry.rjust(width) for entry in row) for row in table)


def _entries(element: Conv | ConvTranspose, shape: tuple[int, ...]) -> tuple[Array, Array, Array, tuple[int, int]]:
    """Row, column and place in w.ravel() of each entry of C, and the size of C."""
    if element.arity != 1:
        raise SettingError(
            "got a size that a second input gives, expected a known one", element=element, way_out="name it by size="
        )
    if None in shape:
        raise ShapeError(f"got an input of {shape}, expected known sizes", element=element, way_out="close all axes")
    output = cast("tuple[int, ...]", element.output(shape))
    transposed = isinstance(element, ConvTranspose)
    x, y = (output, shape) if transposed else (shape, output)  # of the convolution itself
    taps, channels, filters = math.prod(element.parameters(shape)["w"].shape[:-2]), x[-1], y[-1]

    places = np.arange(math.prod(x)).reshape(1, *x)  # unfolded, they say which x is read; -1 is the padding
    read = unfold(places, element.windows(shape), fill=-1).reshape(-1, taps, channels)
    group = np.arange(filters) * element.groups // filters
    within = np.arange(channels // element.groups)[:, None]
    columns = read[:, :, group * len(within) + within]  # (positions, taps, in / groups, filters), like the others
    rows = np.broadcast_to(np.arange(math.prod(y)).reshape(-1, 1, 1, filters), columns.shape)
    weights = np.broadcast_to(np.arange(columns[0].size).reshape(columns[0].shape), columns.shape)
    inside = columns >= 0
    rows, columns, weights = rows[inside], columns[inside], weights[inside]
    if transposed:
        rows, columns = columns, rows
    return rows, columns, weights, (math.prod(output), math.prod(shape))
