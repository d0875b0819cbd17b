"""Exact selection of the k entries of largest magnitude, of a vector or of its rows, ties to the lowest index."""

import math

import numpy as np
import torch
from torch import Tensor

from compressors.powers import Floats
from compressors.scope import Indices
from thinwire.blocks import each_block

BLOCK = 1 << 16
LEAST_FOR_SAMPLE = 1 << 17
STRIDE = 101  # about a 1 % sample; prime, so that it does not follow the rows of a matrix


def largest(x: Floats, keep: int) -> Indices:
    """Ascending indices of the ``keep`` largest magnitudes of a CPU vector, 1 <= keep <= len(x).

    Long vectors: a sample gives a lower bound that should let 1.2 times as many survive; only the survivors are
    partitioned. Should fewer survive, the whole vector is.
    """
    if len(x) >= LEAST_FOR_SAMPLE and keep <= len(x) // 4:
        survivors = _survivors(x, _lower_bound(x, keep))
        if len(survivors) >= keep:
            return survivors[_largest_of(np.abs(x[survivors]), keep)]
    return _largest_of(np.abs(x), keep)


def _lower_bound(x: Floats, keep: int) -> float:
    """A magnitude that ``keep`` entries very likely reach."""
    sample = np.abs(x[::STRIDE])
    expected = keep / STRIDE
    rank = min(math.ceil(1.2 * expected + 4 * math.sqrt(expected) + 4), len(sample))
    return float(np.partition(sample, len(sample) - rank)[len(sample) - rank])


def _survivors(x: Floats, bound: float) -> Indices:
    """Ascending indices of all magnitudes of at least ``bound``."""

    def work(start: int, stop: int) -> Indices:
        return np.flatnonzero(np.abs(x[start:stop]) >= x.dtype.type(bound)) + start

    return np.concatenate(each_block(len(x), BLOCK, work))


def _largest_of(magnitudes: Floats, keep: int) -> Indices:
    """Ascending indices of the ``keep`` largest of non-negative numbers."""
    threshold = np.partition(magnitudes, len(magnitudes) - keep)[len(magnitudes) - keep]
    found = np.flatnonzero(magnitudes >= threshold)
    if len(found) == keep:
        return found
    kept = magnitudes > threshold
    ties = np.flatnonzero(magnitudes == threshold)
    kept[ties[: keep - int(np.count_nonzero(kept))]] = True
    return np.flatnonzero(kept)


def largest_in_rows(x: Floats, width: int, keep: int) -> Indices:
    """Ascending indices of the ``keep`` largest magnitudes of each row of a CPU vector of rows ``width`` long."""
    rows = x.reshape(-1, width)

    def work(start: int, stop: int) -> Indices:
        magnitudes = np.abs(rows[start:stop])
        if keep == 1:
            return np.asarray(np.arange(start, stop) * width + magnitudes.argmax(1))
        threshold = np.partition(magnitudes, width - keep, axis=1)[:, width - keep, None]
        kept = magnitudes >= threshold
        crowded = np.flatnonzero(np.count_nonzero(kept, axis=1) > keep)
        if len(crowded):  # ties at the threshold: as many of them as there is room for, from the left
            above = magnitudes[crowded] > threshold[crowded]
            ties = kept[crowded] & ~above
            kept[crowded] = above | (ties & (np.cumsum(ties, axis=1) <= keep - above.sum(1, keepdims=True)))
        return np.flatnonzero(kept) + start * width

    return np.concatenate([np.zeros(0, np.int64), *each_block(len(rows), max(1, BLOCK // width), work)])


def largest_in_rows_on(x: Tensor, width: int, keep: int) -> Tensor:
    """The indices of ``largest_in_rows`` (int64, ascending), computed on the vector's device."""
    magnitudes = x.abs().reshape(-1, width)
    threshold = torch.topk(magnitudes, keep, dim=1).values[:, -1:]
    above, ties = magnitudes > threshold, magnitudes == threshold
    room = keep - above.sum(1, keepdim=True)
    kept = above | (ties & (torch.cumsum(ties, 1) <= room))
    return kept.reshape(-1).nonzero()[:, 0]


def largest_on(x: Tensor, keep: int) -> Tensor:
    """The indices of ``largest`` (int64, ascending), computed on the vector's device."""
    magnitudes = x.abs()
    threshold = torch.topk(magnitudes, keep).values[-1]
    kept = magnitudes > threshold
    ties = (magnitudes == threshold).nonzero()[:, 0]
    kept[ties[: keep - int(kept.sum())]] = True
    return kept.nonzero()[:, 0]
