"""The reference executor: every element by its NumPy definition. It is the law for every other executor."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from faltung.elements.costs import Cost
from faltung.elements.element import Array, Element, Params, Run
from faltung.network.layerwise import Layerwise


@dataclass(frozen=True)
class Definitions:
    """The elements' own functions; see ``faltung.network.layerwise.Functions``."""

    def step(self) -> nullcontext[None]:
        return nullcontext()

    def forward(self, element: Element, params: Params, x: Any, run: Run) -> tuple[Array, Any]:
        return element.forward(params, x, run)

    def error(self, element: Element, params: Params, kept: Any, dy: Array) -> Any:
        return element.error(params, kept, dy)

    def backward(
        self, element: Element, params: Params, kept: Any, dy: Array, *, error: bool
    ) -> tuple[Any, dict[str, Array]]:
        dx = element.error(params, kept, dy) if error else None
        return dx, element.gradient(params, kept, dy)

    def renew(self, element: Element, params: Params, kept: Any) -> dict[str, Array]:
        return element.renew(params, kept)

    def add(self, a: Array, b: Array) -> Array:
        return a + b

    def cost(self, cost: Cost, y: Array, target: Array, weight: Any) -> tuple[float, Array]:
        value, kept = cost.forward(y, target, weight)
        return value, cost.error(kept)


def reference() -> Layerwise:
    """The executor of this name."""
    return Layerwise(Definitions())
