"""Plans: what a network does with inputs of given sizes, recorded once and then run as a program.

A plan is found by what is asked for and by sizes alone, and kept while the network lives. What cannot be recorded has
none: it runs element by element, and gives the same values.
"""

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy import ndarray

from faltung.elements.element import Array, Run
from faltung.engine.host import arena, workers
from faltung.engine.host.machine import host
from faltung.engine.host.recording import Later, NotRecordedError, recording
from faltung.engine.programs.fusion import fused
from faltung.engine.programs.pooling import pooled, sooner
from faltung.engine.programs.remake import needed
from faltung.engine.programs.settle import Settled
from faltung.engine.programs.stages import OF_EXAMPLES, Planned, Recorded, deep, flat, order

if TYPE_CHECKING:
    from faltung.network.network import Network

SLICES = 8
"""Parts of a batch that have sums of their own, at most."""
SUMS = 64 << 20
"""Bytes of the sums of all slices, at most."""
FEW = 4
"""Examples that are too few to be split among workers."""
TASKS = 16
"""Tasks that a prediction should have, if there are so many examples."""
MOST = 64
"""Plans that a network keeps; those used least recently go."""
BYTE = np.dtype(np.uint8)

Given = Mapping[str, tuple[tuple[int, ...], Any]]
"""Names, with shape (of one example, where it belongs to examples) and dtype."""


@dataclass(frozen=True)
class Task:
    """Something to record: ``do`` takes inputs and parameters by name, and gives results by name."""

    do: Callable[[dict[str, Array], dict[str, Array]], dict[str, Array]]
    inputs: Given
    params: Given
    settled: Settled | None = None
    """The parameters, where they never change."""
    exact: bool = True
    """Are results to have the bits that single elements give? Else rounding may differ."""

    def record(
        self, examples: int, *, sliced: bool, strips: bool = False
    ) -> tuple[Recorded, dict[str, tuple[tuple[int, ...], Any]]]:
        """What it does with so many examples, and the shapes of the results."""
        if any(
            dtype.kind == "f" and dtype.itemsize not in (4, 8)
            for _, dtype in (*self.inputs.values(), *self.params.values())
        ):
            raise NotRecordedError("numbers that kernels do not know")
        settled = self.settled is not None
        with recording(sliced=sliced, settled=settled, exact=self.exact, strips=strips, parts=True) as recorder:
            inputs = {
                name: recorder.array((examples, *shape), dtype, "input", name)
                for name, (shape, dtype) in self.inputs.items()
            }
            params = {
                name: recorder.array(shape, dtype, "parameter", name) for name, (shape, dtype) in self.params.items()
            }
            try:
                results = self.do(inputs, params)
            except ValueError as error:  # NumPy was to write into recorded memory
                raise NotRecordedError(str(error)) from error
            places = {name: recorder.place(array) for name, array in results.items()}
            launches = needed(recorder.launches, places.values()) if strips else recorder.launches
            kept = places.values()
            together = pooled(fused(sooner(launches, kept), kept), kept)  # whose kernels are made later, too
        for name, place in places.items():
            outside = place.buffer.kind in ("input", "parameter") or name.startswith(OF_EXAMPLES)
            if outside and results[name].nbytes != place.buffer.size:
                raise NotRecordedError(f"{name}, which is a part of another value")
        shapes = {name: (array.shape, array.dtype) for name, array in results.items()}
        recorded = Recorded(examples, together, places)
        return (self.settled.without(recorded) if self.settled else recorded), shapes


def later(run: Run) -> Run:
    """The run for recordings: its numbers are found when a program runs."""
    numbers = {name: Later(lambda given, name=name: getattr(given, name)) for name in ("step", "seed")}
    first = Later(lambda given: given.first, each=1)
    return replace(run, first=first, **numbers)  # pyright: ignore[reportArgumentType] -- they stand for whole numbers


