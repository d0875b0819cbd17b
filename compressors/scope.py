"""What sparsifiers share: how many entries each tensor keeps, and putting kept entries back in place."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.base import require
from compressors.powers import Floats
from thinwire.layout import Layout

Scope = Literal["tensor", "global"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
SMALL = 256
"""Tensors with fewer entries are sent dense under scope "tensor"; part of the format."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A stretch of the vector that is thinned on its own."""

    start: int
    stop: int
    keep: int
    tensor: int  # index of its entry in the layout; -1 for the whole vector

    @property
    def share(self) -> float:
        """keep / length, in (0, 1]."""
        return self.keep / (self.stop - self.start)


def check_options(fraction: float, scope: str, scopes: tuple[str, ...] = SCOPES) -> None:
    """Raise ValueError unless fraction is in (0, 1] and scope is one of the scopes."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction = {fraction}; allowed: above 0 and at most 1")
    if scope not in scopes:
        raise ValueError(f"scope = {scope!r}; allowed: {', '.join(scopes)}")


def share_of(length: int, fraction: float) -> int:
    """How many entries of a stretch are kept."""
    return max(1, round(fraction * length))


def parts(layout: Layout, fraction: float, scope: str) -> list[Part]:
    """The stretches that are thinned, ascending: the whole vector if global, or else every tensor that is not dense."""
    if scope == "global":
        spans = [(0, layout.numel, -1)] if layout.numel else []
    else:
        sizes = enumerate(zip(layout.entries, layout.offsets, strict=False))
        spans = [(start, start + entry.numel, i) for i, (entry, start) in sizes if entry.numel >= SMALL]
    return [Part(a, b, share_of(b - a, fraction), tensor) for a, b, tensor in spans]


@lru_cache(maxsize=64)
def dense_spans(layout: Layout, scope: str) -> tuple[tuple[int, int], ...]:
    """Start and stop of the tensors that are sent whole."""
    if scope == "global":
        return ()
    pairs = zip(layout.entries, layout.offsets, strict=False)
    return tuple((start, start + entry.numel) for entry, start in pairs if 0 < entry.numel < SMALL)


@lru_cache(maxsize=64)
def _dense(layout: Layout, scope: str) -> Indices:
    """The positions of the dense tensors; not to be written to."""
    spans = [np.arange(start, stop, dtype=np.int64) for start, stop in dense_spans(layout, scope)]
    return np.concatenate([np.zeros(0, np.int64), *spans])


def least_share(layout: Layout, fraction: float, scope: str) -> float:
    """The smallest keep / length of any part, 1 where everything is dense; the contract's worst case."""
    return min((part.share for part in parts(layout, fraction, scope)), default=1.0)


def with_dense(indices: Indices, layout: Layout, scope: str) -> Indices:
    """The kept indices, then the positions of the dense tensors: the order in which values travel."""
    return np.concatenate([indices, _dense(layout, scope)]).astype(np.int64, copy=False)


def runs_of(pieces: list[Part], layout: Layout, scope: str) -> list[int]:
    """How many of the values of ``with_dense`` belong to each tensor; all to one if global."""
    return [part.keep for part in pieces] + [stop - start for start, stop in dense_spans(layout, scope)]


def runs_in(indices: Indices, layout: Layout, scope: str) -> list[int]:
    """``runs_of`` where only the kept indices (ascending) are known."""
    if scope == "global":
        return [len(indices)]
    return counts_in(indices, layout) + [stop - start for start, stop in dense_spans(layout, scope)]


def counts_in(indices: Indices, layout: Layout) -> list[int]:
    """How many of the indices (ascending) lie in each tensor."""
    starts: list[int] = np.searchsorted(indices, layout.offsets).tolist()
    return [stop - start for start, stop in pairwise(starts)]


def check_sparse(indices: Indices, layout: Layout, scope: str) -> None:
    """Raise WireError if an index (ascending) lies in a tensor that is dense anyway."""
    spans = dense_spans(layout, scope)
    if spans:
        first = np.searchsorted(indices, np.asarray(spans, dtype=np.int64))
        require(bool((first[:, 0] == first[:, 1]).all()), "index in a tensor that is sent dense")


def put(positions: Indices, values: Floats, numel: int, device: torch.device | str) -> Tensor:
    """A vector of zeros with the values at the positions, on the device."""
    if torch.device(device).type == "cpu":
        vector = np.zeros(numel, values.dtype)
        vector[positions] = values
        return torch.from_numpy(vector)
    target = torch.zeros(numel, dtype=torch.from_numpy(values[:0]).dtype, device=device)
    target[torch.from_numpy(positions).to(device)] = torch.from_numpy(values).to(device)
    return target
