"""How kept values travel: as they are ("fp32"), as bfloat16 ("bf16") or as powers of two ("natural").

Each is entropy-coded: bytes of equal weight together, because signs and mantissas are noise while exponents are not.
Values are rounded to the nearest for a contractive compressor and at random, from a stream of their own, for an
unbiased one. "fp32" means unrounded; in a float64 run these are 8-byte values. "bf16" and "natural" are relative to the
largest value, so denormal and huge vectors lose nothing.
"""

import math
import struct
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from compressors.base import require
from compressors.powers import Floats, check_symbols, exponent_above, from_symbols, to_symbols
from thinwire.errors import WireError
from thinwire.random import Key, noise
from thinwire.wire.coding import pack_symbols, unpack_symbols

Values = Literal["bf16", "fp32", "natural"]
FORMATS: tuple[Values, ...] = get_args(Values)

PARAMETERS = struct.Struct("<Bh")  # index in FORMATS; exponent above the largest magnitude
MOST_BF16 = 2.0 - 2.0**-7  # the largest bfloat16 below 2
LAYOUT = {"float32": ("<u4", 32, 1), "float64": ("<u8", 64, 4)}  # word, its bits, rotation that fills the top byte


def check_format(values: str) -> None:
    """Raise ValueError unless it is one of FORMATS."""
    if values not in FORMATS:
        raise ValueError(f"values = {values!r}; allowed: {', '.join(FORMATS)}")


def omega_of(values: Values) -> float:
    """The omega of rounding at random. bf16: steps of 2^-7 at 1, so (2^-7)^2 / 4; natural: 1/8, at 4/3 of a power."""
    return {"fp32": 0.0, "bf16": 2.0**-16, "natural": 1 / 8}[values]


def alpha_of(values: Values) -> float:
    """The alpha of rounding to the nearest. bf16: relative error 2^-8; natural: 1/3, at 3/2 of a power of two."""
    return {"fp32": 1.0, "bf16": 1.0 - 2.0**-16, "natural": 8 / 9}[values]


def encode_values(values: Floats, form: Values, key: Key | None) -> tuple[bytes, bytes, Floats]:
    """Parameters, stream and what they decode to; rounded at random with ``key``, to the nearest without."""
    dtype = values.dtype.name
    exponent = exponent_above(float(np.abs(values).max())) if len(values) else 0
    if form == "fp32":
        exponent, decoded, rows = 0, values, _planes(values, dtype)
    elif form == "bf16":
        rounded = _round_bf16(np.asarray(np.ldexp(values, 1 - exponent)), exponent, dtype, key)
        decoded = _scale(rounded, exponent - 1, dtype)
        rows = _bf16_planes(rounded)
    else:
        symbols = to_symbols(values, exponent, key)
        decoded, rows = from_symbols(symbols, exponent, dtype), symbols[None]
    stream = pack_symbols(list(rows)) if len(values) else b""
    return PARAMETERS.pack(FORMATS.index(form), exponent), stream, decoded


def decode_values(parameters: bytes, stream: bytes, count: int, dtype: str) -> Floats:
    """``count`` values of ``dtype``, all finite. Raises WireError on anything that no encoder writes."""
    require(len(parameters) == PARAMETERS.size, f"{len(parameters)} bytes describe the values")
    index, exponent = PARAMETERS.unpack(parameters)
    require(index < len(FORMATS), f"unknown format of values {index}")
    form = FORMATS[index]
    width = {"fp32": np.dtype(dtype).itemsize, "bf16": 2, "natural": 1}[form]
    rows = unpack_symbols(stream, width, count)
    if form == "natural":
        check_symbols(rows[0], exponent, dtype)
        return from_symbols(rows[0], exponent, dtype)
    most = 1 + np.finfo(dtype).maxexp
    require(abs(exponent) <= 2 * most, f"exponent {exponent} of the values")
    values = _from_planes(rows, dtype) if form == "fp32" else _scale(_from_bf16_planes(rows), exponent - 1, dtype)
    if not bool(np.isfinite(values).all()):
        raise WireError("non-finite value")
    return values


def _planes(values: Floats, dtype: str) -> NDArray[np.uint8]:
    """One row per byte of the words, rotated so that the exponent fills the top byte."""
    word, size, turn = LAYOUT[dtype]
    kind = np.dtype(word).type
    bits: NDArray[Any] = np.ascontiguousarray(values).view(word)
    bits = (bits << kind(turn)) | (bits >> kind(size - turn))
    return np.ascontiguousarray(bits.astype(word).view(np.uint8).reshape(len(values), size // 8).T)


def _from_planes(rows: NDArray[np.uint8], dtype: str) -> Floats:
    word, size, turn = LAYOUT[dtype]
    kind = np.dtype(word).type
    bits: NDArray[Any] = np.ascontiguousarray(rows.T).view(word)[:, 0].astype(np.dtype(word).newbyteorder("="))
    turned: Floats = ((bits >> kind(turn)) | (bits << kind(size - turn))).view(dtype)
    return turned


def _round_bf16(scaled: NDArray[Any], exponent: int, dtype: str, key: Key | None) -> NDArray[np.float32]:
    """Values below 2 in magnitude on the grid of bfloat16; clamped where rounding up would leave the dtype."""
    drop = 16 if dtype == "float32" else 45
    kind: Any = np.uint32 if dtype == "float32" else np.uint64
    words: NDArray[Any] = scaled.view(kind)
    if key is None:
        added: NDArray[Any] = kind((1 << (drop - 1)) - 1) + ((words >> kind(drop)) & kind(1))  # ties to even
    else:
        random = noise(key, len(scaled)).astype(kind)
        added = random >> kind(16) if drop == 16 else (random << kind(13)) | kind(1 << 12)
    rounded: NDArray[Any] = (((words + added) >> kind(drop)) << kind(drop)).view(dtype)
    most = MOST_BF16 if exponent >= np.finfo(dtype).maxexp else 2.0
    narrow = np.clip(rounded, -most, most).astype(np.float32)
    bits = narrow.view(np.uint32) & np.uint32(0xFFFF0000)  # off the grid only below 2^-126 of the largest
    return np.asarray(bits.view(np.float32))


def _bf16_planes(rounded: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The exponent of every value, then mantissa and sign."""
    bits = (rounded.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    turned = (bits << np.uint16(1)) | (bits >> np.uint16(15))
    return np.stack([(turned >> np.uint16(8)).astype(np.uint8), turned.astype(np.uint8)])


def _from_bf16_planes(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    turned = (rows[0].astype(np.uint32) << np.uint32(8)) | rows[1]
    bits = (turned >> np.uint32(1)) | ((turned & np.uint32(1)) << np.uint32(15))
    return np.asarray((bits << np.uint32(16)).view(np.float32))


def _scale(values: NDArray[np.float32], exponent: int, dtype: str) -> Floats:
    """Values times 2^exponent in ``dtype``, by two exact multiplications, so that neither factor overflows."""
    half = exponent // 2
    kind = np.dtype(dtype).type
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.asarray(values.astype(dtype) * kind(math.ldexp(1.0, half)) * kind(math.ldexp(1.0, exponent - half)))
