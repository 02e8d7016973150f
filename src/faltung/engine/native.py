"""The native executor: every element that has compiled kernels by these, and the others by their NumPy definitions.

LLVM is loaded when the first network runs. Where it is missing, or the system refuses memory for machine code, no
element has kernels: the definitions do everything, after one warning.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from faltung.elements.costs import Cost
from faltung.elements.element import Array, Element, Params, Run
from faltung.engine.lower import Lowering, lowerings
from faltung.errors import EngineError
from faltung.network.layerwise import Layerwise
from faltung.network.reference import Definitions

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
"""What kernels compute with; numbers of another kind are left to the definitions."""


@dataclass(frozen=True)
class Kernels:
    """The elements' functions, compiled where there is a lowering; see ``faltung.network.layerwise.Functions``."""

    definitions: ClassVar[Definitions] = Definitions()

    def step(self) -> AbstractContextManager[None]:
        return _compiled()[0]()

    def forward(self, element: Element, params: Params, x: Any, run: Run) -> tuple[Array, Any]:
        inputs = x if isinstance(x, tuple) else (x,)
        numbers = (array for array in (*inputs, *params.values()) if array.dtype.kind == "f")
        return self._functions(element, *numbers).forward(element, params, x, run)

    def error(self, element: Element, params: Params, kept: Any, dy: Array) -> Any:
        return self._functions(element, dy).error(element, params, kept, dy)

    def gradient(self, element: Element, params: Params, kept: Any, dy: Array) -> dict[str, Array]:
        return self._functions(element, dy).gradient(element, params, kept, dy)

    def cost(self, cost: Cost, y: Array, target: Array, weight: Any) -> tuple[float, Array]:
        lowering = _lowering(cost, y)
        if lowering is None:
            return self.definitions.cost(cost, y, target, weight)
        J, kept = lowering.forward(cost, y, target, weight)
        return J, lowering.error(cost, kept)

    def _functions(self, element: Element, *numbers: Array) -> Any:
        return _lowering(element, *numbers) or self.definitions


def _lowering(element: Element | Cost, *numbers: Array) -> Lowering | None:
    """The lowering of an element or cost, if it has one for such numbers."""
    return _compiled()[1].get(type(element)) if all(array.dtype in FLOATS for array in numbers) else None


@cache
def _compiled() -> tuple[Callable[[], AbstractContextManager[None]], Mapping[type, Lowering]]:
    """What a step stands in, and all lowerings."""
    try:
        from faltung.engine.modes import flushed

        with flushed():  # the first machine code
            return flushed, lowerings()
    except EngineError as error:
        problem = str(error)
    except ImportError as error:
        if (error.name or "").split(".")[0] != "llvmlite":
            raise
        problem = f"llvmlite cannot be imported ({error})"
    warnings.warn(f"{problem}; networks run on the reference executor", RuntimeWarning, stacklevel=2)
    return nullcontext, {}


def native() -> Layerwise:
    """The executor of this name."""
    return Layerwise(Kernels())
