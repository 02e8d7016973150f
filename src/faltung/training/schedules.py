"""Schedules: how a setting of an optimiser changes from step to step. A plain number is one that does not.

A schedule is a frozen description that is called with the step, the number of updates made before: 0 at the first one.

>>> rate = WarmUp(5, then=Cosine(0.1, steps=100))
>>> [round(at_step(rate, step), 4) for step in (0, 4, 50, 100)]
[0.02, 0.0996, 0.05, 0.0]
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from faltung.elements.settings import check_count, check_number, refuse

Schedule = Callable[[int], float]
Setting = float | Schedule
"""A number, or one of the schedules below (or any function of the step, where nothing has to be saved)."""


def at_step(setting: Setting, step: int) -> float:
    """The value of a setting at this step."""
    return float(setting(step) if callable(setting) else setting)


@dataclass(frozen=True)
class StepDecay:
    """initial * factor ** floor(step / every)

    >>> [StepDecay(0.1, 0.5, every=234)(step) for step in (0, 233, 234, 468)]
    [0.1, 0.1, 0.05, 0.025]
    """

    initial: float
    factor: float
    every: int

    def __post_init__(self):
        check_number(self, "initial", self.initial, 0)
        check_number(self, "factor", self.factor, 0, 1)
        check_count(self, every=self.every)

    def __call__(self, step: int) -> float:
        return self.initial * self.factor ** (step // self.every)


@dataclass(frozen=True)
class Cosine:
    """final + (initial - final) (1 + cos(pi step / steps)) / 2, and final after that.

    Source: Loshchilov & Hutter 2017, *SGDR*, equation 5, without restarts.

    >>> [round(Cosine(0.2, steps=4)(step), 4) for step in range(6)]
    [0.2, 0.1707, 0.1, 0.0293, 0.0, 0.0]
    """

    initial: float
    steps: int
    final: float = 0.0

    def __post_init__(self):
        check_number(self, "initial", self.initial, 0)
        check_count(self, steps=self.steps)
        check_number(self, "final", self.final, 0)

    def __call__(self, step: int) -> float:
        fraction = min(step / self.steps, 1)
        return self.final + (self.initial - self.final) * (1 + math.cos(math.pi * fraction)) / 2


@dataclass(frozen=True)
class WarmUp:
    """then(step) * min((step + 1) / steps, 1): a rise along a straight line in the first steps.

    Source: Goyal et al. 2017, section 2.2, "gradual warmup".

    >>> [WarmUp(4, 0.2)(step) for step in range(5)]
    [0.05, 0.1, 0.15..., 0.2, 0.2]
    """

    steps: int
    then: Setting

    def __post_init__(self):
        check_count(self, steps=self.steps)
        if not callable(self.then):
            check_number(self, "then", self.then, 0)

    def __call__(self, step: int) -> float:
        return at_step(self.then, step) * min((step + 1) / self.steps, 1)


@dataclass(frozen=True)
class Piecewise:
    """The value of the last pair (start, value) whose start has been reached.

    >>> momentum = Piecewise(((0, 0.5), (19, 0.95)))  # UFLDL: 0.5 until the 20th update
    >>> [momentum(step) for step in (0, 18, 19, 700)]
    [0.5, 0.5, 0.95, 0.95]
    """

    pairs: tuple[tuple[int, float], ...]

    def __post_init__(self):
        pairs = self.pairs if isinstance(self.pairs, tuple) else ()
        if not pairs or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            refuse(self, "pairs", self.pairs, "a tuple of pairs (start, value), such as ((0, 0.5), (19, 0.95))")
        starts = [start for start, _ in pairs]
        rising = all(type(start) is int for start in starts) and starts == sorted(set(starts))
        if starts[0] != 0 or not rising:
            refuse(self, "pairs", self.pairs, "rising starts, the first one 0")
        for _, value in pairs:
            check_number(self, "pairs", value, 0)

    def __call__(self, step: int) -> float:
        return next(value for start, value in reversed(self.pairs) if start <= step)
