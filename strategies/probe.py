"""What a compressor does to a vector that is nobody's: for steps and probabilities that follow from it."""

from dataclasses import dataclass
from functools import cache

import torch

from compressors import Compressor, Place
from thinwire.layout import Layout
from thinwire.random import Key


@dataclass(frozen=True)
class Probed:
    """What came of a standard Gaussian vector, to two digits."""

    share: float  # content bytes of the message over those of a dense one, at most 1
    kept: float  # 1 - |C(x) - x|^2 / |x|^2: above alpha, the worst case, for compressors that choose


@cache
def probe(compressor: Compressor, layout: Layout, dtype: torch.dtype, clients: int) -> Probed:
    """Measured on one vector. Nodes need not agree on it: what hangs on it travels in the replica."""
    x = torch.randn(layout.numel, generator=torch.Generator().manual_seed(0), dtype=dtype)
    encoded = compressor.encode(x, layout, Key(0, "probe"), Place(0, clients))
    share = encoded.payload.size / (dtype.itemsize * layout.numel)
    kept = 1.0 - float(torch.sum((encoded.decoded - x) ** 2) / torch.sum(x**2))
    return Probed(min(1.0, float(f"{share:.2g}")), float(f"{kept:.2g}"))
