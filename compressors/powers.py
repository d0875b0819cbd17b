"""Rounding to signed powers of two, and the byte symbols of the result.

Symbol 0 is zero; otherwise bit 7 is the sign and v = 1..127 the level 2^(exponent + 1 - v), where 2^exponent is the
power of two above every entry. Before it is rounded, a vector is multiplied by a power of two that gives its largest
entry the biased exponent 126. Adding noise to the mantissa then carries into the exponent with just the right
probability, and what lies below the 127th level is denormal, where the same carry rounds to zero or to that level:
unbiased at any range.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.base import require
from thinwire.blocks import each_block
from thinwire.random import NOISE_BLOCK, Key, noise_block, noise_keys, noise_on

Floats = NDArray[np.float32] | NDArray[np.float64]
Bytes = NDArray[np.uint8]

TOP = 126  # biased exponent of the largest entry after scaling
BITS: dict[str, tuple[str, int, int]] = {"float32": ("<u4", 32, 23), "float64": ("<u8", 64, 52)}  # word, size, mantissa
BIAS = {"float32": 127, "float64": 1023}
NEGATIVE_ZERO = 128


def exponent_above(largest: float) -> int:
    """The e with 2^(e-1) <= largest < 2^e; 0 for zero."""
    return math.frexp(largest)[1]


def to_symbols(x: Floats, exponent: int, key: Key | None) -> Bytes:
    """Symbols of a contiguous CPU vector: rounded at random with the noise of ``key``, to the nearest without one."""
    symbols = np.empty(len(x), np.uint8)
    words = None if key is None else noise_keys(key, len(x))
    lower = None if key is None else noise_keys(key.at("low"), len(x))

    def work(start: int, stop: int) -> None:
        random = None
        if words is not None and lower is not None:
            block = start // NOISE_BLOCK
            pair = (words[block], lower[block]) if x.dtype == np.float64 else (words[block],)
            random = _mantissa_noise(pair, stop - start)
        _symbols_of_block(x[start:stop], exponent, random, symbols[start:stop])

    each_block(len(x), NOISE_BLOCK, work)
    return symbols


def _mantissa_noise(words: tuple[np.uint64, ...], count: int) -> NDArray[np.uint32] | NDArray[np.uint64]:
    """Uniform integers as wide as the mantissa: 23 bits from one word of noise, 52 from two."""
    noise = [noise_block(word, np.empty(count, np.uint32), np.empty(count, np.uint32)) for word in words]
    if len(noise) == 1:
        return np.right_shift(noise[0], np.uint32(9), out=noise[0])
    return np.asarray((noise[0].astype(np.uint64) << np.uint64(20)) | (noise[1] >> np.uint32(12)), dtype=np.uint64)


def _symbols_of_block(x: Floats, exponent: int, random: NDArray[Any] | None, out: Bytes) -> None:
    """One block; the narrow steps are in bytes, several times faster than in words."""
    word, size, mantissa = BITS[x.dtype.name]
    kind = np.dtype(word).type
    scaled = x.copy()
    for factor in _factors(exponent, x.dtype.name):
        np.multiply(scaled, x.dtype.type(factor), out=scaled)
    bits: NDArray[Any] = scaled.view(word)
    negative = np.right_shift(bits, kind(size - 8)).astype(np.uint8) & np.uint8(0x80)
    np.add(bits, kind(1 << (mantissa - 1)) if random is None else random, out=bits)
    level = np.right_shift(bits, kind(mantissa), out=bits).astype(np.uint8)  # its biased exponent, at most 127
    np.bitwise_and(level, np.uint8(0x7F), out=level)
    nonzero = (level != 0).view(np.uint8)
    np.subtract(np.uint8(TOP + 2), level, out=level)
    np.bitwise_or(level, negative, out=level)
    np.multiply(level, nonzero, out=out)


def to_symbols_on(x: Tensor, exponent: int, key: Key) -> Tensor:
    """The symbols of ``to_symbols`` with a key, bit for bit, computed on the vector's device."""
    count = x.numel()
    random = noise_on(key, count, x.device)
    if x.dtype == torch.float64:
        low = noise_on(key.at("low"), count, x.device)
        random = ((random.long() & 0xFFFFFFFF) << 20) | ((low >> 12) & 0xFFFFF).long()
    else:
        random = (random >> 9) & 0x7FFFFF
    scaled = x
    for factor in _factors(exponent, str(x.dtype).removeprefix("torch.")):
        scaled = scaled * factor
    wide = torch.int64 if x.dtype == torch.float64 else torch.int32
    bits = scaled.view(wide)
    level = ((bits + random) >> (52 if x.dtype == torch.float64 else 23)) & 0x7F
    symbols = ((TOP + 2) - level) | torch.where(bits < 0, 0x80, 0)
    return torch.where(level == 0, 0, symbols).to(torch.uint8)


def _factors(exponent: int, dtype: str) -> tuple[float, ...]:
    """Powers of two, each a normal number, whose product scales the largest entry to the biased exponent TOP."""
    shift = TOP + 1 - BIAS[dtype] - exponent
    half = shift // 2
    return (2.0**shift,) if abs(shift) < BIAS[dtype] else (2.0**half, 2.0 ** (shift - half))


def table(exponent: int, dtype: str) -> Floats:
    """The value of each of the 256 symbols; 2^exponent is the largest finite number where the dtype lacks it."""
    levels = np.zeros(256, np.dtype(dtype))
    most = float(np.finfo(levels.dtype).max)
    for level in range(1, 128):
        power = exponent + 1 - level
        levels[level] = most if power > BIAS[dtype] else math.ldexp(1.0, power)
    levels[129:] = -levels[1:128]
    return levels


def from_symbols(symbols: Bytes, exponent: int, dtype: str) -> Floats:
    """The values of the symbols, by table."""
    values, out = table(exponent, dtype), np.empty(len(symbols), np.dtype(dtype))

    def work(start: int, stop: int) -> None:
        np.take(values, symbols[start:stop], out=out[start:stop], mode="clip")

    each_block(len(symbols), NOISE_BLOCK, work)
    return out


def check_symbols(symbols: Bytes, exponent: int, dtype: str) -> None:
    """Raise WireError on an exponent that no vector of the dtype has, or on the symbol of minus zero."""
    check_exponent(exponent, dtype)
    require(not bool((symbols == NEGATIVE_ZERO).any()), "symbol of minus zero")


def check_exponent(exponent: int, dtype: str) -> None:
    """Raise WireError unless it is the exponent above the largest magnitude of some vector of the dtype."""
    most = BIAS[dtype] + 1
    least = 3 - BIAS[dtype] - BITS[dtype][2] - 1
    require(least <= exponent <= most, f"exponent {exponent}; {dtype} has {least} to {most}")
