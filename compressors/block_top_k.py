"""Block Top-k: the entries of largest magnitude in every short block, in messages of one fixed size."""

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.bounds import log2_binomial
from compressors.scope import Indices, parts, put, runs_in, with_dense
from compressors.select import largest, largest_in_rows, largest_in_rows_on, largest_on
from compressors.values import Values, alpha_of, check_format, decode_values, encode_values, least_value_bits
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.wire.coding import pack_symbols, unpack_symbols

PARAMETERS = struct.Struct("<II")  # entries of a block; how many of each are kept
MOST_BLOCK = 65_536


@dataclass(frozen=True)
class BlockTopK(Compressor):
    """Keep the j entries of largest magnitude of every block of B, ties to the lowest index. Biased.

    Contractive with alpha = j/B times that of the values' rounding to the nearest: 1 for "fp32", 1 - 2^-16 for "bf16",
    8/9 for "natural", 0.9996, 0.897 and 0.452 for "8-bit", "4-bit" and "2-bit". Blocks do not reach across tensors; the
    last one of a tensor may be shorter, and tensors below 256 entries are sent whole. A place costs log2 B bits where
    j = 1, and as many values travel whatever the vector: for fixed budgets, and for hardware that cannot sort. Pair it
    with error feedback.

    Source: Beznosikov, Horvath, Richtarik, Safaryan, "On biased compression for distributed learning", JMLR 2023.
    """

    name: ClassVar[str] = "block-top-k"
    block: int = 128  # B: entries of a block, 2 to 65,536
    keep: int = 1  # j: entries kept of each block, 1 to B
    values: Values = "bf16"  # how kept values travel; "fp32" is unrounded (8 bytes in a float64 run)

    def __post_init__(self) -> None:
        if not 2 <= self.block <= MOST_BLOCK:
            raise ValueError(f"block = {self.block}; allowed: 2 to {MOST_BLOCK} entries")
        if not 1 <= self.keep <= self.block:
            raise ValueError(f"keep = {self.keep}; allowed: 1 to block = {self.block}")
        check_format(self.values)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """One and several entries of a block, blocks whose places take two bytes."""
        return (cls(), cls(32, 3, "fp32"), cls(300, 30, "2-bit"))

    def alpha(self, layout: Layout) -> float:
        """j/B, or more where all tensors are shorter than a block, times the values' alpha; tight for one magnitude."""
        sizes = [part.stop - part.start for part in parts(layout, 1, "tensor")]
        shares = [min(self.keep, size) / min(self.block, size) for size in sizes]
        return min(shares, default=1.0) * alpha_of(self.values)

    def worst(self, layout: Layout) -> Tensor | None:
        """Entries of one magnitude, where nothing but the number kept counts; with unrounded values only."""
        return torch.ones(layout.numel, dtype=torch.float64) if self.values == "fp32" else None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """Which entries of each block, and the entropy of the values."""
        _, lengths = _blocks(layout, self.block)
        sizes, counts = np.unique(lengths, return_counts=True)
        pairs = zip(sizes.tolist(), counts.tolist(), strict=True)
        places = sum((count * log2_binomial(size, min(size, self.keep)) for size, count in pairs), 0.0)
        payload = encoded.payload
        runs = runs_in(_indices(payload.streams[0], layout, self.block, self.keep), layout, "tensor")
        description = payload.parameters[PARAMETERS.size :]
        return places + least_value_bits(description, payload.streams[1], sum(runs), payload.dtype, runs)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """A stream of places, block by block, and one of values: the kept ones, then the dense tensors."""
        check_input(x, layout)
        x = x.detach()
        indices = self._select(x, layout)
        positions = with_dense(indices, layout, "tensor")
        kept = x[torch.from_numpy(positions).to(x.device)].cpu().numpy()
        description, stream, values = encode_values(kept, self.values, None, runs_in(indices, layout, "tensor"))
        parameters = PARAMETERS.pack(self.block, self.keep) + description
        streams = (_pack_places(indices, layout, self.block, self.keep), stream)
        payload = Payload(self.name, DTYPE_NAMES[x.dtype], parameters, streams)
        return Encoded(payload, put(positions, values, layout.numel, x.device))

    def _select(self, x: Tensor, layout: Layout) -> Indices:
        chosen, here = [np.zeros(0, np.int64)], x.device.type == "cpu"
        for part in parts(layout, 1, "tensor"):
            rest = (part.stop - part.start) % self.block
            even, tail = x[part.start : part.stop - rest], x[part.stop - rest : part.stop]
            keep = min(self.keep, rest)
            if here:
                rows = largest_in_rows(even.numpy(), self.block, self.keep)
                last = largest(tail.numpy(), keep) if rest else np.zeros(0, np.int64)
            else:
                rows = largest_in_rows_on(even, self.block, self.keep).cpu().numpy()
                last = largest_on(tail, keep).cpu().numpy() if rest else np.zeros(0, np.int64)
            chosen += [rows + part.start, last + (part.stop - rest)]
        return np.concatenate(chosen)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Zeros with the values at their places."""
        require(len(payload.streams) == 2, f"block-top-k of {len(payload.streams)} streams; expected 2")
        indices = _kept(payload, layout)
        positions, runs = with_dense(indices, layout, "tensor"), runs_in(indices, layout, "tensor")
        description = payload.parameters[PARAMETERS.size :]
        values = decode_values(description, payload.streams[1], len(positions), payload.dtype, runs)
        return put(positions, values, layout.numel, device)

    @staticmethod
    def positions(payload: Payload, layout: Layout, key: Key) -> Indices:
        """The kept entries, then the dense tensors."""
        return with_dense(_kept(payload, layout), layout, "tensor")


def _kept(payload: Payload, layout: Layout) -> Indices:
    """The kept entries, checked."""
    require(1 <= len(payload.streams) <= 2, f"block-top-k of {len(payload.streams)} streams")
    require(len(payload.parameters) >= PARAMETERS.size, f"block-top-k of {len(payload.parameters)} parameter bytes")
    block, keep = PARAMETERS.unpack_from(payload.parameters)
    require(2 <= block <= MOST_BLOCK and 1 <= keep <= block, f"{keep} entries of blocks of {block}")
    return _indices(payload.streams[0], layout, block, keep)


def _blocks(layout: Layout, block: int) -> tuple[Indices, Indices]:
    """Start and length of every block."""
    starts, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for part in parts(layout, 1, "tensor"):
        starts.append(np.arange(part.start, part.stop, block))
        lengths.append(np.minimum(block, part.stop - starts[-1]))
    return np.concatenate(starts), np.concatenate(lengths)


def _pack_places(indices: Indices, layout: Layout, block: int, keep: int) -> bytes:
    """The gap before each kept entry, from its block's start or from the one before it; in two rows above a byte."""
    starts, lengths = _blocks(layout, block)
    first = _first(np.minimum(keep, lengths))
    gaps = np.diff(indices, prepend=0) - 1
    gaps[first] = indices[first] - starts
    return pack_symbols(list(_bytes(gaps, block)))


def _indices(stream: bytes, layout: Layout, block: int, keep: int) -> Indices:
    """The kept indices, ascending, each within its block."""
    starts, lengths = _blocks(layout, block)
    counts = np.minimum(keep, lengths)
    rows = unpack_symbols(stream, 1 if block <= 256 else 2, int(counts.sum()))
    steps = rows[0].astype(np.int64) + 1
    if len(rows) > 1:
        steps += rows[1].astype(np.int64) << 8
    reached, first = np.cumsum(steps), _first(counts)
    before = reached[first] - steps[first]
    indices: Indices = reached - np.repeat(before - starts, counts) - 1
    last = first + counts - 1
    require(bool((indices[last] < starts + lengths).all()), "place beyond the end of its block")
    return indices


def _first(counts: Indices) -> Indices:
    """Where each block's entries begin among all."""
    return np.cumsum(counts) - counts


def _bytes(gaps: Indices, block: int) -> NDArray[np.uint8]:
    """The low bytes of the gaps, and the high ones if there are such."""
    low = gaps.astype(np.uint8)
    return low[None] if block <= 256 else np.stack([low, (gaps >> 8).astype(np.uint8)])
