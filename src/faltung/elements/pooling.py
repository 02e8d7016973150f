"""Pooling: summary statistics of windows, by an aggregate function g of a vector x_1 .. x_m with derivatives dg_k.

    forward    y_n  = g(x of window n)                          the memo's "subsample"
    error      dx  += dy_n dg(x of window n), window by window  the memo's "upsample"

Shapes: x (n, *axes, channels), y (n, *positions, channels), each channel by itself, as many positions as
``faltung.geometry.Window`` says; what does not fill a window at an axis' end is left out (guide, relationship 7).
``kernel`` is the size of the window; ``stride`` is the kernel unless it is given, so that the regions are disjoint, as
in the memo; it, ``dilation`` and ``padding`` are those of ``Conv``. The padding never counts as an entry: m is the
number of true entries in the window. Source: memo p. 11-12, less its errors, named where they are put right.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from faltung.elements.conv import positions
from faltung.elements.element import Array, Element, Params, Run, Shape, View, through
from faltung.elements.settings import check_flag, check_number
from faltung.elements.windows import fold, unfold
from faltung.errors import SettingError, ShapeError
from faltung.geometry import Paddings, PerAxis, Window, check_settings, windows


@dataclass(frozen=True, repr=False)
class Pooling(Element):
    """The base of all pooling: ``aggregate`` gives g of every window, ``slopes`` its derivatives by the entries.

    Both get all windows ``u`` (n, *positions, channels, taps), taps in row-major order and 0 in the padding, and
    ``inside`` (1, *positions, 1, taps), which is True at true entries; each window has at least one.
    """

    kernel: PerAxis
    stride: PerAxis | None = field(default=None, kw_only=True)
    dilation: PerAxis = field(default=1, kw_only=True)
    padding: Paddings = field(default="valid", kw_only=True)

    def __post_init__(self):
        check_settings(self, self.kernel, self._stride, self.dilation, self.padding)

    @property
    def _stride(self) -> PerAxis:
        return self.kernel if self.stride is None else self.stride

    @abstractmethod
    def aggregate(self, u: Array, inside: Array) -> Array:
        """The value g of each window: (n, *positions, channels)."""

    @abstractmethod
    def slopes(self, u: Array, inside: Array) -> Array:
        """The derivatives dg by each entry: the shape of u; what it says in the padding does not matter."""

    def windows(self, *shapes: Shape) -> tuple[Window, ...]:
        return windows(len(shapes[0]) - 1, self.kernel, self._stride, self.dilation, self.padding, self)

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        return through(seen[0], self.windows(*shapes), shapes[0])

    def output(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        check_axes(self, shape)
        counts = positions(self, self.windows(shape), shape[:-1])
        for axis, (window, size) in enumerate(zip(self.windows(shape), shape, strict=False)):
            if size is not None and any(window.pads(size)) and not _inside((window,), (size,)).any(axis=-1).all():
                raise ShapeError(
                    f"got padding {window.pads(size)} for an input of {size} on axis {axis}, expected every window to "
                    "hold an entry of the input",
                    element=self,
                    way_out="use less padding",
                )
        return (*counts, shape[-1])

    def forward(self, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array]:
        self.admit(params, x)
        windows = self.windows(x.shape[1:])
        return self.aggregate(_regions(x, windows), _inside(windows, x.shape[1:-1])), x

    def error(self, params: Params, kept: Array, dy: Array) -> Array:
        windows, sizes = self.windows(kept.shape[1:]), kept.shape[1:-1]
        du = dy[..., None] * self.slopes(_regions(kept, windows), _inside(windows, sizes))
        taps = tuple(window.kernel for window in windows)
        return fold(du.swapaxes(-1, -2).reshape(*dy.shape[:-1], *taps, dy.shape[-1]), windows, sizes)


@dataclass(frozen=True, repr=False)
class MaxPool(Pooling):
    """g(x) = max(x), dg_k = 1 at the first maximum in row-major order, else 0

    The first maximum takes the whole error signal. (The memo gives 1 to each of several equal maxima, whose sum is not
    the derivative of anything.) NaN is the maximum of a window that holds one.

    Shapes: x (n, *axes, channels), y (n, *positions, channels). Settings: see ``faltung.elements.pooling``.
    Raises: ShapeError where a window spans more than the padded input, or holds nothing but padding.
    Source: memo p. 11-12; guide, relationship 7.

    >>> pool = MaxPool(2)
    >>> y, kept = pool.forward({}, np.array([1.0, 3.0, 5.0, 5.0, 9.0]).reshape(1, 5, 1))
    >>> y.ravel().tolist()
    [3.0, 5.0]
    >>> pool.error({}, kept, np.array([10.0, 20.0]).reshape(1, 2, 1)).ravel().tolist()
    [0.0, 10.0, 20.0, 0.0, 0.0]
    """

    def aggregate(self, u: Array, inside: Array) -> Array:
        return np.where(inside, u, u.dtype.type(-np.inf)).max(axis=-1)

    def slopes(self, u: Array, inside: Array) -> Array:
        largest = u == self.aggregate(u, inside)[..., None]
        first = ((largest | np.isnan(u)) & inside).argmax(axis=-1)
        return np.arange(u.shape[-1]) == first[..., None]


@dataclass(frozen=True, repr=False)
class MeanPool(Pooling):
    """g(x) = (x_1 + ... + x_m) / m, dg_k = 1 / m

    m is the number of true entries of the window, or with ``count_padding`` its number of taps: then zeros in the
    padding count as entries.

    Shapes: x (n, *axes, channels), y (n, *positions, channels). Settings: see ``faltung.elements.pooling``.
    Raises: ShapeError where a window spans more than the padded input, or holds nothing but padding.
    Source: memo p. 11-12; guide, relationship 7.

    >>> pool = MeanPool(2, padding=(1, 0))
    >>> y, kept = pool.forward({}, np.array([2.0, 3.0, 5.0]).reshape(1, 3, 1))
    >>> y.ravel().tolist()
    [2.0, 4.0]
    >>> pool.error({}, kept, np.array([10.0, 20.0]).reshape(1, 2, 1)).ravel().tolist()
    [10.0, 10.0, 10.0]
    """

    count_padding: bool = field(default=False, kw_only=True)

    linear = True

    def __post_init__(self):
        super().__post_init__()
        check_flag(self, count_padding=self.count_padding)

    def aggregate(self, u: Array, inside: Array) -> Array:
        return u.sum(axis=-1) / self._count(u, inside)

    def slopes(self, u: Array, inside: Array) -> Array:
        return np.broadcast_to(1 / self._count(u, inside)[..., None], u.shape)

    def _count(self, u: Array, inside: Array) -> Array:
        return (np.ones_like(inside) if self.count_padding else inside).sum(axis=-1).astype(u.dtype)


@dataclass(frozen=True, repr=False)
class LpPool(Pooling):
    """g(x) = (|x_1|^p + ... + |x_m|^p)^(1/p), dg_k = (|x_k| / g)^(p-1) sign(x_k), 0 where g = 0

    For any real p >= 1; p = 1 is the sum of |x|, p = 2 the Euclidean norm. For p = infinity take ``MaxPool`` of |x|.
    |x| is divided by its largest entry before it is raised to p, so that no power overflows. (The memo's derivative
    lacks the sign.)

    Shapes: x (n, *axes, channels), y (n, *positions, channels). Settings: see ``faltung.elements.pooling``.
    Raises: SettingError where p is not a finite number >= 1; ShapeError where a window spans more than the padded
    input, or holds nothing but padding.
    Source: memo p. 11-12; guide, relationship 7.

    >>> pool = LpPool(2)
    >>> y, kept = pool.forward({}, np.array([3.0, -4.0, 0.0, 0.0]).reshape(1, 4, 1))
    >>> y.ravel().tolist()
    [5.0, 0.0]
    >>> pool.error({}, kept, np.array([10.0, 20.0]).reshape(1, 2, 1)).ravel().tolist()
    [6.0, -8.0, 0.0, 0.0]
    """

    p: float = field(default=2.0, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if self.p == math.inf:
            raise SettingError("got p=inf, expected a finite number", element=self, way_out="use MaxPool of |x|")
        check_number(self, "p", self.p, 1)

    def aggregate(self, u: Array, inside: Array) -> Array:
        part, scale = self._scaled(u)
        return scale * self._norm(part)

    def slopes(self, u: Array, inside: Array) -> Array:
        part, _ = self._scaled(u)
        # The largest part is 1, so the norm is at least 1; it is 0 only where all of x is, whose slopes are 0.
        return (part / np.maximum(self._norm(part), 1)[..., None]) ** (self.p - 1) * np.sign(u)

    def _norm(self, part: Array) -> Array:
        return (part**self.p).sum(axis=-1) ** (1 / self.p)

    def _scaled(self, u: Array) -> tuple[Array, Array]:
        """|x| divided by a scale, and that scale: the largest |x|, or 1 where that is 0 or not finite."""
        size = np.abs(u)
        largest = size.max(axis=-1)
        scale = np.where((largest > 0) & np.isfinite(largest), largest, u.dtype.type(1))
        return size / scale[..., None], scale


def check_axes(element: Element, shape: Shape) -> None:
    """Refuse an input without axes, or with an empty one."""
    if len(shape) < 2:
        raise ShapeError(
            f"got an input of {shape}, expected (*axes, channels)",
            element=element,
            way_out="give the input as (height, width, channels) or (time, channels)",
        )
    for axis, size in enumerate(shape[:-1]):
        Window().output(size, axis, element)  # refuses an empty axis


def _regions(x: Array, windows: tuple[Window, ...]) -> Array:
    """All windows of x, taps last; the channels stay next to each other in memory, which makes reductions fast."""
    u = unfold(x, windows)
    taps = math.prod(window.kernel for window in windows)
    return u.reshape(*u.shape[: len(windows) + 1], taps, u.shape[-1]).swapaxes(-1, -2)


def _inside(windows: tuple[Window, ...], sizes: tuple[int, ...]) -> Array:
    """Which taps of each window are no padding."""
    return _regions(np.ones((1, *sizes, 1), bool), windows)
