"""QSGD: stochastic rounding to multiples of the Euclidean norm."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import ALONE, Compressor, Encoded, Payload, Place, check_input
from compressors.buckets import EXCESS, check_bucket, first_of_widest, norms, widest
from compressors.quantised import decode_levels, encode_uniform, least_bits
from compressors.symbols import MOST, check_levels
from thinwire.layout import Layout
from thinwire.random import Key


@dataclass(frozen=True)
class QSGD(Compressor):
    """Round every entry at random to a multiple of |x|_2 / s, by buckets of d entries. Unbiased.

    omega = min(r^2 d / (4 s^2), r sqrt(d) / s), a bound; for s = 1 exactly r sqrt(d) - 1, attained where all entries
    are equal. r = 1 + 2^-7 is by how much a bucket's norm may be rounded up to its 16 bits on the wire. d is the size
    of the largest bucket; no bucket spans two tensors.

    Of all codecs that round to levels the one with the least error for its bits: about 4.4 bits an entry for a squared
    error of 0.5 per cent, whatever the distribution, because every entry of a bucket gets the same share of noise. Few
    levels in large buckets cost a fraction of a bit and have a large omega.

    Source: Alistarh, Grubic, Li, Tomioka, Vojnovic, "QSGD: communication-efficient SGD via gradient quantization and
    encoding", NeurIPS 2017. The paper's bound is d / s^2; a step of size u has variance at most u^2 / 4.
    """

    name: ClassVar[str] = "qsgd"
    levels: int = 127  # s: levels between 0 and the norm, 1 to 32,767
    bucket: int = 512  # entries that share a norm, 8 or more; 2,147,483,647 for whole tensors

    def __post_init__(self) -> None:
        check_levels(self.levels)
        check_bucket(self.bucket)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Levels of one byte, of a fifth of one, and of more than one."""
        return (cls(), cls(1, 64), cls(2_000, 128))

    def omega(self, layout: Layout) -> float:
        """min(r^2 d / (4 s^2), r sqrt(d) / s); for s = 1 exactly r sqrt(d) - 1."""
        d, s, r = widest(layout, self.bucket), self.levels, 1 + EXCESS
        return r * math.sqrt(d) - 1 if s == 1 else min(r**2 * d / (4 * s**2), r * math.sqrt(d) / s)

    def worst(self, layout: Layout) -> Tensor | None:
        """For s = 1: one bucket flat, with a norm that is rounded up by almost all of 2^-7, and zeros."""
        if self.levels > 1:
            return None
        x = torch.zeros(layout.numel, dtype=torch.float64)
        x[first_of_widest(layout, self.bucket)] = (1 + 1e-6) / math.sqrt(widest(layout, self.bucket))
        return x

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the levels and of the units."""
        return least_bits(encoded, layout)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """A unit of |x|_2 / s per bucket and a whole number per entry."""
        check_input(x, layout)
        scales = norms(x.detach().contiguous(), layout, self.bucket)
        return encode_uniform(self.name, x, layout, self.bucket, self.levels, scales, key)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Level times unit."""
        return decode_levels(payload, layout, device, range(1, MOST + 1))
