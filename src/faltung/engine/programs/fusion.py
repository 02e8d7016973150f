"""Fusion: of recorded launches, pointwise ones become epilogues of those that make what they read.

A convolution with bias and ReLU is one kernel then, and so are an error and the derivative behind it, a normalisation
with the sum and the ReLU that follow, and whatever else stores numbers that only a pointwise kernel reads. What the
caller keeps is read by the caller, too, and stays.

Each number passes through the same operations in the same order as without fusion, so its bits are the same.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from faltung.engine.host.machine import Machine
from faltung.engine.host.recall import recalled
from faltung.engine.host.recording import Launch, Place
from faltung.engine.kernels.epilogue import Epilogue, NoEpilogueError
from faltung.engine.loops.language import Function

MOST = 8
"""Statements of an epilogue. With a sigmoid, of 30, behind a convolution's 12 x 2 vectors, a step of the UFLDL network
takes 3 % longer: it crowds the registers; and the code of all tiles grows by 5,000 statements."""

Recipe = tuple[Any, Machine, tuple[Any, ...]]
"""What a kernel was made from, see ``recall``."""


def fused(launches: Iterable[Launch], results: Iterable[Place]) -> tuple[Launch, ...]:
    """The launches, fused wherever that is possible; ``results`` are what the caller keeps."""
    launches = list(launches)
    readers = Counter(address for launch in launches for address in {buffer.address for buffer in launch.reads})
    readers.update(place.buffer.address for place in results)
    done = _Done(readers)
    for launch in launches:
        if not done.fuse(launch):
            done.append(launch)
    return tuple(done.launches.values())


class _Done:
    """Launches so far by number, what they touch, and how many launches of all read an address."""

    def __init__(self, readers: Counter[int]):
        self.launches: dict[int, Launch] = {}
        self._reads: dict[int, set[int]] = {}
        self._writes: dict[int, set[int]] = {}
        self._readers, self._count = readers, 0

    def append(self, launch: Launch) -> None:
        """Add a launch."""
        self.launches[self._count] = launch
        self._reads[self._count] = {buffer.address for buffer in launch.reads}
        self._writes[self._count] = {buffer.address for buffer in launch.writes}
        self._count += 1

    def fuse(self, launch: Launch) -> bool:
        """Make a launch the epilogue of those that write one of its inputs, of the newest that can be."""
        given: Any = launch.arguments if launch.function.name == "elementwise" else (0, 0)
        *inputs, _, _ = given
        if launch.function.effects[1] != {len(inputs)}:  # it has several outputs
            return False
        makers = {address: self._makers(address) for address in {place.buffer.address for place in inputs}}
        for address, numbers in sorted(makers.items(), key=lambda item: item[1][-1:], reverse=True):
            apart = all(other == address or not {*made} & {*numbers} for other, made in makers.items())
            if numbers and apart and self._readers[address] == 1 and self._may_wait(numbers):
                both = [_both(self.launches[number], launch, address) for number in numbers]
                fit = [one for one in both if one is not None]
                if len(fit) == len(both):
                    for number, one in zip(numbers, fit, strict=True):
                        del self.launches[number]
                        self.append(one)
                    return True
        return False

    def _makers(self, address: int) -> list[int]:
        return [number for number in self.launches if address in self._writes[number]]

    def _may_wait(self, numbers: list[int]) -> bool:
        """Would these launches do the same after all others?"""
        others = [number for number in self.launches if number > numbers[0] and number not in numbers]
        for number in numbers:
            reads, writes = self._reads[number], self._writes[number]
            for other in others:
                if other > number and (self._writes[other] & (reads | writes) or self._reads[other] & writes):
                    return False
        return True


def _both(maker: Launch, launch: Launch, address: int) -> Launch | None:
    """The maker of what lies there with the launch as its epilogue; None where they do not fit together."""
    given: Any = launch.arguments
    *inputs, output, count = given
    stored = tuple(place.buffer.address == address for place in inputs)
    y = inputs[stored.index(True)]
    found = [(n, a) for n, a in enumerate(maker.arguments) if isinstance(a, Place) and a.buffer.address == address]
    if len(found) > 1 or y.buffer.kind != "memory" or y.buffer.size != count * y.buffer.dtype.itemsize:
        return None
    [(number, place)] = found
    if number in maker.function.effects[0] or any(b.kind == "sums" for b in (*maker.reads, *maker.writes)):
        return None
    function = _variant(maker.function.name, number, stored, maker.function.recipe, launch.function.recipe)
    if function is None:
        return None
    others = [other for other, is_it in zip(inputs, stored, strict=True) if not is_it]
    behind = [replace(other, offset=other.offset + place.offset) for other in (output, *others)]
    return joined(maker, launch, function, (*maker.arguments[:number], *behind, *maker.arguments[number + 1 :]))


def joined(maker: Launch, launch: Launch, function: Any, arguments: tuple[Any, ...]) -> Launch:
    """One launch, of this function, that does what both do."""
    node = " + ".join(dict.fromkeys(filter(None, [*maker.node.split(" + "), launch.node])))
    return given(replace(maker, function=function, work=maker.work + launch.work, node=node), arguments)


def given(launch: Launch, arguments: tuple[Any, ...]) -> Launch:
    """The launch with other arguments."""
    reads, writes = (
        tuple(argument.buffer for n, argument in enumerate(arguments) if n in touched and isinstance(argument, Place))
        for touched in launch.function.effects
    )
    return replace(launch, arguments=arguments, reads=reads, writes=writes)


@cache
def _variant(name: str, number: int, stored: tuple[bool, ...], maker: Recipe, pointwise: Recipe) -> Any:
    """The kernel of this name with the epilogue, compiled; None where it would be too long, or cannot be followed."""
    if _epilogue(stored, pointwise).length > MOST:
        return None
    write, machine, settings = maker
    both = f"{name}_elementwise"
    try:
        code = recalled(
            _written, machine, name, number, stored, (write, settings), (pointwise[0], pointwise[2]),
            public=frozenset({both}),
        )  # fmt: skip
    except NoEpilogueError:
        return None
    return code.functions[both]


def _written(
    machine: Machine, name: str, number: int, stored: tuple[bool, ...], maker: Any, pointwise: Any
) -> list[Function]:
    write, settings = maker
    kernel = next(function for function in write(machine, *settings) if function.name == name)
    return _epilogue(stored, (pointwise[0], machine, pointwise[1])).after(kernel, number, f"{name}_elementwise")


def _epilogue(stored: tuple[bool, ...], recipe: Recipe) -> Epilogue:
    write, machine, settings = recipe
    return Epilogue(write(machine, *settings)[-1], stored)


def taken_apart(recipe: Recipe) -> tuple[Recipe, tuple[Epilogue, ...]]:
    """A kernel without its epilogues, and these."""
    write, machine, settings = recipe
    if write is not _written:
        return recipe, ()
    *_, stored, (maker, own), (pointwise, others) = settings
    first, epilogues = taken_apart((maker, machine, own))
    return first, (*epilogues, _epilogue(stored, (pointwise, machine, others)))
