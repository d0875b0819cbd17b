"""Matrices in a vector: which tensors low rank applies to, and how each is seen as one matrix or several.

A tensor (o, i, ...) is the matrix o x (i ...), as in PowerSGD. A convolution (o, i, kh, kw) that is far wider than tall
may be seen as (o kh) x (i kw) instead (``balanced``), and a tensor that packs several matrices above each other, such
as the gates of a recurrent layer or the query, key and value of an attention layer, is cut into them. What the sender
made of each tensor travels as one byte, so that a receiver need not guess.

Source: Vogels, Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression for distributed optimization",
NeurIPS 2019.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from compressors.base import require
from compressors.scope import SMALL
from thinwire.errors import ConfigError
from thinwire.layout import Entry, Layout

DENSE, MOST_SPLITS, BALANCED = 0, 16, 17
"""What the byte of a tensor says: dense, one to sixteen blocks of rows, or a balanced convolution."""
MOST_RANK = 256
"""The largest rank of any matrix: what decoding costs grows with it."""
LEAST_COMPRESSION = 2
"""A matrix whose factors would save less than this factor travels dense."""
WIDE = 8  # how many times wider than tall a convolution must be to be balanced

RECURRENT = re.compile(r"(.*)weight_[ih]h((?:_l\d+(?:_reverse)?)?)")
ATTENTION = re.compile(r"(?:.*[._])?(?:in_proj_weight|(?:in_proj|qkv|qkv_proj|query_key_value|Wqkv)\.weight)")


@dataclass(frozen=True)
class Block:
    """One matrix of the vector."""

    start: int
    rows: int
    columns: int
    kernel: tuple[int, int, int, int] | None = None  # (o, i, kh, kw) of a balanced convolution

    @property
    def length(self) -> int:
        """Scalars of one direction, both sides together: m + n."""
        return self.rows + self.columns

    @property
    def shorter(self) -> int:
        """min(m, n), the largest rank it can have."""
        return min(self.rows, self.columns)

    @property
    def numel(self) -> int:
        """m n."""
        return self.rows * self.columns

    def of(self, vector: Tensor) -> Tensor:
        """The matrix of a contiguous vector: a view, or a copy if it is balanced."""
        piece = vector[self.start : self.start + self.numel]
        if self.kernel is not None:
            piece = piece.view(self.kernel).transpose(1, 2).reshape(-1)
        return piece.view(self.rows, self.columns)

    def put(self, matrix: Tensor, vector: Tensor) -> None:
        """Write the matrix into the vector."""
        piece = vector[self.start : self.start + self.numel]
        if self.kernel is not None:
            o, i, kh, kw = self.kernel
            matrix = matrix.view(o, kh, i, kw).transpose(1, 2)
        piece.view(matrix.shape).copy_(matrix)


Side = Callable[[Block], bool]
"""Where the basis of a matrix lies: True on the side of its rows (m x r), False on that of its columns (n x r)."""


def on_columns(block: Block) -> bool:
    """M ~ C B^T."""
    return False


def on_rows(block: Block) -> bool:
    """M ~ B C^T."""
    return True


def on_shorter(block: Block) -> bool:
    """On the side of the columns unless there are fewer rows."""
    return block.rows < block.columns


@dataclass(frozen=True)
class Matricisation:
    """How a layout is seen: its matrices, and the stretches that travel dense."""

    kinds: bytes  # one byte for every entry of the layout
    blocks: tuple[Block, ...]
    dense: tuple[tuple[int, int], ...]  # start and stop

    @property
    def dense_count(self) -> int:
        """How many scalars travel dense."""
        return sum(stop - start for start, stop in self.dense)


def matricise(layout: Layout, rank: int, balanced: bool = False, split: tuple[str, ...] = ()) -> Matricisation:
    """The sender's choice for matrices of that rank.

    Dense are tensors of one dimension or fewer than 256 entries, convolutions of one input channel per output
    (depthwise ones), and matrices that ``rank`` outer products would not halve: m n < 2 rank (m + n).
    """
    named = {entry.name: entry for entry in (*layout.frozen, *layout.entries)}
    kinds = bytes(_kind(entry, rank, balanced, _splits(entry, named, split)) for entry in layout.entries)
    return read_matricisation(layout, kinds)


def read_matricisation(layout: Layout, kinds: bytes) -> Matricisation:
    """The receiver's reading of one byte per entry of the layout. Raises WireError on a byte that does not fit."""
    blocks: list[Block] = []
    dense = []
    for entry, start, kind in zip(layout.entries, layout.offsets, kinds, strict=False):
        if kind == DENSE:
            dense.append((start, start + entry.numel))
        else:
            require(_fits(entry, kind), f"tensor {entry.name!r} of shape {entry.shape} cannot be cut as {kind}")
            blocks += _blocks(entry, start, kind)
    return Matricisation(kinds, tuple(blocks), tuple(dense))


