"""Lazy: the whole vector now and then, decided by a coin that the receiver tosses too."""

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, DTYPES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.scope import Indices
from compressors.values import (
    Values,
    check_format,
    decode_values,
    encode_values,
    least_value_bits,
    magnify,
    omega_of,
)
from thinwire.layout import Layout
from thinwire.random import Key, coin

PARAMETERS = struct.Struct("<dQB")  # probability; entries of the vector; 1 if all clients share the coin


@dataclass(frozen=True)
class Lazy(Compressor):
    """Send the whole vector times 1/p with probability p, else nothing. Unbiased with omega = (1 + w)/p - 1.

    Exact for w = 0; w is the omega of the values' random rounding: 0 for "fp32", 2^-16 for "bf16", 1/8 for "natural";
    0.0004, 0.11 and 5.2 for "8-bit", "4-bit" and "2-bit". A client skips most rounds, and a message of nothing costs
    17 bytes; with ``shared`` all clients skip the same rounds.

    Source: Islamov, Qian, Richtarik, "Distributed second order methods with fast rates and compressed communication",
    ICML 2021 (lazy Bernoulli compression).
    """

    name: ClassVar[str] = "lazy"
    probability: float = 0.1  # of the vector to be sent, in (0, 1]
    values: Values = "fp32"  # how it travels; "fp32" is unrounded (8 bytes in a float64 run)
    shared: bool = False  # one coin for all clients of a round

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability = {self.probability}; allowed: above 0 and at most 1")
        check_format(self.values)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Exact and rounded, one's own coin and a shared one."""
        return (cls(0.25), cls(0.9, "4-bit", shared=True))

    @property
    def linear(self) -> bool:
        """With one coin for all clients and unrounded values."""
        return self.shared and self.values == "fp32"

    def omega(self, layout: Layout) -> float:
        """(1 + w)/p - 1."""
        return (1 + omega_of(self.values)) / self.probability - 1

    def worst(self, layout: Layout) -> Tensor | None:
        """Any vector without rounding: here, one magnitude."""
        return torch.ones(layout.numel, dtype=torch.float64) if self.values == "fp32" else None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the values, if they were sent."""
        description, stream = encoded.payload.parameters[PARAMETERS.size :], encoded.payload.streams[0]
        if not description:
            return 0.0
        return least_value_bits(description, stream, layout.numel, encoded.payload.dtype, _runs(layout))

    def support(self, layout: Layout, key: Key) -> Indices | None:
        """Nothing, where all clients stay silent."""
        return np.zeros(0, np.int64) if self.shared and not self._sends(key) else None

    def _sends(self, key: Key) -> bool:
        return coin((key.shared() if self.shared else key).at("coin"), self.probability)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """The values in their order, or an empty stream."""
        check_input(x, layout)
        x, dtype = x.detach(), DTYPE_NAMES[x.dtype]
        parameters = PARAMETERS.pack(self.probability, layout.numel, self.shared)
        if not self._sends(key):
            return Encoded(Payload(self.name, dtype, parameters, (b"",)), torch.zeros_like(x))
        large = magnify(x.cpu().numpy(), 1 / self.probability)
        description, stream, values = encode_values(large, self.values, key.at("rounding"), _runs(layout))
        payload = Payload(self.name, dtype, parameters + description, (stream,))
        return Encoded(payload, torch.from_numpy(values).to(x.device))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The values, or zeros."""
        require(len(payload.streams) == 1, f"lazy of {len(payload.streams)} streams; expected 1")
        require(len(payload.parameters) >= PARAMETERS.size, f"lazy of {len(payload.parameters)} parameter bytes")
        probability, numel, shared = PARAMETERS.unpack_from(payload.parameters)
        require(0 < probability <= 1, f"probability {probability}; allowed: above 0 and at most 1")
        require(numel == layout.numel and shared < 2, f"{numel} entries, {layout.numel} expected, or coin {shared}")
        description = payload.parameters[PARAMETERS.size :]
        if coin((key.shared() if shared else key).at("coin"), probability):
            values = decode_values(description, payload.streams[0], layout.numel, payload.dtype, _runs(layout))
            return torch.from_numpy(values).to(device)
        require(not description and not payload.streams[0], "values in a round in which the coin says none")
        return torch.zeros(layout.numel, dtype=DTYPES[payload.dtype], device=device)


def _runs(layout: Layout) -> list[int]:
    return [entry.numel for entry in layout.entries]
