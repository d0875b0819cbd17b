"""Top-k: the entries of largest magnitude."""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.bounds import log2_binomial
from compressors.scope import (
    Indices,
    check_options,
    check_sparse,
    parts,
    put,
    runs_in,
    share_of,
    with_dense,
)
from compressors.select import largest, largest_in_rows, largest_in_rows_on, largest_on
from compressors.values import (
    BITS,
    Values,
    alpha_of,
    check_format,
    decode_values,
    encode_values,
    in_levels,
    least_value_bits,
)
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.wire.indices import pack_indices, unpack_indices

Scope = Literal["tensor", "global", "chunk"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PARAMETERS = struct.Struct("<BI")  # index in SCOPES; number of sparse entries
LEAST_CHUNK = 16


@dataclass(frozen=True)
class TopK(Compressor):
    """Keep the k entries of largest magnitude, ties to the lowest index. Biased, so pair it with error feedback.

    Contractive with alpha = k/d times that of the values' rounding to the nearest: 1 for "fp32", 1 - 2^-16 for "bf16",
    8/9 for "natural", 0.9996, 0.897 and 0.452 for "8-bit", "4-bit" and "2-bit". Under scope "tensor" each tensor keeps
    max(1, round(fraction * size)) of its own entries, tensors below 256 entries are sent whole, and k/d is that of the
    worst tensor. Under scope "chunk" so does every stretch of ``chunk`` entries of a tensor, the last one shorter: no
    part of a tensor starves another, and no sort is longer than a chunk.

    SparseLoCo is scope "chunk", 1 to 3 % and values "2-bit": 2 bits a value, of which rounding loses 0.3 % in the mean
    square where entries are Gaussian.

    Source: Beznosikov, Horvath, Richtarik, Safaryan, "On biased compression for distributed learning", JMLR 2023;
    Sarfi et al., "Communication efficient LLM pre-training with SparseLoCo", 2025 (chunks and 2 bits).
    """

    name: ClassVar[str] = "top-k"
    fraction: float = 0.01  # share of entries kept, in (0, 1]
    values: Values = "bf16"  # how kept values travel; "fp32" is unrounded (8 bytes in a float64 run)
    scope: Scope = "tensor"  # k of every tensor, of the whole vector, or of every chunk of a tensor
    chunk: int = 4096  # entries of a chunk, at least 16; for scope "chunk" only

    def __post_init__(self) -> None:
        check_options(self.fraction, self.scope, SCOPES)
        check_format(self.values)
        if self.chunk < LEAST_CHUNK:
            raise ValueError(f"chunk = {self.chunk}; allowed: at least {LEAST_CHUNK} entries")

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Most formats of values and all scopes."""
        return (cls(), cls(0.1, "fp32", "global"), cls(0.6, "fp32"), cls(0.05, "2-bit", "chunk", 500))

    def alpha(self, layout: Layout) -> float:
        """The smallest k/d of any tensor or chunk, times the values' own alpha; tight for entries of one magnitude."""
        shares = [keep / size for _, _, size, keep in _stretches(self, layout)]
        return min(shares, default=1.0) * alpha_of(self.values)

    def worst(self, layout: Layout) -> Tensor | None:
        """One magnitude where the least share is kept, so that nothing but the number counts; with unrounded values."""
        stretches = _stretches(self, layout)
        if self.values != "fp32" or not stretches:
            return None
        start, count, size, _ = min(stretches, key=lambda stretch: stretch[3] / stretch[2])
        x = torch.zeros(layout.numel, dtype=torch.float64)
        x[start : start + count * size] = 1
        return x

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """Which entries of each tensor or chunk, and the entropy of the values."""
        places = sum(n * log2_binomial(size, keep) for _, n, size, keep in _stretches(self, layout))
        payload = encoded.payload
        _, count = PARAMETERS.unpack_from(payload.parameters)
        runs = runs_in(unpack_indices(payload.streams[0], count, layout.numel), layout, self.scope)
        description = payload.parameters[PARAMETERS.size :]
        return places + least_value_bits(description, payload.streams[1], sum(runs), payload.dtype, runs)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """One stream of indices for the whole vector, one of values: the sparse ones, then the dense tensors."""
        check_input(x, layout)
        x = x.detach()
        indices = self._select(x, layout)
        positions = with_dense(indices, layout, self.scope)
        kept = x.numpy()[positions] if _here(x) else x[torch.from_numpy(positions).to(x.device)].cpu().numpy()
        runs = runs_in(indices, layout, self.scope) if self.values in BITS else None
        description, stream, values = encode_values(kept, self.values, None, runs)
        parameters = PARAMETERS.pack(SCOPES.index(self.scope), len(indices)) + description
        streams = (pack_indices(indices, layout.numel), stream)
        payload = Payload(self.name, DTYPE_NAMES[x.dtype], parameters, streams)
        return Encoded(payload, put(positions, values, layout.numel, x.device))

    def _select(self, x: Tensor, layout: Layout) -> Indices:
        chosen, array = [np.zeros(0, np.int64)], x.numpy() if _here(x) else None
        for start, count, size, keep in _stretches(self, layout):
            stop = start + count * size
            if array is not None and count == 1:
                found = largest(array[start:stop], keep)
            elif array is not None:
                found = largest_in_rows(array[start:stop], size, keep)
            elif count == 1:
                found = largest_on(x[start:stop], keep).cpu().numpy()
            else:
                found = largest_in_rows_on(x[start:stop], size, keep).cpu().numpy()
            chosen.append(found + start)
        return np.concatenate(chosen)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Zeros with the values at their places."""
        require(len(payload.streams) == 2, f"top-k of {len(payload.streams)} streams; expected 2")
        indices, scope = _indices(payload, layout)
        positions, description = with_dense(indices, layout, scope), payload.parameters[PARAMETERS.size :]
        runs = runs_in(indices, layout, scope) if in_levels(description) else None
        values = decode_values(description, payload.streams[1], len(positions), payload.dtype, runs)
        return put(positions, values, layout.numel, device)

    @staticmethod
    def positions(payload: Payload, layout: Layout, key: Key) -> Indices:
        """The kept entries, then the dense tensors."""
        indices, scope = _indices(payload, layout)
        return with_dense(indices, layout, scope)


def _here(x: Tensor) -> bool:
    """Whether NumPy can look at it."""
    return x.device.type == "cpu"


@lru_cache(maxsize=64)
def _stretches(top_k: TopK, layout: Layout) -> tuple[tuple[int, int, int, int], ...]:
    """Where the vector is thinned: start, how many stretches follow, their size, how many of each are kept."""
    found = []
    for part in parts(layout, top_k.fraction, top_k.scope):
        length = part.stop - part.start
        size = min(top_k.chunk, length) if top_k.scope == "chunk" else length
        whole, rest = divmod(length, size)
        found.append((part.start, whole, size, share_of(size, top_k.fraction)))
        if rest:
            found.append((part.stop - rest, 1, rest, share_of(rest, top_k.fraction)))
    return tuple(found)


def _indices(payload: Payload, layout: Layout) -> tuple[Indices, Scope]:
    """The kept entries and the scope, checked."""
    require(1 <= len(payload.streams) <= 2, f"top-k of {len(payload.streams)} streams")
    require(len(payload.parameters) >= PARAMETERS.size, f"top-k with {len(payload.parameters)} bytes of parameters")
    scope_index, count = PARAMETERS.unpack_from(payload.parameters)
    require(scope_index < len(SCOPES), f"unknown scope {scope_index}")
    indices = unpack_indices(payload.streams[0], count, layout.numel)
    check_sparse(indices, layout, SCOPES[scope_index])
    return indices, SCOPES[scope_index]
