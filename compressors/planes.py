"""Floating-point values as rows of bytes of equal weight, unrounded or as bfloat16."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressors.powers import Floats
from thinwire.blocks import each_block
from thinwire.random import Key, noise

SLAB = 1 << 16  # values worked on at a time, so that they stay in the cache
MOST_BF16 = 2.0 - 2.0**-7  # the largest bfloat16 below 2
LAYOUT = {"float32": ("<u4", 32, 1), "float64": ("<u8", 64, 4)}  # word, its bits, rotation that fills the top byte


def planes(values: Floats, dtype: str) -> NDArray[np.uint8]:
    """One row per byte of the words, rotated so that the exponent fills the top byte."""
    word, size, turn = LAYOUT[dtype]
    kind, rows = np.dtype(word).type, np.empty((size // 8, len(values)), np.uint8)

    def work(start: int, stop: int) -> None:
        bits: NDArray[Any] = np.ascontiguousarray(values[start:stop]).view(word)
        bits = (bits << kind(turn)) | (bits >> kind(size - turn))
        rows[:, start:stop] = bits.astype(word).view(np.uint8).reshape(stop - start, size // 8).T

    each_block(len(values), SLAB, work)
    return rows


def from_planes(rows: NDArray[np.uint8], dtype: str) -> Floats:
    """The values of ``planes``."""
    word, size, turn = LAYOUT[dtype]
    kind, out = np.dtype(word).type, np.empty(rows.shape[1], dtype)

    def work(start: int, stop: int) -> None:
        bits: NDArray[Any] = np.ascontiguousarray(rows[:, start:stop].T).view(word)[:, 0]
        bits = bits.astype(np.dtype(word).newbyteorder("="))
        out[start:stop] = ((bits >> kind(turn)) | (bits << kind(size - turn))).view(dtype)

    each_block(len(out), SLAB, work)
    return out


def to_bf16(values: Floats, exponent: int, dtype: str, key: Key | None) -> tuple[NDArray[np.uint8], Floats]:
    """Two rows, the exponent of every value, then mantissa and sign; and what they decode to.

    ``exponent`` is that above the largest magnitude. At random with the noise of ``key``, to the nearest without one.
    """
    rows, decoded = np.empty((2, len(values)), np.uint8), np.empty(len(values), dtype)
    random = None if key is None else noise(key, len(values))

    def work(start: int, stop: int) -> None:
        scaled = np.asarray(np.ldexp(values[start:stop], 1 - exponent))
        rounded = _round_bf16(scaled, exponent, dtype, None if random is None else random[start:stop])
        decoded[start:stop] = _scale(rounded, exponent - 1, dtype)
        bits = (rounded.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        turned = (bits << np.uint16(1)) | (bits >> np.uint16(15))
        rows[0, start:stop] = turned >> np.uint16(8)
        rows[1, start:stop] = turned & np.uint16(0xFF)

    each_block(len(values), SLAB, work)
    return rows, decoded


def from_bf16(rows: NDArray[np.uint8], exponent: int, dtype: str) -> Floats:
    """The values of the rows of ``to_bf16``."""
    out = np.empty(rows.shape[1], dtype)

    def work(start: int, stop: int) -> None:
        turned = (rows[0, start:stop].astype(np.uint32) << np.uint32(8)) | rows[1, start:stop]
        bits = (turned >> np.uint32(1)) | ((turned & np.uint32(1)) << np.uint32(15))
        out[start:stop] = _scale((bits << np.uint32(16)).view(np.float32), exponent - 1, dtype)

    each_block(len(out), SLAB, work)
    return out


def _round_bf16(
    scaled: NDArray[Any], exponent: int, dtype: str, noise: NDArray[np.uint32] | None
) -> NDArray[np.float32]:
    """Values below 2 in magnitude on the grid of bfloat16; clamped where rounding up would leave the dtype."""
    drop = 16 if dtype == "float32" else 45
    kind: Any = np.uint32 if dtype == "float32" else np.uint64
    words: NDArray[Any] = scaled.view(kind)
    if noise is None:
        added: NDArray[Any] = kind((1 << (drop - 1)) - 1) + ((words >> kind(drop)) & kind(1))  # ties to even
    else:
        random = noise.astype(kind)
        added = random >> kind(16) if drop == 16 else (random << kind(13)) | kind(1 << 12)
    rounded: NDArray[Any] = (((words + added) >> kind(drop)) << kind(drop)).view(dtype)
    most = MOST_BF16 if exponent >= np.finfo(dtype).maxexp else 2.0
    narrow = np.clip(rounded, -most, most).astype(np.float32)
    bits = narrow.view(np.uint32) & np.uint32(0xFFFF0000)  # off the grid only below 2^-126 of the largest
    return np.asarray(bits.view(np.float32))


def _scale(values: NDArray[np.float32], exponent: int, dtype: str) -> Floats:
    """Values times 2^exponent in ``dtype``, by two exact multiplications, so that neither factor overflows."""
    half = exponent // 2
    kind = np.dtype(dtype).type
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.asarray(values.astype(dtype) * kind(math.ldexp(1.0, half)) * kind(math.ldexp(1.0, exponent - half)))
