"""A keyed shuffle of ``range(population)`` that is computed where it is needed and nowhere stored.

An index is a pair (l, r) of digits, l < a and r < b, with a b hardly larger than the population. Six Feistel rounds add
a hash of one digit to the other, alternately and modulo its base; an image beyond the population is shuffled again
until it is within (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). At last all images are
rotated by one random number, so that over the keys every index goes everywhere with the same probability, however small
the population. It shuffles; it does not encrypt.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thinwire.blocks import each_block
from thinwire.random import Key

ROUNDS = 6
BLOCK = 1 << 15  # indices shuffled together, so that they stay in the cache
MOST = 1 << 32
"""The largest population."""

_FIRST, _SECOND = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)  # the multipliers of thinwire.random's noise

Words = NDArray[np.uint32]


def shuffled(key: Key, population: int, start: int, stop: int) -> NDArray[np.int64]:
    """The images of ``range(start, stop)`` under the shuffle of ``range(population)`` that the key names (int64)."""
    if not 0 <= start <= stop <= population <= MOST:
        raise ValueError(f"indices {start} to {stop} of {population}; allowed: within at most {MOST}")
    rows = max(1, math.isqrt(max(0, population - 1)) + 1)
    bases = (rows, -(-population // rows) if population else 1)
    *keys, last_word = key.words(ROUNDS + 1).tolist()
    shift = last_word % max(1, population)
    out = np.empty(stop - start, np.int64)

    def work(first: int, last: int) -> None:
        images = _rounds(np.arange(start + first, start + last, dtype=np.int64), bases, keys)
        beyond = np.flatnonzero(images >= population)
        while len(beyond):
            images[beyond] = _rounds(images[beyond], bases, keys)
            beyond = beyond[images[beyond] >= population]
        images += shift
        out[first:last] = np.where(images < population, images, images - population)

    each_block(stop - start, BLOCK, work, fewest=4)
    return out


def _rounds(indices: NDArray[np.int64], bases: tuple[int, int], keys: Sequence[int]) -> NDArray[np.int64]:
    """The images in ``range(bases[0] * bases[1])``."""
    left, right = (digit.astype(np.uint32) for digit in np.divmod(indices, bases[1]))
    for number, word in enumerate(keys):
        if number % 2 == 0:
            left = _added(left, _hash(right, word), bases[0])
        else:
            right = _added(right, _hash(left, word), bases[1])
    return left.astype(np.int64) * bases[1] + right


def _hash(digit: Words, word: int) -> Words:
    """Its high bits are well mixed."""
    mixed = (digit ^ np.uint32(word & 0xFFFFFFFF)) * _FIRST
    mixed ^= mixed >> np.uint32(15)
    mixed += np.uint32(word >> 32)
    mixed *= _SECOND
    return mixed


def _added(digit: Words, mixed: Words, base: int) -> Words:
    """digit + (mixed scaled to the base), modulo the base; at most 2 base <= 2^17, so nothing wraps."""
    total = digit + ((mixed.astype(np.uint64) * np.uint64(base)) >> np.uint64(32)).astype(np.uint32)
    wrapped = total - np.uint32(base)  # a huge number where total < base
    return np.asarray(np.minimum(total, wrapped))
