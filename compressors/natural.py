"""Natural compression: only signs and exponents travel."""

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.bounds import entropy_bits
from compressors.powers import check_symbols, exponent_above, from_symbols, table, to_symbols, to_symbols_on
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.wire.coding import pack_symbols, unpack_symbols

PARAMETERS = struct.Struct("<h")  # exponent above the largest magnitude


@dataclass(frozen=True)
class Natural(Compressor):
    """Round every entry at random to one of the two powers of two around it. Unbiased with omega = 1/8.

    The bound is attained at 4/3 of a power of two. 127 levels below the largest entry are kept; smaller entries are
    rounded to zero or to the last level, still without bias, which adds at most d 2^-250 to omega. About 3.6 bits an
    entry for a Gaussian, whatever its scale. Above the largest power of two of the dtype the upper level is the largest
    finite number.

    Source: Horvath, Ho, Horvath, Sahu, Canini, Richtarik, "Natural compression for distributed deep learning", 2022.
    """

    name: ClassVar[str] = "natural"

    def omega(self, layout: Layout) -> float:
        """1/8, attained."""
        return 1 / 8

    def worst(self, layout: Layout) -> Tensor:
        """4/3 everywhere."""
        return torch.full((layout.numel,), 4 / 3, dtype=torch.float64)

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the signed exponents."""
        return entropy_bits(unpack_symbols(encoded.payload.streams[0], 1, layout.numel)[0])

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """One byte symbol per entry, entropy-coded."""
        check_input(x, layout)
        x, dtype = x.detach().contiguous(), DTYPE_NAMES[x.dtype]
        low, high = torch.aminmax(x) if x.numel() else (torch.zeros(()), torch.zeros(()))
        exponent = exponent_above(max(-float(low), float(high)))
        noise = key.at("rounding")
        if x.device.type == "cpu":
            symbols = to_symbols(x.numpy(), exponent, noise)
            decoded = torch.from_numpy(from_symbols(symbols, exponent, dtype))
        else:
            levels = to_symbols_on(x, exponent, noise)
            decoded = _look_up(levels, exponent, dtype)
            symbols = levels.cpu().numpy()
        payload = Payload(self.name, dtype, PARAMETERS.pack(exponent), (pack_symbols([symbols]),))
        return Encoded(payload, decoded)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The signed power of two of every symbol, by table."""
        require(len(payload.streams) == 1, f"natural of {len(payload.streams)} streams; expected 1")
        require(len(payload.parameters) == PARAMETERS.size, f"natural of {len(payload.parameters)} bytes of parameters")
        (exponent,) = PARAMETERS.unpack(payload.parameters)
        symbols = unpack_symbols(payload.streams[0], 1, layout.numel)[0]
        check_symbols(symbols, exponent, payload.dtype)
        if torch.device(device).type == "cpu":
            return torch.from_numpy(from_symbols(symbols, exponent, payload.dtype))
        return _look_up(torch.from_numpy(symbols).to(device), exponent, payload.dtype)


def _look_up(symbols: Tensor, exponent: int, dtype: str) -> Tensor:
    """The values of symbols on their own device."""
    return torch.from_numpy(np.asarray(table(exponent, dtype))).to(symbols.device)[symbols.int()]
