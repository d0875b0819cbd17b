"""Cast: sixteen-bit floating point."""

import struct
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, DTYPES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.bounds import entropy_bits, value_bits
from compressors.buckets import MOST, edges, largest, spread
from compressors.powers import BIAS, BITS, Bytes, Floats
from compressors.quantised import Rounding, by_stretch, quantise
from compressors.values import decode_values, encode_values
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.wire.coding import pack_symbols, unpack_symbols

Format = Literal["bf16", "fp16"]
FORMATS: tuple[Format, ...] = get_args(Format)
MANTISSA = {"bf16": 7, "fp16": 10}  # its bits
LOW = {"bf16": 7, "fp16": 8}  # bits of a word in the second byte; sign and seven more are in the first
TOP = {"bf16": 126, "fp16": 30}  # biased exponent of 1; one is left above it, for what is rounded up to 2
PARAMETERS = struct.Struct("<B")  # index in FORMATS


@dataclass(frozen=True)
class Cast(Compressor):
    """Send sixteen-bit floating-point numbers, each tensor relative to its largest power of two. Contractive.

    alpha = 1 - 2^-16 for "bf16", 1 - 2^-22 for "fp16"; with ``unbiased`` entries are rounded at random instead of to
    the nearest, and omega is 2^-16 or 2^-22. Exact up to a factor of 1 + 2^-7: attained where all entries lie in the
    middle between 1 and the next number. Since a power of two is taken out of every tensor, no entry is out of range:
    below 2^-125 ("bf16") or 2^-29 ("fp16") of the largest the steps are those of the smallest normal number. What
    exceeds the largest such number of the run's dtype, a factor 1 - 2^-8 from its end, is cut off.

    Exponents are entropy-coded: about 10.6 bits an entry for "bf16", 13.6 for "fp16". Fast, and nearly lossless.

    Source: Kalamkar et al., "A study of BFLOAT16 for deep learning training", 2019; IEEE 754 binary16.
    """

    name: ClassVar[str] = "cast"
    format: Format = "bf16"  # "bf16" (8 significant bits) or "fp16" (11)
    unbiased: bool = False  # round at random

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format = {self.format!r}; allowed: {', '.join(FORMATS)}")

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Both formats, both classes."""
        return (cls(), cls("fp16", unbiased=True))

    @property
    def _error(self) -> float:
        return 2.0 ** (-2 * MANTISSA[self.format] - 2)

    def omega(self, layout: Layout) -> float | None:
        """Of m bits of mantissa: steps of 2^-m at 1, so 2^-2m / 4."""
        return self._error if self.unbiased else None

    def alpha(self, layout: Layout) -> float | None:
        """Of m bits of mantissa: half a step of 2^-m at 1, squared, is lost."""
        return None if self.unbiased else 1 - self._error

    def worst(self, layout: Layout) -> Tensor:
        """The middle between 1 and the next number."""
        return torch.full((layout.numel,), 1 + 2.0 ** (-MANTISSA[self.format] - 1), dtype=torch.float64)

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of each byte, with the exponents in one of them, and of the tensors' powers of two."""
        _, units, rows = _unpack(encoded.payload, layout)
        return sum(entropy_bits(row) for row in rows) + value_bits(units)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """A power of two per tensor; the high bytes of all numbers, then the low ones."""
        check_input(x, layout)
        x, dtype = x.detach().contiguous(), DTYPE_NAMES[x.dtype]
        units = _powers_below(largest(x, layout, MOST), dtype)
        most = (2 - 2.0 ** -MANTISSA[self.format]) * 2.0 ** BIAS[dtype]
        if units.max(initial=0) == 2.0 ** BIAS[dtype]:
            x = x.clamp(-most, most)
        rounding, noise = _rounding(self.format, dtype, self.unbiased), key.at("rounding")
        words = quantise(x, edges(layout, MOST), units, torch.int16, rounding, noise if self.unbiased else None)
        description, stream, sent = encode_values(units, "fp32", None)
        shift = LOW[self.format]
        high = by_stretch(words, torch.int8, lambda part, start, _: part >> shift)
        low = by_stretch(words, torch.uint8, lambda part, start, _: part & ((1 << shift) - 1))
        parameters = PARAMETERS.pack(FORMATS.index(self.format)) + description
        streams = (stream, pack_symbols([high.view(torch.uint8).cpu().numpy(), low.cpu().numpy()]))
        return Encoded(Payload(self.name, dtype, parameters, streams), _numbers(words, self.format, sent, layout))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The numbers times their tensor's power of two."""
        form, units, (high, low) = _unpack(payload, layout)
        words = np.left_shift(high.view(np.int8), LOW[form], dtype=np.int16)
        words |= low
        most = int((words & ((1 << (LOW[form] + 7)) - 1)).max(initial=0))
        require(most <= (TOP[form] + 1) << MANTISSA[form], "a number above 2")
        return _numbers(torch.from_numpy(words).to(device), form, units, layout)


