"""Optimisers: how the gradient dw moves a parameter w, entry by entry.

Frozen descriptions, like elements: what an optimiser remembers of a parameter lies in its *slots*, arrays of the
parameter's shape that the caller holds. ``update`` returns new arrays, of the parameters' dtype, and changes none.
``rate`` (and ``momentum``) may be a number or a schedule; t counts the updates from 0.

>>> optimiser = SGD(0.1, momentum=0.5)
>>> params, slots = {"w": np.array([1.0])}, optimiser.slots({"w": np.array([1.0])})
>>> for step in range(3):
...     params, slots = optimiser.update(params, {"w": np.array([1.0])}, slots, step)
...     print(params["w"].round(3).tolist(), slots["velocity"]["w"].round(3).tolist())
[0.9] [-0.1]
[0.75] [-0.15]
[0.575] [-0.175]
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from faltung.elements.element import Array, Element, Params
from faltung.elements.settings import check_flag, check_number, refuse
from faltung.network.executors import Update
from faltung.training.schedules import Setting, at_step

Slots = Mapping[str, Mapping[str, Array]]
"""By the name of the slot, then by the name of the parameter: ``slots["velocity"]["conv1.w"]``."""


class Optimiser(ABC):
    """The base of all optimisers: ``move`` says what happens to one parameter.

    One of one's own:

    >>> @dataclass(frozen=True, repr=False)
    ... class Signs(Optimiser):
    ...     rate: float
    ...     remembers = ()
    ...
    ...     def move(self, w, dw, slots, step):
    ...         return w - self.rate * np.sign(dw), {}
    >>> params, slots = Signs(0.5).update({"w": np.array([1.0, 2.0])}, {"w": np.array([3.0, -4.0])}, {}, step=0)
    >>> params["w"].tolist()
    [0.5, 2.5]
    """

    remembers: tuple[str, ...]
    """The names of the slots; all begin with zeros."""

    @abstractmethod
    def move(self, w: Array, dw: Array, slots: Mapping[str, Array], step: int) -> tuple[Array, dict[str, Array]]:
        """The parameter and its slots after this step."""

    def formulas(self, step: int) -> Update | None:
        """What ``move`` does, as formulas, from which a kernel is made; without any, ``move`` itself is called."""
        return None

    def result(self, params: Params, slots: Slots, step: int) -> Params:
        """What is evaluated and saved after so many steps: the parameters, unless the optimiser knows better."""
        return params

    def slots(self, params: Params) -> dict[str, dict[str, Array]]:
        """What is remembered before the first step."""
        return {slot: {name: np.zeros_like(w) for name, w in params.items()} for slot in self.remembers}

    def update(
        self, params: Params, gradients: Params, slots: Slots, step: int
    ) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
        """All parameters, those that have a gradient moved, and their slots."""
        moved = {
            name: self.move(params[name], dw, {slot: slots[slot][name] for slot in self.remembers}, step)
            for name, dw in gradients.items()
        }
        after = {slot: {name: own[slot] for name, (_, own) in moved.items()} for slot in self.remembers}
        return {**params, **{name: w for name, (w, _) in moved.items()}}, after

    __repr__ = Element.__repr__


@dataclass(frozen=True, repr=False)
class SGD(Optimiser):
    """v = momentum v - rate g, then w = w + v, with the gradient g = dw + weight_decay w

    With ``nesterov``, w = w + momentum v - rate g: what is called w is then the point ahead.
    The velocity v holds the rate, as in UFLDL's starter code (``minFuncSGD.m``). PyTorch's does not; both agree while
    the rate stays the same, and differ in the steps after a change.
    Source: UFLDL tutorial, stochastic gradient descent; Sutskever et al. 2013 for Nesterov's form, in the variables of
    Bengio, Boulanger-Lewandowski & Pascanu 2013.

    >>> SGD(0.1, nesterov=True, momentum=0.5).move(np.array([1.0]), np.array([1.0]), {"velocity": np.array([0.2])}, 0)
    (array([0.9]), {'velocity': array([0.])})
    """

    rate: Setting
    momentum: Setting = field(default=0.0, kw_only=True)
    nesterov: bool = field(default=False, kw_only=True)
    weight_decay: float = field(default=0.0, kw_only=True)

    remembers = ("velocity",)

    def __post_init__(self):
        _check_rate(self, self.rate)
        _check_momentum(self, self.momentum, 0)
        check_flag(self, nesterov=self.nesterov)
        check_number(self, "weight_decay", self.weight_decay, 0)

    def move(self, w: Array, dw: Array, slots: Mapping[str, Array], step: int) -> tuple[Array, dict[str, Array]]:
        momentum = _check_momentum(self, self.momentum, step)
        pull = at_step(self.rate, step) * _decayed(w, dw, self.weight_decay)
        velocity = momentum * slots["velocity"] - pull
        return w + (momentum * velocity - pull if self.nesterov else velocity), {"velocity": velocity}

    def formulas(self, step: int) -> Update:
        gradient = "dw + weight_decay * w" if self.weight_decay else "dw"
        moved = "w + (momentum * new_velocity - pull)" if self.nesterov else "w + new_velocity"
        numbers = {
            "rate": at_step(self.rate, step),
            "momentum": _check_momentum(self, self.momentum, step),
            "weight_decay": self.weight_decay,
        }
        formulas = (("pull", f"rate * ({gradient})"), ("velocity", "momentum * old_velocity - pull"), ("w", moved))
        return Update(formulas, numbers)


@dataclass(frozen=True, repr=False)
class Adam(Optimiser):
    """w = w - rate m' / (sqrt(v') + epsilon), with m' = m / (1 - beta1^(t+1)), v' = v / (1 - beta2^(t+1))

    m = beta1 m + (1 - beta1) g and v = beta2 v + (1 - beta2) g^2 are running means of the gradient g = dw +
    weight_decay w (the L2 form) and of its square.
    Source: Kingma & Ba 2015, algorithm 1.

    >>> w, slots = Adam(0.1).move(np.array([1.0]), np.array([4.0]), {"mean": np.zeros(1), "square": np.zeros(1)}, 0)
    >>> w.round(6).tolist(), slots["mean"].round(6).tolist(), slots["square"].round(6).tolist()
    ([0.9], [0.4], [0.016])
    """

    rate: Setting = 1e-3
    betas: tuple[float, float] = field(default=(0.9, 0.999), kw_only=True)
    epsilon: float = field(default=1e-8, kw_only=True)
    weight_decay: float = field(default=0.0, kw_only=True)

    remembers = ("mean", "square")

    def __post_init__(self):
        _check_rate(self, self.rate)
        if not isinstance(self.betas, tuple) or len(self.betas) != 2:
            refuse(self, "betas", self.betas, "two numbers, such as (0.9, 0.999)")
        for beta in self.betas:
            check_number(self, "betas", beta, 0, 1, open_end=True)
        check_number(self, "epsilon", self.epsilon, 1e-30)
        check_number(self, "weight_decay", self.weight_decay, 0)

    def move(self, w: Array, dw: Array, slots: Mapping[str, Array], step: int) -> tuple[Array, dict[str, Array]]:
        return self._moved(w, _decayed(w, dw, self.weight_decay), slots, step)

    def formulas(self, step: int) -> Update:
        return self._formulas(step, "dw + weight_decay * w" if self.weight_decay else "dw")

    def _formulas(self, step: int, gradient: str, w: str = "w") -> Update:
        beta1, beta2 = self.betas
        formulas = (
            ("g", gradient),
            ("mean", "beta1 * old_mean + rest1 * g"),
            ("square", "beta2 * old_square + rest2 * (g * g)"),
            ("w", f"{w} - rate * ((new_mean / ahead1) / (sqrt(new_square / ahead2) + epsilon))"),
        )
        numbers = {
            "rate": at_step(self.rate, step), "beta1": beta1, "beta2": beta2, "rest1": 1 - beta1, "rest2": 1 - beta2,
            "ahead1": 1 - beta1 ** (step + 1), "ahead2": 1 - beta2 ** (step + 1), "epsilon": self.epsilon,
            "weight_decay": self.weight_decay, "kept": 1 - at_step(self.rate, step) * self.weight_decay,
        }  # fmt: skip
        return Update(formulas, numbers)

    def _moved(self, w: Array, g: Array, slots: Mapping[str, Array], step: int) -> tuple[Array, dict[str, Array]]:
        beta1, beta2 = self.betas
        mean = beta1 * slots["mean"] + (1 - beta1) * g
        square = beta2 * slots["square"] + (1 - beta2) * g**2
        ahead = mean / (1 - beta1 ** (step + 1))
        scale = np.sqrt(square / (1 - beta2 ** (step + 1))) + self.epsilon
        return w - at_step(self.rate, step) * (ahead / scale), {"mean": mean, "square": square}


@dataclass(frozen=True, repr=False)
class AdamW(Adam):
    """w = (1 - rate weight_decay) w - rate m' / (sqrt(v') + epsilon), m' and v' as in ``Adam``, of g = dw

    The decay does not pass through the running means.
    Source: Loshchilov & Hutter 2019, algorithm 2 (with the rate in the decay, as is usual in code).

    >>> start = {"mean": np.zeros(1), "square": np.zeros(1)}
    >>> AdamW(0.1, weight_decay=0.5).move(np.array([1.0]), np.array([4.0]), start, 0)[0].round(6).tolist()
    [0.85]
    """

    weight_decay: float = field(default=0.01, kw_only=True)

    def move(self, w: Array, dw: Array, slots: Mapping[str, Array], step: int) -> tuple[Array, dict[str, Array]]:
        return self._moved(w * (1 - at_step(self.rate, step) * self.weight_decay), dw, slots, step)

    def formulas(self, step: int) -> Update:
        return self._formulas(step, "dw", "kept * w")


@dataclass(frozen=True, repr=False)
class Averaged(Optimiser):
    """a = decay a + (1 - decay) w after each step of another optimiser; a / (1 - decay^t) is evaluated and saved

    The running mean of the parameters costs less on data than they themselves, which jump about while the rate is high.
    Training goes on with w; the division takes out the zeros that a begins with. States (running statistics) are taken
    as they are.
    Source: Polyak & Juditsky 1992; with these weights as in Kingma & Ba 2015, section 7.2.

    >>> optimiser, w = Averaged(SGD(1.0), decay=0.5), {"w": np.array([8.0])}
    >>> params, slots = w, optimiser.slots(w)
    >>> for step in range(2):
    ...     params, slots = optimiser.update(params, {"w": np.array([3.0])}, slots, step)
    >>> params["w"].tolist(), optimiser.result(params, slots, 2)["w"].tolist()  # of 5 and 2, the latter counting twice
    ([2.0], [3.0])
    """

    optimiser: Optimiser
    decay: float = field(default=0.999, kw_only=True)

    def __post_init__(self):
        if not isinstance(self.optimiser, Optimiser) or isinstance(self.optimiser, Averaged):
            refuse(self, "optimiser", self.optimiser, "another optimiser, such as Adam(1e-3)")
        check_number(self, "decay", self.decay, 0, 1, open_end=True)
        object.__setattr__(self, "remembers", (*self.optimiser.remembers, "average"))

    def move(self, w: Array, dw: Array, slots: Mapping[str, Array], step: int) -> tuple[Array, dict[str, Array]]:
        moved, own = self.optimiser.move(w, dw, slots, step)
        return moved, own | {"average": self.decay * slots["average"] + (1 - self.decay) * moved}

    def formulas(self, step: int) -> Update | None:
        inner = self.optimiser.formulas(step)
        if inner is None:
            return None
        average = ("average", "decay * old_average + rest * new_w")
        return Update((*inner.formulas, average), {**inner.numbers, "decay": self.decay, "rest": 1 - self.decay})

    def result(self, params: Params, slots: Slots, step: int) -> Params:
        share = 1 - self.decay**step
        return {**params, **{name: a / share for name, a in slots["average"].items()}} if step else params


def _decayed(w: Array, dw: Array, weight_decay: float) -> Array:
    """The gradient of the cost plus weight_decay / 2 ||w||^2."""
    return dw + weight_decay * w if weight_decay else dw


def _check_rate(optimiser: Optimiser, rate: Setting) -> None:
    number = at_step(rate, 0) if callable(rate) else rate
    check_number(optimiser, "rate", number, 0)
    if number == 0:
        refuse(optimiser, "rate", rate, "a number above 0")


def _check_momentum(optimiser: Optimiser, momentum: Setting, step: int) -> float:
    number = at_step(momentum, step) if callable(momentum) else momentum
    check_number(optimiser, "momentum", number, 0, 1, open_end=True)
    return number
