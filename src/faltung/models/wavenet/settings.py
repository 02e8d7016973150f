"""What a WaveNet is made of, as plain data; named settings; and how far one sees."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import prod
from typing import Any

from faltung.elements.settings import check_choice, check_count, refuse
from faltung.errors import SettingError
from faltung.geometry import Window, whole
from faltung.receptive import Field

RESIZED = 3
"""Taps of the convolution after a nearest resizing; a frame and its neighbours."""


@dataclass(frozen=True)
class Context:
    """A smaller, slower stack over a longer stretch of the same audio, which conditions the main one.

    One of its frames is ``pool`` samples, and its gates are ``gate`` channels wide, as in ``Settings``.

    >>> Context((1, 2, 4, 8), pool=100).frames
    16
    """

    dilations: tuple[int, ...]
    pool: int = field(kw_only=True)
    kernel: int = field(default=2, kw_only=True)
    residual: int = field(default=16, kw_only=True)
    gate: int = field(default=16, kw_only=True)
    skip: int = field(default=16, kw_only=True)

    def __post_init__(self):
        check_sequence("Context", "dilations", self.dilations)
        check_count("Context", pool=self.pool, residual=self.residual, gate=self.gate, skip=self.skip)
        check_kernel("Context", self.kernel)

    @property
    def frames(self) -> int:
        """So many frames each of its outputs sees."""
        return 1 + (self.kernel - 1) * sum(self.dilations)


@dataclass(frozen=True)
class Settings:
    """Layers, channels, and what the network is conditioned on.

    ``dilations`` is one number a layer. ``residual`` is the width of the stream that layers add to, ``gate`` of each
    half of a gate, ``skip`` of the sum that all layers speak into, ``end`` of what lies between the two last
    convolutions (as wide as ``skip`` unless given). ``input`` "onehot" is codes of the mu-law, "scalar" amplitudes.

    ``condition`` channels of a vector "h" condition all that is said; with ``speakers``, the vector is learned, one
    for each number "speaker". ``local`` channels of a slower series condition what is said when, each of its frames
    prod(``upsample``) samples long; each factor is one step of ``upsampling``, "transposed" convolution or "nearest"
    resizing and convolution. ``context`` is a second, slower stack.

    Raises: SettingError where one of them is out of range, or makes no sense without another.
    Source: van den Oord et al. 2016 (WaveNet), section 2. The paper names neither layers nor channels.

    >>> Settings((1, 2, 4, 8) * 2, residual=16, gate=16, skip=32).receptive_field
    32
    """

    dilations: tuple[int, ...]
    kernel: int = field(default=2, kw_only=True)
    residual: int = field(default=32, kw_only=True)
    gate: int = field(default=32, kw_only=True)
    skip: int = field(default=128, kw_only=True)
    end: int | None = field(default=None, kw_only=True)
    classes: int = field(default=256, kw_only=True)
    input: str = field(default="onehot", kw_only=True)
    rate: int = field(default=16_000, kw_only=True)
    """Samples a second."""
    condition: int = field(default=0, kw_only=True)
    speakers: int = field(default=0, kw_only=True)
    local: int = field(default=0, kw_only=True)
    upsample: tuple[int, ...] = field(default=(), kw_only=True)
    upsampling: str = field(default="transposed", kw_only=True)
    context: Context | None = field(default=None, kw_only=True)

    def __post_init__(self):
        if self.end is None:
            object.__setattr__(self, "end", self.skip)
        name = "WaveNet"
        check_sequence(name, "dilations", self.dilations)
        counts = {key: getattr(self, key) for key in ("residual", "gate", "skip", "end", "rate")}
        check_count(name, **counts)
        check_kernel(name, self.kernel)
        if not whole(self.classes, least=2):
            refuse(name, "classes", self.classes, "a whole number of at least 2")
        check_choice(name, "input", self.input, ("onehot", "scalar"))
        check_choice(name, "upsampling", self.upsampling, ("transposed", "nearest"))
        for key in ("condition", "speakers", "local"):
            if not whole(getattr(self, key), least=0):
                refuse(name, key, getattr(self, key), "a whole number of at least 0")
        if self.speakers and not self.condition:
            refuse(name, "condition", self.condition, "the channels of a speaker's vector, as there are speakers")
        if self.local:
            check_sequence(name, "upsample", self.upsample)
        elif self.upsample != ():
            refuse(name, "upsample", self.upsample, "() where there is no local condition")
        if not (self.context is None or isinstance(self.context, Context)):
            refuse(name, "context", self.context, "a Context, or None")

    @property
    def hop(self) -> int:
        """Samples that a frame of the local condition lasts."""
        return prod(self.upsample)

    @property
    def receptive_field(self) -> int:
        """The samples that the prediction of the next one sees, 1 + the sum of (kernel - 1) dilation, or the context's.

        The first convolution has a dilation of 1. Through a context, so many are seen at most: its frames begin
        at multiples of ``pool``.
        """
        taps = self.kernel - 1
        main = 1 + taps * (1 + sum(self.dilations))
        if self.context is None:
            return main
        slow = (self.context.frames + 1) * self.context.pool
        return max(main, slow + taps * sum(self.dilations[1:]))

    @property
    def milliseconds(self) -> float:
        """The receptive field in milliseconds."""
        return 1000 * self.receptive_field / self.rate

    def frames(self, t: int) -> range:
        """The frames of the local condition that the logits at t look at; those that do not exist count as 0.

        Some lie ahead of t, as the series is known before anything is said, but never more than about two frames.

        >>> Settings((1, 2), local=4, upsample=(10, 10)).frames(250)
        range(1, 4)
        """
        seen = Field()
        for factor in self.upsample:
            if self.upsampling == "transposed":
                seen = seen.through_transposed(Window(2 * factor, stride=factor, padding="same"))
            else:
                seen = seen.through_transposed(Window(factor, stride=factor)).through(Window(RESIZED, padding="same"))
        first = t - (self.kernel - 1) * sum(self.dilations[1:])
        parts = [seen.of(first), seen.of(t)]
        return range(min(part.start for part in parts), max(part.stop for part in parts))

    def plain(self) -> dict[str, Any]:
        """All settings as what JSON can say."""
        return asdict(self)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Settings":
        """The settings that ``plain`` gave, or JSON after it.

        Raises: SettingError where the data are none.

        >>> Settings.read(SETTINGS["nv"].plain()) == SETTINGS["nv"]
        True
        """
        try:
            context = data["context"]
            inner = None if context is None else Context(**_tuples(context))
            return cls(**{**_tuples(data), "context": inner})
        except (AttributeError, KeyError, TypeError) as error:
            raise SettingError(
                f"got {data!r}, expected {', '.join(part.name for part in fields(cls))}",
                element="WaveNet",
                way_out="take them from settings.plain()",
            ) from error


def find_settings(name: str) -> Settings:
    """The settings of this name.

    Raises: SettingError where there are none.

    >>> find_settings("paper240").milliseconds
    255.875
    """
    if name not in SETTINGS:
        problem = f"got the setting {name!r}, expected one of {', '.join(SETTINGS)}"
        raise SettingError(problem, element="WaveNet", way_out="choose another")
    return SETTINGS[name]


def check_sequence(name: str, key: str, values: Any) -> None:
    """Refuse what is no tuple of whole numbers from 1."""
    if not isinstance(values, tuple) or not values or not all(whole(value, least=1) for value in values):
        refuse(name, key, values, "a tuple of whole numbers of at least 1")


def check_kernel(name: str, kernel: Any) -> None:
    """Refuse kernels of one tap, which would see no past."""
    if not whole(kernel, least=2):
        refuse(name, "kernel", kernel, "a whole number of at least 2")


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """Lists were tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


TEN = tuple(2**n for n in range(10))
SETTINGS = {
    "small": Settings(TEN * 2, residual=32, gate=32, skip=128),
    "ibab": Settings(TEN * 5, residual=32, gate=32, skip=512),
    "nv": Settings(TEN[:8] * 2, residual=64, gate=64, skip=256),
    "paper240": Settings(TEN * 4, residual=64, gate=64, skip=256),
}
"""For a laptop; as ibab/tensorflow-wavenet and NVIDIA/nv-wavenet have them; with the 240 ms of the paper or more."""
