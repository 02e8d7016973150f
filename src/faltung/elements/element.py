"""What every function element is: a frozen description that knows three things in closed form.

    forward    y  = f(x; w)                       and what is kept for the way back
    error      dx = dJ/dx, from dy = dJ/dy        the error signal passed back to the input
    gradient   dw = dJ/dw, from dy = dJ/dy        for the element's own parameters

Arrays are arguments, never attributes: ``forward(params, x, run) -> (y, kept)``, ``error(params, kept, dy) -> dx``,
``gradient(params, kept, dy) -> {"w": dw, ...}``. Arrays are channels-last, (batch, *axes, channels). An element with
several inputs takes and returns tuples. Sources: memo p. 3-7.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from faltung.errors import NetworkError, ShapeError
from faltung.geometry import Window
from faltung.receptive import Field

Array = NDArray[Any]
Shape = tuple[int | None, ...]
"""Sizes without the batch; None is an axis of any size."""
Params = Mapping[str, Array]
View = tuple[Field, ...] | Literal["all", "varies"]
"""What a unit sees of the network's input: a field an axis, all of it, or what varies: no one field fits all units."""


@dataclass(frozen=True)
class Run:
    """Under which circumstances a forward pass runs.

    Random masks are a function of (seed, step, node, example), so the same bits come for any blocking of the batch.

    >>> from faltung.elements import Dropout
    >>> Dropout(0.5).forward({}, np.ones((3, 2)), Run(training=True, seed=1))[0].tolist()
    [[2.0, 2.0], [2.0, 0.0], [2.0, 0.0]]
    >>> Dropout(0.5).forward({}, np.ones((2, 2)), Run(training=True, seed=1, first=1))[0].tolist()
    [[2.0, 0.0], [2.0, 0.0]]
    """

    training: bool = False
    seed: int = 0
    step: int = 0
    node: str = ""
    first: int = 0
    """Index, within the whole batch, of the first example that is passed."""


@dataclass(frozen=True)
class Parameter:
    """What an element asks for: an array of this shape, begun by this rule of ``faltung.initial``.

    >>> from faltung.elements import Conv
    >>> Conv(8, kernel=3).parameters((9, 2))["w"]
    Parameter(shape=(3, 2, 8), rule='glorot', fans=(6, 24))
    """

    shape: tuple[int, ...]
    rule: str = "zeros"
    fans: tuple[int, int] = (1, 1)
    """How many inputs meet in one output, and how many outputs one input reaches."""


class Found(str):
    """Text that an element found from another text of its own, its source; so it is no part of the call."""

    source: str

    def __new__(cls, text: str, source: str = "") -> "Found":
        self = super().__new__(cls, text)
        self.source = source
        return self


