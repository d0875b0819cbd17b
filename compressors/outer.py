"""Sums of outer products in arithmetic that is the same everywhere: the decoder of low rank.

One product and one sum per entry and direction, in the order of the directions; no matrix product, whose order of
summation differs between machines.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from compressors.matrices import Block

ENTRIES = 1 << 17
"""Entries that are summed at a time on a CPU, so that sum and product stay in its cache."""
FOLDED = 64
"""Exponents up to here are multiplied into one factor, larger ones into the sum, which is then held in range."""


def outer_sum(left: Tensor, right: Tensor, exponent: int, out: Tensor) -> None:
    """out = 2^exponent left right^T, for ``left`` m x r, ``right`` n x r and a contiguous ``out`` m x n, r > 0.

    With an exponent beyond 64 in magnitude the result is clamped to the finite range.
    """
    if abs(exponent) <= FOLDED:
        left, exponent = left * 2.0**exponent, 0
    columns, rows = left.T.contiguous()[:, :, None], right.T.contiguous()
    height = max(1, ENTRIES // out.shape[1]) if out.device.type == "cpu" else out.shape[0]
    scratch = torch.empty_like(out[:height])
    for start in range(0, out.shape[0], height):
        block = out[start : start + height]
        torch.mul(columns[0, start : start + height], rows[0], out=block)
        product = scratch[: len(block)]
        for column, row in zip(columns[1:, start : start + height], rows[1:], strict=True):
            block.add_(torch.mul(column, row, out=product))
        if exponent:
            _scale(block, exponent)


def _scale(block: Tensor, exponent: int) -> None:
    """Times 2^exponent in two steps, as neither power may be in range, and within the largest finite number."""
    half, most = exponent // 2, torch.finfo(block.dtype).max
    block.mul_(2.0**half).mul_(2.0 ** (exponent - half)).clamp_(-most, most)


def assemble(
    blocks: Sequence[Block],
    factors: Sequence[tuple[Tensor, Tensor]],
    exponents: Sequence[int],
    vector: Tensor,
) -> None:
    """Write every matrix, the sum of outer products of its factors (left, right), into the vector; rank 0 is zero."""
    for block, (left, right), exponent in zip(blocks, factors, exponents, strict=True):
        place = vector[block.start : block.start + block.numel].view(block.rows, block.columns)
        if not left.shape[1]:
            place.zero_()
            continue
        out = place if block.kernel is None else torch.empty_like(place)
        outer_sum(left, right, exponent, out)
        if block.kernel is not None:
            block.put(out, vector)
