"""How a message is composed: where it happened, what was got and expected, and the way out.

Every error that Faltung raises on purpose is a ``FaltungError``. An element does not know the name of its node;
whoever does wraps the call in ``at(node)``, and the message then begins with both:

>>> from faltung.errors import ShapeError, at
>>> with at("conv1"):
...     raise ShapeError("the kernel spans 9, the input 5", element="Conv(20, kernel=9)", way_out="use padding >= 2")
Traceback (most recent call last):
    ...
faltung.errors.ShapeError: Conv(20, kernel=9) 'conv1': the kernel spans 9, the input 5; use padding >= 2
"""

from contextvars import ContextVar
from typing import Any


class FaltungError(Exception):
    """What went wrong, at which element of which node, and the way out."""

    def __init__(self, problem: str, *, element: object = None, way_out: str | None = None):
        super().__init__(problem)
        self.problem = problem
        self.element = element
        self.node: str | None = None
        self.way_out = way_out

    def __str__(self) -> str:
        where = [] if self.element is None else [str(self.element)]
        where += [] if self.node is None else [repr(self.node)]
        message = f"{' '.join(where)}: {self.problem}" if where else self.problem
        return message if self.way_out is None else f"{message}; {self.way_out}"


class ShapeError(FaltungError, ValueError):
    """Sizes that do not fit each other."""


class SettingError(FaltungError, ValueError):
    """An argument outside its range or of the wrong kind."""


class NetworkError(FaltungError, ValueError):
    """Nodes that do not compose: unknown or repeated names, a cycle, parameters that are missing."""


class FormulaError(FaltungError, ValueError):
    """A formula that the grammar does not admit, or that cannot be differentiated."""


class NonFiniteError(FaltungError, ArithmeticError):
    """NaN or infinity, and the node at which it first appeared."""


class DataError(FaltungError, ValueError):
    """A data file that is missing, damaged or of an unexpected content."""


class FileError(FaltungError, OSError):
    """A file that cannot be written."""


class ModelFileError(FaltungError, ValueError):
    """A model file or checkpoint that is damaged, of a newer version, or cannot be written."""


class EngineError(FaltungError, RuntimeError):
    """Compiled code that cannot run on this system, or a kernel that reaches outside its buffers."""


class MissingExtraError(FaltungError, ImportError):
    """An optional dependency that is not installed."""


class at:  # noqa: N801 -- reads as a word: with at("conv1")
    """Name the node in every ``FaltungError`` that passes through; the innermost name stays."""

    __slots__ = ("_before", "_name")

    def __init__(self, node: str):
        self._name = node

    def __enter__(self) -> None:
        self._before = _node.set(self._name)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FaltungError) and error.node is None:
            error.node = self._name
        _node.reset(self._before)


_node: ContextVar[str] = ContextVar("node", default="")


def node() -> str:
    """The innermost node that is named at the moment, or ""."""
    return _node.get()
