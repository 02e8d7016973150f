"""What a kernel does to memory: which of its arguments it reads through, and which it writes through.

>>> from faltung.engine.kernels.elementwise import elementwise
>>> from faltung.engine.loops.language import F32
>>> effects(elementwise(F32.times(16), 1, lambda x: [x + x]))
(frozenset({0}), frozenset({1}))
"""

from functools import cache

from faltung.engine.loops.language import Function
from faltung.engine.loops.statements import (
    Await,
    Call,
    Get,
    If,
    Let,
    Load,
    Loop,
    Set,
    Statement,
    Store,
    Take,
    Tell,
    Value,
    Variable,
)

Places = dict[Value | Variable, set[int]]
"""The arguments that a place may belong to."""


@cache
def effects(function: Function) -> tuple[frozenset[int], frozenset[int]]:
    """The numbers of the arguments that are read, and of those that are written, by callees too."""
    places: Places = {argument: {n} for n, argument in enumerate(function.arguments) if argument.type.pointer}
    reads: set[int] = set()
    writes: set[int] = set()
    _visit(function.body, places, reads, writes)
    return frozenset(reads), frozenset(writes)


def _visit(body: list[Statement], places: Places, reads: set[int], writes: set[int]) -> None:
    for statement in body:
        match statement:
            case Let(value, arguments=arguments) if value.type.pointer:
                places[value] = set().union(*(places.get(argument, set()) for argument in arguments))
            case Set(variable, value) if variable.type.pointer:
                places.setdefault(variable, set()).update(places.get(value, set()))
            case Get(value, variable) if value.type.pointer:
                places[value] = places.get(variable, set())
            case Load(pointer=pointer) | Await(pointer=pointer):
                reads |= places[pointer]
            case Store(pointer=pointer) | Tell(pointer=pointer):
                writes |= places[pointer]
            case Take(pointer=pointer):
                reads |= places[pointer]
                writes |= places[pointer]
            case Call(function, arguments):
                for own, theirs in zip((reads, writes), effects(function), strict=True):
                    own.update(*(places.get(arguments[n], set()) for n in theirs))
            case Loop(body=inside) | If(body=inside):
                _visit(inside, places, reads, writes)
            case _:
                pass
