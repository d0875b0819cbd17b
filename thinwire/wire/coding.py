"""Entropy coders of a payload's streams: byte symbols and sorted indices.

The libraries do not verify what they decode, so every count, table and end of a stream is checked here. A stream does
not say how many symbols it holds: the decoder is told, by a count that it has already checked against the layout.
"""

import struct
import threading
from collections.abc import Sequence

import constriction
import numpy as np
import zstandard
from numpy.typing import NDArray

from thinwire.blocks import each_block
from thinwire.errors import WireError

Bytes = NDArray[np.uint8]

BLOCK = 1 << 18
"""Symbols coded on their own, so that threads share a long stream; part of the format."""

RAW, CONSTANT, ZSTD, ANS = range(4)
WIDEST = 10  # coder 3 + w packs symbols below 2^w into w bits each, w = 1..7
SEAL = 0x54574952  # under the ANS words, where a decoder of the right symbols finds it again


def pack_symbols(rows: Sequence[Bytes], slack: float = 0.02) -> bytes:
    """Rows of byte symbols, all equally long, as one stream; each block of a row takes the coder that fits it.

    ``slack``: the share of a block that may be lost to zstandard, which is several times faster than ANS.
    The stream: the coder of every block (one byte each), the lengths of those in ZSTD and ANS (uint32), the blocks.
    """
    pieces = [row[start : start + BLOCK] for row in rows for start in range(0, len(row), BLOCK)]
    blocks = each_block(len(pieces), 1, lambda index, _: _pack_block(pieces[index], slack), _fewest(pieces))
    lengths = [len(data) for coder, data in blocks if coder in (ZSTD, ANS)]
    table = bytes(coder for coder, _ in blocks) + struct.pack(f"<{len(lengths)}I", *lengths)
    return table + b"".join(data for _, data in blocks)


def unpack_symbols(data: bytes, rows: int, count: int) -> Bytes:
    """``rows`` x ``count`` byte symbols of ``pack_symbols``. Raises WireError unless the stream holds just those."""
    out = np.empty((rows, count), np.uint8)
    targets = [row[start : start + BLOCK] for row in out for start in range(0, count, BLOCK)]
    bounds = _bounds(data, [len(target) for target in targets])

    def fill(index: int, _: int) -> None:
        _unpack_block(data[index], data[bounds[index] : bounds[index + 1]], targets[index])

    each_block(len(targets), 1, fill, _fewest(targets))
    return out


def _fewest(pieces: Sequence[Bytes]) -> int:
    """From how many pieces on threads pay: never for short rows, of which a float64 has eight."""
    return 8 if sum(map(len, pieces)) >= BLOCK else len(pieces) + 1


