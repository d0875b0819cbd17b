"""Small whole numbers as byte symbols: several to a byte where they are small, one, or a byte and some low bits.

Entropy coders work by the symbol, so numbers that fit together into a byte are coded together: many times faster, and
the fastest coder, which is wasteful with few symbols, comes as near to their entropy as a slow one. The numbers that
share a byte lie far apart: byte j of n holds entries j, j + n, j + 2n, ... Short vectors go without, because a table of
the bytes' frequencies grows with the number of bytes there can be.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.base import require
from thinwire.wire.coding import BLOCK, entropy, pack_symbols, unpack_symbols

Bytes = NDArray[np.uint8]
Levels = NDArray[np.int8] | NDArray[np.int16]

MOST_IN_BYTE = 127  # largest magnitude of one-byte levels
MOST = 32_767  # largest magnitude of all
SLACK = 0.015  # of a block, what zstandard may waste; the scales beside the levels waste a little too
SAMPLE = 1 << 16
TABLE_BYTES, TABLE_SHARE = 3, 0.004  # of a frequency; of a block, what all frequencies may take


def check_levels(levels: int, most: int = MOST) -> None:
    """Raise ValueError unless it is a number of levels that can be sent."""
    if not 1 <= levels <= most:
        raise ValueError(f"levels = {levels}; allowed: 1 to {most}")


def per_byte(radix: int) -> int:
    """How many digits below ``radix`` fit into a byte."""
    count = 1
    while radix ** (count + 1) <= 256:
        count += 1
    return count


def pack_digits(digits: Tensor, radix: int, group: int = 0) -> bytes:
    """Digits below ``radix`` (uint8, any device), ``group`` to a byte (0: as many as pay), entropy-coded.

    One byte before that says how many.
    """
    if not digits.numel():
        return b""
    group = group or _together(digits, radix)
    count = -(-digits.numel() // group)
    packed = torch.zeros(count, dtype=torch.uint8, device=digits.device)
    for start in range((group - 1) * count, -1, -count):
        part = digits[start : start + count]
        packed.mul_(radix)[: len(part)].add_(part)
    return bytes((group,)) + pack_symbols([packed.cpu().numpy()], SLACK)


def _together(digits: Tensor, radix: int) -> int:
    """How many digits to put into a byte so that a table of the bytes' frequencies hardly adds to the bytes."""
    sample = digits[:: max(1, len(digits) // SAMPLE)].cpu().numpy()
    bits, count = entropy(sample), 1
    for more in range(2, per_byte(radix) + 1):
        block = min(len(digits), more * BLOCK) * bits / 8
        count = more if TABLE_BYTES * radix**more <= TABLE_SHARE * block else count
    return count


def unpack_digits(data: bytes, count: int, radix: int) -> Bytes:
    """``count`` digits. Raises WireError unless the stream holds just those, and zeros where there are none."""
    if not count:
        require(not data, "digits where there are none")
        return np.zeros(0, np.uint8)
    group = data[0] if data else 0
    require(1 <= group <= per_byte(radix), f"{group} digits below {radix} to a byte")
    size = -(-count // group)
    rest = unpack_symbols(data[1:], 1, size)[0]
    digits = np.empty((group, size), np.uint8)
    for row in digits:
        quotient = rest // np.uint8(radix)
        np.subtract(rest, quotient * np.uint8(radix), out=row)
        rest = quotient
    flat = digits.reshape(-1)
    require(not rest.any() and not flat[count:].any(), f"digits that are none of {count} below {radix}")
    return flat[:count]


def level_type(most: int) -> torch.dtype:
    """The integers that hold levels from -most to most."""
    return torch.int8 if most <= MOST_IN_BYTE else torch.int16


def pack_levels(levels: Tensor, most: int) -> bytes:
    """Levels from -most to most (of ``level_type``, any device).

    Up to 7 they are digits, level + most; up to 127, bytes in two's complement. Beyond, one byte tells how many low
    bits b are split off: the rows are level >> b, as a byte in two's complement, and the low bits, if b is not 0.
    """
    if not levels.numel():
        return b""
    if per_byte(2 * most + 1) > 1:
        return pack_digits((levels + most).view(torch.uint8), 2 * most + 1)
    if most <= MOST_IN_BYTE:
        return pack_symbols([levels.view(torch.uint8).cpu().numpy()], SLACK)
    low, high = (int(end) for end in torch.aminmax(levels))
    split = max(0, max(-low - 1, high).bit_length() - 7)
    rows = [(levels >> split).to(torch.int8).view(torch.uint8), (levels & ((1 << split) - 1)).to(torch.uint8)]
    return bytes((split,)) + pack_symbols([row.cpu().numpy() for row in rows[: 1 + (split > 0)]], SLACK)


def unpack_levels(data: bytes, count: int, most: int) -> Levels:
    """``count`` levels from -most to most. Raises WireError unless the stream holds just those."""
    if not count:
        require(not data, "levels where there are none")
        return np.zeros(0, np.int8)
    if per_byte(2 * most + 1) > 1:
        return unpack_digits(data, count, 2 * most + 1).view(np.int8) - np.int8(most)
    if most <= MOST_IN_BYTE:
        levels: Levels = unpack_symbols(data, 1, count)[0].view(np.int8)
    else:
        require(bool(data) and data[0] <= 8, "levels without a valid number of low bits")
        split = data[0]
        rows = unpack_symbols(data[1:], 1 + (split > 0), count)
        levels = np.left_shift(rows[0].view(np.int8), split, dtype=np.int16)
        if split:
            require(int(rows[1].max()) >> split == 0, f"more than {split} low bits")
            levels |= rows[1]
    require(int(levels.max()) <= most and int(levels.min()) >= -most, f"level beyond {most}")
    return levels
