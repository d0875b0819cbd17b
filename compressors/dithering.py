"""Dithering: stochastic rounding to multiples of the largest magnitude; TernGrad with one level."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import ALONE, Compressor, Encoded, Payload, Place, check_input
from compressors.buckets import EXCESS, check_bucket, first_of_widest, largest, widest
from compressors.quantised import decode_levels, encode_uniform, least_bits
from compressors.symbols import MOST, check_levels
from thinwire.layout import Layout
from thinwire.random import Key


@dataclass(frozen=True)
class Dithering(Compressor):
    """Round every entry at random to a multiple of |x|_inf / s, by buckets of d entries. Unbiased.

    omega = min(r^2 d / (4 s^2), r (1 + sqrt(d)) / (2 s)), a bound; for s = 1, which is TernGrad, exactly
    r (1 + sqrt(d)) / 2 - 1, attained where one entry is 1 + sqrt(d) times each other. r = 1 + 2^-7 is by how much a
    bucket's largest magnitude may be rounded up to its 16 bits on the wire. d is the size of the largest bucket; no
    bucket spans two tensors.

    The same bytes on every device, and an error that is uniform over a bucket: with 127 levels an eight-bit code. For
    the same bits qsgd has less error where a bucket has outliers.

    Source: Wen et al., "TernGrad: ternary gradients to reduce communication in distributed deep learning", NeurIPS
    2017; Horvath et al., "Stochastic distributed learning with gradient quantization and variance reduction", 2019.
    """

    name: ClassVar[str] = "dithering"
    levels: int = 63  # s: levels between 0 and the largest magnitude, 1 (TernGrad) to 32,767
    bucket: int = 512  # entries that share a scale, 8 or more; 2,147,483,647 for whole tensors

    def __post_init__(self) -> None:
        check_levels(self.levels)
        check_bucket(self.bucket)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Levels of one byte, and TernGrad's."""
        return (cls(), cls(1, 256))

    def omega(self, layout: Layout) -> float:
        """min(r^2 d / (4 s^2), r (1 + sqrt(d)) / (2 s)); for s = 1 exactly r (1 + sqrt(d)) / 2 - 1."""
        d, s, r = widest(layout, self.bucket), self.levels, 1 + EXCESS
        coarse = r * (1 + math.sqrt(d)) / (2 * s)
        return coarse - 1 if s == 1 else min(r**2 * d / (4 * s**2), coarse)

    def worst(self, layout: Layout) -> Tensor | None:
        """For s = 1: in one bucket one entry just above 1, the others 1 + sqrt(d) times smaller; then zeros."""
        if self.levels > 1:
            return None
        x, bucket = torch.zeros(layout.numel, dtype=torch.float64), first_of_widest(layout, self.bucket)
        x[bucket] = 1 / (1 + math.sqrt(widest(layout, self.bucket)))
        x[bucket.start : bucket.start + 1] = 1 + 1e-6
        return x

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the levels and of the units."""
        return least_bits(encoded, layout)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """A unit of |x|_inf / s per bucket and a whole number per entry."""
        check_input(x, layout)
        scales = largest(x.detach().contiguous(), layout, self.bucket)
        return encode_uniform(self.name, x, layout, self.bucket, self.levels, scales, key)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Level times unit."""
        return decode_levels(payload, layout, device, range(1, MOST + 1))
