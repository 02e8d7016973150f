"""A class drawn from logits: the smallest k at which the sums of the probabilities up to k exceed a number of [0, 1).

    p[k] = exp(scale (logits[k] - the largest logit)),  c[k] = p[0] + ... + p[k],  k = how many c are <= number c[last]

``scale`` is 1 / temperature. Beyond measure it leaves 1 for the largest logit and 0 for all others; then the number 0
draws the first of the largest. Sums are made one after the other, so that they never fall: no class is drawn whose
probability is 0.
"""

import math
from collections.abc import Callable, Sequence

from faltung.engine.kernels import mathematics
from faltung.engine.loops.language import F32, I32, Function, Type, Value

COLDEST = 1e30
"""The scale for a temperature of 0."""
UNROLLED = 8


def draw(f: Function, kind: Type, logits: Sequence[Value], sums: Sequence[Value], classes: int, scale: Value) -> None:
    """Write c to ``sums``, for each stream. Classes fill whole vectors; those that do not exist have logits of -inf."""
    for y, c in zip(logits, sums, strict=True):
        most = f.variable("most", -math.inf, kind)
        _each(f, classes, kind, lambda k, y=y, most=most: most.set(f.max(most.value, f.load(y, k, kind.lanes))))
        top = f.max_lanes(most.value)

        def power(k: Value, y: Value = y, c: Value = c, top: Value = top) -> None:
            f.store(mathematics.decay((top - f.load(y, k, kind.lanes)) * scale), c, k)

        _each(f, classes, kind, power)
    totals = [f.variable("total", 0.0, F32) for _ in sums]
    with f.loop("k", classes, step=math.gcd(UNROLLED, kind.lanes)) as k:
        for each in range(math.gcd(UNROLLED, kind.lanes)):
            for c, total in zip(sums, totals, strict=True):  # the sums of several streams need not wait for each other
                total.set(total.value + f.load(c, k + each))
                f.store(total.value, c, k + each)


def drawn(f: Function, kind: Type, c: Value, classes: int, number: Value) -> Value:
    """The class that the number draws from the sums."""
    last = f.load(c, classes - 1)
    target = number * last
    below = f.variable("below", 0.0, kind)

    def count(k: Value) -> None:
        sums = f.load(c, k, kind.lanes)
        below.set(below.value + f.select((sums <= target) & (sums < last), f.constant(1.0, kind), 0.0))

    _each(f, classes, kind, count)
    return f.convert("to_int", f.sum_lanes(below.value), I32)


def _each(f: Function, count: int, kind: Type, body: Callable[[Value], None]) -> None:
    with f.loop("k", count, step=kind.lanes) as k:
        body(k)
