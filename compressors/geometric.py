"""Levels that are powers of any base above 1: the message of exponential and of biased rounding.

Powers are computed on every node, by squaring and multiplying in float64 only, so that all have the same bits. The
levels reach from the least power that no entry exceeds (level 1) 126 octaves down.
"""

import math
import struct
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.base import DTYPE_NAMES, DTYPES, Encoded, Payload, require
from compressors.bounds import entropy_bits
from compressors.codebook import rounding, table
from compressors.powers import Floats, exponent_above
from compressors.quantised import by_stretch, look_up
from compressors.symbols import Levels, level_type, pack_levels, unpack_levels
from thinwire.layout import Layout
from thinwire.random import Key

PARAMETERS = struct.Struct("<di")  # base; exponent of level 1
LEAST_BASE, MOST_BASE = 1.01, 256.0
MOST_LEVELS = 8_780  # 126 octaves of the least base
RANGE = 2.0**-126


def check_base(base: float) -> None:
    """Raise ValueError unless powers of it can be sent."""
    if not LEAST_BASE <= base <= MOST_BASE:
        raise ValueError(f"base = {base}; allowed: {LEAST_BASE} to {MOST_BASE:g}")


def power(base: float, exponents: NDArray[np.int64]) -> NDArray[np.float64]:
    """base^exponent by products and quotients of float64 alone; portable, inf above the finite numbers."""
    size = np.abs(exponents)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        inverse = 1 / _positive_power(base, size // 2) * (1 / _positive_power(base, size - size // 2))
        return np.asarray(np.where(exponents < 0, inverse, _positive_power(base, size)))


def _positive_power(base: float, exponents: NDArray[np.int64]) -> NDArray[np.float64]:
    result, factor = np.ones(len(exponents)), base
    while exponents.any():
        result = np.where(exponents & 1, result * factor, result)
        exponents, factor = exponents >> 1, factor * factor
    return result


def magnitudes(base: float, top: int, dtype: str) -> Floats:
    """The levels, ascending: base^top and the powers below, as far as the dtype tells them apart."""
    steps = np.arange(_level_count(base), dtype=np.int64)
    kind = np.dtype(dtype).type
    with np.errstate(over="ignore", under="ignore"):
        powers = np.minimum(power(base, top - steps), np.finfo(kind).max).astype(kind)
    return np.unique(powers[powers > 0])


@lru_cache(maxsize=64)
def _level_count(base: float) -> int:
    """How many powers there are in 126 octaves, both ends included."""
    return int(np.count_nonzero(power(base, -np.arange(MOST_LEVELS, dtype=np.int64)) >= RANGE))


def _top(base: float, largest: float) -> int:
    """The least exponent whose power is not below ``largest``; 0 for zero."""
    if not largest:
        return 0
    top = math.ceil(math.log(largest) / math.log(base)) + 1
    while float(power(base, np.array([top - 1]))[0]) >= largest:
        top -= 1
    while float(power(base, np.array([top]))[0]) < largest:
        top += 1
    return top


def encode_powers(codec: str, x: Tensor, base: float, key: Key | None) -> Encoded:
    """Entries rounded to signed powers of the base: at random with the noise of ``key``, to the nearest without."""
    x, dtype = x.detach().contiguous(), DTYPE_NAMES[x.dtype]
    low, high = torch.aminmax(x) if x.numel() else (torch.zeros(()), torch.zeros(()))
    largest = max(-float(low), float(high))
    top, exponent = _top(base, largest), exponent_above(largest) - 1
    ladder = magnitudes(base, top, dtype)
    unit = torch.tensor([math.ldexp(1.0, exponent)], dtype=x.dtype, device=x.device)  # subnormals are slow, and coarse
    relative = np.ldexp(ladder.astype(np.float64), -exponent).astype(dtype)
    chosen = rounding(relative, x.device, nearest=key is None)
    levels = by_stretch(x, level_type(len(ladder)), lambda part, start, noise: chosen(part / unit, noise), key)
    payload = Payload(codec, dtype, PARAMETERS.pack(base, top), (pack_levels(levels, len(ladder)),))
    return Encoded(payload, _values(levels, ladder))


def decode_powers(payload: Payload, layout: Layout, device: torch.device | str) -> Tensor:
    """The signed power of every level."""
    levels, ladder = _unpack(payload, layout)
    return _values(torch.from_numpy(levels).to(device), ladder)


def least_bits(encoded: Encoded, layout: Layout) -> float:
    """The entropy of the levels."""
    return entropy_bits(_unpack(encoded.payload, layout)[0])


def _values(levels: Tensor, ladder: Floats) -> Tensor:
    values = torch.from_numpy(table(ladder)).to(levels.device)
    return by_stretch(levels, DTYPES[ladder.dtype.name], lambda part, start, _: look_up(values, part))


def _unpack(payload: Payload, layout: Layout) -> tuple[Levels, Floats]:
    require(len(payload.streams) == 1, f"{payload.codec} of {len(payload.streams)} streams; expected 1")
    require(len(payload.parameters) == PARAMETERS.size, f"{payload.codec} with {len(payload.parameters)} parameters")
    base, top = PARAMETERS.unpack(payload.parameters)
    require(LEAST_BASE <= base <= MOST_BASE, f"base {base}; allowed: {LEAST_BASE} to {MOST_BASE:g}")
    ladder = magnitudes(base, top, payload.dtype)
    below = float(power(base, np.array([top - 1]))[0])
    exists = len(ladder) > 0 and below <= float(np.finfo(payload.dtype).max)
    require(exists, f"largest power {base}^{top}; {payload.dtype} has none such")
    return unpack_levels(payload.streams[0], layout.numel, len(ladder)), ladder
