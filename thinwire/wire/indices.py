"""The entropy coder of sorted indices: gaps in Golomb-Rice code, or in pcodec where that is shorter.

Rice is within 4 per cent of log2 C(d, k) for evenly spread indices and has no header to speak of (pcodec needs 23
bytes); pcodec adapts to clustered ones. Past half of the range the missing indices are coded instead.
"""

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig, standalone

from thinwire.errors import WireError

Indices = NDArray[np.int64]

PCODEC, COMPLEMENT = 1, 2
LEAST_FOR_PCODEC = 256
"""Gaps below which pcodec's header cannot pay."""


def pack_indices(indices: Indices, limit: int) -> bytes:
    """Strictly ascending indices in ``range(limit)``, limit <= 2^32, as bytes; the decoder is told their number."""
    flags = 0
    if len(indices) > limit // 2:
        missing = np.ones(limit, dtype=bool)
        missing[indices] = False
        indices, flags = np.flatnonzero(missing), COMPLEMENT
    if not len(indices):
        return b""
    gaps = _gaps(indices)
    best = _pack_rice(gaps, limit)
    if len(gaps) >= LEAST_FOR_PCODEC:
        other: bytes = standalone.simple_compress(gaps, ChunkConfig(compression_level=6))
        if len(other) < len(best):
            return bytes((flags | PCODEC,)) + other
    return bytes((flags,)) + best


def unpack_indices(data: bytes, count: int, limit: int) -> Indices:
    """``count`` strictly ascending indices in ``range(limit)``. Raises WireError unless the stream holds just those."""
    _require(0 <= count <= limit, f"{count} indices in a range of {limit}")
    complement = count > limit // 2
    coded = limit - count if complement else count
    if not coded:
        _require(not data, f"{len(data)} bytes of indices where none is needed")
        return np.arange(count, dtype=np.int64)
    _require(len(data) > 1 and data[0] & COMPLEMENT == COMPLEMENT * complement and data[0] < 4, "malformed indices")
    gaps = _unpack_pcodec(data[1:], coded) if data[0] & PCODEC else _unpack_rice(data[1:], coded, limit)
    indices = np.cumsum(gaps, dtype=np.int64) + np.arange(coded)
    _require(int(indices[-1]) < limit, f"index {int(indices[-1])} in a range of {limit}")
    if not complement:
        return indices
    kept = np.ones(limit, dtype=bool)
    kept[indices] = False
    return np.flatnonzero(kept)


def _gaps(indices: Indices) -> NDArray[np.uint32]:
    """How many are left out before each of the strictly ascending indices."""
    gaps = indices.astype(np.uint32)
    gaps[1:] -= gaps[:-1] + np.uint32(1)  # the right side is computed first
    return gaps


def _pack_rice(gaps: NDArray[np.uint32], limit: int) -> bytes:
    """The parameter b (one byte), the b low bits of every gap, then every quotient in unary."""
    guess = max(0, int(np.log2(np.log(2) * limit / len(gaps))))
    costs = {b: len(gaps) * (b + 1) + int((gaps >> np.uint32(b)).sum()) for b in range(max(guess - 2, 0), guess + 2)}
    low = min(costs, key=costs.__getitem__)
    columns = (gaps[:, None] >> np.arange(low, dtype=np.uint32)).astype(np.uint8) & np.uint8(1)
    stops = np.cumsum((gaps >> np.uint32(low)).astype(np.int64) + 1) - 1
    unary = np.zeros(int(stops[-1]) + 1, np.uint8)
    unary[stops] = 1
    return bytes((low,)) + np.packbits(columns).tobytes() + np.packbits(unary).tobytes()


def _unpack_rice(data: bytes, count: int, limit: int) -> NDArray[np.uint32]:
    """The gaps; sizes are checked first, so that nothing beyond a few bytes per entry of the range is allocated."""
    low = data[0]
    _require(low < 32 and (low == 0 or count << (low - 1) <= limit), f"Rice parameter {low} for {count} of {limit}")
    middle = 1 + -(-count * low // 8)
    longest = (count + (limit >> low)) // 8 + 1
    _require(middle < len(data) <= middle + longest, f"{len(data)} bytes of Rice code for {count} indices")
    columns = np.unpackbits(np.frombuffer(data, np.uint8, middle - 1, 1))
    _require(not columns[count * low :].any(), "padding that is not zero in Rice code")
    stops = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8, offset=middle)))
    _require(len(stops) == count, f"{len(stops)} indices in Rice code; expected {count}")
    _require(int(stops[-1]) // 8 == len(data) - middle - 1, "Rice code with bytes left over")
    weights = np.uint32(1) << np.arange(low, dtype=np.uint32)
    return (_gaps(stops) << np.uint32(low)) + columns[: count * low].reshape(count, low) @ weights


def _unpack_pcodec(data: bytes, count: int) -> NDArray[np.uint32]:
    """Exactly ``count`` gaps, and no byte that could be left out: pcodec itself ignores what follows its end."""
    gaps = _decompress(data, count)
    _require(gaps is not None, f"pcodec stream that is not {count} indices")
    _require(_decompress(data[:-1], count) is None, "pcodec stream with bytes left over")
    assert gaps is not None
    return gaps


def _decompress(data: bytes, count: int) -> NDArray[np.uint32] | None:
    """What pcodec makes of a stream of ``count`` numbers; None if it fails, even by a panic, or finds another count."""
    gaps = np.empty(count + 1, np.uint32)  # one more than expected, to notice a stream that is too long
    try:
        progress = standalone.simple_decompress_into(data, gaps)
    except (RuntimeError, TypeError, ValueError):
        return None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # pyo3's, which no module exports
            raise
        return None
    return gaps[:count] if progress.n_processed == count and progress.finished else None


def _require(condition: bool, message: str) -> None:
    """Raise WireError unless the condition holds."""
    if not condition:
        raise WireError(message)
