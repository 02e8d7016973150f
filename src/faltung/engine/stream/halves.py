"""Several streams by two workers who never meet: each goes on with half of them, and reads all weights."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.engine.stream.generator import Generator, Streams, together

Array = NDArray[Any]


@dataclass
class Shared:
    """What has been heard, of each worker's streams."""

    parts: list[Streams]
    helper: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "faltung generator"), repr=False)


class Halves:
    """The same functions as ``Generator``, from the same arguments, for two streams or more."""

    def __init__(self, dilations: Sequence[int], weights: Mapping[str, Array], streams: int, half: bool = False):
        few = streams // 2
        made = {count: Generator(dilations, weights, count, half) for count in {few, streams - few}}
        self._parts = [(made[few], slice(few)), (made[streams - few], slice(few, None))]

    def begin(self) -> Shared:
        """Streams that have heard nothing."""
        return Shared([part.begin() for part, _ in self._parts])

    def heard(self, streams: Shared) -> tuple[int, list[Array]]:
        """See ``Generator.heard``."""
        one, other = (part.heard(own) for (part, _), own in zip(self._parts, streams.parts, strict=True))
        return one[0], [np.concatenate(queues, axis=1) for queues in zip(one[1], other[1], strict=True)]

    def hear(self, streams: Shared, time: int, queues: Sequence[Array]) -> None:
        """See ``Generator.hear``."""
        for (part, some), own in zip(self._parts, streams.parts, strict=True):
            part.hear(own, time, [queue[:, some] for queue in queues])

    def run(self, streams: Shared, codes: Array, starts: Array, numbers: Array, **how: Any) -> Array | None:
        """Go on; see ``Generator.run``."""
        calls = [
            partial(part.run, own, codes[some], starts[some] if len(starts) > 1 else starts, numbers[some], **how)
            for (part, some), own in zip(self._parts, streams.parts, strict=True)
        ]
        logits = together(streams.helper, *calls)
        return None if logits[0] is None else np.concatenate(logits, axis=1)


def by_two(dilations: Sequence[int], weights: Mapping[str, Array], streams: int = 1, half: bool = False) -> Any:
    """Who goes on by two workers: each has streams of its own, or they share the steps of the only one."""
    if streams > 1:
        return Halves(dilations, weights, streams, half)
    return Generator(dilations, weights, streams, half, workers=2)
