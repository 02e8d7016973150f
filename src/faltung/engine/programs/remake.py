"""Memory for time: what is cheap to make is made again where it is read much later, and not kept until then.

On the way back through a network, values are wanted that were made on the way forward. Where all of them together take
much memory, those that one cheap pass makes (a gate, or another pointwise function) are given up after their first
readers, and made again before the later ones, from inputs that are still there: the same launch on the same numbers
gives the same bits.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import count, pairwise

from faltung.engine.host.recording import Buffer, Launch, Place
from faltung.engine.kernels.elementwise import COST

MUCH = 64 << 20
"""Bytes between launches from which on they are worth a few percent of the time: more than an L3 cache holds."""


def sparing(launches: Sequence[Launch], kept: Collection[int]) -> list[Launch]:
    """The launches, with some done twice; what lies at the ``kept`` addresses is the caller's, and stays."""
    launches, numbers = list(launches), count(1)
    while True:
        uses = _uses(launches, kept)
        peak, size = _peak(uses, len(launches))
        found = [(gap, b) for b, at in uses.values() if (gap := _gap(launches, uses, b, at, peak)) is not None]
        if size < MUCH or not found:
            return launches
        for (maker, reader), buffer in sorted(found, key=lambda item: item[0][1], reverse=True):
            again = replace(buffer, address=-next(numbers))
            later = [_moved(launch, buffer, again) for launch in launches[reader:]]
            launches[reader:] = [_moved(launches[maker], buffer, again), *later]


def needed(launches: Sequence[Launch], results: Iterable[Place]) -> list[Launch]:
    """The launches without those that make nothing that is ever read."""
    wanted = {place.buffer.address for place in results}
    found = []
    for launch in reversed(launches):
        if any(buffer.address in wanted for buffer in launch.writes):
            wanted.update(buffer.address for buffer in launch.reads)
            found.append(launch)
    return found[::-1]


Uses = dict[int, tuple[Buffer, list[int]]]
"""By address: what lies there, and the numbers of the launches that read or write it."""


def _uses(launches: Sequence[Launch], kept: Collection[int]) -> Uses:
    uses: Uses = {}
    for number, launch in enumerate(launches):
        for buffer in {b.address: b for b in (*launch.reads, *launch.writes)}.values():
            if buffer.kind in ("memory", "sums") and buffer.address not in kept:
                uses.setdefault(buffer.address, (buffer, []))[1].append(number)
    return uses


def _peak(uses: Uses, count: int) -> tuple[int, int]:
    """The launch at which most bytes are in use, and how many."""
    changes = [0] * (count + 1)
    for buffer, at in uses.values():
        changes[at[0]] += buffer.size
        changes[at[-1] + 1] -= buffer.size
    size, most = 0, (0, 0)
    for number, change in enumerate(changes):
        size += change
        most = max(most, (size, -number))
    return -most[1], most[0]


def _gap(launches: Sequence[Launch], uses: Uses, buffer: Buffer, at: list[int], peak: int) -> tuple[int, int] | None:
    """The maker of what lies idle at the peak, and its next reader; None where it is used, or cannot be made again."""
    maker = launches[at[0]]
    reader = next((high for low, high in pairwise(at) if low < peak < high), None)
    writers = [n for n in at if buffer.address in {b.address for b in launches[n].writes}]
    cheap = maker.work <= COST * (buffer.size // buffer.dtype.itemsize)
    if reader is None or writers != at[:1] or len(maker.writes) != 1 or not cheap:
        return None
    for source in maker.reads:
        if source.address == buffer.address or not _same(launches, uses, source, at[0], reader):
            return None
    return at[0], reader


def _same(launches: Sequence[Launch], uses: Uses, source: Buffer, maker: int, reader: int) -> bool:
    """Is an input of the maker still there when the reader comes, as it was, and without being kept for this?"""
    if source.address not in uses:
        return source.kind in ("input", "parameter", "constant")
    at = uses[source.address][1]
    written = any(source.address in {b.address for b in launches[n].writes} for n in at if n > maker)
    return at[-1] >= reader and not written


def _moved(launch: Launch, old: Buffer, new: Buffer) -> Launch:
    """The launch with another buffer in the old one's place."""

    def moved(buffer: Buffer) -> Buffer:
        return new if buffer.address == old.address else buffer

    if old.address not in {b.address for b in (*launch.reads, *launch.writes)}:
        return launch
    arguments = tuple(replace(a, buffer=moved(a.buffer)) if isinstance(a, Place) else a for a in launch.arguments)
    reads, writes = (tuple(map(moved, buffers)) for buffers in (launch.reads, launch.writes))
    return replace(launch, arguments=arguments, reads=reads, writes=writes)
