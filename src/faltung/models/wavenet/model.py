"""A WaveNet with its parameters: what is trained, written into a file, and generated with."""

import itertools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from faltung.elements.element import Array, Params
from faltung.elements.entries import refuse_entries
from faltung.errors import DataError, FaltungError, ModelFileError, SettingError, ShapeError
from faltung.model import Model
from faltung.models.wavenet.compose import network
from faltung.models.wavenet.mulaw import decode
from faltung.models.wavenet.settings import Settings
from faltung.network import Network
from faltung.text import aligned


@dataclass(frozen=True, eq=False)
class WaveNet:
    """Settings, parameters, and what else is known about them (anything that JSON can say).

    >>> model = WaveNet.initial(Settings((1, 2, 4, 1, 2, 4), residual=4, gate=4, skip=8), seed=0)
    >>> print(model)
    WaveNet: 6 layers, kernel 2, 5,196 parameters, receptive field 16 samples (1.0 ms at 16,000 Hz)
    layers  dilations  samples seen   ms
    ------------------------------------
       1-3      1 2 4             9  0.6
       4-6      1 2 4            16  1.0
    >>> model.logits(np.array([[128, 130, 127]])).shape
    (1, 3, 256)
    """

    settings: Settings
    params: Params
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def initial(cls, settings: Settings, seed: int = 0, dtype: Any = np.float32) -> "WaveNet":
        """A model that has learned nothing; its parameters are drawn from the seed."""
        return cls(settings, network(settings).initial(seed, dtype))

    @cached_property
    def network(self) -> Network:
        """The network without warm-up: as many logits as samples."""
        return network(self.settings)

    def logits(self, codes: Any, **conditions: Any) -> Array:
        """The logits (n, t, classes) of the next sample, after each of the codes (n, t); conditions as ``inputs``."""
        return self.network.predict(self.params, self.inputs(codes, **conditions))

    def inputs(self, codes: Any, **conditions: Any) -> dict[str, Array]:
        """What the network is given: the codes (n, t) as its input "x" wants them, and the conditions.

        These are ``h`` (n, condition) or ``speaker`` (n,), and ``local`` (n, frames, channels), as the settings ask.
        Raises: SettingError where a condition is missing, or not asked for; ShapeError where one is too short or of
        another size; DataError where codes or conditions are no numbers.

        >>> scalar = WaveNet.initial(Settings((1, 2), input="scalar", condition=2))
        >>> {name: array.shape for name, array in scalar.inputs([[0, 255, 128]], h=[[1.0, 0.0]]).items()}
        {'x': (1, 3, 1), 'h': (1, 2)}
        """
        settings = self.settings
        asked = [name for name in self.network.inputs if name != "x"]
        if set(conditions) != set(asked):
            raise SettingError(
                f"got the conditions {_list(conditions)}, expected {_list(asked)}",
                element="WaveNet",
                way_out="give those that it was trained with",
            )
        amplitudes = decode(codes, settings.classes)  # refuses what are no codes
        if amplitudes.ndim != 2:
            raise ShapeError(
                f"got codes of shape {amplitudes.shape}, expected (streams, samples)",
                element="WaveNet",
                way_out="give codes[None] for one stream",
            )
        inputs = {"x": amplitudes[..., None] if settings.input == "scalar" else np.asarray(codes)}
        for name in asked:
            inputs[name] = condition(settings, name, conditions[name], *amplitudes.shape)
        return inputs

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a model file, as ``faltung.exchange.modelfile.save_model``; the settings are in what is known."""
        Model(self.network, self.params, {**self.about, "wavenet": self.settings.plain()}).save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "WaveNet":
        """Read a model file.

        Raises: ModelFileError where the file is missing, damaged, or holds no WaveNet.
        """
        model = Model.load(path)
        about = dict(model.about)
        plain = about.pop("wavenet", None)
        if plain is None:
            raise ModelFileError(
                f"{path}: got a model that is no WaveNet", way_out="make one with: faltung wavenet train"
            )
        try:
            settings = Settings.read(plain)
            fits = network(settings).parameters == model.network.parameters
        except FaltungError as error:
            raise ModelFileError(
                f"{path}: the file is damaged ({error.problem})", way_out="take an undamaged copy of it"
            ) from error
        if not fits:
            raise ModelFileError(
                f"{path}: the file is damaged (its parameters are not those of its settings)",
                way_out="take an undamaged copy of it",
            )
        return cls(settings, model.params, about)

    def __str__(self) -> str:
        settings = self.settings
        count = sum(math.prod(parameter.shape) for parameter in self.network.parameters.values())
        head = (
            f"WaveNet: {len(settings.dilations)} layers, kernel {settings.kernel}, {count:,} parameters, "
            f"receptive field {settings.receptive_field:,} samples "
            f"({settings.milliseconds:.1f} ms at {settings.rate:,} Hz)"
        )
        return f"{head}\n{dilation_table(settings)}"


def condition(settings: Settings, name: str, given: Any, streams: int, samples: int) -> Array:
    """A condition as an array, after a check that it fits so many streams of so many samples.

    Raises: as ``WaveNet.inputs``.
    """
    array = np.asarray(given)
    kinds = "iu" if name == "speaker" else "iuf"
    if array.dtype.kind not in kinds:
        raise DataError(f"got {name} of {array.dtype}, expected numbers", element="WaveNet", way_out="convert it")
    tail = {"h": (settings.condition,), "speaker": (), "local": (settings.local,)}[name]
    shape = (streams, *((None,) if name == "local" else ()), *tail)
    fits = array.ndim == len(shape) and all(want in (None, size) for want, size in zip(shape, array.shape, strict=True))
    if not fits:
        expected = ", ".join("frames" if size is None else str(size) for size in shape)
        raise ShapeError(
            f"got {name} of shape {array.shape}, expected ({expected})",
            element="WaveNet",
            way_out="give one for each stream, of the size that it was trained with",
        )
    if name == "local" and array.shape[1] * settings.hop < samples:
        raise ShapeError(
            f"got a local condition of {array.shape[1]} frames of {settings.hop} samples each, "
            f"expected at least {-(-samples // settings.hop)} frames for {samples} samples",
            element="WaveNet",
            way_out="give more frames, or fewer samples",
        )
    if name == "speaker":
        wrong = (array < 0) | (array >= settings.speakers)
        refuse_entries("WaveNet", name, array, wrong, f"0 to {settings.speakers - 1}", "count the speakers from 0")
    if array.dtype.kind == "f":
        refuse_entries("WaveNet", name, array, ~np.isfinite(array), "finite numbers", "repair the condition")
    return array


def dilation_table(settings: Settings) -> str:
    """The dilations by cycle, and how far the network sees after each.

    >>> print(dilation_table(Settings((1, 2, 4, 8, 1, 2), kernel=3)))
    layers  dilations  samples seen   ms
    ------------------------------------
       1-4    1 2 4 8            33  2.1
       5-6        1 2            39  2.4
    """
    rows, first, seen = [], 1, settings.kernel
    for cycle in cycles(settings.dilations):
        last = first + len(cycle) - 1
        seen += (settings.kernel - 1) * sum(cycle)
        layers = f"{first}-{last}" if last > first else str(first)
        rows.append((layers, " ".join(map(str, cycle)), f"{seen:,}", f"{1000 * seen / settings.rate:.1f}"))
        first = last + 1
    return aligned(("layers", "dilations", "samples seen", "ms"), rows)


def cycles(dilations: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The runs of dilations that grow.

    >>> cycles((1, 2, 4, 1, 2, 4))
    [(1, 2, 4), (1, 2, 4)]
    """
    starts = [0, *(i for i in range(1, len(dilations)) if dilations[i] <= dilations[i - 1]), len(dilations)]
    return [dilations[start:stop] for start, stop in itertools.pairwise(starts)]


def _list(names: Any) -> str:
    return ", ".join(names) or "none"
