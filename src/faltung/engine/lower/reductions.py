"""Aggregate formulas over a region: one pass over the taps for each sum, mean, maximum and minimum in them."""

from dataclasses import dataclass
from typing import ClassVar

from faltung.engine.kernels.aggregates import first_largest, sums
from faltung.engine.kernels.pool import Aggregate
from faltung.engine.kernels.regions import Entries, Region, number
from faltung.engine.loops.language import I32, Value
from faltung.engine.lower.formula import translate
from faltung.formula import Formula
from faltung.formula.tree import Apply, Name, Node, Number, Reduce


@dataclass(frozen=True)
class Aggregated(Aggregate):
    """Any formula g, and its derivative."""

    g: str
    derivative: str
    reads: ClassVar[bool] = True

    @property
    def long(self) -> bool:
        return any(_long(Formula(text, "entries").tree) for text in (self.g, self.derivative))

    def forward(self, region: Entries) -> tuple[list[Value], list[Value]]:
        tree = Formula(self.g, "aggregate").tree
        reduced = _Reduced(region, tree)
        return [reduced.value(part, tree) for part in range(len(region.parts))], []

    def error(self, region: Region, dy: list[Value]) -> None:
        tree = Formula(self.derivative, "entries").tree
        reduced = _Reduced(region, tree)

        def shares(entries: list[Value], tap: Value) -> list[Value]:
            return [share * reduced.value(part, tree, entries[part], tap) for part, share in enumerate(dy)]

        region.spread(shares)


class _Reduced:
    """The reductions in a tree over one region, inner ones first; each needs one pass."""

    def __init__(self, region: Entries, tree: Node):
        self._region = region
        count = region.count
        self._known: list[dict[Node, Value]] = [
            {Name("m"): region.f.broadcast(count, part.lanes)} for part in region.parts
        ]
        self._first: list[dict[Node, Value]] = [{} for _ in region.parts]
        for node in dict.fromkeys(_reductions(tree)):
            per_entry, values = self._reduce(node)
            for part, value in enumerate(values):
                (self._first if per_entry else self._known)[part][node] = value

    def value(self, part: int, tree: Node, x: Value | None = None, tap: Value | None = None) -> Value:
        """What a tree is worth at an entry, or for the whole region."""
        f, known = self._region.f, dict(self._known[part])
        kind = self._region.kind.times(self._region.parts[part].lanes)
        if x is not None and tap is not None:
            known[Name("x")] = x
            for node, first in self._first[part].items():
                known[node] = f.select(first.equal(number(tap, I32)), f.constant(1.0, kind), 0.0)
        return translate(f, kind, tree, known)

    def _reduce(self, node: Reduce) -> tuple[bool, list[Value]]:
        """The value of a reduction, for each part; for those that have one an entry, the tap at which it is 1."""

        def entry(part: int, x: Value, tap: Value) -> Value:
            return self.value(part, node.body, x, tap)

        def negative(part: int, x: Value, tap: Value) -> Value:
            return -entry(part, x, tap)

        match node.function:
            case "sum":
                return False, sums(self._region, entry)
            case "mean":
                totals = zip(sums(self._region, entry), self._known, strict=True)
                return False, [total / known[Name("m")] for total, known in totals]
            case "max":
                return False, first_largest(self._region, entry)[0]
            case "min":
                return False, [-value for value in first_largest(self._region, negative)[0]]
            case "first_max":
                return True, first_largest(self._region, entry)[1]
            case _:
                return True, first_largest(self._region, negative)[1]


SHORT = {"+", "-", "*", "/", "neg", "abs", "max", "min", "ratio", "relu", "sign", "sqrt", "step"}
"""Functions of one or few instructions."""


def _long(tree: Node) -> bool:
    """Is there a function of many instructions?"""
    match tree:
        case Apply("**", (body, Number(2.0 | 3.0))):
            return _long(body)
        case Apply(function, arguments):
            return function not in SHORT or any(map(_long, arguments))
        case Reduce(_, body):
            return _long(body)
    return False


def _reductions(tree: Node) -> list[Reduce]:
    """All reductions in a tree, those inside others first."""
    match tree:
        case Apply(_, arguments):
            return [node for argument in arguments for node in _reductions(argument)]
        case Reduce(_, body):
            return [*_reductions(body), tree]
    return []
