"""The proof that nothing is known before it was said: by values, and by error signals.

By values, sample t is changed: of all logits, only those from t on may change, which predict sample t + 1 and later.
By error signals, logits t alone are given one: it may reach samples up to t, and frames of the local condition that
``Settings.frames`` names, but nothing else. Either is one batch, whose examples are told apart by t.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from faltung.elements.element import Array
from faltung.errors import ShapeError
from faltung.models.wavenet.model import WaveNet
from faltung.randomness import generator


@dataclass(frozen=True)
class Causality:
    """What depends on what; a range goes from the first one to the last one.

    Example: see ``causality``.
    """

    changed: dict[int, range]
    """The logits that a change of sample t changes, bit for bit, by t."""
    reached: dict[int, range]
    """The samples that the error signal of logits t reaches, by t."""
    frames: dict[int, range]
    """The frames of the local condition that it reaches, if there is one."""

    @property
    def holds(self) -> bool:
        """Whether no logits know of a later sample. (Logits that know of nothing, as all ReLUs are at 0, do not.)"""
        before = any(logits and logits.start < t for t, logits in self.changed.items())
        after = any(samples.stop > t + 1 for t, samples in self.reached.items())
        return not (before or after)


def causality(model: WaveNet, codes: Any, at: Iterable[int] | None = None, **conditions: Any) -> Causality:
    """Find what depends on what, at each sample t of ``at``, or at all; for one stream of codes (1, t).

    Conditions are as for ``WaveNet.inputs``. Error signals of codes are those of the rows that they choose.
    Raises: as ``WaveNet.inputs``, and ShapeError for several streams, or where there is no sample t.

    >>> from faltung.models.wavenet.settings import Settings
    >>> model = WaveNet.initial(Settings((1, 2), residual=4, gate=4, skip=4), dtype=np.float64)
    >>> found = causality(model, np.arange(100, 109)[None], at=[0, 4, 8])
    >>> found.changed
    {0: range(0, 5), 4: range(4, 9), 8: range(8, 9)}
    >>> found.reached
    {0: range(0, 1), 4: range(0, 5), 8: range(4, 9)}
    >>> found.holds
    True
    """
    codes = np.asarray(codes)
    inputs = model.inputs(codes, **conditions)
    streams, samples = codes.shape
    places = list(range(samples) if at is None else at)
    if streams != 1 or not places or not all(0 <= t < samples for t in places):
        raise ShapeError(
            f"got {streams} streams of {samples} samples, and places {places}, expected one stream, and places in it",
            element="causality",
            way_out="give codes of the shape (1, samples)",
        )
    inputs = {name: np.repeat(array, len(places), 0) for name, array in inputs.items()}
    forward = model.network.forward(model.params, inputs)
    return Causality(
        dict(zip(places, _changed(model, codes, places, conditions), strict=True)),
        *_reached(model, forward, places),
    )


def _changed(model: WaveNet, codes: Array, places: list[int], conditions: dict[str, Any]) -> list[range]:
    """The logits that are not what they were, for each changed sample."""
    others = np.repeat(codes.astype(np.int64), len(places), 0)
    rows = np.arange(len(places))
    others[rows, places] = (others[rows, places] + model.settings.classes // 2) % model.settings.classes
    given = {name: np.repeat(np.asarray(array), len(places), 0) for name, array in conditions.items()}
    before = model.logits(np.repeat(codes, len(places), 0), **given)
    return _spans(np.any(model.logits(others, **given) != before, -1))


def _reached(model: WaveNet, forward: Any, places: list[int]) -> tuple[dict[int, range], dict[int, range]]:
    """The samples and frames with an error signal that is not 0, where only logits t have one."""
    net = model.network
    (output,) = net.outputs
    dy = np.zeros_like(forward.values[output])
    rows = np.arange(len(places))
    dy[rows, places] = generator(0).normal(size=(len(places), dy.shape[-1]))
    readers = [step.name for step in net.steps if "x" in step.sources] if "x" in net.indices else ["x"]
    locals_ = [name for name in net.inputs if name == "local"]
    back = net.backward(model.params, forward, dy, keep=[*readers, *locals_])

    def spans(names: list[str]) -> dict[int, range]:
        touched = [np.any(back.errors[name] != 0, -1) for name in names]
        return dict(zip(places, _spans(np.logical_or.reduce(touched)), strict=True))

    return spans(readers), spans(locals_) if locals_ else {}


def _spans(marked: Array) -> list[range]:
    """From the first marked entry of each row to its last."""
    found = [np.flatnonzero(row) for row in marked]
    return [range(int(marks[0]), int(marks[-1]) + 1) if len(marks) else range(0) for marks in found]
