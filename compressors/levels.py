"""Values in 8, 4 or 2 bits: a sign and one of 128, 8 or 2 magnitudes, relative to the largest of 128 values.

The kept values of a tensor are cut into blocks of 128, the last one shorter. A block has a height h, its largest
magnitude rounded up to 9 bits, and a floor f = h r / 256, its smallest one rounded down. The magnitudes of its symbols
are f + (h - f) (j / L)^2, j = 0..L, L = 127, 7 or 1: denser near the floor, where most values are. Even steps would
err as much on a Gaussian, and two to four times as much on heavy tails. Two bits rounded to the nearest take the two
magnitudes that fit the block best in the mean square instead.

Height and floor cost about a tenth of a bit per value. Everything here is integers and separate float64 operations.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressors.base import require
from compressors.powers import Floats, check_exponent
from thinwire.blocks import each_block
from thinwire.random import Key, noise

Bytes = NDArray[np.uint8]
Counts = NDArray[np.int64]
Doubles = NDArray[np.float64]

BLOCK = 128
"""Values that share a height and a floor; part of the format."""

SLAB = 512  # blocks worked on at a time, so that they stay in the cache
ROWS = 3  # bytes that describe a block: how far its height is below the largest, its mantissa, its floor
UP = 2.0**-8  # the most by which rounding up lifts a height


def steps(bits: int) -> int:
    """L: the largest j of a magnitude."""
    return (1 << (bits - 1)) - 1


@cache
def omega_of_levels(bits: int) -> float:
    """The omega of rounding at random; at worst one entry is at the height, and all others in one step [l, u].

    With n = 127 such others at x and the floor at 0 the error is n (x - l)(u - x) of an energy 1 + n x^2; maximised
    over x in closed form, then over the steps. A height that is rounded up widens the steps, and its own entry lies UP
    below it at most.
    """

    def worst(low: float, high: float) -> float:
        inner = 1 + (BLOCK - 1) * low * high
        return (math.sqrt(inner**2 + (BLOCK - 1) * (high - low) ** 2) - inner) / 2

    low, high = _widened(bits)[-1]
    return max(worst(*step) for step in _widened(bits)) + UP * (high - low)


@cache
def alpha_of_levels(bits: int) -> float:
    """The alpha of rounding to the nearest.

    8 and 4 bits: one entry at the height, all others in the middle of one step. 2 bits: with S_m the sum of the m
    largest of B magnitudes, two levels capture at least max S_m^2 / m, and then x is majorised by sqrt(i) - sqrt(i-1),
    so alpha >= 1 / sum (sqrt(i) - sqrt(i-1))^2, less what rounding the two levels loses, 2^-10 of it at most.
    """
    if bits == 2:
        ratio = sum((math.sqrt(i) - math.sqrt(i - 1)) ** 2 for i in range(1, BLOCK + 1))
        return (1 - 2.0**-10) / ratio
    others = BLOCK - 1
    lost = (others * (high - low) ** 2 / (4 + others * (high + low) ** 2) for low, high in _widened(bits))
    return 1 - max(lost) - UP**2


def _widened(bits: int) -> list[tuple[float, float]]:
    """The steps between neighbouring levels of a block with floor 0, as wide as a rounded height makes them."""
    levels = [(1 + UP) * (j / steps(bits)) ** 2 for j in range(steps(bits) + 1)]
    return list(pairwise(levels))


def starts_of(runs: Sequence[int]) -> Counts:
    """Where each block starts among the values, and their number at the end; no block reaches across a run."""
    begin, starts = 0, [np.zeros(0, np.int64)]
    for run in runs:
        starts.append(np.arange(begin, begin + run, BLOCK))
        begin += run
    return np.append(np.concatenate(starts), begin)


def to_levels(values: Floats, exponent: int, bits: int, key: Key | None, runs: Sequence[int]) -> tuple[Bytes, Bytes]:
    """The description of the blocks (ROWS x blocks) and the symbols; at random with the noise of ``key``.

    ``exponent`` is that above the largest magnitude. Bit ``bits - 1`` of a symbol is the sign, never set for zero.
    """
    starts = starts_of(runs)
    scales, symbols = np.zeros((ROWS, len(starts) - 1), np.uint8), np.empty(len(values), np.uint8)
    random = None if key is None else noise(key, len(values))

    def work(first: int, last: int) -> None:
        start, stop, lengths = int(starts[first]), int(starts[last]), np.diff(starts[first : last + 1])
        inside = np.arange(BLOCK) < lengths[:, None]
        magnitudes = np.zeros(inside.shape)
        magnitudes[inside] = np.abs(values[start:stop])
        described, heights = _describe(magnitudes, inside, exponent, values.dtype.name, bits == 2 and key is None)
        position = _position(magnitudes, heights, described[2])[inside]
        floor = np.repeat(described[2], lengths)
        drawn = 0.5 if random is None else random[start:stop] * 2.0**-32
        level = _round(position, steps(bits), drawn)
        negative = (values[start:stop] < 0) & ((level > 0) | (floor > 0))
        scales[:, first:last] = described
        symbols[start:stop] = level | (negative.astype(np.uint8) << np.uint8(bits - 1))

    each_block(len(starts) - 1, SLAB, work, fewest=2)
    return scales, symbols


def _describe(
    magnitudes: Doubles, inside: NDArray[np.bool_], exponent: int, dtype: str, two_means: bool
) -> tuple[Bytes, Floats]:
    """The three bytes of each block, and its height."""
    if two_means:
        most, least = _two_means(magnitudes, inside)
    else:
        most, least = magnitudes.max(1), np.where(inside, magnitudes, np.inf).min(1)
    fraction, power = np.frexp(most)
    mantissa = np.rint(fraction * 512) if two_means else np.ceil(fraction * 512)
    below = exponent + 1 - power.astype(np.int64) - (mantissa == 512)
    lost = (below > 255) | (most == 0)
    mantissa[lost | (mantissa == 512)], below[lost] = 256, 255
    described = np.stack([below, mantissa - 256, np.zeros(len(below))]).astype(np.uint8)
    heights = _heights(described, exponent, dtype)
    ratio = 256 * np.divide(least, heights, out=np.zeros(len(heights)), where=(heights > 0) & (most > 0))
    described[2] = np.clip(np.rint(ratio) if two_means else np.floor(ratio), 0, 255)
    return described, heights


def _two_means(magnitudes: Doubles, inside: NDArray[np.bool_]) -> tuple[Doubles, Doubles]:
    """The two levels of least squared error: the means of the m largest and of the rest, for the best m.

    Sums are of integers, 2^20 to the largest, so that no order of summation can change them.
    """
    most, lengths, count = magnitudes.max(1), inside.sum(1)[:, None], np.arange(1, BLOCK + 1)
    unit = np.where(most > 0, most, 1.0)[:, None]
    sizes = np.sort(np.rint(magnitudes / unit * 2.0**20).astype(np.int32), axis=1)[:, ::-1]
    sums = np.cumsum(sizes, axis=1, dtype=np.int64).astype(np.float64)
    rest, others = sums[:, -1:] - sums, np.maximum(lengths - count, 1)
    captured = np.where(count <= lengths, sums * sums / count + rest * rest / others, -1.0)
    best = captured.argmax(1)[:, None]
    upper, lower = sums / count, rest / others
    means = [np.take_along_axis(mean, best, 1)[:, 0] * 2.0**-20 * unit[:, 0] for mean in (upper, lower)]
    return means[0], means[1]


def _position(magnitudes: Doubles, heights: Floats, floor: Bytes) -> Doubles:
    """Where each magnitude lies between the floor, 0, and the height, 1."""
    wide = heights.astype(np.float64)[:, None]
    ratio = 256 * np.divide(magnitudes, wide, out=np.zeros(magnitudes.shape), where=wide > 0)
    return np.clip((ratio - floor[:, None]) / (256.0 - floor[:, None]), 0, 1)


def _round(position: Doubles, most: int, drawn: Any) -> Bytes:
    """The level below or the one above: above if the position's share of the step between exceeds what was drawn."""
    level = np.minimum(np.floor(np.sqrt(position) * most), most - 1)
    share = (position * (most * most) - level * level) / (2 * level + 1)
    return np.asarray(level + (share > drawn), dtype=np.uint8)