def _powers_below(scales: Floats, dtype: str) -> Floats:
    """The largest power of two in each scale; 0 for 0."""
    return np.asarray((np.ldexp(0.5, np.frexp(scales)[1]) * (scales > 0)).astype(dtype))


def _rounding(form: Format, dtype: str, unbiased: bool) -> Rounding:
    """Entries below 2 to words: exponent and mantissa of the format, and the sign above them, in two's complement.

    Multiplied so that the smallest exponent of the format is that of the dtype; then both have the same subnormals.
    """
    wide, drop = dtype == "float64", BITS[dtype][2] - MANTISSA[form]
    word = torch.int64 if wide else torch.int32
    factor, sign = 2.0 ** (TOP[form] - BIAS[dtype]), LOW[form] + 7

    def work(entries: Tensor, noise: Tensor | None) -> Tensor:
        bits = (entries.abs() * factor).view(word)
        if noise is None:
            bits = bits + ((1 << (drop - 1)) - 1) + ((bits >> drop) & 1)  # ties to even
        elif wide:
            bits = bits + ((noise.long() & 0xFFFFFFFF) << (drop - 32))
        else:
            bits = bits + ((noise >> (32 - drop)) & ((1 << drop) - 1))
        return (bits >> drop).add_((entries.view(word) >> (63 if wide else 31)) << sign)

    return work


def _numbers(words: Tensor, form: Format, units: Floats, layout: Layout) -> Tensor:
    """What the words stand for: powers of two and products with them are exact, so portable."""
    dtype, bounds = units.dtype.name, edges(layout, MOST)
    drop, factor = BITS[dtype][2] - MANTISSA[form], 2.0 ** (BIAS[dtype] - TOP[form])
    factors = torch.from_numpy(units).to(words.device)
    word, sign = (torch.int64, -(1 << 63)) if dtype == "float64" else (torch.int32, -(1 << 31))
    rest = (1 << (LOW[form] + 7)) - 1

    def work(part: Tensor, start: int, _: Tensor | None) -> Tensor:
        wide = part.to(word)
        numbers = (((wide & rest) << drop) | (wide & sign)).view(DTYPES[dtype])
        return (numbers * factor).mul_(spread(factors, bounds, start, start + len(part)))

    return by_stretch(words, DTYPES[dtype], work)


def _unpack(payload: Payload, layout: Layout) -> tuple[Format, Floats, tuple[Bytes, Bytes]]:
    """Format, powers of two, high and low bytes."""
    require(len(payload.streams) == 2, f"cast of {len(payload.streams)} streams; expected 2")
    require(len(payload.parameters) >= PARAMETERS.size, f"cast with {len(payload.parameters)} bytes of parameters")
    (index,) = PARAMETERS.unpack_from(payload.parameters)
    require(index < len(FORMATS), f"unknown format {index}")
    form, count = FORMATS[index], len(edges(layout, MOST)) - 1
    units = decode_values(payload.parameters[PARAMETERS.size :], payload.streams[0], count, payload.dtype)
    require(bool(np.isin(np.frexp(units)[0], (0, 0.5)).all()), "a tensor's scale is no power of two")
    high, low = unpack_symbols(payload.streams[1], 2, layout.numel)
    require(int(low.max(initial=0)) >> LOW[form] == 0, f"more than {LOW[form]} low bits")
    return form, units, (high, low)
