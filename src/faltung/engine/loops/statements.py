"""What a function of the loop language consists of: types, values, and the statements that give or use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from faltung.engine.loops.language import Function

DTYPES = {
    "f32": np.float32,
    "f64": np.float64,
    "i8": np.int8,
    "i32": np.int32,
    "i64": np.int64,
    "index": np.int64,
    "bool": np.bool_,
}


@dataclass(frozen=True)
class Type:
    """A number, a vector of ``lanes`` numbers, or (with ``pointer``) the place of such numbers in memory."""

    kind: str
    lanes: int = 1
    pointer: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of one number, in NumPy."""
        return np.dtype(DTYPES[self.kind])

    @property
    def size(self) -> int:
        """Bytes of one number."""
        return self.dtype.itemsize

    @property
    def floating(self) -> bool:
        """Is it a floating number, or a vector of them?"""
        return self.kind in ("f32", "f64") and not self.pointer

    def times(self, lanes: int) -> Type:
        """The vector of so many of these numbers."""
        return Type(self.kind, lanes)

    def __str__(self) -> str:
        return self.kind + (f"x{self.lanes}" if self.lanes > 1 else "") + "*" * self.pointer


F32, F64, I8, I32, I64, INDEX, BOOL = map(Type, DTYPES)


def pointer(to: Type) -> Type:
    """The type of a place where numbers of this type lie."""
    return Type(to.kind, pointer=True)


def _infix(op: str) -> tuple[Callable[[Value, Any], Value], Callable[[Value, Any], Value]]:
    """The methods for ``value op other`` and ``other op value``."""
    return (
        lambda value, other: value.function.op(op, value, other),
        lambda value, other: value.function.op(op, other, value),
    )


@dataclass(eq=False)
class Value:
    """What a statement gives; operators on it append statements to its function."""

    function: Function = field(repr=False)
    type: Type
    name: str

    __add__, __radd__ = _infix("add")
    __sub__, __rsub__ = _infix("sub")
    __mul__, __rmul__ = _infix("mul")
    __truediv__, __rtruediv__ = _infix("div")
    __floordiv__, __rfloordiv__ = _infix("quotient")
    __mod__, __rmod__ = _infix("remainder")
    __and__, __rand__ = _infix("and")
    __or__, __ror__ = _infix("or")
    __xor__, __rxor__ = _infix("xor")
    __lshift__, __rlshift__ = _infix("shift")
    __rshift__, __rrshift__ = _infix("shift_right")
    __lt__, __gt__ = _infix("less")
    __le__, __ge__ = _infix("less_equal")
    equal = _infix("equal")[0]
    not_equal = _infix("not_equal")[0]

    def __neg__(self) -> Value:
        return self.function.op("negate", self)

    def __bool__(self) -> bool:
        raise TypeError(f"{self.function.name}: a value has no truth yet when it is written; use where or select")

    def named(self, name: str) -> Value:
        """Itself, under another name in all that is printed."""
        if not isinstance(self, Constant):
            self.name = self.function.unique(name)
        return self


@dataclass(eq=False)
class Constant(Value):
    """A number known when the function is written; the same in every lane."""

    number: float | bool


@dataclass(eq=False)
class Variable:
    """A register that keeps its value around a loop, such as an accumulator; ``value`` reads it, ``set`` writes it."""

    function: Function = field(repr=False)
    type: Type
    name: str

    @property
    def value(self) -> Value:
        """What the variable holds now."""
        return self.function.append(Get(self.function.fresh(self.type, self.name), self)).value

    def set(self, value: Any) -> None:
        """Give it another value."""
        self.function.append(Set(self, self.function.lift(value, self.type)))


@dataclass(frozen=True, eq=False)
class Let:
    """value = op(arguments); ``lanes`` are those that a shuffle picks."""

    value: Value
    op: str
    arguments: tuple[Value, ...]
    lanes: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Load:
    """value = the lanes from pointer[offset] on; lanes outside the mask are 0 and not read."""

    value: Value
    pointer: Value
    offset: Value
    mask: Value | None


@dataclass(frozen=True, eq=False)
class Store:
    """pointer[offset ...] = value, in the lanes of the mask."""

    value: Value
    pointer: Value
    offset: Value
    mask: Value | None
    streamed: bool = False
    """Past the caches: nobody will read it soon. It begins where so many bytes divide the address."""


@dataclass(frozen=True, eq=False)
class Take:
    """value = pointer[offset], which then grows by count; no other thread sees the moment between."""

    value: Value
    pointer: Value
    offset: Value
    count: Value


@dataclass(frozen=True, eq=False)
class Tell:
    """pointer[offset] = value; who sees it in ``Await`` sees all that was stored before, too."""

    value: Value
    pointer: Value
    offset: Value


@dataclass(frozen=True, eq=False)
class Await:
    """Go on when another thread has told that pointer[offset] >= value.

    Each look that was in vain is followed by ``pause(their number, system)``, a function as in ``dispatch``.
    """

    value: Value
    pointer: Value
    offset: Value
    pause: Value
    system: Value


@dataclass(frozen=True, eq=False)
class Prefetch:
    """The numbers around pointer[offset] will be read soon; nothing else happens, even where there is no memory."""

    pointer: Value
    offset: Value


@dataclass(frozen=True, eq=False)
class Get:
    """value = what the variable holds."""

    value: Value
    variable: Variable


@dataclass(frozen=True, eq=False)
class Set:
    """variable = value."""

    variable: Variable
    value: Value


@dataclass(frozen=True, eq=False)
class Loop:
    """For index = start, start + step, ... below stop: the body."""

    index: Value
    start: Value
    stop: Value
    step: int
    body: list[Statement]


@dataclass(frozen=True, eq=False)
class If:
    """The body, where the condition holds."""

    condition: Value
    body: list[Statement]


@dataclass(frozen=True, eq=False)
class Call:
    """Another function, with these arguments."""

    function: Function
    arguments: tuple[Value, ...]


Statement = Let | Load | Store | Take | Tell | Await | Prefetch | Get | Set | Loop | If | Call
