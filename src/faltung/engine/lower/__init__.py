"""From elements to kernels: the one place that knows both.

One module a family of elements. For each element it gives the same three functions that the element has, on compiled
kernels: ``forward(element, params, x, run) -> (y, kept)``, ``error(element, params, kept, dy)`` and
``gradient(element, params, kept, dy)``; a table ``LOWERINGS`` says which functions belong to which element. They are
given float32 or float64. What they keep may differ from what the element would, but has the batch (or 1) as its first
axis too, and the element's own ``renew`` understands it. An element without an entry runs by its NumPy definition.

Where all follows from sizes, a function is ``ready``: for arrays like those of an earlier call it is a small program.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, NamedTuple


class Lowering(NamedTuple):
    """The functions of one element on compiled kernels; a cost has no gradient."""

    forward: Callable[..., Any]
    error: Callable[..., Any]
    gradient: Callable[..., Any] | None = None
    backward: Callable[..., Any] | None = None
    """Error and gradients at once, where they share work."""
    renew: Callable[..., Any] | None = None


@cache
def lowerings() -> Mapping[type, Lowering]:
    """The lowerings of all families, by the type of element or cost; the first call loads their modules, and LLVM."""
    families = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    tables = [getattr(family, "LOWERINGS", {}) for family in families]
    return {element: Lowering(*functions) for table in tables for element, functions in table.items()}
