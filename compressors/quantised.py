"""Quantised: entries as whole multiples of their bucket's unit, or as places in a code book times that unit.

The message of all codecs that quantise by buckets: the units, and one small signed whole number per entry. Level 0 is
zero, and level -v the negative of level v.
"""

import struct
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from compressors.base import DTYPE_NAMES, Encoded, Payload, require
from compressors.bounds import entropy_bits, value_bits
from compressors.buckets import LEAST, MOST, STRETCH, Edges, Float64s, edges, round_up, spread
from compressors.powers import Floats
from compressors.symbols import Levels, level_type, pack_levels, unpack_levels
from compressors.values import decode_values, encode_values
from thinwire.blocks import each_block
from thinwire.layout import Layout
from thinwire.random import NOISE_BLOCK, Key, noise_block, noise_keys, noise_on

PARAMETERS = struct.Struct("<IH")  # entries of a bucket; largest level
Rounding = Callable[[Tensor, Tensor | None], Tensor]
"""Entries in units, and a word of noise for each (int32): the levels. It may overwrite the entries."""


def at_random(most: int) -> Rounding:
    """One of the two whole numbers around each entry, without bias; entries beyond ``most`` are taken for it.

    Fixed-point: noise below one unit is added, and what is left of one unit dropped. The probabilities are exact to
    2^-24 for ``most`` of up to 127, to 2^-16 for up to 32,767, and to 2^-32 for float64.
    """

    def work(entries: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None
        wide = entries.dtype == torch.float64
        bits = 32 if wide else 31 - most.bit_length()
        fixed = entries.mul_(2.0**bits).clamp_(-most * 2.0**bits, most * 2.0**bits).round_()
        if wide:
            return (fixed.long() + (noise.long() & 0xFFFFFFFF)) >> 32
        return (fixed.int() + ((noise >> (32 - bits)) & ((1 << bits) - 1))) >> bits

    return work


def quantise(x: Tensor, bounds: Edges, units: Floats, kind: torch.dtype, rounding: Rounding, key: Key | None) -> Tensor:
    """The levels (of ``kind``) of the entries, each in units of its bucket; entries of a bucket without unit are 0."""
    divisors = torch.from_numpy(np.where(units > 0, units, 1).astype(units.dtype)).to(x.device)

    def work(part: Tensor, start: int, noise: Tensor | None) -> Tensor:
        return rounding(part / spread(divisors, bounds, start, start + len(part)), noise)

    return by_stretch(x, kind, work, key)


def by_stretch(
    x: Tensor, kind: torch.dtype, work: Callable[[Tensor, int, Tensor | None], Tensor], key: Key | None = None
) -> Tensor:
    """``work(entries, start, noise)`` for all entries: on the CPU in stretches that fit the cache, on a GPU at once.

    Elementwise work, so that both give the same bits. ``noise`` is that of ``noise(key, numel)`` as int32.
    """
    if x.device.type != "cpu":
        return at_once(x, kind, work, key)
    out = torch.empty(len(x), dtype=kind)
    words = None if key is None else noise_keys(key, len(x))

    def block(start: int, stop: int) -> None:
        noise = None
        if words is not None:
            size = stop - start
            random = noise_block(words[start // NOISE_BLOCK], np.empty(size, np.uint32), np.empty(size, np.uint32))
            noise = torch.from_numpy(random.view(np.int32))
        for at in range(start, stop, STRETCH):
            end = min(at + STRETCH, stop)
            out[at:end] = work(x[at:end], at, None if noise is None else noise[at - start : end - start])

    each_block(len(x), NOISE_BLOCK, block)
    return out


def at_once(
    x: Tensor, kind: torch.dtype, work: Callable[[Tensor, int, Tensor | None], Tensor], key: Key | None = None
) -> Tensor:
    """``by_stretch`` without stretches, as on a GPU."""
    return work(x, 0, None if key is None else noise_on(key, len(x), x.device)).to(kind)


def scale(levels: Tensor, bounds: Edges, units: Floats, most: int, table: Floats | None = None) -> Tensor:
    """What levels stand for: level times unit, or ``table[level + most]`` times unit. Portable arithmetic.

    A product beyond the finite numbers is the largest of them.
    """
    factors = torch.from_numpy(units).to(levels.device)
    values = None if table is None else torch.from_numpy(table).to(levels.device)
    finite = torch.finfo(factors.dtype).max
    overflows = most * float(units.max(initial=0)) > finite

    def work(part: Tensor, start: int, _: Tensor | None) -> Tensor:
        numbers = part.to(factors.dtype) if values is None else look_up(values, part)
        numbers.mul_(spread(factors, bounds, start, start + len(part)))
        return numbers.clamp_(-finite, finite) if overflows else numbers

    return by_stretch(levels, factors.dtype, work)


def look_up(values: Tensor, levels: Tensor) -> Tensor:
    """The value of each level; ``values`` holds those of -most to most."""
    return values.index_select(0, levels.int() + len(values) // 2)


def encode_uniform(
    codec: str, x: Tensor, layout: Layout, bucket: int, most: int, scales: Float64s, key: Key
) -> Encoded:
    """The message of entries rounded at random to multiples of scale / most; no entry exceeds its bucket's scale."""
    x = x.detach().contiguous()
    units = round_up(scales, most, DTYPE_NAMES[x.dtype])
    levels = quantise(x, edges(layout, bucket), units, level_type(most), at_random(most), key.at("rounding"))
    return encode_levels(codec, x, layout, bucket, levels, most, units)


def encode_levels(
    codec: str,
    x: Tensor,
    layout: Layout,
    bucket: int,
    levels: Tensor,
    most: int,
    units: Floats,
    table: Floats | None = None,
) -> Encoded:
    """The message of levels and units; units of more than 8 significant bits are rounded to the nearest."""
    description, stream, sent = encode_values(units, "bf16", None)
    parameters = PARAMETERS.pack(bucket, most) + description
    payload = Payload(codec, DTYPE_NAMES[x.dtype], parameters, (stream, pack_levels(levels, most)))
    return Encoded(payload, scale(levels, edges(layout, bucket), sent, most, table))


def decode_levels(
    payload: Payload,
    layout: Layout,
    device: torch.device | str,
    allowed: range,
    table: Callable[[int], Floats] | None = None,
) -> Tensor:
    """The vector of such a message whose largest level is one of ``allowed``; ``table(most)`` is its code book."""
    bucket, most, units, levels = _unpack(payload, layout, allowed)
    values = None if table is None else table(most)
    return scale(torch.from_numpy(levels).to(device), edges(layout, bucket), units, most, values)


def _unpack(payload: Payload, layout: Layout, allowed: range) -> tuple[int, int, Floats, Levels]:
    """Bucket size, largest level, units, levels."""
    require(len(payload.streams) == 2, f"{payload.codec} of {len(payload.streams)} streams; expected 2")
    require(len(payload.parameters) >= PARAMETERS.size, f"{payload.codec} with {len(payload.parameters)} parameters")
    bucket, most = PARAMETERS.unpack_from(payload.parameters)
    require(LEAST <= bucket <= MOST, f"buckets of {bucket} entries; allowed: {LEAST} to {MOST}")
    require(most in allowed, f"levels up to {most}; allowed: {allowed[0]} to {allowed[-1]}")
    count = len(edges(layout, bucket)) - 1
    units = decode_values(payload.parameters[PARAMETERS.size :], payload.streams[0], count, payload.dtype)
    require(not bool((units < 0).any()), "negative unit")
    return bucket, most, units, unpack_levels(payload.streams[1], layout.numel, most)


def least_bits(encoded: Encoded, layout: Layout) -> float:
    """The entropy of the levels of such a message, and of its units."""
    units, levels = _unpack(encoded.payload, layout, range(1, 1 << 16))[2:]
    return entropy_bits(levels) + value_bits(units)
