"""Compression error: what share of a message its compressor dropped, and the seconds that it took.

    error = sum |C(m) - m|^2 / sum |m|^2        over the compressed payloads of one message

0 of a message that travels as it is; on average at most 1 - alpha for a contractive compressor, and omega, which may be
above 1, for an unbiased one. Of a vector of more than 16,384 entries a sample is looked at, another in each round:
looking at all of it would cost as much as many a compressor.
"""

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from compressors import Compressor, Encoded
from compressors.identity import Identity

SAMPLE = 1 << 14
"""Entries that are always looked at."""
SHARE = 256
"""Of longer vectors, every so manieth entry at least."""
RUN = 64
"""Entries next to each other that are looked at together."""


class CompressionError:
    """Measures the payloads of one message (a ``Watch``); of any compressor, on the vector's own device."""

    def __init__(self, start: int = 0) -> None:
        """``start``: any number; messages with other ones look at other entries."""
        self.seconds = 0.0  # spent in compressors
        self._start = start
        self._squares: dict[
            str, tuple[float, float] | None
        ] = {}  # by payload: |C(m) - m|^2 and |m|^2; None: sent as it is

    def encoding(self, name: str, compressor: Compressor, vector: Tensor, encode: Callable[[], Encoded]) -> Encoded:
        """Compress, and measure."""
        started = time.perf_counter()
        encoded = encode()
        self.seconds += time.perf_counter() - started
        dense = isinstance(compressor, Identity)
        self._squares[name] = None if dense else squares(vector, encoded.decoded, self._start)
        return encoded

    def of(self, payloads: Iterable[str]) -> float | None:
        """The error of a message with these payloads; None where none of them was compressed here, or all were zero."""
        found = [self._squares[name] for name in payloads if name in self._squares]
        measured = [pair for pair in found if pair is not None]
        if not measured:
            return 0.0 if found else None
        error, norm = sum(pair[0] for pair in measured), sum(pair[1] for pair in measured)
        return error / norm if norm > 0 else None


def squares(vector: Tensor, decoded: Tensor, start: int = 0) -> tuple[float, float]:
    """``|decoded - vector|^2`` and ``|vector|^2`` over (a sample of) the entries."""
    exact = sampled(vector.detach(), start)
    return _square(sampled(decoded, start) - exact), _square(exact)


def sampled(vector: Tensor, start: int) -> Tensor:
    """The vector, or, of a long one, every so manieth run of entries, beginning with the run ``start``."""
    stride = min(vector.numel() // SAMPLE, SHARE)
    if stride < 2:
        return vector
    runs = vector.numel() // RUN
    return vector[: runs * RUN].view(runs, RUN)[start % stride :: stride]


def _square(vector: Tensor) -> float:
    """``|vector|^2``; in float64 where the squares would not fit the vector's own dtype."""
    flat = vector.reshape(-1)
    total = float(torch.dot(flat, flat))
    if 1e-30 < total < 1e30:
        return total
    return float(torch.linalg.vector_norm(flat, dtype=torch.float64)) ** 2
