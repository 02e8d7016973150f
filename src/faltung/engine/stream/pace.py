"""One worker or two, whichever goes faster just now: that depends on what else the processors have to do.

Both say the same, bit for bit. So whoever has been faster goes on, and the other one is told what was heard and tried
now and then, for a few steps; the longer it has been slower, the more rarely.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.stream.generator import Generator
from faltung.engine.stream.halves import by_two

TRIAL = 200
"""Steps of a trial."""
SOON, LATE = 1_000, 64_000
"""Steps from one trial to the next, at first and at most: where one of both takes four times as long, 1 % are lost."""

Array = NDArray[Any]


@dataclass
class Paced:
    """What has been heard, and how fast that went."""

    streams: list[Any]
    """Of one worker, and of two."""
    holder: int = 0
    """Who has heard all."""
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Of a step of one worker, and of two, when it was last measured; 0 before."""
    left: int = SOON
    """Steps until the next trial."""
    wait: int = SOON

    @property
    def faster(self) -> int:
        """Who has been faster: 0 one worker, 1 two."""
        return int(self.seconds[1] < self.seconds[0])

    def next(self, most: int) -> tuple[int, int]:
        """Who does how many steps now."""
        if 0.0 in self.seconds:
            return self.seconds.index(0.0), min(TRIAL, most)
        if self.left <= 0 and most >= TRIAL:
            return 1 - self.faster, TRIAL
        return self.faster, min(max(self.left, TRIAL), most)

    def done(self, who: int, steps: int, seconds: float) -> None:
        """So long it took."""
        trial = who != self.faster
        self.seconds[who] = seconds / steps
        self.left -= steps
        if trial:
            self.left = self.wait = SOON if who == self.faster else min(2 * self.wait, LATE)


class PacedGenerator:
    """The same three functions as ``Generator``, from the same arguments."""

    def __init__(self, dilations: Sequence[int], weights: Mapping[str, Array], streams: int = 1, half: bool = False):
        given = dilations, weights, streams, half
        self._by_workers: list[Any] = [Generator(*given), by_two(*given)]

    def begin(self) -> Paced:
        """Streams that have heard nothing."""
        return Paced([some.begin() for some in self._by_workers])

    def run(
        self, paced: Paced, codes: Array, starts: Array, numbers: Array, *, given: int = 0, **how: Any
    ) -> Array | None:
        """Go on; see ``Generator.run``."""
        count, first, kept = numbers.shape[1], 0, []
        front = codes.shape[1] - count
        while first < count:
            who, steps = paced.next(count - first)
            self._hand_over(paced, who)
            end, begun = first + steps, time.perf_counter()
            logits = self._by_workers[who].run(
                paced.streams[who],
                codes[:, first : end + front],
                starts[:, first:end] if starts.shape[1] > 1 else starts,
                numbers[:, first:end],
                given=min(max(given - first, 0), steps),
                **how,
            )
            paced.done(who, steps, time.perf_counter() - begun)
            kept.append(logits)
            first = end
        return np.concatenate(kept) if how.get("keep") else None

    def _hand_over(self, paced: Paced, who: int) -> None:
        """All that was heard, to those who go on."""
        if who != paced.holder:
            heard = self._by_workers[paced.holder].heard(paced.streams[paced.holder])
            self._by_workers[who].hear(paced.streams[who], *heard)
            paced.holder = who
