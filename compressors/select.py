"""Exact selection of the k entries of largest magnitude, ties to the lowest index."""

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
    kept = magnitudes > threshold
    ties = np.flatnonzero(magnitudes == threshold)
    kept[ties[: keep - int(np.count_nonzero(kept))]] = True
    return np.flatnonzero(kept)


def largest_on(x: Tensor, keep: int) -> Tensor:
    """The indices of ``largest`` (int64, ascending), computed on the vector's device."""
    magnitudes = x.abs()
    threshold = torch.topk(magnitudes, keep).values[-1]
    kept = magnitudes > threshold
    ties = (magnitudes == threshold).nonzero()[:, 0]
    kept[ties[: keep - int(kept.sum())]] = True
    return kept.nonzero()[:, 0]
