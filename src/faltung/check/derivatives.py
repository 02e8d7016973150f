"""What is checked: a number J, the arrays that it depends on, and its derivatives by formula."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from faltung.elements.element import Array, Element, Run, Shape
from faltung.errors import SettingError, ShapeError
from faltung.randomness import generator

BATCH = 2
"""Examples that are drawn for an element that is given a shape."""


@dataclass(frozen=True)
class Entry:
    """One entry of a parameter or an input: the derivative by formula, and what moving the entry shows.

    >>> entry = Entry("conv.w", (2, 1), analytic=3.0, numeric=2.5)
    >>> print(entry, entry.gap)
    conv.w[2, 1]: analytic 3, numeric 2.5 0.5
    """

    name: str
    index: tuple[int, ...]
    analytic: float
    numeric: float

    @property
    def gap(self) -> float:
        """How far the two lie apart."""
        return abs(self.analytic - self.numeric)

    def __str__(self) -> str:
        return f"{self.name}{list(self.index)}: analytic {self.analytic:.12g}, numeric {self.numeric:.12g}"


class Derivatives:
    """J = total(), the arrays that it reads, and its derivatives by name; a missing one or None stands for zeros.

    >>> x = np.array([1.0, 2.0])
    >>> square = Derivatives(lambda: float(x @ x), {"x": x}, {"x": 2 * x})
    >>> square.slopes("x", [1], step=0.5), square.by("x").tolist()
    ((4.5, 3.5), [2.0, 4.0])
    """

    def __init__(self, total: Callable[[], float], arrays: Mapping[str, Array], analytic: Mapping[str, Array | None]):
        self.total = total
        self.here = total()
        self.arrays = arrays
        self.analytic = analytic

    def by(self, name: str) -> Array:
        """The derivative by this array, flat."""
        shape = self.arrays[name].shape
        derivative = self.analytic.get(name)
        if derivative is None:
            derivative = np.zeros(shape)
        if derivative.shape != shape:
            raise ShapeError(
                f"got a derivative by {name!r} of shape {derivative.shape}, expected {shape}",
                way_out="give it the shape of what it is the derivative by",
            )
        return derivative.reshape(-1)

    def rise(self, name: str, places: Sequence[int], step: float) -> float:
        """By how much J rises where the entries at these places (counted flat) move together by the step."""
        flat, places = self.arrays[name].reshape(-1), list(places)
        before = flat[places].copy()
        flat[places] += step
        try:
            return self.total() - self.here
        finally:
            flat[places] = before

    def slopes(self, name: str, places: Sequence[int], step: float) -> tuple[float, float]:
        """The slopes of J to the right and to the left, where the entries at these places move together."""
        return self.rise(name, places, step) / step, -self.rise(name, places, -step) / step

    def entry(self, name: str, place: int, analytic: float, numeric: float) -> Entry:
        """What was found at this place."""
        index = np.unravel_index(place, self.arrays[name].shape)
        return Entry(name, tuple(map(int, index)), float(analytic), float(numeric))


def of_element(
    element: Element, inputs: Sequence[Shape | Array], seed: int, run: Run, draw: Callable[..., Array]
) -> tuple[Derivatives, Array, Array]:
    """The derivatives of <dy, y>, where ``draw(random, shape)`` gives dy and all that is not given; also y and dy."""
    random = generator(seed)
    if element.takes_indices and not all(isinstance(x, np.ndarray) for x in inputs):
        raise SettingError("got the shape of an input of indices", element=element, way_out="give an array of indices")
    dtype = None if element.takes_indices else np.float64
    xs = [np.array(x, dtype, order="C") if isinstance(x, np.ndarray) else draw(random, (BATCH, *x)) for x in inputs]
    shapes = [x.shape[1:] for x in xs]
    params = {name: draw(random, asked.shape) for name, asked in element.parameters(*shapes).items()}
    state = {name: random.uniform(0.5, 1.5, asked.shape) for name, asked in element.state(*shapes).items()}

    def forward() -> tuple[Array, Any]:
        return element.forward(params | state, tuple(xs) if element.arity != 1 else xs[0], run)

    y, kept = forward()
    dy = draw(random, y.shape)
    names = input_names(len(xs))
    dx = element.error(params | state, kept, dy)
    errors = dict(zip(names, dx if isinstance(dx, tuple) else (dx,), strict=True))
    gradients = element.gradient(params | state, kept, dy)
    arrays = params if element.takes_indices else dict(zip(names, xs, strict=True)) | params
    return Derivatives(lambda: float(np.vdot(dy, forward()[0])), arrays, errors | gradients), y, dy


def input_names(count: int) -> list[str]:
    """What the inputs of an element are called: "x", or "x0", "x1", ..."""
    return ["x"] if count == 1 else [f"x{n}" for n in range(count)]
