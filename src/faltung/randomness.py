"""Random numbers that are a function of where they stand: the same bits for any blocking of the batch, or on resuming.

A generator with a state hands out its numbers in the order of asking. Here there is no state: a block cipher,
Philox-4x32 with ten rounds, enciphers the address of a number (step, example, entry) under a key (seed, node). The
words have 32 bits, not the 64 of NumPy's own Philox, because a product of 32 by 32 bits exists in every vector unit,
where compiled code computes the same bits. Source: Salmon, Moraes, Dror & Shaw, Parallel Random Numbers: As Easy as
1, 2, 3, SC 2011.

>>> uniform(range(3), 2, seed=0, step=0, node="drop").round(4).tolist()
[[0.8903, 0.6427], [0.8881, 0.8398], [0.5297, 0.2264]]
>>> uniform(range(1, 3), 2, seed=0, step=0, node="drop").round(4).tolist()
[[0.8881, 0.8398], [0.5297, 0.2264]]
"""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faltung.errors import SettingError

Word = int | NDArray[Any]
"""A number below 2^32, or an array of them."""

MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)  # golden ratio and sqrt(3) - 1, in units of 2^-32
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def generator(seed: int, *purpose: int) -> np.random.Generator:
    """A generator of NumPy whose numbers are a function of the seed and of what they are for.

    Raises: SettingError where the seed is no whole number from 0.

    >>> generator(0, 7).integers(100, size=3).tolist(), generator(0, 8).integers(100, size=3).tolist()
    ([79, 3, 22], [31, 75, 94])
    """
    if type(seed) is not int or seed < 0:
        raise SettingError(f"got seed={seed!r}, expected a whole number from 0", way_out="choose another seed")
    return np.random.default_rng([seed, *purpose])


def philox(counter: Sequence[Word], key: Sequence[Word]) -> NDArray[np.uint32]:
    """Encipher four counter words under two key words: Philox-4x32-10. The words broadcast; the result is (..., 4).

    >>> [f"{word:08x}" for word in philox((0, 0, 0, 0), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(word, np.uint64) for word in counter))
    k0, k1 = (np.asarray(word, np.uint64) for word in key)
    for _ in range(10):
        left, right = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2  # 32 x 32 -> 64 bits
        c0, c1, c2, c3 = (right >> HALF) ^ c1 ^ k0, right & LOW, (left >> HALF) ^ c3 ^ k1, left & LOW
        k0, k1 = (k0 + KEY_STEPS[0]) & LOW, (k1 + KEY_STEPS[1]) & LOW
    return np.stack((c0, c1, c2, c3), axis=-1).astype(np.uint32)


def uniform(examples: range, entries: int, *, seed: int, step: int, node: str) -> NDArray[np.float64]:
    """Numbers of [0, 1), shape (examples, entries), each a function of seed, step, node, example and entry alone.

    ``examples`` are indices within the whole batch, below 2^32; ``entries`` count one example row-major. They are
    multiples of 2^-24, so float32 holds them exactly too. The 64 bits of the seed are folded to 32 by xor.
    """
    blocks = np.arange(-(-entries // 4))  # one block gives four entries
    counter = (blocks, np.arange(examples.start, examples.stop)[:, None], *_halves(step))
    low, high = _halves(seed)
    bits = philox(counter, (low ^ high, zlib.crc32(node.encode())))
    return (bits.reshape(len(examples), 4 * len(blocks))[:, :entries] >> 8) * np.float64(2**-24)


def _halves(number: int) -> tuple[int, int]:
    return number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF
