"""How kept values travel: as they are ("fp32"), as bfloat16 ("bf16"), as powers of two ("natural"), or in few bits.

Each is entropy-coded: bytes of equal weight together, because signs and mantissas are noise while exponents are not.
Values are rounded to the nearest for a contractive compressor and at random, from a stream of their own, for an
unbiased one. "fp32" means unrounded; in a float64 run these are 8-byte values. "bf16" and "natural" are relative to the
largest value, so denormal and huge vectors lose nothing. "8-bit", "4-bit" and "2-bit" are relative to the largest and
the smallest of 128 neighbouring values of one tensor (``compressors.levels``).

The relative squared error to the nearest, measured on the largest 1 % of a million entries, Gaussian or Student-t(3)
times a log-normal scale per 4,096: bf16 2e-6 and 3e-6, 8-bit 1e-6 and 3e-5, 4-bit 4e-4 and 9e-3, natural 7e-2 and
4e-2, 2-bit 3e-3 and 9e-2. At random it is twice that, but with "2-bit" 3e-2 and 1.1.
"""

import struct
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from compressors.base import require
from compressors.bounds import entropy_bits, value_bits
from compressors.levels import (
    ROWS,
    alpha_of_levels,
    check_levels,
    from_levels,
    omega_of_levels,
    starts_of,
    to_levels,
)
from compressors.planes import from_bf16, from_planes, planes, to_bf16
from compressors.powers import Floats, check_exponent, check_symbols, exponent_above, from_symbols, to_symbols
from thinwire.errors import WireError
from thinwire.random import Key
from thinwire.wire.coding import pack_symbols, unpack_symbols

Values = Literal["bf16", "fp32", "natural", "8-bit", "4-bit", "2-bit"]
FORMATS: tuple[Values, ...] = get_args(Values)
BITS: dict[Values, int] = {"8-bit": 8, "4-bit": 4, "2-bit": 2}

PARAMETERS = struct.Struct("<Bh")  # index in FORMATS; exponent above the largest magnitude
SCALES = struct.Struct("<I")  # bytes that describe the blocks of values in few bits


def check_format(values: str) -> None:
    """Raise ValueError unless it is one of FORMATS."""
    if values not in FORMATS:
        raise ValueError(f"values = {values!r}; allowed: {', '.join(FORMATS)}")


def omega_of(values: Values) -> float:
    """The omega of rounding at random.

    bf16: steps of 2^-7 at 1, so (2^-7)^2 / 4; natural: 1/8, at 4/3 of a power; 8, 4, 2 bits: 0.0004, 0.11, 5.2.
    """
    if values in BITS:
        return omega_of_levels(BITS[values])
    return {"fp32": 0.0, "bf16": 2.0**-16, "natural": 1 / 8}[values]


def alpha_of(values: Values) -> float:
    """The alpha of rounding to the nearest.

    bf16: relative error 2^-8; natural: 1/3, at 3/2 of a power of two; 8, 4, 2 bits: 0.9996, 0.897, 0.452.
    """
    if values in BITS:
        return alpha_of_levels(BITS[values])
    return {"fp32": 1.0, "bf16": 1.0 - 2.0**-16, "natural": 8 / 9}[values]


def magnify(values: Floats, factor: float) -> Floats:
    """Values times the factor rounded to their dtype, clamped to the finite range."""
    most = np.finfo(values.dtype).max
    with np.errstate(over="ignore"):
        return np.asarray(np.clip(values * values.dtype.type(factor), -most, most))


def in_levels(parameters: bytes) -> bool:
    """Whether ``decode_values`` needs to know which values belong to which tensor."""
    return _unpack_parameters(parameters)[0] in BITS


