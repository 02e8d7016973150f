"""What becomes of the 2x2 pixels that ``winograd`` has in registers: they are stored, or pooled, or both.

    y[2i + a, 2j + b] = pixel[a, b]         where y has such a pixel
    p[i, j] = g(f(pixel))                   where y has all four; and y = f(pixel), if anybody reads it

f is a pointwise function. g is an aggregate of ``pool``, for which the pixels are the entries of a region like others:
so maxima, their taps and NaN mean the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from faltung.engine.kernels.lanes import Part
from faltung.engine.kernels.pool import Aggregate
from faltung.engine.kernels.regions import Entries
from faltung.engine.loops.language import Function, Type, Value, pointer

Pixels = Sequence[Sequence[Value]]
"""Two rows of two: a vector of outputs each."""
Store = Callable[[Pixels, Value, Value | None], None]
"""Writes what is done with the pixels of some outputs: from this one of a block on, in the lanes of a mask."""


@dataclass(frozen=True)
class Here:
    """A tile, and the first output of a block."""

    n: Value
    i: Value
    j: Value
    begin: Value


class Ending(ABC):
    """How the pixels of a tile end."""

    @abstractmethod
    def arguments(self, kind: Type) -> dict[str, Type]:
        """Where they go, in pixels of this type."""

    @abstractmethod
    def store(self, f: Function, size: Mapping[str, Value], outputs: int, places: Sequence[Value], here: Here) -> Store:
        """What is done with those of one tile; ``places`` are the arguments, and ``size`` the run-time sizes."""


class Stored(Ending):
    """In y."""

    def arguments(self, kind: Type) -> dict[str, Type]:
        """Those of y."""
        return {"y": pointer(kind)}

    def store(self, f: Function, size: Mapping[str, Value], outputs: int, places: Sequence[Value], here: Here) -> Store:
        """A pixel is stored where y has one."""
        y, y_row = f.at(places[0], here.n * size["y_example"]), size["y_row"]
        y = f.at(y, here.i * 2 * y_row + here.j * (2 * outputs) + here.begin)
        low, right = _inside(size, here)

        def store(pixels: Pixels, o: Value, mask: Value | None) -> None:
            place = f.at(y, o)
            f.store(pixels[0][0], place, 0, mask)
            with f.where(right):
                f.store(pixels[0][1], place, outputs, mask)
            with f.where(low):
                f.store(pixels[1][0], place, y_row, mask)
                with f.where(right):
                    f.store(pixels[1][1], place, y_row + outputs, mask)

        return store


STORED = Stored()


@dataclass(frozen=True)
class Pooled(Ending):
    """In p, behind f; and in y, and with what pooling keeps, where these are asked for."""

    f: Callable[[Value], Value]
    aggregate: Aggregate
    stores: bool
    """Does somebody else read y?"""
    keeps: bool
    """Does somebody read what is kept?"""

    def arguments(self, kind: Type) -> dict[str, Type]:
        """Those of y, p, and what is kept; of what nobody reads there is none."""
        y = STORED.arguments(kind) if self.stores else {}
        kept = {"kept": pointer(self.aggregate.keeps)} if self.keeps and self.aggregate.keeps else {}
        return {**y, "p": pointer(kind), **kept}

    def store(self, f: Function, size: Mapping[str, Value], outputs: int, places: Sequence[Value], here: Here) -> Store:
        """The four are pooled where y has all of them."""
        beside = STORED.store(f, size, outputs, places, here) if self.stores else None
        tile = (here.n * (size["height"] // 2) + here.i) * (size["width"] // 2) + here.j
        targets = [f.at(place, tile * outputs + here.begin) for place in places[self.stores :]]
        low, right = _inside(size, here)

        def store(pixels: Pixels, o: Value, mask: Value | None) -> None:
            last = [[self.f(pixel) for pixel in row] for row in pixels]
            if beside:
                beside(last, o, mask)
            with f.where(low & right):
                values, kept = self.aggregate.forward(_four(f, last))
                for target, value in zip(targets, (*values, *kept), strict=False):
                    f.store(value, target, o, mask)

        return store


@dataclass
class _Four(Entries):
    """The pixels of a tile as a region."""

    entries: list[Value]

    @property
    def count(self) -> Value:
        """Their number."""
        return self.f.constant(len(self.entries), self.kind)

    def visit(self, body: Callable[[list[Value], Value], None]) -> None:
        """Write ``body(entries, number of the tap)`` for every tap."""
        for tap, entry in enumerate(self.entries):
            body([entry], self.f.constant(tap))


def _four(f: Function, pixels: Pixels) -> _Four:
    kind = pixels[0][0].type
    return _Four(f, kind.times(1), [Part(0, kind.lanes, kind.lanes, masks=True)], [x for row in pixels for x in row])


def _inside(size: Mapping[str, Value], here: Here) -> tuple[Value, Value]:
    """Has y the lower pixels of a tile, and those on the right?"""
    return here.i * 2 + 1 < size["height"], here.j * 2 + 1 < size["width"]
