"""Derivatives against slopes: (J(v + epsilon) - J(v - epsilon)) / (2 epsilon), in float64.

The measure is |numeric - analytic| / |numeric + analytic|, with Euclidean norms over all entries that are compared.
Source: UFLDL tutorial, "Gradient checking", and its convolutional exercise, which asks for less than 1e-9.

At a kink (ReLU at 0, a tie of max pooling) there is no derivative, only one slope on either side. Such entries are
moved together: where that has a derivative, as for all maxima of a tie, it must be the sum of theirs. Otherwise they
are left out. Either way they are counted in ``kinks``.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from faltung.check.derivatives import Derivatives, Entry, of_element
from faltung.elements.element import Array, Element, Params, Run, Shape
from faltung.errors import NetworkError, SettingError
from faltung.randomness import generator

if TYPE_CHECKING:
    from faltung.elements.costs import Cost
    from faltung.network.network import Network

SHORTER = 2.0**-7
"""A slope that disagrees is measured once more, with a step so much shorter: a kink beside the entry is then passed."""
NOISE = 2.0**-50
"""What J may be wrong by, as a fraction of it, because sums are rounded."""
FLOOR = 1e-4
"""Arrays whose derivatives are smaller than all together by more than this are measured against those."""


@dataclass(frozen=True)
class GradientCheck:
    """How far derivatives and slopes lie apart, over all entries and by the name of the parameter or input.

    What is zero but for rounding is not wrong: an array with tiny derivatives is measured against a ten-thousandth of
    all derivatives. ``worst`` is the worst entry of the worst array; at a kink, its numbers are those of all entries
    that were moved together.

    >>> from faltung.elements import Affine
    >>> class Forgetful(Affine):
    ...     def gradient(self, params, kept, dy):
    ...         return super().gradient(params, kept, dy) | {"b": 0 * params["b"]}
    >>> report = element_check(Forgetful(1), np.ones((3, 2)))
    >>> report.passed(), report.by_name["b"], report.worst.name, report.worst.analytic
    (False, 1.0, 'b', 0.0)
    """

    difference: float
    by_name: dict[str, float]
    worst: Entry
    entries: dict[str, int]
    """How many were compared, by name."""
    kinks: int

    def passed(self, bound: float = 1e-7) -> bool:
        """Whether no difference is above ``bound``; NaN never passes."""
        return all(difference <= bound for difference in (self.difference, *self.by_name.values()))

    def __str__(self) -> str:
        rows = [(name, self.entries[name], difference) for name, difference in self.by_name.items()]
        rows.append(("all", sum(self.entries.values()), self.difference))
        width = max(len(name) for name, _, _ in rows)
        lines = [f"{'':{width}}   entries  difference"]
        lines += [f"{name:{width}}  {count:8,}  {difference:10.1e}" for name, count, difference in rows]
        lines += [f"{self.kinks:,} more at kinks"] if self.kinks else []
        return "\n".join([*lines, f"worst: {self.worst}"])


def gradient_check(
    network: "Network",
    params: Params,
    x: Any,
    target: Any,
    *,
    cost: "Cost | Mapping[str, Cost]",
    names: Iterable[str] | None = None,
    entries: int | None = None,
    seed: int = 0,
    epsilon: float = 1e-4,
    run: Run = Run(training=True),
) -> GradientCheck:
    """Compare the gradients and input errors of ``network.backpropagate`` with slopes of the cost; arguments as there.

    Everything is converted to float64. ``names`` are the parameters and inputs to check (all), ``entries`` how many
    entries of each, chosen at random from the seed (all).
    Raises: as ``backpropagate``; NetworkError where a name is unknown, SettingError where there is nothing to compare.

    >>> import faltung as ft
    >>> net = ft.Chain(conv=ft.Conv(2, kernel=3), sigm=ft.Sigmoid(), pool=ft.GlobalPool("mean")).on((7, 1))
    >>> x = np.sin(np.arange(21.0)).reshape(3, 7, 1)
    >>> report = gradient_check(net, net.initial(seed=0), x, np.array([0, 1, 1]), cost=ft.CrossEntropy())
    >>> report.passed(1e-8), report.entries
    (True, {'conv.w': 6, 'conv.b': 2, 'x': 21})
    """
    params = {name: np.array(w, np.float64, order="C") for name, w in params.items()}
    indices = {source for step in network.steps if step.element.takes_indices for source in step.sources}
    given = dict(x) if isinstance(x, Mapping) else {next(iter(network.inputs)): x}
    inputs = {name: np.array(v, None if name in indices else np.float64, order="C") for name, v in given.items()}
    back = network.backpropagate(params, inputs, target, cost=cost, run=run, keep=inputs)
    costs = cost if isinstance(cost, Mapping) else {network.outputs[0]: cost}
    targets = target if isinstance(cost, Mapping) else {network.outputs[0]: target}

    def total() -> float:
        values = network.forward(params, inputs, run).values
        return float(sum(costs[name].forward(values[name], targets[name])[0] for name in costs))

    arrays = {name: params[name] for name in network.parameters}
    arrays |= {name: array for name, array in inputs.items() if name not in indices}
    chosen = list(arrays if names is None else names)
    unknown = [name for name in chosen if name not in arrays]
    if unknown:
        raise NetworkError(f"got the names {unknown}, expected some of {list(arrays)}", way_out="see print(net)")
    derivatives = Derivatives(total, {name: arrays[name] for name in chosen}, back.gradients | back.errors)
    return compare(derivatives, epsilon, entries, seed)


def element_check(
    element: Element,
    *inputs: Shape | Array,
    entries: int | None = None,
    seed: int = 0,
    epsilon: float = 1e-4,
    run: Run = Run(),
) -> GradientCheck:
    """Compare ``error`` and ``gradient`` of one element with slopes of <dy, y>, for a random dy.

    Each input is an array (batch, *axes, channels), or a shape without the batch, filled with random numbers. So are
    the parameters; they go by the element's names ("w", "b"). The input is "x", several are "x0", "x1", ...
    Raises: SettingError where indices are given by their shape, ShapeError where a derivative has a wrong one.

    >>> from faltung.elements import Tanh
    >>> print(element_check(Tanh(), (3,)))
          entries  difference
    x           6     2.3e-09
    all         6     2.3e-09
    worst: x[0, 0]: analytic 1.28360160..., numeric 1.28360160...
    """
    derivatives, _, _ = of_element(element, inputs, seed, run, _normal)
    return compare(derivatives, epsilon, entries, seed)


def compare(derivatives: Derivatives, epsilon: float, entries: int | None, seed: int) -> GradientCheck:
    """Measure the slope by each entry, or by so many of each array, and compare."""
    if not epsilon > 0 or (entries is not None and entries < 1):
        raise SettingError(
            f"got epsilon={epsilon!r}, entries={entries!r}, expected numbers above 0", way_out="use the defaults"
        )
    step = 2.0 ** round(math.log2(epsilon))  # a power of two: v + step and v - step are exact
    random = generator(seed)
    found, kinks = {}, 0
    for name, array in derivatives.arrays.items():
        every = entries is None or entries >= array.size
        places = range(array.size) if every else np.sort(random.choice(array.size, entries, replace=False)).tolist()
        found[name], left_out = _measure(derivatives, name, places, step)
        kinks += left_out
    if not any(found.values()):
        raise SettingError(
            f"got nothing to compare ({kinks} entries at kinks), expected entries with a derivative",
            way_out="move inputs and parameters away from the kinks",
        )
    measures = {name: _norms(part) for name, part in found.items()}
    gap, size = np.linalg.norm(list(measures.values()), axis=0)
    by_name = {name: _ratio(own, np.fmax(both, FLOOR * size)) for name, (own, both) in measures.items()}
    worst = max(found, key=lambda name: (len(found[name]) > 0, _order(by_name[name])))
    return GradientCheck(
        difference=_ratio(gap, size),
        by_name=by_name,
        worst=max(found[worst], key=lambda entry: _order(entry.gap)),
        entries={name: len(part) for name, part in found.items()},
        kinks=kinks,
    )


def _measure(derivatives: Derivatives, name: str, places: Iterable[int], step: float) -> tuple[list[Entry], int]:
    """The entries that have a derivative, and the number of those at kinks."""
    analytic = derivatives.by(name)
    tolerance = 1e-8 * float(np.max(abs(analytic), initial=0.0))
    entries, kinks = [], {}
    for place in places:
        slope, kink = _slope(derivatives, name, place, float(analytic[place]), step, tolerance)
        if kink:
            kinks[place] = abs(slope - float(analytic[place]))
        else:
            entries.append(derivatives.entry(name, place, analytic[place], slope))
    at_kinks = sorted(kinks, key=lambda place: -kinks[place])
    wrong = _together(derivatives, name, at_kinks, step * SHORTER)
    if wrong:
        ties = (_together(derivatives, name, tie, step * SHORTER) for tie in _ties(derivatives, name, at_kinks, step))
        entries.append(next(filter(None, ties), wrong))
    return entries, len(kinks)


def _together(derivatives: Derivatives, name: str, places: list[int], step: float) -> Entry | None:
    """Where these entries, moved together, have a derivative that is not the sum of theirs: the two, at the first."""
    if not places:
        return None
    right, left = derivatives.slopes(name, places, step)
    slope, expected = (right + left) / 2, float(derivatives.by(name)[places].sum())
    smooth = abs(right - left) <= abs(slope - expected) / 1000
    return derivatives.entry(name, places[0], expected, slope) if smooth else None


def _ties(derivatives: Derivatives, name: str, places: list[int], step: float) -> Iterator[list[int]]:
    """The places in groups, each of a first one and those that do not move independently of it."""
    alone = {place: np.array(derivatives.slopes(name, [place], step)) for place in places}
    while places:
        first, *others = places
        tie = [first]
        for place in others:
            apart = alone[first] + alone[place] - derivatives.slopes(name, [first, place], step)
            if np.any(abs(apart) > 1e-3 * (abs(alone[first]) + abs(alone[place]))):
                tie.append(place)
        yield tie
        places = [place for place in others if place not in tie]


def _slope(
    derivatives: Derivatives, name: str, place: int, analytic: float, step: float, tolerance: float
) -> tuple[float, bool]:
    """The slope by one entry, and whether the entry is at a kink.

    A second, shorter step tells a wrong derivative, which is as wrong as before, from a kink nearby, which is left
    behind or moves the slope, and from a kink right here, where the slopes on both sides differ as much as before.
    """
    noise = NOISE * abs(derivatives.here) / step
    right, left = derivatives.slopes(name, [place], step)
    far = (right + left) / 2
    if abs(far - analytic) <= tolerance + noise:
        return far, False
    near_right, near_left = derivatives.slopes(name, [place], step * SHORTER)
    near = (near_right + near_left) / 2
    gap, jump, near_jump = abs(near - analytic), abs(right - left), abs(near_right - near_left)
    moved = abs(far - near) > gap / 10
    bent = near_jump > jump / 2 and near_jump > gap / 1000
    kink = gap > tolerance + noise / SHORTER and math.isfinite(jump + near_jump) and (moved or bent)
    return min(far, near, key=lambda slope: abs(slope - analytic)), kink


def _norms(entries: list[Entry]) -> tuple[float, float]:
    """|numeric - analytic| and |numeric + analytic|."""
    analytic, numeric = (np.array([getattr(entry, kind) for entry in entries]) for kind in ("analytic", "numeric"))
    return float(np.linalg.norm(numeric - analytic)), float(np.linalg.norm(numeric + analytic))


def _ratio(gap: float, size: float) -> float:
    """Nothing apart is 0, also where both are zero."""
    if gap == 0:
        return 0.0
    return float(gap) / float(size) if size else math.inf


def _order(measure: float) -> float:
    """For finding the largest: NaN is larger than any number."""
    return math.inf if math.isnan(measure) else measure


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return random.normal(size=shape)