def encode_values(
    values: Floats, form: Values, key: Key | None, runs: Sequence[int] | None = None
) -> tuple[bytes, bytes, Floats]:
    """Parameters, stream and what they decode to; rounded at random with ``key``, to the nearest without.

    ``runs``: how many consecutive values belong to each tensor, where the receiver knows that too; default: all to one.
    """
    dtype = "float32" if values.dtype == np.float32 else values.dtype.name  # the name takes NumPy longer
    exponent = exponent_above(float(np.abs(values).max())) if len(values) else 0
    if form in BITS:
        stream, decoded = _encode_levels(values, exponent, BITS[form], key, runs or (len(values),))
        return PARAMETERS.pack(FORMATS.index(form), exponent), stream, decoded
    if form == "fp32":
        exponent, decoded, rows = 0, values, planes(values, dtype)
    elif form == "bf16":
        rows, decoded = to_bf16(values, exponent, dtype, key)
    else:
        symbols = to_symbols(values, exponent, key)
        decoded, rows = from_symbols(symbols, exponent, dtype), symbols[None]
    stream = pack_symbols(list(rows)) if len(values) else b""
    return PARAMETERS.pack(FORMATS.index(form), exponent), stream, decoded


def decode_values(
    parameters: bytes, stream: bytes, count: int, dtype: str, runs: Sequence[int] | None = None
) -> Floats:
    """``count`` values of ``dtype``, all finite. Raises WireError on anything that no encoder writes."""
    form, exponent = _unpack_parameters(parameters)
    if form in BITS:
        runs = runs or (count,)
        scales, levels = _unpack_levels(stream, count, runs)
        check_levels(scales, levels, exponent, BITS[form], dtype, runs)
        return from_levels(scales, levels, exponent, BITS[form], dtype, runs)
    width = {"fp32": np.dtype(dtype).itemsize, "bf16": 2, "natural": 1}[form]
    rows = unpack_symbols(stream, width, count)
    if form == "natural":
        check_symbols(rows[0], exponent, dtype)
        return from_symbols(rows[0], exponent, dtype)
    check_exponent(exponent, dtype)
    values = from_planes(rows, dtype) if form == "fp32" else from_bf16(rows, exponent, dtype)
    if not bool(np.isfinite(values).all()):
        raise WireError("non-finite value")
    return values


def least_value_bits(
    parameters: bytes, stream: bytes, count: int, dtype: str, runs: Sequence[int] | None = None
) -> float:
    """The fewest bits for these values: the entropy of their bytes, or of their symbols and of what scales them."""
    form, _ = _unpack_parameters(parameters)
    if form not in BITS:
        return value_bits(decode_values(parameters, stream, count, dtype))
    scales, symbols = _unpack_levels(stream, count, runs or (count,))
    return sum(entropy_bits(row) for row in (*scales, symbols))


def _unpack_parameters(parameters: bytes) -> tuple[Values, int]:
    require(len(parameters) == PARAMETERS.size, f"{len(parameters)} bytes describe the values")
    index, exponent = PARAMETERS.unpack(parameters)
    require(index < len(FORMATS), f"unknown format of values {index}")
    return FORMATS[index], exponent


def _encode_levels(
    values: Floats, exponent: int, bits: int, key: Key | None, runs: Sequence[int]
) -> tuple[bytes, Floats]:
    """The description of the blocks after its length, then the symbols."""
    scales, symbols = to_levels(values, exponent, bits, key, runs)
    if not len(values):
        return b"", values
    described = pack_symbols(list(scales))
    stream = SCALES.pack(len(described)) + described + pack_symbols([symbols])
    return stream, from_levels(scales, symbols, exponent, bits, values.dtype.name, runs)


def _unpack_levels(stream: bytes, count: int, runs: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if not count:
        require(not stream, f"{len(stream)} bytes of values where there is none")
        return np.zeros((ROWS, 0), np.uint8), np.zeros(0, np.uint8)
    require(len(stream) >= SCALES.size, f"{len(stream)} bytes of values")
    end = SCALES.size + SCALES.unpack_from(stream)[0]
    require(end <= len(stream), f"{end} bytes describe blocks in a stream of {len(stream)}")
    scales = unpack_symbols(stream[SCALES.size : end], ROWS, len(starts_of(runs)) - 1)
    return scales, unpack_symbols(stream[end:], 1, count)[0]
