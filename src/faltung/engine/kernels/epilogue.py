"""Epilogues: a kernel that does something more with each number before it stores it.

Where one kernel stores y, and a pointwise one reads y to store z = f(y, ...), y need not lie in memory: a copy of the
first kernel stores f(y, ...) at once. The copy is made statement by statement, through the functions that are called;
it follows the pointer to y, and leads pointers to what else f reads beside it.

That gives the same bits if the kernel does not read y. However often it stores a number, what it stores last remains.

>>> from faltung.engine.kernels.elementwise import elementwise
>>> from faltung.engine.loops.language import F32
>>> from faltung.engine.loops.printer import text
>>> double, add = (elementwise(F32.times(16), *rule) for rule in ((1, lambda x: [x + x]), (2, lambda y, z: [y + z])))
>>> [function] = Epilogue(add, (True, False)).after(double, 1, "both")
>>> lines = text(function).splitlines()
>>> print("\\n".join([lines[0], *lines[10:12]]))
both(x0: f32*, y0: f32*, beside: f32*, count: index, scratch: index*, first: index, last: index)
            x0.2 = x0.1[i : i + 16]
            y0.1[i : i + 16] = x0.2 + x0.2 + beside.1[i : i + 16]
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from faltung.engine.kernels.elementwise import Elementwise
from faltung.engine.loops.language import Constant, Function, Type, Value, Variable
from faltung.engine.loops.statements import Call, If, Let, Loop, Prefetch, Statement, Store


class NoEpilogueError(Exception):
    """A kernel does something with its pointer that cannot be followed."""


@dataclass(frozen=True)
class Epilogue:
    """What is done with a number that was to be stored: f, and which of its inputs are that number."""

    f: Elementwise
    stored: tuple[bool, ...]

    @cached_property
    def length(self) -> int:
        """How many statements f is."""
        alone, kind = Function("f"), self.f.arguments[0].type.kind
        self.f.rule(*(alone.fresh(Type(kind, lanes=16), "x") for _ in self.stored))
        return len(alone.body)

    def after(self, kernel: Function, number: int, name: str) -> list[Function]:
        """The copy of a kernel, behind copies of those that it calls.

        Argument ``number`` of the kernel points to y. In the copy, pointers to the other inputs of f follow it.

        Raises: NoEpilogueError where the pointer cannot be followed.
        """
        copies: dict[Any, _Copy] = {}
        self._copy(kernel, number, name, copies)
        return [copy.function for copy in copies.values()]

    def _copy(self, function: Function, number: int | None, name: str, copies: dict[Any, "_Copy"]) -> Function:
        if (function, number) not in copies:
            copy = _Copy(self, function, number, name, copies)
            copies[function, number] = copy  # behind what it calls
        return copies[function, number].function


class _Copy:
    """The copy of one function."""

    def __init__(self, epilogue: Epilogue, old: Function, number: int | None, name: str, copies: dict[Any, "_Copy"]):
        self.function = Function(name)
        self._epilogue, self._copies = epilogue, copies
        self._new: dict[Value | Variable, Any] = {}
        self._beside: dict[Value, list[Value]] = {}
        """For each pointer into y, those that go beside it."""
        arguments = []
        for n, argument in enumerate(old.arguments):
            arguments.append(self._renewed(argument))
            if n == number:
                others = epilogue.stored.count(False)
                self._beside[argument] = [self.function.fresh(argument.type, "beside") for _ in range(others)]
                arguments += self._beside[argument]
        self.function.arguments = tuple(arguments)
        self._block(old.body)

    def _block(self, body: list[Statement]) -> None:
        f, new = self.function, self._renewed
        for statement in body:
            match statement:
                case Loop(index, start, stop, step, inside):
                    with f.loop(index.name, new(stop), new(start), step) as self._new[index]:
                        self._block(inside)
                case If(condition, inside):
                    with f.where(new(condition)):
                        self._block(inside)
                case Call(function, arguments):
                    self._call(function, arguments)
                case Let(value, "at", (base, offset)) if base in self._beside:
                    self._new[value] = f.at(new(base), new(offset))
                    self._beside[value] = [f.at(other, new(offset)) for other in self._beside[base]]
                case Store(_, place) if place in self._beside:
                    self._store(statement)
                case Prefetch():
                    f.append(self._copied(statement))
                case _:
                    if any(getattr(statement, field.name) in self._beside for field in fields(statement)):
                        raise NoEpilogueError
                    f.append(self._copied(statement))

    def _call(self, function: Function, arguments: tuple[Value, ...]) -> None:
        numbers = [n for n, argument in enumerate(arguments) if argument in self._beside]
        if len(numbers) > 1:
            raise NoEpilogueError
        number = numbers[0] if numbers else None
        copy = self._epilogue._copy(function, number, function.name, self._copies)
        given = [[self._renewed(argument), *self._beside.get(argument, [])] for argument in arguments]
        self.function.call(copy, *(argument for arguments in given for argument in arguments))

    def _store(self, store: Store) -> None:
        f, value, offset, mask = self.function, *map(self._renewed, (store.value, store.offset, store.mask))
        others = iter([f.load(place, offset, value.type.lanes, mask) for place in self._beside[store.pointer]])
        [result] = self._epilogue.f.rule(*(value if is_it else next(others) for is_it in self._epilogue.stored))
        f.store(f.lift(result, value.type), self._renewed(store.pointer), offset, mask)

    def _copied(self, statement: Statement) -> Statement:
        return type(statement)(*(self._renewed(getattr(statement, field.name)) for field in fields(statement)))

    def _renewed(self, item: Any) -> Any:
        """The same for the copy: values and variables are its own."""
        match item:
            case Constant(type=kind, number=number):
                return self.function.constant(number, kind)
            case Value() if item not in self._new:
                self._new[item] = self.function.fresh(item.type, item.name)
            case Variable() if item not in self._new:
                self._new[item] = Variable(self.function, item.type, self.function.unique(item.name))
                self.function.variables.append(self._new[item])
            case tuple():
                return tuple(map(self._renewed, item))
            case Value() | Variable():
                pass
            case _:
                return item
        return self._new[item]
