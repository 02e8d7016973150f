"""Elements and costs on compiled kernels, one after the other; what has none runs by its NumPy definition.

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
from faltung.elements.joins import Sum
from faltung.engine.lower import Lowering, lowerings
from faltung.errors import EngineError
from faltung.network.reference import Definitions

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
"""What kernels compute with; numbers of another kind are left to the definitions."""
SUM = Sum()


@dataclass(frozen=True)
class Kernels:
    """See ``faltung.network.layerwise.Functions``."""

    definitions: ClassVar[Definitions] = Definitions()

    def step(self) -> AbstractContextManager[None]:
        return compiled()[0]()

    def forward(self, element: Element, params: Params, x: Any, run: Run) -> tuple[Array, Any]:
        inputs = x if isinstance(x, tuple) else (x,)
        numbers = (array for array in (*inputs, *params.values()) if array.dtype.kind == "f")
        return self.functions(element, *numbers).forward(element, params, x, run)

    def error(self, element: Element, params: Params, kept: Any, dy: Array) -> Any:
        return self.functions(element, dy).error(element, params, kept, dy)

    def backward(
        self, element: Element, params: Params, kept: Any, dy: Array, *, error: bool
    ) -> tuple[Any, dict[str, Array]]:
        lowered = lowering(element, dy)
        if lowered is None:
            return self.definitions.backward(element, params, kept, dy, error=error)
        if lowered.backward is not None and error:
            return lowered.backward(element, params, kept, dy)
        dx = lowered.error(element, params, kept, dy) if error else None
        return dx, lowered.gradient(element, params, kept, dy) if lowered.gradient else {}

    def renew(self, element: Element, params: Params, kept: Any) -> dict[str, Array]:
        lowered = lowering(element, *params.values())
        if lowered is None or lowered.renew is None:
            return element.renew(params, kept)
        return lowered.renew(element, params, kept)

    def add(self, a: Array, b: Array) -> Array:
        lowered = lowering(SUM, a, b)
        return a + b if lowered is None else lowered.forward(SUM, {}, (a, b))[0]

    def cost(self, cost: Cost, y: Array, target: Array, weight: Any) -> tuple[float, Array]:
        lowered = lowering(cost, y)
        if lowered is None:
            return self.definitions.cost(cost, y, target, weight)
        J, kept = lowered.forward(cost, y, target, weight)
        return J, lowered.error(cost, kept)

    def functions(self, element: Element, *numbers: Array) -> Any:
        """What has the three functions of an element on such numbers."""
        return lowering(element, *numbers) or self.definitions


def lowering(element: Element | Cost, *numbers: Array) -> Lowering | None:
    """The lowering of an element or cost, if it has one for such numbers."""
    return compiled()[1].get(type(element)) if all(array.dtype in FLOATS for array in numbers) else None


@cache
def compiled() -> tuple[Callable[[], AbstractContextManager[None]], Mapping[type, Lowering]]:
    """What a step stands in, and all lowerings; none where there is no compiled code."""
    try:
        from faltung.engine.host.modes import flushed

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