def _bounds(data: bytes, counts: list[int]) -> list[int]:
    """Where each block starts, and where the last one ends: the end of the data, or WireError."""
    _require(len(data) >= len(counts), f"stream of {len(data)} bytes for {len(counts)} blocks")
    coders = data[: len(counts)]
    _require(max(coders, default=0) <= WIDEST, f"unknown coder {max(coders, default=0)}")
    head = len(counts) + 4 * sum(coder in (ZSTD, ANS) for coder in coders)
    _require(len(data) >= head, f"stream of {len(data)} bytes; its table alone takes {head}")
    lengths = iter(np.frombuffer(data[len(counts) : head], "<u4").tolist())
    bounds = [head]
    for coder, count in zip(coders, counts, strict=True):
        fixed = {RAW: count, CONSTANT: 1}.get(coder, -(-count * (coder - ANS) // 8))
        bounds.append(bounds[-1] + (next(lengths) if coder in (ZSTD, ANS) else fixed))
    _require(bounds[-1] == len(data), f"stream of {len(data)} bytes whose blocks take {bounds[-1]}")
    return bounds


SAMPLE = 1 << 16
"""Symbols above which a histogram is that of an even sample."""


def entropy(symbols: Bytes, most: int = SAMPLE) -> float:
    """Bits per symbol of their histogram; of an even sample when there are more than ``most``."""
    return _entropy_of(np.bincount(symbols[:: -(-len(symbols) // most)], minlength=256))


def _entropy_of(counts: NDArray[np.int64]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def _pack_block(symbols: Bytes, slack: float) -> tuple[int, bytes]:
    """As they are or packed when small or flat; zstandard, which is fast, unless ANS saves more than the slack."""
    counts, largest, distinct = _histogram(symbols)
    if len(symbols) > 1 and distinct == 1:
        return CONSTANT, symbols[:1].tobytes()
    width = max(1, largest.bit_length())
    plain = -(-len(symbols) * width // 8)
    bits = _entropy_of(counts) if len(symbols) > 16 else 8.0
    if bits > 0.9875 * width or bits * len(symbols) / 8 + 8 > plain:
        return _pack_plain(symbols, width)
    coder, data = ZSTD, _compressor().compress(np.ascontiguousarray(symbols).data)
    if bits * len(symbols) / 8 + 16 < (1 - slack) * len(data) and _least_ans(len(symbols), distinct, bits) < plain:
        packed = _pack_ans(symbols)
        coder, data = (ANS, packed) if len(packed) < (1 - slack) * len(data) else (coder, data)
    return (coder, data) if len(data) < plain else _pack_plain(symbols, width)


def _histogram(symbols: Bytes) -> tuple[NDArray[np.int64], int, int]:
    """How often each symbol is there, in a sample of a long block; the largest symbol; how many are known to differ."""
    if len(symbols) <= SAMPLE:
        counts = np.bincount(symbols, minlength=256)
        present = np.flatnonzero(counts)
        return counts, int(present[-1]), len(present)
    counts = np.bincount(symbols[:: -(-len(symbols) // SAMPLE)], minlength=256)
    return counts, int(symbols.max()), 1 if bool((symbols == symbols[0]).all()) else 2


def _pack_plain(symbols: Bytes, width: int) -> tuple[int, bytes]:
    """Symbols below 2^width in that many bits each, most significant bit first; in bytes where that saves nothing."""
    if width == 8 or len(symbols) == 1:
        return RAW, symbols.tobytes()
    padded = np.zeros(-(-len(symbols) // 8) * 8, np.uint8)
    padded[: len(symbols)] = symbols
    words: NDArray[np.uint64] = padded.view(">u8").astype(np.uint64)
    for size, fields in _PAIRS:  # eight fields of 8 bits become one of 8 times the width, two by two
        high = np.uint64(((1 << size) - 1) * fields << size)
        words = ((words & high) >> np.uint64(size - width * size // 8)) | (words & ~high)
    packed = words.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - width :]
    return ANS + width, packed.tobytes()[: -(-len(symbols) * width // 8)]


_PAIRS = ((8, 0x0001000100010001), (16, 0x0000000100000001), (32, 1))  # size of a field, bit 0 of every second one


def _unpack_block(coder: int, data: bytes, out: Bytes) -> None:
    """Decode one block into ``out``, which it must fill exactly."""
    if coder == RAW:
        out[:] = np.frombuffer(data, np.uint8)
    elif coder == CONSTANT:
        out[:] = data[0]
    elif coder == ZSTD:
        out[:] = _unpack_zstd(data, len(out))
    elif coder == ANS:
        out[:] = _unpack_ans(data, len(out))
    else:
        _unpack_plain(data, coder - ANS, out)


def _unpack_plain(data: bytes, width: int, out: Bytes) -> None:
    """Symbols of ``width`` bits, and zeros up to the last whole byte."""
    groups = -(-len(out) // 8)
    packed = np.zeros((groups, 8), np.uint8)
    packed[:, 8 - width :] = np.frombuffer(data.ljust(groups * width, b"\0"), np.uint8).reshape(-1, width)
    words: NDArray[np.uint64] = packed.view(">u8")[:, 0].astype(np.uint64)
    for size, fields in reversed(_PAIRS):
        bits = width * size // 8
        high, low = np.uint64(((1 << size) - 1) * fields << size), np.uint64(((1 << bits) - 1) * fields)
        words = ((words << np.uint64(size - bits)) & high) | (words & low)
    symbols: Bytes = words.astype(">u8").view(np.uint8)
    _require(not symbols[len(out) :].any(), "padding that is not zero behind packed symbols")
    out[:] = symbols[: len(out)]


def _compressor() -> zstandard.ZstdCompressor:
    """Level 1 for long input; left to itself it would look for matches in a block this short, and pay for them.

    One for each thread, which may not share it: to make one takes as long as to compress a short block.
    """
    return _OWN.compressor


class _Own(threading.local):
    """What each thread makes for itself."""

    def __init__(self) -> None:
        level = zstandard.ZstdCompressionParameters.from_level(1)
        self.compressor = zstandard.ZstdCompressor(compression_params=level)


_OWN = _Own()


def _unpack_zstd(data: bytes, count: int) -> Bytes:
    """One frame of ``count`` bytes and nothing behind it."""
    try:
        stated = zstandard.get_frame_parameters(data).content_size
        _require(stated == count, f"zstandard frame of {stated} bytes; expected {count}")  # before it is allocated
        content = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError, MemoryError) as error:
        raise WireError(f"malformed zstandard frame: {error}") from None
    _require(len(content) == count, f"zstandard frame held {len(content)} bytes; expected {count}")
    return np.frombuffer(content, np.uint8)


def _least_ans(count: int, distinct: int, bits: float) -> int:
    """Bytes below which ``_pack_ans`` cannot come: its table, and the entropy less what the coder rounds off.

    What will not be shorter than the symbols as they are need not be made; of short blocks, most will not.
    """
    if count > SAMPLE:  # ``bits`` are those of a sample
        return 0
    return 1 + 3 * distinct + 4 * int(count * max(0.0, bits - 0.01) / 32)


def _pack_ans(symbols: Bytes) -> bytes:
    """The number of distinct symbols less one, those symbols, their frequencies (uint16), the words (uint32)."""
    counts = np.bincount(symbols, minlength=256)
    alphabet = np.flatnonzero(counts).astype(np.uint8)
    places = np.zeros(256, np.int32)
    places[alphabet] = np.arange(len(alphabet))
    frequencies = np.maximum(np.rint(counts[alphabet] * (65_535.0 / counts.max())), 1).astype("<u2")
    coder = constriction.stream.stack.AnsCoder(np.array([SEAL], np.uint32))
    coder.encode_reverse(places[symbols], _model(frequencies))
    words: bytes = coder.get_compressed().astype("<u4").tobytes()
    table: bytes = alphabet.tobytes() + frequencies.tobytes()
    return bytes((len(alphabet) - 1,)) + table + words


def _unpack_ans(data: bytes, count: int) -> Bytes:
    """``count`` symbols; the table must be one that an encoder writes, and exactly the seal be left of the words."""
    size = data[0] + 1 if data else 0
    head = 1 + 3 * size
    _require(size > 1 and len(data) >= head and (len(data) - head) % 4 == 0, f"ANS block of {len(data)} bytes")
    alphabet, frequencies = np.frombuffer(data, np.uint8, size, 1), np.frombuffer(data, "<u2", size, 1 + size)
    _require(bool((alphabet[1:] > alphabet[:-1]).all()), "ANS table out of order")
    _require(int(frequencies.min()) > 0 and int(frequencies.max()) == 65_535, "ANS table that is not normalised")
    try:
        coder = constriction.stream.stack.AnsCoder(np.frombuffer(data, "<u4", offset=head).astype(np.uint32))
        symbols = coder.decode(_model(frequencies), count)
    except ValueError as error:
        raise WireError(f"malformed ANS block: {error}") from None
    _require(coder.get_compressed().tolist() == [SEAL], f"ANS block that does not hold {count} symbols")
    return np.asarray(alphabet[symbols])


def _model(frequencies: NDArray[np.uint16]) -> constriction.stream.model.Categorical:
    return constriction.stream.model.Categorical(frequencies.astype(np.float64), perfect=False)


def _require(condition: bool, message: str) -> None:
    """Raise WireError unless the condition holds."""
    if not condition:
        raise WireError(message)