class Element(ABC):
    """The base of all function elements: a frozen dataclass of plain settings, and the functions below.

    An element of one's own, and how it is checked:

    >>> @dataclass(frozen=True, repr=False)
    ... class Cube(Element):
    ...     def output(self, *shapes):
    ...         return shapes[0]
    ...
    ...     def forward(self, params, x, run=Run()):
    ...         return x**3, x
    ...
    ...     def error(self, params, kept, dy):
    ...         return dy * 3 * kept**2
    >>> y, kept = Cube().forward({}, np.array([[1.0, -2.0]]))
    >>> y.tolist(), Cube().error({}, kept, np.array([[10.0, 1.0]])).tolist()
    ([[1.0, -8.0]], [[30.0, 12.0]])
    >>> from faltung.check import element_check
    >>> element_check(Cube(), (2,)).passed()
    True
    """

    takes_indices: ClassVar[bool] = False
    """True where the input holds integers that are not converted to the parameters' dtype."""
    linear: ClassVar[bool] = False
    """True where y, less its bias, is linear in x; such elements pass the adjoint check exactly."""

    @property
    def arity(self) -> int | None:
        """Number of inputs; None admits any number from two."""
        return 1

    @abstractmethod
    def output(self, *shapes: Shape) -> Shape:
        """The shape of y from the shapes of the inputs, batch left out; raises ``ShapeError`` where they do not fit."""

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        """The parameters by name, those that have a gradient."""
        return {}

    def state(self, *shapes: Shape) -> dict[str, Parameter]:
        """What lies beside the parameters, has no gradient, and is replaced by ``renew``."""
        return {}

    @abstractmethod
    def forward(self, params: Params, x: Any, run: Run = Run()) -> tuple[Array, Any]:
        """The value y, and what ``error`` and ``gradient`` will need.

        Every array in what is kept has the batch as its first axis, or 1 there: so one example can be cut out of it.
        """

    @abstractmethod
    def error(self, params: Params, kept: Any, dy: Array) -> Any:
        """The error signal at the input.

        Where there are several inputs, a tuple: one for each, None for an input whose values have no influence.
        """

    def gradient(self, params: Params, kept: Any, dy: Array) -> dict[str, Array]:
        """The gradient by each parameter, summed over the batch."""
        return {}

    def renew(self, params: Params, kept: Any) -> dict[str, Array]:
        """The new state after a training step."""
        return {}

    def receptive(self, seen: Sequence[View], shapes: Sequence[Shape]) -> View:
        """What a unit of y sees, from what the units of each input see (whose shapes these are)."""
        return functools.reduce(join, seen)

    def multiplications(self, *shapes: Shape) -> int | None:
        """Multiplications of one example's forward value by parameters; None where an open axis leaves it unknown."""
        return 0

    def admit(self, params: Params, *inputs: Array) -> None:
        """Refuse inputs and parameters whose shapes do not fit; every ``forward`` begins with it."""
        shapes = [x.shape[1:] for x in inputs]
        expected = _expected(self, *shapes)
        for name, parameter in expected.items():
            if name not in params:
                raise NetworkError(
                    f"got the parameters {sorted(params)}, expected {sorted(expected)}",
                    element=self,
                    way_out="make them with network.initial(seed)",
                )
            if params[name].shape != parameter.shape:
                raise ShapeError(
                    f"got {name} of shape {params[name].shape}, expected {parameter.shape} for an input of {shapes[0]}",
                    element=self,
                    way_out="give inputs of the shape that the parameters were made for, or new parameters",
                )

    def admit_indices(self, x: Array) -> None:
        """Refuse indices that are out of range, where the element ``takes_indices``."""
        return

    def __repr__(self) -> str:
        """The call that makes this element, without defaults and what was found; functions go by their names."""
        positional, named = [], []
        for field in fields(self):  # pyright: ignore[reportArgumentType] -- every concrete element is a dataclass
            value = getattr(self, field.name)
            text = getattr(value, "__name__", repr(value))
            left_out = value == field.default or isinstance(value, Found)
            if not field.kw_only:
                positional.append((text, left_out))
            elif not left_out:
                named.append(f"{field.name}={text}")
        while positional and positional[-1][1]:
            positional.pop()
        parts = [text for text, _ in positional] + named
        return f"{type(self).__name__}({', '.join(parts)})"


@functools.lru_cache(maxsize=1024)
def _expected(element: Element, *shapes: Shape) -> dict[str, Parameter]:
    """The parameters and the state for inputs of these shapes, if they fit."""
    element.output(*shapes)
    return element.parameters(*shapes) | element.state(*shapes)


def product(sizes: Iterable[int | None]) -> int | None:
    """The product of sizes; None where one of them is open."""
    known = list(sizes)
    return None if None in known else math.prod(size for size in known if size is not None)


def join(one: View, other: View) -> View:
    """The view of a unit that sees what both see; it varies where the branches drift apart.

    >>> near, far, halved = (through((Field(),), [window], [8]) for window in (Window(2), Window(5), Window(2, 2)))
    >>> [field.size for field in join(near, far)], join(near, halved), join(near, "all")
    ([5], 'varies', 'all')
    """
    if "all" in (one, other):
        return "all"
    if isinstance(one, str) or isinstance(other, str):
        return "varies"
    if [field.jump for field in one] != [field.jump for field in other]:
        return "varies"
    return tuple(a.join(b) for a, b in zip(one, other, strict=True))


def through(seen: View, windows: Sequence[Window], sizes: Sequence[int | None]) -> View:
    """The view of a unit that looks through one window an axis, at axes of these sizes."""
    if isinstance(seen, str):
        return seen
    return tuple(field.through(window, size) for field, window, size in zip(seen, windows, sizes, strict=False))


def varied(*seen: View) -> View:
    """The view of units each of which looks elsewhere, or through a window of its own."""
    return "all" if all(view in ("all", ()) for view in seen) else "varies"


def example(kept: Any, n: int) -> Any:
    """What was kept, cut down to example n (see ``Element.forward`` for the rule that makes this possible).

    >>> example((np.array([[1, 2], [3, 4]]), np.array([[5, 6]]), 7), 1)
    (array([[3, 4]]), array([[5, 6]]), 7)
    """
    if isinstance(kept, np.ndarray):
        return kept if kept.ndim == 0 or kept.shape[0] == 1 else kept[n : n + 1]
    if isinstance(kept, tuple):
        return tuple(example(part, n) for part in kept)
    return kept