def from_levels(scales: Bytes, symbols: Bytes, exponent: int, bits: int, dtype: str, runs: Sequence[int]) -> Floats:
    """The values of the symbols."""
    starts, out = starts_of(runs), np.empty(len(symbols), np.dtype(dtype))
    table, width = _table(bits, dtype), 1 << bits

    def work(first: int, last: int) -> None:
        start, stop = int(starts[first]), int(starts[last])
        described = scales[:, first:last]
        levels = _heights(described, exponent, dtype)[:, None] * table[described[2]]
        signed = np.concatenate([levels, -levels], axis=1)
        row = np.repeat(np.arange(0, width * (last - first), width), np.diff(starts[first : last + 1]))
        np.take(signed.reshape(-1), row + symbols[start:stop], out=out[start:stop])

    each_block(len(starts) - 1, SLAB, work, fewest=2)
    return out


def check_levels(scales: Bytes, symbols: Bytes, exponent: int, bits: int, dtype: str, runs: Sequence[int]) -> None:
    """Raise WireError on an exponent that no vector of the dtype has, a symbol too wide, or minus zero."""
    check_exponent(exponent, dtype)
    require(int(symbols.max(initial=0)) < 1 << bits, f"symbol {int(symbols.max(initial=0))} of {bits} bits")
    floor = np.repeat(scales[2], np.diff(starts_of(runs)))
    require(not bool(((symbols == 1 << (bits - 1)) & (floor == 0)).any()), "symbol of minus zero")


def _heights(scales: Bytes, exponent: int, dtype: str) -> Floats:
    """The height of each block: (256 + mantissa) times a power of two, within the finite range."""
    with np.errstate(over="ignore", under="ignore"):
        heights = (256.0 + scales[1]) * _powers(exponent)[scales[0]]
        return np.asarray(np.minimum(heights, np.finfo(dtype).max).astype(dtype))


def _powers(exponent: int) -> Doubles:
    """What the mantissa of a block is multiplied by, for each of its 256 distances from the largest."""
    return np.array([math.ldexp(1.0, exponent + 1 - 9 - below) for below in range(256)])


@cache
def _table(bits: int, dtype: str) -> Floats:
    """Level j over the height for each of the 256 floors, rounded once."""
    square = steps(bits) ** 2
    floor, rise = np.arange(256.0)[:, None], np.arange(steps(bits) + 1.0) ** 2
    return np.asarray(((floor * square + (256 - floor) * rise) / (256.0 * square)).astype(dtype))
