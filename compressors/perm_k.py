"""PermK: clients divide the vector by one random permutation, and each sends its share."""

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.bounds import value_bits
from compressors.scope import Indices, counts_in, put
from compressors.values import BITS, Values, check_format, decode_values, encode_values, magnify, omega_of
from thinwire.bijection import shuffled
from thinwire.layout import Layout
from thinwire.random import Key

PARAMETERS = struct.Struct("<II")  # which share; how many shares


@dataclass(frozen=True)
class PermK(Compressor):
    """Send one of n shares of a random permutation of the entries, times n. Unbiased with omega = n (1 + w) - 1.

    Exact for w = 0; w is the omega of the values' random rounding: 0 for "fp32", 2^-16 for "bf16", 1/8 for "natural";
    0.0004, 0.11 and 5.2 for "8-bit", "4-bit" and "2-bit".

    All clients of a round permute alike, and client i of the cohort sends share i modulo n. So each is unbiased by
    itself with the stated omega, however many are asked and whoever answers, and their errors cancel: the mean of
    m <= n clients with vectors a_i errs by (n/m) mean |a_i|^2 - |mean a_i|^2, independent ones by (n-1)/m mean |a_i|^2.
    Where all n agree that is nothing. Set ``clients`` to the size of the cohort.

    Source: Szlendak, Tyurin, Richtarik, "Permutation compressors for provably faster distributed nonconvex
    optimization", ICLR 2022.
    """

    name: ClassVar[str] = "perm-k"
    clients: int = 10  # n: the number of shares, best that of the clients of a round
    values: Values = "bf16"  # how a share travels; "fp32" is unrounded (8 bytes in a float64 run)

    def __post_init__(self) -> None:
        if not 1 <= self.clients < 1 << 32:
            raise ValueError(f"clients = {self.clients}; allowed: 1 to {(1 << 32) - 1}")
        check_format(self.values)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Rounded and exact."""
        return (cls(), cls(4, "fp32"))

    def omega(self, layout: Layout) -> float:
        """n (1 + w) - 1."""
        return self.clients * (1 + omega_of(self.values)) - 1

    def joint_omega(self, layout: Layout, clients: float) -> float:
        """(1 + omega) / clients, attained where the clients' vectors cancel: their errors do not."""
        return (1 + self.omega(layout)) / clients

    def worst(self, layout: Layout) -> Tensor | None:
        """Any vector without rounding: here, one magnitude."""
        return torch.ones(layout.numel, dtype=torch.float64) if self.values == "fp32" else None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float | None:
        """The entropy of the values; their places are in the key. None for values in few bits."""
        return None if self.values in BITS else value_bits(encoded.decoded[encoded.decoded != 0].cpu().numpy())

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """The values of the client's share, in ascending order of their indices; no index travels."""
        check_input(x, layout)
        x, index = x.detach(), place.index % self.clients
        share = _share(key, layout.numel, index, self.clients)
        kept = magnify(x[torch.from_numpy(share).to(x.device)].cpu().numpy(), self.clients)
        runs = counts_in(share, layout)
        description, stream, values = encode_values(kept, self.values, key.at("rounding"), runs)
        parameters = PARAMETERS.pack(index, self.clients) + description
        payload = Payload(self.name, DTYPE_NAMES[x.dtype], parameters, (stream,))
        return Encoded(payload, put(share, values, layout.numel, x.device))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Zeros with the values at the places of the share."""
        require(len(payload.streams) == 1, f"perm-k of {len(payload.streams)} streams; expected 1")
        share = PermK.positions(payload, layout, key)
        description = payload.parameters[PARAMETERS.size :]
        values = decode_values(description, payload.streams[0], len(share), payload.dtype, counts_in(share, layout))
        return put(share, values, layout.numel, device)

    @staticmethod
    def positions(payload: Payload, layout: Layout, key: Key) -> Indices:
        """The share of the client."""
        require(len(payload.streams) <= 1, f"perm-k of {len(payload.streams)} streams")
        require(len(payload.parameters) >= PARAMETERS.size, f"perm-k of {len(payload.parameters)} parameter bytes")
        index, clients = PARAMETERS.unpack_from(payload.parameters)
        require(index < clients, f"share {index} of {clients}")
        return _share(key, layout.numel, index, clients)


def _share(key: Key, numel: int, index: int, count: int) -> Indices:
    """The indices of one of ``count`` shares, ascending.

    Share i is the images of the shuffle from floor(b numel / count) to floor((b + 1) numel / count), where b is i plus
    a shared random number, modulo count: every index is in every share with probability 1 / count, though sizes differ.
    """
    shared = key.shared().at("permutation")
    turned = (index + int(shared.at("turn").words(1)[0]) % count) % count
    images = shuffled(shared, numel, turned * numel // count, (turned + 1) * numel // count)
    return np.sort(images.astype(np.uint32)).astype(np.int64)  # half as wide, sorted twice as fast
