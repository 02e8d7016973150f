"""Speech, sample by sample: each is drawn from what the network expects after all that was said before.

A stream begins with silence before which nothing was: its logits are those that the network gives for that silence and
all that follows, padded with zeros. Or it begins with samples that are given (``prime``).

The network is the same as in training, but every layer remembers what it will need (a queue), so that a step costs as
much as one position of a convolution. Steps are done by compiled code, block by block; what numbers the draws use
follows from seed, stream and time alone.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from faltung.elements.element import Array
from faltung.elements.settings import check_choice, check_count, check_flag, check_number
from faltung.errors import ShapeError
from faltung.models.wavenet.conditions import Conditions
from faltung.models.wavenet.model import WaveNet, condition
from faltung.models.wavenet.mulaw import decode, encode
from faltung.models.wavenet.stepwise import Stepwise
from faltung.models.wavenet.weights import stacked
from faltung.network.executors import find
from faltung.randomness import generator, uniform

BLOCKS = 32
"""Blocks a second: so short that one who listens does not wait, and Ctrl-C is heard at once."""
TOGETHER = 8
"""So many streams at most share a pass of the weights; with more, arithmetic and not memory takes the time."""
NUMBERS = 4096
"""Random numbers that are made at a time."""


def generate(
    model: WaveNet,
    samples: int,
    *,
    streams: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    prime: Any = None,
    bfloat16: bool = False,
    workers: int | None = None,
    executor: str | None = None,
    **conditions: Any,
) -> Iterator[Array]:
    """So many samples of each stream, as float32 amplitudes: an iterator of blocks (streams, some samples).

    Streams share the time that reading the weights takes, and what each says follows from ``seed`` and its number.
    Probabilities are raised to the power 1 / ``temperature``; at 0 the most probable code is taken. ``prime`` are codes
    (streams, m) or (1, m) that were said before. ``conditions`` are as in ``WaveNet.inputs``, or one for all streams; a
    local one has frames for the primed samples, too. The same arguments give the same bits, on the same machine.

    With ``bfloat16``, weights are rounded to that, which takes half the time. Two ``workers`` share each step, and say
    what one would in about 0.6 of the time; but only where another processor has nothing else to do. Where there is
    one, both are tried (unless you choose), and whoever is faster goes on.

    Raises: SettingError, ShapeError, DataError where an argument is out of range or does not fit the model;
    NonFiniteError where a parameter is not finite.

    >>> from faltung.models.wavenet import Settings
    >>> model = WaveNet.initial(Settings((1, 2, 4), residual=8, gate=8, skip=16), seed=1)
    >>> blocks = list(generate(model, 1200, streams=2, seed=3))
    >>> [block.shape for block in blocks]
    [(2, 500), (2, 500), (2, 200)]
    >>> again = np.concatenate(list(generate(model, 1200, streams=2, seed=3)), axis=1)
    >>> np.array_equal(again, np.concatenate(blocks, axis=1))
    True
    """
    check_count("generate", samples=samples, streams=streams)
    check_number("generate", "temperature", temperature, 0)
    generator(seed)  # refuses what is no seed
    codes = _primed(model, prime, streams)
    make = _stepper(executor, bfloat16, workers)
    walk = _Walk(model, codes, codes.shape[1] - 1 + samples, make, executor, conditions)
    return (decode(new, model.settings.classes) for new, _ in walk.blocks(temperature, seed) if new.size)


def expected(
    model: WaveNet, codes: Any, *, bfloat16: bool = False, executor: str | None = None, **conditions: Any
) -> Array:
    """The logits (streams, t, classes) of the next sample after each of the codes (streams, t), made step by step.

    They are ``model.logits(codes)`` but for rounding. Conditions and errors are those of ``generate``.

    >>> from faltung.models.wavenet import Settings
    >>> model, codes = WaveNet.initial(Settings((1, 2, 4), residual=8, gate=8, skip=16)), np.arange(100)[None]
    >>> bool(abs(expected(model, codes) - model.logits(codes)).max() < 1e-6)
    True
    """
    codes = _primed(model, codes, len(codes))
    walk = _Walk(model, codes, codes.shape[1], _stepper(executor, bfloat16), executor, conditions)
    return np.concatenate([logits for _, logits in walk.blocks(1.0, 0, keep=True)]).swapaxes(0, 1)


def _primed(model: WaveNet, prime: Any, streams: int) -> Array:
    """The codes (streams, m) that are known: those given, or silence."""
    classes = model.settings.classes
    codes = encode(np.zeros((1, 1)), classes) if prime is None else np.asarray(prime)
    if codes.ndim != 2 or len(codes) not in (1, streams) or not codes.size:
        raise ShapeError(
            f"got codes of shape {codes.shape}, expected (1 or {streams}, some samples)",
            element="generate",
            way_out="give codes[None] for one stream",
        )
    decode(codes, classes)  # refuses what are no codes
    return np.broadcast_to(codes, (streams, codes.shape[1]))


class _Walk:
    """Streams of a model, so many steps long, of which the first codes are known."""

    def __init__(
        self,
        model: WaveNet,
        codes: Array,
        steps: int,
        make: Callable[..., Any],
        executor: str | None,
        conditions: Mapping[str, Any],
    ):
        streams, self._known = codes.shape
        weights = stacked(model)
        self._taps, nothing = len(weights["front"]), weights["front"].shape[1] - 1
        given = _admitted(model, conditions, streams, steps)
        self._conditions = Conditions(model, weights["gate.b"], given, executor)
        self._steps, self._rate = steps, model.settings.rate
        self._codes = np.full((streams, self._taps + steps), nothing, np.int32)
        self._codes[:, self._taps - 1 :][:, : self._known] = codes
        groups = [range(streams)[first : first + TOGETHER] for first in range(0, streams, TOGETHER)]
        packed = {size: make(model.settings.dilations, weights, size) for size in {*map(len, groups)}}
        self._groups = [(slice(group.start, group.stop), packed[len(group)]) for group in groups]

    def blocks(self, temperature: float, seed: int, keep: bool = False) -> Iterator[tuple[Array, Any]]:
        """Block by block, the codes that are new, and with ``keep`` the logits (steps, streams, classes)."""
        states = [machine.begin() for _, machine in self._groups]
        for first, count in self._lengths():
            end = first + count + self._taps
            given = min(max(self._known - 1 - first, 0), count)
            starts = self._conditions.starts(first, count, self._codes[:, self._taps - 1 :][:, :first])
            numbers = _numbers(seed, len(self._codes), first, count)
            logits = [
                machine.run(
                    state,
                    self._codes[some, first:end],
                    starts[some] if len(starts) > 1 else starts,
                    numbers[some],
                    given=given,
                    temperature=temperature,
                    keep=keep,
                )
                for state, (some, machine) in zip(states, self._groups, strict=True)
            ]
            yield self._codes[:, first + given + self._taps : end], np.concatenate(logits, axis=1) if keep else None

    def _lengths(self) -> Iterator[tuple[int, int]]:
        """The first step of each block, and its steps: a fraction of a second, and no more than see one context."""
        first, most, unit = 0, max(1, self._rate // BLOCKS), self._conditions.unit
        while first < self._steps:
            count = min(most, self._steps - first)
            if unit:
                count = min(count, unit - first % unit)
            yield first, count
            first += count


def _admitted(model: WaveNet, conditions: Mapping[str, Any], streams: int, steps: int) -> dict[str, Array]:
    """The conditions as arrays that fit the model, for one or all streams."""
    if set(conditions) != set(model.network.inputs) - {"x"}:
        model.inputs([[0]], **conditions)  # says what is missing
    settings = model.settings
    shared = {name: np.shape(value)[:1] == (1,) for name, value in conditions.items()}
    return {
        name: condition(settings, name, value, 1 if shared[name] else streams, steps)
        for name, value in conditions.items()
    }


def _stepper(executor: str | None, bfloat16: bool, workers: int | None = 1) -> Callable[..., Any]:
    """Who goes step by step, made of (dilations, weights, streams): machine code, or where there is none, NumPy."""
    check_flag("generate", bfloat16=bfloat16)
    check_choice("generate", "workers", workers, (1, 2, None))
    if type(find(executor)) is not type(find("reference")):
        from faltung.engine.elements import compiled

        if compiled()[1]:
            from faltung.engine.host.processors import usable
            from faltung.engine.stream.generator import Generator
            from faltung.engine.stream.halves import by_two
            from faltung.engine.stream.pace import PacedGenerator

            wanted = PacedGenerator if workers is None and usable() > 1 else by_two if workers == 2 else Generator
            return partial(wanted, half=bfloat16)
    return partial(Stepwise, half=bfloat16)


def _numbers(seed: int, streams: int, first: int, count: int) -> Array:
    """Numbers of [0, 1), (streams, count), each a function of seed, stream and time."""
    parts = range(first // NUMBERS, -(-(first + count) // NUMBERS))
    made = [uniform(range(streams), NUMBERS, seed=seed, step=part, node="wavenet") for part in parts]
    return np.concatenate(made, axis=1)[:, first % NUMBERS :][:, :count]
