"""Top-k: the entries of largest magnitude."""

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.bounds import log2_binomial, value_bits
from compressors.scope import (
    SCOPES,
    Indices,
    Scope,
    check_options,
    check_sparse,
    least_share,
    parts,
    put,
    with_dense,
)
from compressors.select import largest, largest_on
from compressors.values import Values, alpha_of, check_format, decode_values, encode_values
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.wire.indices import pack_indices, unpack_indices

PARAMETERS = struct.Struct("<BI")  # index in SCOPES; number of sparse entries


@dataclass(frozen=True)
class TopK(Compressor):
    """Keep the k entries of largest magnitude, ties to the lowest index. Biased, so pair it with error feedback.

    Contractive with alpha = k/d times that of the values' rounding to the nearest: 1 for "fp32", 1 - 2^-16 for "bf16",
    8/9 for "natural". Under scope "tensor" each tensor keeps max(1, round(fraction * size)) of its own entries, tensors
    below 256 entries are sent whole, and k/d is that of the worst tensor.

    Source: Beznosikov, Horvath, Richtarik, Safaryan, "On biased compression for distributed learning", JMLR 2023.
    """

    name: ClassVar[str] = "top-k"
    fraction: float = 0.01  # share of entries kept, in (0, 1]
    values: Values = "bf16"  # how kept values travel; "fp32" is unrounded (8 bytes in a float64 run)
    scope: Scope = "tensor"  # k of every tensor, or of the whole vector

    def __post_init__(self) -> None:
        check_options(self.fraction, self.scope)
        check_format(self.values)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Every format of values and both scopes."""
        return (cls(), cls(0.1, "fp32", "global"), cls(0.02, "natural"), cls(0.6, "fp32"))

    def alpha(self, layout: Layout) -> float:
        """The smallest k/d of any tensor, times the values' own alpha; tight for entries of one magnitude."""
        return least_share(layout, self.fraction, self.scope) * alpha_of(self.values)

    def worst(self, layout: Layout) -> Tensor | None:
        """Entries of one magnitude, where nothing but the number kept counts; with unrounded values only."""
        return torch.ones(layout.numel, dtype=torch.float64) if self.values == "fp32" else None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """Which entries of each tensor, and the entropy of the values."""
        pieces = parts(layout, self.fraction, self.scope)
        places = sum(log2_binomial(part.stop - part.start, part.keep) for part in pieces)
        return places + value_bits(encoded.decoded[encoded.decoded != 0].cpu().numpy())

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """One stream of indices for the whole vector, one of values: the sparse ones, then the dense tensors."""
        check_input(x, layout)
        x = x.detach()
        indices = self._select(x, layout)
        positions = with_dense(indices, layout, self.scope)
        kept = x[torch.from_numpy(positions).to(x.device)].cpu().numpy()
        description, stream, values = encode_values(kept, self.values, None)
        parameters = PARAMETERS.pack(SCOPES.index(self.scope), len(indices)) + description
        streams = (pack_indices(indices, layout.numel), stream)
        payload = Payload(self.name, DTYPE_NAMES[x.dtype], parameters, streams)
        return Encoded(payload, put(positions, values, layout.numel, x.device))

    def _select(self, x: Tensor, layout: Layout) -> Indices:
        chosen = [np.zeros(0, np.int64)]
        for part in parts(layout, self.fraction, self.scope):
            piece = x[part.start : part.stop]
            on_cpu = x.device.type == "cpu"
            found = largest(piece.numpy(), part.keep) if on_cpu else largest_on(piece, part.keep).cpu().numpy()
            chosen.append(found + part.start)
        return np.concatenate(chosen)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Zeros with the values at their places."""
        require(len(payload.streams) == 2, f"top-k of {len(payload.streams)} streams; expected 2")
        require(len(payload.parameters) >= PARAMETERS.size, f"top-k with {len(payload.parameters)} bytes of parameters")
        scope_index, count = PARAMETERS.unpack_from(payload.parameters)
        require(scope_index < len(SCOPES), f"unknown scope {scope_index}")
        scope = SCOPES[scope_index]
        indices = unpack_indices(payload.streams[0], count, layout.numel)
        check_sparse(indices, layout, scope)
        positions = with_dense(indices, layout, scope)
        description = payload.parameters[PARAMETERS.size :]
        values = decode_values(description, payload.streams[1], len(positions), payload.dtype)
        return put(positions, values, layout.numel, device)
