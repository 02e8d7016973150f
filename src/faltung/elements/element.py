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
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from faltung.errors import NetworkError, ShapeError
from faltung.geometry import Window
from faltung.receptive import Field

Array = NDArray[Any]
Shape = tuple[int | None, ...]
"""Sizes without the batch; None is an axis of any size."""
Params = Mapping[str, Array]
Fields = tuple[Field, ...]
"""What a unit sees of the network's input, axis by axis."""
Seen = Sequence[Fields | None]
"""The fields of several inputs; None where every unit sees the whole input of the network."""


@dataclass(frozen=True)
class Run:
    """Under which circumstances a forward pass runs.

    Random masks are a function of (seed, step, node, example), so the same bits come for any blocking of the batch.
    """

    training: bool = False
    seed: int = 0
    step: int = 0
    node: str = ""
    first: int = 0
    """Index, within the whole batch, of the first example that is passed."""


@dataclass(frozen=True)
class Parameter:
    """What an element asks for: an array of this shape, begun by this rule of ``faltung.initial``."""

    shape: tuple[int, ...]
    rule: str = "zeros"
    fans: tuple[int, int] = (1, 1)
    """How many inputs meet in one output, and how many outputs one input reaches."""


class Element(ABC):
    """The base of all function elements."""

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

    def receptive(self, seen: Seen, shapes: Sequence[Shape]) -> Fields | None:
        """What a unit of y sees, from what the units of each input see (whose shapes these are)."""
        return functools.reduce(join, seen)

    def multiplications(self, *shapes: Shape) -> int | None:
        """Multiplications of one example's forward value by parameters; None where an open axis leaves it unknown."""
        return 0

    def admit(self, params: Params, *inputs: Array) -> None:
        """Refuse inputs and parameters whose shapes do not fit; every ``forward`` begins with it."""
        shapes = tuple(x.shape[1:] for x in inputs)
        self.output(*shapes)
        expected = self.parameters(*shapes) | self.state(*shapes)
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

    def __repr__(self) -> str:
        """The call that makes this element, defaults left out."""
        positional, named = [], []
        for field in fields(self):  # pyright: ignore[reportArgumentType] -- every concrete element is a dataclass
            value = getattr(self, field.name)
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            if not field.kw_only:
                positional.append((repr(value), value == default))
            elif value != default:
                named.append(f"{field.name}={value!r}")
        while positional and positional[-1][1]:
            positional.pop()
        parts = [text for text, _ in positional] + named
        return f"{type(self).__name__}({', '.join(parts)})"


def product(sizes: Iterable[int | None]) -> int | None:
    """The product of sizes; None where one of them is open."""
    known = list(sizes)
    return None if None in known else math.prod(size for size in known if size is not None)


def join(one: Fields | None, other: Fields | None) -> Fields | None:
    """The fields of a unit that sees what both see."""
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(a.join(b) for a, b in zip(one, other, strict=True))


def through(seen: Fields | None, windows: Sequence[Window], sizes: Sequence[int | None]) -> Fields | None:
    """The fields of a unit that looks through one window an axis, at axes of these sizes."""
    axes = zip(seen or (), windows, sizes, strict=False)
    return None if seen is None else tuple(field.through(window, size) for field, window, size in axes)


def example(kept: Any, n: int) -> Any:
    """What was kept, cut down to example n (see ``Element.forward`` for the rule that makes this possible)."""
    if isinstance(kept, np.ndarray):
        return kept if kept.ndim == 0 or kept.shape[0] == 1 else kept[n : n + 1]
    if isinstance(kept, tuple):
        return tuple(example(part, n) for part in kept)
    return kept