class Plan:
    """A task on so many examples, ready to run."""

    def __init__(self, task: Task, examples: int, *, summed: bool):
        self.planned, shapes = _choose(task, examples, summed=summed)
        self._shapes = {name: _whole(name, shape, examples) for name, (shape, _) in shapes.items()}
        self._dtypes = {name: dtype for name, (_, dtype) in shapes.items()}
        self._memory = _Memory(self.planned.arrays)
        self._ready: dict[int, Callable[..., Any] | None] = {}
        self._results = [self._result(name) for name in self.planned.results]
        self._kinds = tuple(dict.fromkeys(kind for kind, *_ in self._results))

    def run(self, given: Mapping[str, Array], numbers: Any) -> dict[str, dict[str, Array]]:
        """All results by kind and name; ``numbers`` has the attributes that are numbers of this run."""
        places = dict(zip(given, map(arena.address, given.values()), strict=True))
        lent = self._memory.lent(places)
        self.planned.program.run(places, numbers)
        results: dict[str, dict[str, Array]] = {kind: {} for kind in self._kinds}
        for kind, name, source, shape, dtype, offset in self._results:
            if dtype is None:
                results[kind][name] = given[source].reshape(shape)
            else:
                results[kind][name] = ndarray(shape, dtype, lent[source], offset)
        return results

    def ready(self, inputs: Iterable[str], outputs: Sequence[str]) -> Callable[..., Any] | None:
        """``bound``, made when it is asked for first; inputs and outputs are the same each time."""
        threads = workers.count()
        if threads not in self._ready:
            self._ready[threads] = self.bound([*inputs], outputs)
        return self._ready[threads]

    def bound(self, inputs: Sequence[str], outputs: Sequence[str]) -> Callable[..., Any] | None:
        """``run`` for arrays in the order of these inputs, for many calls: it gives the only output, or all by name.

        None where outputs have no memory of their own, or numbers of the run are wanted.
        """
        names = [f"value:{name}" for name in outputs]
        arrays = self.planned.arrays
        sizes = [math.prod(self._shapes[name]) * self._dtypes[name].itemsize for name in names]
        if not self.planned.program.fixed or any(
            arrays.get(name) != size for name, size in zip(names, sizes, strict=True)
        ):
            return None
        inside = {name: size for name, size in arrays.items() if name not in names}
        run = self.planned.program.bound([*inputs, *names], inside)
        lenders = [arena.empty if size > arena.MALLOC else np.empty for size in sizes]
        wanted = [(empty, self._shapes[name], self._dtypes[name]) for empty, name in zip(lenders, names, strict=True)]
        lend, shape, dtype = wanted[0]

        def single(x: Array) -> Array:
            y = lend(shape, dtype)
            run(x, y)
            return y

        def several(*given: Array) -> dict[str, Array]:
            new = [lend(shape, dtype) for lend, shape, dtype in wanted]
            run(*given, *new)
            return dict(zip(outputs, new, strict=True))

        def one(*given: Array) -> Array:
            return several(*given)[outputs[0]]

        if len(outputs) > 1:
            return several
        return single if len(inputs) == 1 else one

    def _result(self, name: str) -> tuple[str, str, str, tuple[int, ...], Any, int]:
        """A result: kind and name, the array that it lies in, its shape, dtype (None if it was given) and offset."""
        result, shape, dtype = self.planned.results[name], self._shapes[name], self._dtypes[name]
        kind, _, own = name.partition(":")
        if result.array not in self.planned.arrays:
            return kind, own, result.array, shape, None, 0
        if name.startswith("cost:"):
            shape = self.planned.arrays[result.array] // (dtype.itemsize * shape[-1]), shape[-1]
        array, offset = self._memory.places[result.array]
        return kind, own, array, shape, dtype, offset + result.offset


class _Memory:
    """The arrays of a program: results of the batch lie in one, and so does what nobody sees; others by themselves."""

    def __init__(self, arrays: Mapping[str, int]):
        self.places: dict[str, tuple[str, int]] = {}
        """For each array, the one that it lies in, and where."""
        self._sizes: dict[str, int] = {}
        for name, size in arrays.items():
            whole = ":inside" if name.startswith(":") else name if name.startswith(OF_EXAMPLES) else ":results"
            begin = self._sizes.get(whole, 0)
            self.places[name], self._sizes[whole] = (whole, begin), begin - -size // arena.LINE * arena.LINE
        self._lenders = [(name, np.zeros if name.startswith("cost:") else arena.empty) for name in self._sizes]

    def lent(self, addresses: dict[str, int]) -> dict[str, Array]:
        """Memory for one run; the addresses of all arrays are added to the others. Costs begin at 0."""
        lent = {name: lend((self._sizes[name],), BYTE) for name, lend in self._lenders}
        begins = {name: arena.address(array) for name, array in lent.items()}
        for name, (whole, offset) in self.places.items():
            addresses[name] = begins[whole] + offset
        return lent


