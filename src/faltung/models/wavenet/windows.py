"""Recordings as training data: windows of codes, each sample predicted from a full receptive field of true ones.

The cost of a sample counts only where all samples that the network sees before it belong to the recording, and all
frames of a local condition that it looks at, to the window. So the first samples of a recording, ``warmup(settings)``
and one, are only looked at. What stands behind the end of a short one is looked at by nobody, and its label is
``IGNORED``.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.data.dataset import Indices
from faltung.data.mel import FLOOR, log_mel
from faltung.errors import DataError
from faltung.models.wavenet.compose import compose
from faltung.models.wavenet.mulaw import decode, encode
from faltung.models.wavenet.settings import Settings
from faltung.network import Network
from faltung.randomness import generator

IGNORED = -1
"""The label of what does not count; give it to the cost as ``ignore``."""

Array = NDArray[Any]
Batch = tuple[dict[str, Array], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Clip:
    """One recording as the network sees it: codes, and the frames of its local condition if there is one."""

    codes: Array
    local: NDArray[np.float32] | None = None


def clip(wave: Array, settings: Settings) -> Clip:
    """A wave from -1 to 1 as codes; where the settings ask for a local condition, with that of ``condition``."""
    return Clip(encode(wave, settings.classes), condition(wave, settings) if settings.local else None)


def condition(wave: Array, settings: Settings) -> NDArray[np.float32]:
    """The log-mel spectrogram as a local condition, (frames, local): 0 in silence, and about 1 for a full sine wave.

    >>> nothing = np.zeros(1000, np.float32)
    >>> vocoder = Settings((1, 2), local=80, upsample=(10, 20))
    >>> condition(nothing, vocoder).shape, condition(nothing, vocoder).max()
    ((5, 80), np.float32(0.0))
    """
    mels = log_mel(wave, rate=settings.rate, hop=settings.hop, mels=settings.local)
    return mels / np.float32(-np.log10(FLOOR)) + 1


@lru_cache(maxsize=8)
def warmup(settings: Settings) -> int:
    """The logits at the begin of a window that do not count: they have not seen all that others see.

    >>> vocoder = Settings((1, 2), local=80, upsample=(10, 20))
    >>> warmup(replace(vocoder, local=0, upsample=())), warmup(vocoder), vocoder.frames(warmup(vocoder))
    (4, 112, range(0, 2))
    """
    least = settings.receptive_field - 1
    if not settings.local:
        return least
    return least + bisect_left(range(4 * settings.hop), 0, key=lambda more: settings.frames(least + more).start)


def grid(settings: Settings) -> int:
    """Windows begin at multiples of it: where frames of the local condition begin, and those of a context."""
    return lcm(settings.hop or 1, settings.context.pool if settings.context else 1)


def countable(clip: Clip, settings: Settings) -> int:
    """How many samples of a recording can count."""
    return max(0, len(clip.codes) - warmup(settings) - 1)


def training_network(settings: Settings, length: int) -> Network:
    """The network for windows of ``length`` counted samples, without the logits of the warm-up."""
    sizes = {"x": warmup(settings) + length, "local": _frames(settings, length)}
    axes = {"x": () if settings.input == "onehot" else (1,), "local": (settings.local,)}
    graph = compose(settings, warmup(settings))
    return graph.on(**{name: (sizes[name], *axes[name]) for name in graph.inputs})


@dataclass(frozen=True, eq=False)
class Windows:
    """``count`` windows of ``length`` counted samples, drawn from (seed, epoch, index): recording, then place.

    A recording is drawn as often as it has samples that can count. ``windows.epoch(n)`` are those of epoch n.
    Raises: DataError where no recording is longer than the receptive field.

    >>> settings = Settings((1, 2), residual=4, gate=4, skip=8)
    >>> windows = Windows([Clip(np.arange(100) + 100)], settings, length=3, count=2)
    >>> x, target = windows[:]
    >>> x["x"].tolist(), target.tolist()
    ([[125, 126, 127, 128, 129, 130, 131], [136, 137, 138, 139, 140, 141, 142]], [[130, 131, 132], [141, 142, 143]])
    """

    clips: Sequence[Clip]
    settings: Settings
    length: int
    count: int
    seed: int = 0
    number: int = 0

    def __post_init__(self):
        _check_long_enough(self.clips, self.settings)

    @cached_property
    def ends(self) -> NDArray[np.float64]:
        """The share of all countable samples that lie in each recording and those before it."""
        counts = np.cumsum([countable(clip, self.settings) for clip in self.clips])
        return counts / counts[-1]

    def epoch(self, number: int) -> "Windows":
        return replace(self, number=number)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: Indices, /) -> Batch:
        every, places = grid(self.settings), []
        for index in np.arange(self.count)[indices]:
            choice, place = generator(self.seed, self.number, int(index)).random(2)
            clip = self.clips[int(np.searchsorted(self.ends, choice, side="right"))]
            starts = 1 + max(0, countable(clip, self.settings) - self.length) // every
            places.append((clip, int(place * starts) * every))
        return _batch(places, self.settings, self.length)


@dataclass(frozen=True, eq=False)
class EverySample:
    """Windows that count each countable sample of the recordings once, ``length`` in a window; or each ``step``-th one.

    Raises: DataError where no recording is longer than the receptive field.

    >>> settings = Settings((1, 2), residual=4, gate=4, skip=8)
    >>> EverySample([Clip(np.arange(10))], settings, length=3)[:][1].tolist()  # samples 0 to 4 are only looked at
    [[5, 6, 7], [8, 9, -1]]
    """

    clips: Sequence[Clip]
    settings: Settings
    length: int
    step: int = 1

    def __post_init__(self):
        _check_long_enough(self.clips, self.settings)
        if self.length % grid(self.settings):
            raise DataError(
                f"got windows of {self.length} samples, expected a multiple of {grid(self.settings)}, as frames are",
                way_out="choose another length",
            )

    @cached_property
    def places(self) -> list[tuple[Clip, int]]:
        """Recordings, and where the windows in them begin."""
        starts = ((clip, range(0, countable(clip, self.settings), self.length)) for clip in self.clips)
        return [(clip, start) for clip, own in starts for start in own][:: self.step]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, indices: Indices, /) -> Batch:
        chosen = [self.places[index] for index in np.arange(len(self))[indices]]
        return _batch(chosen, self.settings, self.length)


def _batch(places: Sequence[tuple[Clip, int]], settings: Settings, length: int) -> Batch:
    """The windows that begin at these places."""
    before = warmup(settings) + 1
    silence = encode(0.0, settings.classes)
    codes = np.stack([_part(clip.codes, start, before + length - 1, silence, np.int64) for clip, start in places])
    target = np.stack([_part(clip.codes, start + before, length, IGNORED, np.int64) for clip, start in places])
    scalar = settings.input == "scalar"
    inputs: dict[str, Array] = {"x": decode(codes, settings.classes)[..., None] if scalar else codes}
    if settings.local:
        frames = _frames(settings, length)
        parts = [_part(clip.local, start // settings.hop, frames, 0, np.float32) for clip, start in places]
        inputs["local"] = np.stack(parts)
    return inputs, target


@lru_cache(maxsize=8)
def _frames(settings: Settings, length: int) -> int:
    """Frames of the local condition that a window's logits look at."""
    return settings.frames(warmup(settings) + length - 1).stop if settings.local else 0


def _part(series: Any, start: int, count: int, after: Any, dtype: Any) -> Array:
    """``count`` entries of a series from ``start`` on, with ``after`` behind its end."""
    part = series[start : start + count].astype(dtype)
    return np.concatenate([part, np.full((count - len(part), *part.shape[1:]), after, dtype)])


def _check_long_enough(clips: Sequence[Clip], settings: Settings) -> None:
    if not any(countable(clip, settings) for clip in clips):
        longest = max((len(clip.codes) for clip in clips), default=0)
        raise DataError(
            f"the longest of {len(clips)} recordings has {longest:,} samples, expected more than the "
            f"{warmup(settings) + 1:,} that the network sees before one counts",
            way_out="give longer recordings, or choose a setting that sees less",
        )
