"""Random subspaces that two machines agree on: orthogonal columns from a key, bit for bit the same everywhere.

Integers from raw Philox words, symmetric around zero and nearly normal, are orthogonalised one column after the other
in float64, by separate sums and products in a fixed order; nothing is normalised, so no root is taken. Any change of
sign or order of the coordinates is as likely as none, so the projection P onto the span has E P = (r/n) I exactly.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.matrices import Block, Side
from thinwire.random import Key

Rows = NDArray[np.float64]


def subspaces(
    key: Key, blocks: Sequence[Block], ranks: Sequence[int], side: Side, dtype: torch.dtype, device: torch.device | str
) -> list[Tensor]:
    """The basis of every matrix, of a stream of its own: n x r, or m x r on the side of the rows."""
    lengths = [block.rows if side(block) else block.columns for block in blocks]
    pairs = enumerate(zip(lengths, ranks, strict=True))
    rows = [orthogonal_rows(key.at(tensor=i), count, length) for i, (length, count) in pairs]
    return [torch.from_numpy(basis).to(device, dtype).T for basis in rows]


def orthogonal_rows(key: Key, count: int, length: int) -> Rows:
    """``count`` orthogonal rows of ``length`` entries of order 1; count < length."""
    padded = 1 << max(0, length - 1).bit_length()
    rows, squares, words = np.zeros((count, padded)), np.ones(count), key.words(count * length)
    for j, row in enumerate(rows):
        row[:length] = _symmetric(words[j * length : (j + 1) * length])
        for _ in range(2):  # once is not enough to be orthogonal
            shares = _sums(rows[:j] * row) / squares[:j]
            for share, other in zip(shares, rows[:j], strict=True):
                np.subtract(row, share * other, out=row)
        squares[j] = _sums(row[None] * row)[0] or 1.0
    return np.ascontiguousarray(rows[:, :length])


def _symmetric(words: NDArray[np.uint64]) -> Rows:
    """The sum of the four 16-bit parts of each word, centred, times 2^-16: within (-2, 2), and exact."""
    parts = words.astype("<u8").view("<u2").reshape(-1, 4).astype(np.int64)
    return np.asarray((parts[:, 0] + parts[:, 1] + parts[:, 2] + parts[:, 3] - 131_070) * 2.0**-16)


def _sums(rows: Rows) -> Rows:
    """The sum of each row, whose length is a power of two: halves added until one entry is left."""
    while rows.shape[1] > 1:
        half = rows.shape[1] // 2
        rows = rows[:, :half] + rows[:, half:]
    return rows[:, 0]
