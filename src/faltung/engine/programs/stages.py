"""Recorded launches become programs: their order, and the memory for what passes between them.

``flat`` does one launch after the other, for all examples; workers share the tasks of each. ``deep`` does all launches
for a few examples before the next few, so that what passes between them stays in the cache of one worker; workers share
slices of examples. How deep launches can go follows from what they read and write:

    what reads nothing of an example (weights that are packed)          is done once, before
    what adds to sums                                                   adds to those of its slice
    what reads sums (gradients, the statistics of a batch)              is done once, when all slices are complete

So a deep program is a list of stages, and what an example leaves for a later stage lies in memory of its own. The order
of all additions follows from the sizes, never from the number of workers.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from faltung.engine.host.arena import LINE
from faltung.engine.host.recording import Buffer, Later, Launch, NotRecordedError, Place
from faltung.engine.programs.program import Call, Job, Lists, Program, Where, together
from faltung.engine.programs.remake import sparing

OF_EXAMPLES = ("value:", "error:", "cost:")
"""How the names of results begin that have a part for each example."""


@dataclass(frozen=True)
class Recorded:
    """What was recorded for so many examples: launches, and where results lie, by name."""

    examples: int
    launches: Sequence[Launch]
    results: Mapping[str, Place]


@dataclass(frozen=True)
class Result:
    """Where a result lies after a run: in the array of this name, from this byte on."""

    array: str
    offset: int = 0


@dataclass(frozen=True)
class Planned:
    """A program; the bytes of each array that a run must give it beside inputs and parameters; and the results."""

    program: Program
    arrays: Mapping[str, int]
    results: Mapping[str, Result]
    jobs: Sequence[Job]
    """What the program was made from."""


def flat(recorded: Recorded) -> Planned:
    """One launch after the other."""
    arrays, results = _given_out(recorded)
    owners = {place.buffer.address: results[name] for name, place in recorded.results.items()}
    launches = sparing(recorded.launches, owners)
    inside, size = packed(launches, owners)

    def where(buffer: Buffer) -> Where:
        if buffer.address in inside:
            return Where(":area", inside[buffer.address])
        return Where(owners[buffer.address].array if buffer.address in owners else buffer.name)

    jobs: list[Call | Lists] = []
    for launch in launches:
        jobs += launch.jobs(where) if isinstance(launch, Strips) else [Call(launch, where)]
    done = together(jobs)
    return Planned(Program(done), arrays | {":area": size}, results, done)


@dataclass(frozen=True)
class Strips(Launch):
    """Among the launches of a flat program, what is done deep: its arguments are the places of all arrays."""

    deep: "Deep"
    names: tuple[str, ...]
    """Of the arguments, as the deep program knows them."""

    def jobs(self, where: Callable[[Buffer], Where]) -> list[Call | Lists]:
        """The jobs of the deep program, with its arrays where the flat one has them."""
        places = dict(zip(self.names, self.arguments, strict=True))

        def moved(call: Call) -> Call:
            def here(buffer: Buffer) -> Where:
                at = call.where(buffer)
                place = places.get(at.name)
                if not isinstance(place, Place):
                    return at
                outside = where(place.buffer)
                return replace(at, name=outside.name, offset=outside.offset + place.offset + at.offset)

            return replace(call, where=here)

        return [
            moved(job)
            if isinstance(job, Call)
            else replace(job, calls={count: [moved(call) for call in calls] for count, calls in job.calls.items()})
            for job in self.deep.jobs
        ]


def packed(launches: Sequence[Launch], without: Iterable[int]) -> tuple[dict[int, int], int]:
    """Offsets for what passes between launches, by address, and the bytes of all; nothing in use is overwritten."""
    spans: dict[int, tuple[int, int, int]] = {}
    for number, launch in enumerate(launches):
        for buffer in (*launch.reads, *launch.writes):
            if buffer.kind in ("memory", "sums") and buffer.address not in without:
                begin = spans.get(buffer.address, (number, 0, 0))[0]
                spans[buffer.address] = begin, number, -(-buffer.size // LINE) * LINE
    places: dict[int, int] = {}
    for address, (begin, end, size) in sorted(spans.items(), key=lambda item: -item[1][2]):
        others = ((places[a], spans[a]) for a in places)
        taken = sorted((low, low + span[2]) for low, span in others if span[0] <= end and begin <= span[1])
        offset = 0
        for low, high in taken:
            if offset + size <= low:
                break
            offset = max(offset, high)
        places[address] = offset
    return places, max((offset + spans[address][2] for address, offset in places.items()), default=0)


def _given_out(recorded: Recorded) -> tuple[dict[str, int], dict[str, Result]]:
    """The arrays in which results lie, and where; results that are inputs lie there."""
    arrays: dict[str, int] = {}
    names: dict[int, str] = {}
    results = {}
    for name, place in recorded.results.items():
        buffer = place.buffer
        if buffer.kind in ("input", "parameter"):
            results[name] = Result(buffer.name, place.offset)
            continue
        if buffer.address not in names:
            names[buffer.address] = name
            arrays[name] = buffer.size
        results[name] = Result(names[buffer.address], place.offset)
    return arrays, results


# --------------------------------------------------------------------------------------------------------------- deep


@dataclass(frozen=True)
class Order:
    """The launches of one recording, by stage."""

    deep: list[list[Launch]]
    once: list[list[Launch]]
    """Done before the stage of the same number; the last ones after all of them."""
    per_example: frozenset[int]
    """The addresses of what belongs to examples."""

    @property
    def memory(self) -> int:
        """The most bytes that examples need in a stage: not counted are packed weights and sums, which they share."""
        touched = (buffer for stage in self.deep for launch in stage for buffer in (*launch.reads, *launch.writes))
        shared = {buffer.address for buffer in touched} - self.per_example
        return max(packed(stage, shared)[1] for stage in self.deep)


def order(launches: Sequence[Launch]) -> Order:
    """Stages for launches, each as early as what it reads allows."""
    own = _per_example(launches)
    stage: dict[int, int] = {}
    deep: dict[int, list[Launch]] = {}
    once: dict[int, list[Launch]] = {}
    for launch in launches:
        made = {buffer.address for buffer in launch.writes}
        sums = [buffer for buffer in launch.reads if buffer.kind == "sums" and buffer.address not in made]
        at = max((stage.get(buffer.address, 0) for buffer in launch.reads), default=0)
        is_deep = _is_deep(launch, own)
        if sums:
            if is_deep:
                raise NotRecordedError("a launch that reads sums and examples")
            at = max(at, 1 + max(stage.get(buffer.address, 0) for buffer in sums))
        (deep if is_deep else once).setdefault(at, []).append(launch)
        for buffer in launch.writes:
            stage[buffer.address] = max(at, stage.get(buffer.address, 0))
    count = max((*deep, *once, 0)) + 1
    return Order([deep.get(s, []) for s in range(count)], [once.get(s, []) for s in range(count)], own)


def _is_deep(launch: Launch, own: Collection[int]) -> bool:
    """Does a launch see or make what belongs to examples, or add to sums?"""
    if any(buffer.kind == "sums" for buffer in launch.writes):
        return True
    if any(buffer.address in own for buffer in launch.reads) or any(buffer.address in own for buffer in launch.writes):
        return True
    return any(isinstance(argument, Later) and argument.each for argument in launch.arguments)


def _per_example(launches: Sequence[Launch]) -> frozenset[int]:
    """The buffers that belong to examples: inputs, and what launches write that touch such buffers."""
    own = {buffer.address for launch in launches for buffer in launch.reads if buffer.kind == "input"}
    known = -1
    while len(own) > known:  # a launch may write to what a later one tells to belong to examples
        known = len(own)
        for launch in launches:
            if _is_deep(launch, own):
                own.update(buffer.address for buffer in launch.writes if buffer.kind == "memory")
    return frozenset(own)


def deep(recordings: Sequence[Recorded], examples: int, share: int) -> Planned:
    """All launches for a few examples before the next few: the recordings are for the numbers of these that occur."""
    lists = Deep(recordings, examples, share)
    jobs = together(lists.jobs)
    return Planned(Program(jobs), lists.arrays, lists.results, jobs)


class Deep:
    """The recordings of one network; the first one is for ``together`` examples, the others for what is left over."""

    def __init__(self, recordings: Sequence[Recorded], examples: int, share: int):
        self.recordings, self.examples, self.share = recordings, examples, share
        self.slices = -(-examples // share)
        self.orders = [order(recorded.launches) for recorded in recordings]
        self.arrays: dict[str, int] = {":shared": 0, ":sums": 0, ":left": 0}
        self.places: list[dict[int, Where]] = [{} for _ in recordings]
        self.known: dict[Any, list[Where]] = {}
        first = self.orders[0]
        if any(len(other.deep) != len(first.deep) for other in self.orders):
            raise NotRecordedError("stages that differ with the number of examples")
        self.results = self._results()
        self.jobs = self._jobs()

    def _jobs(self) -> list[Call | Lists]:
        jobs: list[Call | Lists] = []
        for stage in range(len(self.orders[0].deep)):
            for number, orders in enumerate(self.orders):
                jobs += self._once(number, orders.once[stage], stage)
            self._sums(stage)
            self._left(stage)
            calls = {}
            for number, (recorded, orders) in enumerate(zip(self.recordings, self.orders, strict=True)):
                if orders.deep[stage]:
                    calls[recorded.examples] = self._list(number, orders.deep[stage])
            if calls:
                jobs.append(Lists(calls, self.examples, self.share, self.recordings[0].examples))
        return jobs

    def _results(self) -> dict[str, Result]:
        """Results of examples lie one behind the other; of those of the batch, the first recording's count."""
        first = self.recordings[0]
        arrays, results = _given_out(first)
        for name, place in first.results.items():
            if results[name].array != name:
                continue
            if place.buffer.address in self.orders[0].per_example:
                each = max(-(-r.results[name].buffer.size // r.examples) for r in self.recordings)
                each = each if place.buffer.size == each * first.examples else -(-each // 16) * 16
                arrays[name] = each * self.examples
                for number, recorded in enumerate(self.recordings):
                    self.places[number][recorded.results[name].buffer.address] = Where(name, 0, each)
            else:
                self.places[0][place.buffer.address] = Where(name)
            if (place.buffer.address in self.orders[0].per_example) != name.startswith(OF_EXAMPLES):
                raise NotRecordedError(
                    f"a result ({name}) of examples that is one of the batch, or the other way round"
                )
        self.arrays |= arrays
        return results

    def _once(self, number: int, launches: Sequence[Launch], stage: int) -> list[Call]:
        """What is done once before a stage. What follows sums is done for the first recording, and serves the others;
        and so does all that is done alike."""
        calls = []
        for position, launch in enumerate(launches):
            key = (stage, position) if stage else self._key(number, launch)
            made = [buffer for buffer in launch.writes if buffer.address not in self.places[number]]
            if key in self.known:
                for buffer, where in zip(launch.writes, self.known[key], strict=True):
                    self.places[number][buffer.address] = where
                continue
            if number and stage:
                raise NotRecordedError("launches after sums that differ with the number of examples")
            for buffer in made:
                self.places[number][buffer.address] = self._new(":shared", buffer.size)
            self.known[key] = [self.places[number][buffer.address] for buffer in launch.writes]
            calls.append(Call(launch, self._where(number), slices=self.slices))
        return calls

    def _key(self, number: int, launch: Launch) -> Any:
        """What makes two launches the same, on memory that nobody has filled before."""
        parts: list[Any] = [id(launch.function), launch.tasks]
        writes = {buffer.address for buffer in launch.writes}
        for argument in launch.arguments:
            if not isinstance(argument, Place):
                parts.append(argument)
            elif argument.buffer.address in writes:
                parts.append("written")
            elif argument.buffer.array is not None:
                parts.append((argument.buffer.array.tobytes(), argument.offset))
            else:
                parts.append((self._where(number)(argument.buffer), argument.offset))
        return tuple(parts)

    def _sums(self, stage: int) -> None:
        """Memory for the sums that a stage adds to: in the same order in all recordings."""
        found = [
            list(dict.fromkeys(b.address for launch in orders.deep[stage] for b in launch.writes if b.kind == "sums"))
            for orders in self.orders
        ]
        sizes = [self._sizes_of(number, addresses) for number, addresses in enumerate(found)]
        if any(other != sizes[0] for other in sizes):
            raise NotRecordedError("sums that differ with the number of examples")
        for position, size in enumerate(sizes[0]):
            place = self._new(":sums", size * self.slices)
            for number, addresses in enumerate(found):
                self.places[number][addresses[position]] = Where(":sums", place.offset, 0, size)

    def _left(self, stage: int) -> None:
        """Memory for what examples leave for later stages."""
        found = []
        for number, orders in enumerate(self.orders):
            later = {b.address for s in orders.deep[stage + 1 :] for launch in s for b in launch.reads}
            made = [b.address for launch in orders.deep[stage] for b in launch.writes if b.kind == "memory"]
            found.append([a for a in dict.fromkeys(made) if a in later and a not in self.places[number]])
        sizes = [
            [size / recorded.examples for size in self._sizes_of(number, addresses)]
            for number, (recorded, addresses) in enumerate(zip(self.recordings, found, strict=True))
        ]
        if any(other != sizes[0] for other in sizes) or any(size % 1 for size in sizes[0]):
            raise NotRecordedError("values that differ with the number of examples")
        for position, size in enumerate(sizes[0]):
            place = self._new(":left", int(size) * self.examples)
            for number, addresses in enumerate(found):
                self.places[number][addresses[position]] = Where(":left", place.offset, int(size))

    def _list(self, number: int, launches: Sequence[Launch]) -> list[Call]:
        """The calls of a stage; what passes between them lies in the worker's memory."""
        inside, size = packed(launches, self.places[number])
        self.places[number] |= {address: Where("", offset) for address, offset in inside.items()}
        return [Call(launch, self._where(number), size, self.slices) for launch in launches]

    def _where(self, number: int) -> Any:
        places, examples = dict(self.places[number]), self.recordings[number].examples

        def where(buffer: Buffer) -> Where:
            if buffer.kind == "input":
                return Where(buffer.name, 0, buffer.size // examples)
            return Where(buffer.name) if buffer.kind == "parameter" else places[buffer.address]

        return where

    def _sizes_of(self, number: int, addresses: Sequence[int]) -> list[int]:
        sizes = {b.address: b.size for launch in self.recordings[number].launches for b in launch.writes}
        return [sizes[address] for address in addresses]

    def _new(self, array: str, size: int) -> Where:
        """Memory of its own in one of the arrays."""
        offset = self.arrays[array]
        self.arrays[array] += -(-size // LINE) * LINE
        return Where(array, offset)
