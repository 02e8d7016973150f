"""The loop language: the few statements in which every kernel is written.

A ``Function`` is a list of ``statements`` over typed values: numbers, vectors of numbers, and pointers. It knows no
machine: a vector has as many lanes as its writer asked for. What can be computed is listed in ``operations``. Three
readers share the language, each in a file of its own: ``interpreter`` defines what it means, ``printer`` writes it
legibly, ``llvm`` translates it.

A function is written by running Python. Operators on values append statements; ``with f.loop(...)`` nests them.

>>> from faltung.engine.loops.printer import text
>>> f = Function("axpy", a=F32, x=pointer(F32), y=pointer(F32), count=INDEX)
>>> a, x, y, count = f.arguments
>>> with f.loop("i", count, step=16) as i:
...     mask = f.first_lanes(count - i, 16)
...     f.store(f.fma(a, f.load(x, i, 16, mask), f.load(y, i, 16, mask)), y, i, mask)
>>> print(text(f))
axpy(a: f32, x: f32*, y: f32*, count: index)
    for i in 0 .. count step 16
        mask = first_lanes(count - i, 16)
        y[i : i + 16] = fma(a, x[i : i + 16] where mask, y[i : i + 16] where mask) where mask

Kernel writers who break a rule of types get a TypeError, here, where they write it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from faltung.engine.loops.operations import CONVERSIONS, OPERATIONS
from faltung.engine.loops.statements import (
    BOOL,
    F32,
    F64,
    I8,
    I32,
    I64,
    INDEX,
    Await,
    Call,
    Constant,
    If,
    Let,
    Load,
    Loop,
    Prefetch,
    Statement,
    Store,
    Take,
    Tell,
    Type,
    Value,
    Variable,
    pointer,
)

__all__ = [
    "BOOL",
    "F32",
    "F64",
    "I8",
    "I32",
    "I64",
    "INDEX",
    "Constant",
    "Function",
    "Type",
    "Value",
    "Variable",
    "pointer",
]


class Function:
    """A function under construction, and afterwards the list of its statements.

    It gives nothing back but what it stores. Pointers may point to the same numbers: statements run in their order.
    """

    def __init__(self, name: str, /, **arguments: Type):
        self.name = name
        self._count: dict[str, int] = {}
        self.arguments = tuple(self.fresh(kind, argument) for argument, kind in arguments.items())
        self.body: list[Statement] = []
        self.variables: list[Variable] = []
        self._open = [self.body]

    def unique(self, name: str) -> str:
        """The name itself; or, where it is taken, with a number."""
        name = name.split(".")[0]
        number = self._count[name] = self._count.get(name, -1) + 1
        return f"{name}.{number}" if number else name

    def fresh(self, kind: Type, name: str) -> Value:
        """A new value, under a name of its own."""
        return Value(self, kind, self.unique(name))

    def append(self, statement: Any) -> Any:
        """Add a statement at the place where the function is being written."""
        self._open[-1].append(statement)
        return statement

    def constant(self, number: float, kind: Type = INDEX) -> Constant:
        """A number as a value of this type."""
        if kind.pointer or not (kind.floating or number == int(number)):
            raise TypeError(f"{number} as {kind}")
        return Constant(self, kind, "", number)

    def lift(self, value: Any, kind: Type) -> Value:
        """The value as one of this type: Python numbers become constants, single numbers vectors."""
        if not isinstance(value, Value):
            return self.constant(value, kind)
        if value.type.lanes != kind.lanes:
            value = self.broadcast(value, kind.lanes)
        if value.type != kind:
            raise TypeError(f"{self.name}: got {value.name} of type {value.type}, expected {kind}")
        return value

    def _alike(self, op: str, operands: Sequence[Any]) -> list[Value]:
        """The operands as values of one type; numbers alone are indices."""
        types = [value.type for value in operands if isinstance(value, Value)] or [INDEX]
        if any(kind.pointer or kind.kind != types[0].kind for kind in types):
            raise TypeError(f"{self.name}: {op} of {', '.join(map(str, types))}")
        return [self.lift(value, types[0].times(max(kind.lanes for kind in types))) for value in operands]

    # ------------------------------------------------------------------------------------------------- operations

    def op(self, op: str, *operands: Any, name: str = "") -> Value:
        """The result of one of ``OPERATIONS``; on index constants it is known at once."""
        if op == "select":
            return self.select(*operands)
        values = self._alike(op, operands)
        if OPERATIONS[op].text(values[0].type.floating) is None:
            raise TypeError(f"{self.name}: {op} of {values[0].type}")
        if (known := _known(op, values)) is not None:
            return known
        kind = BOOL.times(values[0].type.lanes) if OPERATIONS[op].compares else values[0].type
        return self._let(kind, op, *values, name=name)

    def _let(self, kind: Type, op: str, *arguments: Value, name: str = "", lanes: Sequence[int] = ()) -> Value:
        return self.append(Let(self.fresh(kind, name or op), op, arguments, tuple(lanes))).value

    def fma(self, a: Any, b: Any, c: Any) -> Value:
        """a * b + c, rounded once (twice on a machine without the instruction)."""
        return self.op("fma", a, b, c)

    def min(self, a: Any, b: Any) -> Value:
        """The smaller one; b where one is NaN."""
        return self.op("min", a, b)

    def max(self, a: Any, b: Any) -> Value:
        """The larger one; b where one is NaN."""
        return self.op("max", a, b)

    def select(self, condition: Value, a: Any, b: Any) -> Value:
        """Lane by lane, a where the condition holds, else b."""
        a, b = self._alike("select", (a, b))
        lanes = max(condition.type.lanes, a.type.lanes)
        values = (self.lift(value, value.type.times(lanes)) for value in (condition, a, b))
        return self._let(a.type.times(lanes), "select", *values)

    def broadcast(self, value: Value, lanes: int) -> Value:
        """The same number in every lane."""
        if value.type.lanes == lanes:
            return value
        if value.type.lanes > 1 or value.type.pointer:
            raise TypeError(f"{self.name}: broadcast of {value.type}")
        if isinstance(value, Constant):
            return self.constant(value.number, value.type.times(lanes))
        return self._let(value.type.times(lanes), "broadcast", value, name=value.name.split(".")[0] + "_all")

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """The lanes with these numbers, counted through the vectors a and then b; one lane gives a single number."""
        if a.type.lanes == 1 or a.type != b.type or not all(0 <= lane < 2 * a.type.lanes for lane in lanes):
            raise TypeError(f"{self.name}: lanes {list(lanes)} of {a.type} and {b.type}")
        return self._let(a.type.times(len(lanes)), "shuffle", a, b, lanes=lanes)

    def sum_lanes(self, value: Value) -> Value:
        """The sum of all lanes (a power of 2): the upper half is added to the lower one, until one lane is left."""
        return self._halve("add", value)

    def max_lanes(self, value: Value) -> Value:
        """The largest lane (of a power of 2), in the order of ``sum_lanes``."""
        return self._halve("max", value)

    def _halve(self, op: str, value: Value) -> Value:
        if value.type.lanes.bit_count() > 1:
            raise TypeError(f"{self.name}: {op} of the halves of {value.type}")
        while (lanes := value.type.lanes) > 1:
            low, high = (self.shuffle(value, value, range(first, first + lanes // 2)) for first in (0, lanes // 2))
            value = self.op(op, low, high)
        return value

    def convert(self, op: str, value: Value, kind: Type) -> Value:
        """One of ``CONVERSIONS``, to numbers (or, from a word of an argument block, a place) of this type."""
        text = CONVERSIONS[op].text(value.type.floating)
        if text is None or value.type.pointer or BOOL.kind in (value.type.kind, kind.kind):
            raise TypeError(f"{self.name}: {op} of {value.type} to {kind}")
        return self._let(kind if kind.pointer else kind.times(value.type.lanes), op, value)

    def first_lanes(self, count: Any, lanes: int) -> Value:
        """A mask that holds in the first ``count`` lanes: in none from 0 down, in all from ``lanes`` up."""
        return self._let(BOOL.times(lanes), "first_lanes", self.lift(count, INDEX), name="mask")

    # ---------------------------------------------------------------------------------------------------- memory

    def at(self, base: Value, offset: Any, name: str = "") -> Value:
        """The place ``offset`` numbers after ``base``."""
        offset = self.lift(offset, INDEX)
        if isinstance(offset, Constant) and offset.number == 0:
            return base
        return self._let(base.type, "at", base, offset, name=name or base.name)

    def load(self, base: Value, offset: Any = 0, lanes: int = 1, mask: Value | None = None, name: str = "") -> Value:
        """The numbers from base[offset] on; 0, and nothing is read, in lanes outside the mask."""
        result = self.fresh(self._numbers(base, lanes, mask), name or base.name + "v")
        return self.append(Load(result, base, self.lift(offset, INDEX), mask)).value

    def store(
        self, value: Any, base: Value, offset: Any = 0, mask: Value | None = None, streamed: bool = False
    ) -> None:
        """base[offset ...] = value, in the lanes of the mask, or all of them ``streamed`` past the caches."""
        lanes = next((v.type.lanes for v in (mask, value) if isinstance(v, Value)), 1)
        value = self.lift(value, self._numbers(base, lanes, mask))
        self.append(Store(value, base, self.lift(offset, INDEX), mask, streamed and mask is None))

    def take(self, counter: Value, count: int = 1, offset: Any = 0, name: str = "taken") -> Value:
        """The number at this place, which then grows by ``count``: no two threads get the same."""
        kind = self._numbers(counter, 1, None)
        taken = Take(self.fresh(kind, name), counter, self.lift(offset, INDEX), self.lift(count, kind))
        return self.append(taken).value

    def tell(self, value: Any, place: Value, offset: Any = 0) -> None:
        """place[offset] = value, for another thread that waits for it."""
        self.append(Tell(self.lift(value, self._numbers(place, 1, None)), place, self.lift(offset, INDEX)))

    def wait(self, value: Any, place: Value, offset: Any, pause: Value, system: Value) -> None:
        """Wait until place[offset] >= value, which another thread tells; the last two are as in ``Await``."""
        least = self.lift(value, self._numbers(place, 1, None))
        self.append(Await(least, place, self.lift(offset, INDEX), pause, system))

    def prefetch(self, base: Value, offset: Any = 0) -> None:
        """Say that the numbers around base[offset] will be read soon; it may lie outside of all memory."""
        self._numbers(base, 1, None)
        self.append(Prefetch(base, self.lift(offset, INDEX)))

    def _numbers(self, base: Value, lanes: int, mask: Value | None) -> Type:
        """The type of so many numbers at a place."""
        fits = mask is None or (mask.type == BOOL.times(lanes) and lanes > 1)
        if not base.type.pointer or base.type.kind == "bool" or not fits:
            masked = "" if mask is None else f", mask {mask.type}"
            raise TypeError(f"{self.name}: {lanes} lanes at {base.type}{masked}")
        return Type(base.type.kind, lanes)

    def variable(self, name: str, start: Value | float, kind: Type | None = None) -> Variable:
        """A register that loops carry on, with its first value."""
        kind = kind or (start.type if isinstance(start, Value) else INDEX)
        variable = Variable(self, kind, self.unique(name))
        self.variables.append(variable)
        variable.set(start)
        return variable

    # ---------------------------------------------------------------------------------------------------- control

    @contextmanager
    def loop(self, name: str, stop: Any, start: Any = 0, step: int = 1) -> Iterator[Value]:
        """For name = start, start + step, ... below stop. What is known to run once, or never, is written without."""
        start, stop = self.lift(start, INDEX), self.lift(stop, INDEX)
        if isinstance(start, Constant) and isinstance(stop, Constant) and stop.number - start.number <= step:
            with self._writing(self._open[-1] if start.number < stop.number else []):
                yield start
            return
        loop = self.append(Loop(self.fresh(INDEX, name), start, stop, step, []))
        with self._writing(loop.body):
            yield loop.index

    @contextmanager
    def where(self, condition: Value) -> Iterator[None]:
        """Where the condition holds. What is known to hold, or not to, is written without asking."""
        if isinstance(condition, Constant):
            body = self._open[-1] if condition.number else []
        else:
            body = self.append(If(self.lift(condition, BOOL), [])).body
        with self._writing(body):
            yield

    @contextmanager
    def _writing(self, body: list[Statement]) -> Iterator[None]:
        self._open.append(body)
        yield
        self._open.pop()

    def call(self, function: Function, *arguments: Any) -> None:
        """Run another function."""
        lifted = [self.lift(a, parameter.type) for a, parameter in zip(arguments, function.arguments, strict=True)]
        self.append(Call(function, tuple(lifted)))


def _known(op: str, values: Sequence[Value]) -> Value | None:
    """The answer of an index operation that is known already: on constants, and by 0 and 1."""
    first, last = values[0], values[-1]
    if first.type != INDEX:
        return None
    numbers = [value.number if isinstance(value, Constant) else None for value in values]
    if None not in numbers:
        answer = OPERATIONS[op].meaning(*(np.array([number], INDEX.dtype) for number in numbers))[0]
        return first.function.constant(answer.item(), BOOL if OPERATIONS[op].compares else INDEX)
    match op, *numbers:
        case ("add", 0, _) | ("mul", 1, _):
            return last
        case ("add" | "sub", _, 0) | ("mul" | "quotient", _, 1):
            return first
        case ("mul", 0, _) | ("mul", _, 0) | ("remainder", _, 1):
            return first.function.constant(0)
    return None
