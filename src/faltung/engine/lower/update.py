"""The update of an optimiser on compiled kernels, made from its formulas.

>>> from faltung.training import SGD
>>> update, w = SGD(0.5).formulas(step=0), np.array([1.0, 2.0])
>>> w, slots = move(update.formulas, ("velocity",), w, np.array([2.0, 8.0]), {"velocity": np.zeros(2)}, update.numbers)
>>> w.tolist(), slots["velocity"].tolist()
([0.0, -2.0], [-1.0, -4.0])
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from faltung.elements.element import Array
from faltung.engine.host import arena, workers
from faltung.engine.kernels.elementwise import BLOCK, COST, TASK, code, sweep
from faltung.engine.loops.language import INDEX, Function, Type, Value, pointer
from faltung.engine.lower.formula import translate
from faltung.formula.parse import parse
from faltung.formula.tree import Name

Formulas = tuple[tuple[str, str], ...]


def updated(kind: Type, formulas: Formulas, slots: tuple[str, ...], numbers: tuple[str, ...]) -> Function:
    """The new w and slots, for tasks of ``BLOCK`` entries."""
    read, written = ("w", "dw", *(f"old_{slot}" for slot in slots)), ("new_w", *(f"new_{slot}" for slot in slots))
    scalars = dict.fromkeys(numbers, kind.times(1))
    f = Function("updated", **dict.fromkeys((*read, *written), pointer(kind)), **scalars, count=INDEX, **TASK)
    at = {argument.name: argument for argument in f.arguments}
    with f.loop("task", at["last"], at["first"]) as task:
        begin = (task * BLOCK).named("begin")

        def vector(i: Value, mask: Value | None) -> None:
            place = begin + i
            known = {name: f.broadcast(at[name], kind.lanes) for name in numbers}
            known |= {name: f.load(at[name], place, kind.lanes, mask) for name in read}
            for name, text in formulas:
                tree = parse(text, "pointwise", tuple(known))
                value = translate(f, kind, tree, {Name(n): value for n, value in known.items()})
                known[name if name not in ("w", *slots) else f"new_{name}"] = value
            for name in written:
                f.store(known[name], at[name], place, mask)

        sweep(f, f.min(at["count"] - begin, BLOCK), kind.lanes, vector)
    return f


def move(
    formulas: Formulas,
    slots: tuple[str, ...],
    w: Array,
    dw: Array,
    held: Mapping[str, Array],
    numbers: Mapping[str, Any],
) -> tuple[Array, dict[str, Array]]:
    """The parameter and its slots after a step; ``held`` are the slots before it."""
    new = {name: arena.empty(w.shape, w.dtype) for name in ("w", *slots)}
    arrays = (np.ascontiguousarray(array) for array in (w, dw, *(held[slot] for slot in slots)))
    workers.launch(
        code(updated, w.dtype, formulas, slots, tuple(numbers)), *arrays, *new.values(), *numbers.values(), w.size,
        tasks=-(-w.size // BLOCK), work=COST * w.size,
    )  # fmt: skip
    return new["w"], {slot: new[slot] for slot in slots}