def check_matricisation(rank: int, split: tuple[str, ...]) -> None:
    """Raise ValueError unless rank is in 1..256 and every split reads ``pattern:blocks``."""
    if not 1 <= rank <= MOST_RANK:
        raise ValueError(f"rank = {rank}; allowed: 1 to {MOST_RANK}")
    for text in split:
        count = text.rpartition(":")[2]
        if not (":" in text and count.isdecimal() and 1 <= int(count) <= MOST_SPLITS):
            raise ValueError(f"split = {text!r}; allowed: a pattern of names, a colon, and 1 to {MOST_SPLITS} blocks")


def _splits(entry: Entry, named: dict[str, Entry], split: tuple[str, ...]) -> int:
    """Into how many blocks of rows the tensor is cut: as ``split`` says, or else as its name tells."""
    for text in split:
        pattern, _, count = text.rpartition(":")
        if fnmatchcase(entry.name, pattern):
            if len(entry.shape) < 2 or entry.shape[0] % int(count):
                raise ConfigError(f"split {text!r} does not fit tensor {entry.name!r} of shape {entry.shape}")
            return int(count)
    if len(entry.shape) != 2:
        return 1
    rows, columns = entry.shape
    if ATTENTION.fullmatch(entry.name):
        return 3 if rows == 3 * columns else 1
    recurrent = RECURRENT.fullmatch(entry.name)
    if recurrent is None:
        return 1
    stem, layer = recurrent.groups()
    other = named.get(f"{stem}weight_hr{layer}") or named.get(f"{stem}weight_hh{layer}")  # (proj, h) or (gates h, h)
    hidden = other.shape[1] if other is not None and len(other.shape) == 2 else 0
    return next((gates for gates in (3, 4) if rows == gates * hidden and rows), 1)


def _kind(entry: Entry, rank: int, balanced: bool, splits: int) -> int:
    if len(entry.shape) < 2 or entry.numel < SMALL or (len(entry.shape) > 2 and entry.shape[1] == 1):
        return DENSE
    rows, columns = entry.shape[0], entry.numel // entry.shape[0]
    wide = balanced and splits == 1 and len(entry.shape) == 4 and WIDE * rows < columns
    kind = BALANCED if wide else splits
    block = _blocks(entry, 0, kind)[0]
    return kind if block.numel >= LEAST_COMPRESSION * rank * block.length else DENSE


def _fits(entry: Entry, kind: int) -> bool:
    if not entry.numel or len(entry.shape) < 2:
        return False
    return len(entry.shape) == 4 if kind == BALANCED else kind <= MOST_SPLITS and entry.shape[0] % kind == 0


def _blocks(entry: Entry, start: int, kind: int) -> list[Block]:
    if kind == BALANCED:
        o, i, kh, kw = entry.shape
        return [Block(start, o * kh, i * kw, (o, i, kh, kw))]
    size = entry.numel // kind
    return [Block(start + part * size, entry.shape[0] // kind, entry.numel // entry.shape[0]) for part in range(kind)]


def flattest(matricisation: Matricisation, numel: int) -> Tensor:
    """Ones on the diagonal of the matrix with the largest min(m, n), float64: its singular values are all equal."""
    vector = torch.zeros(numel, dtype=torch.float64)
    if matricisation.blocks:
        block = max(matricisation.blocks, key=lambda block: block.shorter)
        block.put(torch.eye(block.rows, block.columns, dtype=torch.float64), vector)
    return vector
