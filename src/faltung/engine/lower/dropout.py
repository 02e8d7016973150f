"""Dropout: the bits of ``faltung.randomness``, and what they keep, in one pass.

Each lane of a vector of words enciphers a block of its own; the four words of a block decide on four neighbouring
entries. A product of 32 by 32 bits takes one instruction where the upper halves of its operands do not count.

>>> from faltung.elements.dropout import Dropout
>>> x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
>>> forward(Dropout(0.5), {}, x, Run(training=True, seed=1))[0].tolist()
[[2.0, 4.0, 6.0], [8.0, 0.0, 0.0]]
"""

import math
import operator
import zlib
from collections.abc import Sequence

import numpy as np

from faltung.elements.dropout import Dropout
from faltung.elements.element import Array, Params, Run
from faltung.engine.host import arena, workers
from faltung.engine.host.machine import host
from faltung.engine.kernels.elementwise import BLOCK, COST, TASK, code, launch, streamed, sweep
from faltung.engine.loops.language import I64, INDEX, Function, Type, Value, pointer
from faltung.engine.lower.joins import joined
from faltung.engine.lower.pointwise import no_gradient
from faltung.randomness import KEY_STEPS, MULTIPLIERS

LOW = 0xFFFFFFFF


def philox(counter: Sequence[Value], key: Sequence[Value]) -> tuple[Value, ...]:
    """Four words enciphered under two, as ``faltung.randomness.philox`` does it; words are the lower halves of i64."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        left, right = ((c & LOW) * int(m) for c, m in zip((c0, c2), MULTIPLIERS, strict=True))
        c0, c1, c2, c3 = _high(right) ^ c1 ^ k0, right & LOW, _high(left) ^ c3 ^ k1, left & LOW
        k0, k1 = (k0 + int(KEY_STEPS[0])) & LOW, (k1 + int(KEY_STEPS[1])) & LOW
    return c0, c1, c2, c3


def _high(product: Value) -> Value:
    return product.function.op("shift_right_logical", product, 32)


def drop(kind: Type, rate: float) -> Function:
    """m and y = x m, for tasks of ``BLOCK`` entries of one example."""
    lanes = kind.lanes * kind.size // I64.size
    arrays = dict.fromkeys(("x", "m", "y"), pointer(kind))
    words = dict.fromkeys(("first_example", "step0", "step1", "key0", "key1"), I64)
    f = Function("drop", **arrays, numbers=pointer(I64), entries=INDEX, **words, **TASK)
    x, m, y, numbers, entries, first_example, step0, step1, key0, key1, _, first, last = f.arguments
    number = f.load(numbers, lanes=lanes)
    tasks = ((entries + (BLOCK - 1)) // BLOCK).named("tasks_of_example")
    with f.loop("task", last, first) as task:
        n, begin = task // tasks, (task % tasks * BLOCK).named("begin")
        place = n * entries + begin
        example = first_example + f.convert("bits", n, I64)

        def vector(i: Value, mask: Value | None) -> None:
            block = number + f.convert("bits", (begin + i) // 4, I64)
            counter = [block, *(f.broadcast(word, lanes) for word in (example, step0, step1))]
            keep = _interleaved(*(_factors(word, rate, kind) for word in philox(counter, (key0, key1))))
            f.store(keep, m, place + i, mask)
            f.store(f.load(x, place + i, 4 * lanes, mask) * keep, y, place + i, mask)

        sweep(f, f.min(entries - begin, BLOCK), 4 * lanes, vector)
    return f


def _factors(word: Value, rate: float, kind: Type) -> Value:
    """0 where the word's upper 24 bits, as a fraction, are below the rate, else 1 / (1 - rate)."""
    f = word.function
    dropped = (word & LOW) < math.ceil(rate * 2**24) << 8
    return f.select(dropped, f.constant(0.0, kind.times(1)), 1 / (1 - rate))


def _interleaved(a: Value, b: Value, c: Value, d: Value) -> Value:
    """The first lane of each vector, then the second of each, and so on."""
    f, lanes = a.function, a.type.lanes
    turns = [lane + which for lane in range(lanes) for which in (0, lanes)]
    first, second = f.shuffle(a, b, turns), f.shuffle(c, d, turns)
    pairs = [2 * lane + which + half for lane in range(lanes) for half in (0, 2 * lanes) for which in (0, 1)]
    return f.shuffle(first, second, pairs)


def forward(element: Dropout, params: Params, x: Array, run: Run = Run()) -> tuple[Array, Array | None]:
    """See ``Dropout.forward``."""
    if not run.training:
        return x, None
    x = np.ascontiguousarray(x)
    m, y = arena.empty(x.shape, x.dtype), arena.empty(x.shape, x.dtype)
    entries = math.prod(x.shape[1:])
    numbers = np.arange(host().lanes(8), dtype=np.int64)
    words = (run.first, run.step & LOW, run.step >> 32 & LOW, run.seed & LOW ^ run.seed >> 32 & LOW)
    workers.launch(
        code(drop, x.dtype, element.rate), x, m, y,
        numbers, entries, *words, zlib.crc32(run.node.encode()),
        tasks=len(x) * -(-entries // BLOCK), work=COST * x.size,
    )  # fmt: skip
    return y, m


def error(element: Dropout, params: Params, kept: Array | None, dy: Array) -> Array:
    """See ``Dropout.error``."""
    if kept is None:
        return dy
    dy, dx = np.ascontiguousarray(dy), arena.empty(dy.shape, dy.dtype)
    kernel = code(joined, dy.dtype, operator.mul, 2, streamed(dy, dy, dx))
    launch(kernel, np.ascontiguousarray(kept), dy, dx, count=dy.size)
    return dx


LOWERINGS = {Dropout: (forward, error, no_gradient)}