def _whole(name: str, shape: tuple[int, ...], examples: int) -> tuple[int, ...]:
    """The shape of a result for so many examples, from that of a recording."""
    return (examples, *shape[1:]) if name.startswith(OF_EXAMPLES) else shape


def _choose(task: Task, examples: int, *, summed: bool) -> tuple[Planned, Any]:
    """The program for so many examples.

    Deep, with as many examples together as leave room in the L2 cache, and at least one (values that do not fit there
    are then still read again before they have gone far). Flat, where there are too few examples for several workers, or
    where the sums of all slices would take more memory than they save.
    """
    one, shapes = task.record(1, sliced=summed)
    sums = sum({b.address: b.size for launch in one.launches for b in launch.writes if b.kind == "sums"}.values())
    slices = min(SLICES, examples, SUMS // max(sums, 1)) if summed else examples
    if examples < FEW or slices < 2:
        recorded, shapes = task.record(examples, sliced=False, strips=summed)
        return flat(recorded), shapes
    need = order(one.launches).memory
    share = -(-examples // slices)
    most = share if summed else max(1, examples // TASKS)
    together = _together(most, host().l2 / max(need, 1))
    if not summed:
        share = together
    return deep(recordings(task, one, examples, share, together, summed=summed), examples, share), shapes


def recordings(task: Task, one: Recorded, examples: int, share: int, together: int, *, summed: bool) -> list[Recorded]:
    """The recordings for all numbers of examples that are done at once: ``share`` are a slice, at most ``together``."""
    last = examples - share * ((examples - 1) // share)
    counts = [
        count for count in dict.fromkeys([together, share % together, last % together, min(last, together)]) if count
    ]
    return [one if count == 1 else task.record(count, sliced=summed)[0] for count in counts]


def _together(most: int, room: float) -> int:
    """How many examples go together, at most so many, where the L2 cache has room for so many.

    They are to take about three quarters of it, and all groups to be of one size: then one recording serves them.

    >>> _together(4, 4.2), _together(32, 5.6), _together(32, 100), _together(31, 4.2), _together(8, 0.3)
    (4, 4, 32, 3, 1)
    """
    wanted = max(1, min(most, int(room * 3 / 4)))
    even = [count for count in range(wanted // 2 + 1, int(room) + 1) if most % count == 0]
    return min(even, key=lambda count: max(count, wanted) / min(count, wanted), default=wanted)


@dataclass
class _Known:
    """A plan, None where there is none, and when it was used last."""

    plan: Plan | None
    used: int = 0


class Plans:
    """The plans of all networks, found by what is asked of them."""

    def __init__(self):
        self._plans: WeakKeyDictionary[Network, dict[Any, _Known]] = WeakKeyDictionary()
        self._lock, self._times = threading.Lock(), itertools.count(1)

    def find(self, network: "Network", key: Any, make: Callable[[], Plan]) -> Plan | None:
        """The plan for this key, made when it is asked for first; None where it cannot be made."""
        plans = self._plans.get(network)
        known = None if plans is None else plans.get(key)
        if known is None:
            known = self._made(network, key, make)
        known.used = next(self._times)
        return known.plan

    def _made(self, network: "Network", key: Any, make: Callable[[], Plan]) -> _Known:
        try:
            known = _Known(make())
        except NotRecordedError:
            known = _Known(None)
        with self._lock:
            plans = self._plans.setdefault(network, {})
            while len(plans) >= MOST:
                del plans[min(plans, key=lambda key: plans[key].used)]
            plans[key] = known
        return known

    def newest(self, network: "Network") -> Plan | None:
        """The plan that was used last."""
        with self._lock:
            known = self._plans.get(network)
            return max(known.values(), key=lambda known: known.used).plan if known else None
