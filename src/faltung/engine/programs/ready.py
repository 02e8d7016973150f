"""Products of elements made ready: recorded once for arrays of certain sizes, and a small program from then on.

Around the kernels of a product there is Python: checks, settings, memory and launches, one after the other. Around the
three kernels of batch normalisation it takes 28 microseconds, and they themselves need 10 for 0.25 MB. But all that
follows from the element and from what its arrays are, not from their numbers. So where arrays like these come for the
second time, the product is recorded; what is then left to Python is to find the program, to lend memory to what it
makes, and one call. Where it is the very same element, machine code does that as well (``quick``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
from numpy import ndarray

from faltung.elements.element import Array, Element, Params, Run
from faltung.engine.host import arena, patterns, quick, results, workers
from faltung.engine.host.recording import Buffer, NotRecordedError, Recorder, recorder, recording
from faltung.engine.programs.program import Call, Program, Where, together

MOST = 4096
"""Products that are known; then all are found anew."""
INSIDE = 1 << 22
"""Bytes that a product may need besides what it gives: each thread keeps them. Around larger ones Python is little."""
ELEMENTS = 64
"""Elements for which a program is made quick; where each call brings a new one, no program ever is."""
Composer = Callable[[list[Array]], Any]
_about = attrgetter("shape", "strides", "dtype")


class Ready:
    """Does a product on the arrays that it is given, in a list; those that it makes are added there."""

    def __init__(
        self, arrays: int, made: list[Any], parts: list[Any], perform: Any, result: Any, numbers: Mapping[int, int]
    ):
        self._arrays, self._made, self._parts, self._perform = arrays, made, parts, perform
        self._again = _again(result, numbers)
        self._kept: list[Any] = []
        self._result = results.composed(result, numbers, self._kept)
        self.left = ELEMENTS
        """How often it can still be made quick."""

    def __call__(self, arrays: list[Array]) -> Any:
        for shape, dtype, size in self._made:
            arrays.append(arena.empty(shape, dtype) if size > arena.MALLOC else np.empty(shape, dtype))
        self._perform(*arrays)
        arrays += [ndarray(shape, dtype, arrays[owner], *where) for owner, shape, dtype, *where in self._parts]
        return self._again(arrays)

    def make_quick(self, product: quick.Product, element: Element, given: tuple[Any, ...]) -> None:
        """From now on, the product knows such calls of this element, and does them without Python."""
        kept: list[Any] = []
        try:
            arguments = [word for thing in given for word in patterns.told(thing, {Run: "training"}, kept)]
        except patterns.StrangeError:
            return
        if self._arrays > quick.MOST:
            return
        threads, order = [0, 0], [0, 0]
        if isinstance(self._perform, workers.Performer):
            words = self._perform.quick()
            if words is None:
                return
            threads, order, more = words
            kept.append(more)
        outputs, views = [len(self._made)], [len(self._parts)]
        for shape, dtype, size in self._made:
            outputs += [arena.number(size) if size > arena.MALLOC else -1, id(dtype), len(shape), *shape]
        for owner, shape, dtype, offset, strides in self._parts:
            views += [owner, offset, id(dtype), len(shape), *shape, *strides]
        entry = [1 + len(given), *arguments, *threads, *outputs, *order, *views, *self._result]
        self.left -= product.add(element, self, entry, kept)


known: dict[Any, Ready | bool] = {}
"""Products by what they depend on: the program, False where there is none, True where it was asked for only once."""


def ready(product: Callable[..., Any]) -> Callable[..., Any]:
    """A product whose launches and results follow from what is told of its arguments made ready.

    It is asked as ``product(element, params, x, run)``, or ``product(element, params, kept, dy)``.

    >>> from faltung.elements import ReLU
    >>> from faltung.engine.lower.pointwise import error  # which is ready
    >>> [error(ReLU(), {}, np.array([[0.0, y]]), np.array([[3.0, y]])).tolist() for y in (5.0, 7.0, 0.0)]
    [[[0.0, 5.0]], [[0.0, 7.0]], [[0.0, 0.0]]]
    """

    @wraps(product)
    def done(element: Element, params: Params, *data: Any) -> Any:
        if recorder() is not None:
            return product(element, params, *data)
        arrays = [*params.values()]
        told = [product, element, *params, *map(_about, arrays)]
        for given in data:
            if type(given) is Run:
                told.append(given.training)
            else:
                _tell(given, told, arrays)
        key = tuple(told)
        run = known.get(key)
        if run is True:  # arrays like these come for the second time
            run = known[key] = _recorded(product, (element, params, *data), arrays) or False
        if run:
            if quickly is not None and run.left and not quick.busy():
                run.make_quick(quickly, element, (params, *data))
            return run(arrays)
        if run is None:
            if len(known) >= MOST:
                forget()
            known[key] = True
        return product(element, params, *data)

    quickly = quick.Product(done) if quick.possible() else None
    return done if quickly is None else quickly.function


def forget() -> None:
    """Know no products any more."""
    known.clear()
    quick.forget()


def _tell(given: Any, told: list[Any], arrays: list[Array]) -> None:
    """Add what a program depends on; the arrays go to a list of their own."""
    if isinstance(given, ndarray):
        arrays.append(given)
        told.append(_about(given))
    elif isinstance(given, tuple):
        told.append(len(given))
        for part in given:
            _tell(part, told, arrays)
    else:
        told.append(given)


def _replaced(given: Any, arrays: Iterator[Array]) -> Any:
    """The same with other arrays, in the order in which they were told."""
    if isinstance(given, ndarray):
        return next(arrays)
    if isinstance(given, tuple):
        return tuple([_replaced(part, arrays) for part in given])
    return {name: next(arrays) for name in given} if isinstance(given, Mapping) else given


def _recorded(product: Callable[..., Any], given: tuple[Any, ...], arrays: list[Array]) -> Ready | None:
    """The program of a product for arrays like these; None where there is none."""
    if not all(array.flags.c_contiguous for array in arrays):
        return None
    with recording(sliced=False) as listener:
        own = [listener.array(array.shape, array.dtype, "input") for array in arrays]
        try:
            result = product(*_replaced(given, iter(own)))
            return _program(listener, own, result)
        except (NotRecordedError, ValueError):  # NumPy would compute
            return None


def _program(listener: Recorder, given: Sequence[Array], result: Any) -> Ready:
    """The launches as a program. An array of the result is one of those given, or made, or a part of such a one."""
    numbers = {id(array): number for number, array in enumerate(given)}
    owners = {listener.place(array).buffer.address: number for number, array in enumerate(given)}
    made: list[tuple[Any, ...]] = []
    parts: list[tuple[Any, ...]] = []
    places = [(leaf, listener.place(leaf)) for leaf in _arrays(result) if id(leaf) not in numbers]
    for leaf, place in sorted(places, key=lambda pair: pair[0].nbytes < pair[1].buffer.size):  # whole ones first
        buffer, whole = place.buffer, leaf.nbytes == place.buffer.size
        if buffer.kind == "constant":
            raise NotRecordedError("an array that NumPy has made")
        if buffer.address not in owners:
            number = owners[buffer.address] = len(owners)
            shape, dtype = (leaf.shape, leaf.dtype) if whole else ((buffer.size,), np.dtype(np.uint8))
            made.append((shape, dtype, buffer.size))
            if whole:
                numbers[id(leaf)] = number
        if id(leaf) not in numbers:
            numbers[id(leaf)] = -1 - len(parts)
            parts.append((owners[buffer.address], leaf.shape, leaf.dtype, place.offset, leaf.strides))
    inside: dict[str, int] = {}

    def where(buffer: Buffer) -> Where:
        if buffer.address in owners:
            return Where(str(owners[buffer.address]))
        inside[f":{buffer.address}"] = buffer.size
        return Where(f":{buffer.address}")

    program = Program(together(Call(launch, where) for launch in listener.launches))
    if sum(inside.values()) > INSIDE:
        raise NotRecordedError("much memory inside")
    perform = program.bound([str(number) for number in owners.values()], inside)
    parts.reverse()  # those found first are the last ones
    count = len(owners) + len(parts)
    numbers = {array: number % count for array, number in numbers.items()}
    return Ready(count, made, parts, perform, result, numbers)


def _arrays(result: Any) -> Iterator[Array]:
    """All arrays of a result."""
    if isinstance(result, ndarray):
        yield result
    elif isinstance(result, tuple | dict):
        for part in result.values() if isinstance(result, dict) else result:
            yield from _arrays(part)


def _again(result: Any, numbers: Mapping[int, int]) -> Composer:
    """How a result is composed of other arrays, which have these numbers."""
    if isinstance(result, ndarray):
        return itemgetter(numbers[id(result)])
    if isinstance(result, tuple):
        parts = [_again(part, numbers) for part in result]
        if len(parts) > 1 and all(isinstance(part, ndarray) for part in result):
            return itemgetter(*[numbers[id(part)] for part in result])
        return lambda arrays: tuple([part(arrays) for part in parts])
    if isinstance(result, dict):
        names, values = tuple(result), _again(tuple(result.values()), numbers)
        return lambda arrays: dict(zip(names, values(arrays), strict=True))
    return lambda arrays: result
