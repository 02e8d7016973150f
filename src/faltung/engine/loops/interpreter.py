"""What the loop language means: a function run statement by statement in Python and NumPy.

It is slow and strict. Compiled code agrees with it bit for bit, and where compiled code would read or write outside its
buffers, it raises.

>>> import numpy as np
>>> from faltung.engine.loops.language import F32, INDEX, Function, pointer
>>> f = Function("sum", x=pointer(F32), y=pointer(F32), count=INDEX)
>>> x, y, count = f.arguments
>>> total = f.variable("total", 0.0, F32)
>>> with f.loop("i", count) as i:
...     total.set(total.value + f.load(x, i))
>>> f.store(total.value, y)
>>> numbers, answer = np.arange(5, dtype=np.float32), np.full(1, np.nan, np.float32)
>>> run(f, numbers, answer, 5)
>>> answer.tolist()
[10.0]
>>> run(f, numbers, answer, 6)
Traceback (most recent call last):
    ...
faltung.errors.EngineError: sum: xv = x[i]: got the numbers 5 .. 6, expected some of 0 .. 5
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.loops.language import Constant, Function, Type, Value, Variable
from faltung.engine.loops.operations import CONVERSIONS, OPERATIONS
from faltung.engine.loops.printer import line
from faltung.engine.loops.statements import (
    Await,
    Call,
    Get,
    If,
    Let,
    Load,
    Loop,
    Prefetch,
    Set,
    Statement,
    Store,
    Take,
    Tell,
)
from faltung.errors import EngineError

Place = tuple[NDArray[Any], int]
"""Memory, and the number in it to which a pointer points."""


def run(function: Function, *arguments: Any, fused: bool = True) -> None:
    """Run it. A pointer is an array of one axis, or (array, offset); an argument block a list of arrays and numbers.

    ``fused`` is that of the machine: does ``fma`` round once?
    Raises: EngineError, naming the statement, where a function reaches outside an array, divides by 0,
    or waits for another thread.
    """
    values = [_argument(a, parameter.type) for a, parameter in zip(arguments, function.arguments, strict=True)]
    with np.errstate(all="ignore"):
        _Frame(function, values, fused)


def _argument(argument: Any, kind: Type) -> Any:
    """A place, or the lanes of a number."""
    if not kind.pointer:
        return np.full(kind.lanes, argument, kind.dtype)
    memory, offset = argument if isinstance(argument, tuple) else (argument, 0)
    if isinstance(memory, list):  # an argument block
        block = np.empty(len(memory), object)
        for number, word in enumerate(memory):
            block[number] = (word, 0) if isinstance(word, np.ndarray) else np.array([word])
        memory = block
    elif memory.dtype != kind.dtype or memory.ndim != 1:
        raise TypeError(f"got an array of {memory.dtype} with {memory.ndim} axes, expected {kind.dtype} with 1")
    return memory, offset


class _Frame:
    """One run of one function: the values of its statements so far."""

    def __init__(self, function: Function, arguments: Sequence[Any], fused: bool):
        self._function, self._fused = function, fused
        self._values: dict[Value | Variable, Any] = dict(zip(function.arguments, arguments, strict=True))
        self._block(function.body)

    def __getitem__(self, value: Value) -> Any:
        if isinstance(value, Constant):
            return np.full(value.type.lanes, value.number, value.type.dtype)
        return self._values[value]

    def _number(self, value: Value) -> Any:
        return self[value][0].item()

    def _block(self, body: list[Statement]) -> None:
        for statement in body:
            match statement:
                case Let(value):
                    self._values[value] = self._let(statement)
                case Load(value):
                    memory, where, lanes = self._access(statement, value.type)
                    if memory.dtype == object:
                        self._values[value] = memory[where[0]]
                        continue
                    self._values[value] = loaded = np.zeros(value.type.lanes, value.type.dtype)
                    loaded[lanes] = memory[where]
                case Store(value):
                    memory, where, lanes = self._access(statement, value.type)
                    memory[where] = self[value][lanes]
                case Take(value, _, _, count):
                    memory, where, _ = self._access(statement, value.type)
                    self._values[value] = memory[where]
                    memory[where] += self[count]
                case Tell(value):
                    memory, where, _ = self._access(statement, value.type)
                    memory[where] = self[value]
                case Await(value):
                    memory, where, _ = self._access(statement, value.type)
                    if memory[where] < self[value]:
                        raise self._fault(statement, "waits for another thread, but there is none")
                case Prefetch():
                    pass
                case Get(value, variable):
                    self._values[value] = self._values[variable]
                case Set(variable, value):
                    self._values[variable] = self[value]
                case Loop(index, start, stop, step, inside):
                    for number in range(self._number(start), self._number(stop), step):
                        self._values[index] = np.array([number])
                        self._block(inside)
                case If(condition, inside):
                    if self._number(condition):
                        self._block(inside)
                case Call(function, arguments):
                    _Frame(function, [self[argument] for argument in arguments], self._fused)

    def _let(self, let: Let) -> Any:
        operands = [self[value] for value in let.arguments]
        kind = let.value.type
        match let.op:
            case "at":
                memory, offset = operands[0]
                return memory, offset + operands[1][0].item()
            case "broadcast":
                return np.repeat(operands[0], kind.lanes)
            case "shuffle":
                return np.concatenate(operands)[list(let.lanes)]
            case "first_lanes":
                return np.arange(kind.lanes) < operands[0]
            case "fma" if not self._fused:
                a, b, c = operands
                return a * b + c
            case "if_fused" if not self._fused:
                return operands[1]
            case op if op in CONVERSIONS:
                return CONVERSIONS[op].meaning(operands[0], kind.dtype)
        try:
            return OPERATIONS[let.op].meaning(*operands)
        except ZeroDivisionError as error:
            raise self._fault(let, str(error)) from None

    def _access(
        self, statement: Load | Store | Take | Tell | Await, kind: Type
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """The memory, where in it the lanes inside the mask lie, and which these are."""
        memory, start = self[statement.pointer]
        mask = statement.mask if isinstance(statement, Load | Store) else None
        lanes = np.flatnonzero(np.ones(kind.lanes) if mask is None else self[mask])
        where = start + self._number(statement.offset) + lanes
        if lanes.size and not (where[0] >= 0 and where[-1] < len(memory)):
            raise self._fault(
                statement, f"got the numbers {where[0]} .. {where[-1] + 1}, expected some of 0 .. {len(memory)}"
            )
        return memory, where, lanes

    def _fault(self, statement: Statement, problem: str) -> EngineError:
        return EngineError(problem, element=f"{self._function.name}: {line(statement)}")
