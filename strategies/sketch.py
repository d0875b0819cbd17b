"""Sketches of gradients: few numbers whose inner products are those of the gradients, in expectation.

A count-sketch (Charikar, Chen, Farach-Colton, "Finding frequent items in data streams", 2002) whose bucket is the index
modulo k, so that it is one product with random signs and one sum over rows: linear, and as fast as memory allows.
``<Rs, Rv> = <s, v> +- |s||v| / sqrt(k)``. An order learns from it what the gradients' differences have in common, so k
must be of the size of their effective rank ``tr(C)^2 / |C|_F^2``, C their covariance.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors import Payload
from thinwire.errors import WireError
from thinwire.random import Key
from thinwire.wire.coding import pack_symbols, unpack_symbols

Rows = NDArray[np.float64]
"""Sketches, one per row: float64, shape (count, k)."""

LEVELS = 127


@dataclass(frozen=True)
class Sketch:
    """``y = R g`` with k entries; the same R for all clients and rounds of a run."""

    buckets: int  # k
    key: Key  # of the run, shared

    def __call__(self, gradients: Tensor) -> Tensor:
        """The sketch of a flat gradient, or of each row of a matrix of them; float32, on their device."""
        numel = gradients.shape[-1]
        signs = _signs(self.key, numel, gradients.dtype, gradients.device)
        signed = gradients * signs
        even = numel - numel % self.buckets
        sums = signed[..., :even].reshape(*signed.shape[:-1], -1, self.buckets).sum(-2)
        sums[..., : numel - even] += signed[..., even:]
        return sums.float()


@lru_cache(maxsize=4)
def _signs(key: Key, numel: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    bits = np.unpackbits(key.at("signs").words(-(-numel // 64)).astype("<u8").view(np.uint8), count=numel)
    return (1 - 2 * torch.from_numpy(bits).to(device, dtype)).contiguous()


def effective_rank(rows: Rows) -> float:
    """``tr(C)^2 / |C|_F^2`` of centred rows: how many directions they spread over; 0 for fewer than two rows."""
    if len(rows) < 2:
        return 0.0
    centred = rows - rows.mean(0)
    gram = centred @ centred.T
    squares = float((gram**2).sum())
    return float(np.trace(gram)) ** 2 / squares if squares else 0.0


def pack_rows(rows: Rows, codec: str, dtype: str, head: bytes = b"") -> Payload:
    """Rows in 8 bits relative to each one's largest entry; ``head`` goes before the parameters' own bytes."""
    largest = np.abs(rows).max(axis=1, initial=0.0).astype(np.float32) if len(rows) else np.zeros(0, np.float32)
    safe = np.where(largest > 0, largest, 1).astype(np.float64)
    levels = np.rint(rows / safe[:, None] * LEVELS).clip(-LEVELS, LEVELS).astype(np.int8)
    symbols = levels.reshape(-1).view(np.uint8)
    streams = (pack_symbols([symbols]) if len(symbols) else b"", largest.astype("<f4").tobytes())
    return Payload(codec, dtype, head, streams)


def unpack_rows(payload: Payload, count: int, buckets: int) -> Rows:
    """``count`` rows of ``buckets`` entries. Raises WireError unless the payload holds just those, all finite."""
    if len(payload.streams) != 2 or len(payload.streams[1]) != 4 * count:
        raise WireError(f"sketches that are not {count} rows")
    largest = np.frombuffer(payload.streams[1], "<f4").astype(np.float64)
    if not bool(np.isfinite(largest).all()) or bool((largest < 0).any()):
        raise WireError("a sketch with a scale that is negative or not finite")
    if not count:
        if payload.streams[0]:
            raise WireError("bytes of sketches where there are none")
        return np.zeros((0, buckets))
    symbols = unpack_symbols(payload.streams[0], 1, count * buckets)[0].view(np.int8)
    if bool((symbols == -128).any()):
        raise WireError("a level of a sketch that no client writes")
    return np.asarray(symbols.reshape(count, buckets) * (largest / LEVELS)[:, None], dtype=np.float64)
