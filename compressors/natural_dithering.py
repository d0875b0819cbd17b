"""Natural dithering: stochastic rounding to powers of two times a bucket's norm."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input
from compressors.buckets import EXCESS, check_bucket, edges, largest, norms, round_up, widest
from compressors.codebook import rounding, table
from compressors.powers import Floats
from compressors.quantised import decode_levels, encode_levels, least_bits, quantise
from compressors.symbols import check_levels, level_type
from thinwire.layout import Layout
from thinwire.random import Key

Norm = Literal["l2", "linf"]
NORMS: tuple[Norm, ...] = get_args(Norm)
MOST = 126  # levels: the smallest is a normal number relative to the largest


@dataclass(frozen=True)
class NaturalDithering(Compressor):
    """Round every entry at random to 0, 2^(1-s), ..., 1/2 or 1 times the norm of its bucket of d entries. Unbiased.

    omega = 1/8 + min(T, T^2 / 4) with T = r 2^(1-s) sqrt(d), for both norms; a bound. 1/8 is what rounding between
    powers of two costs, the rest what rounding below the smallest costs. r = 1 + 2^-7 is by how much a norm may be
    rounded up to its 16 bits on the wire. d is the size of the largest bucket; no bucket spans two tensors.

    About 3.3 bits an entry of a Gaussian with 8 levels, 2.5 with 6 and twice the omega. With the Euclidean norm fewer
    bits than natural for hardly more error; with the largest magnitude the low levels reach further down.

    Source: Horvath, Ho, Horvath, Sahu, Canini, Richtarik, "Natural compression for distributed deep learning", 2022,
    section 4. The paper's bound has T^2 where a variance of at most u^2 / 4 below the smallest level u gives T^2 / 4.
    """

    name: ClassVar[str] = "natural-dithering"
    levels: int = 8  # s: levels but 0, 1 to 126
    norm: Norm = "l2"  # "l2" (Euclidean) or "linf" (largest magnitude)
    bucket: int = 512  # entries that share a norm, 8 or more; 2,147,483,647 for whole tensors

    def __post_init__(self) -> None:
        check_levels(self.levels, MOST)
        check_bucket(self.bucket)
        if self.norm not in NORMS:
            raise ValueError(f"norm = {self.norm!r}; allowed: {', '.join(NORMS)}")

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Both norms, one and two levels to the byte."""
        return (cls(), cls(3, "linf", 64))

    def omega(self, layout: Layout) -> float:
        """1/8 + min(T, T^2 / 4), T = r 2^(1-s) sqrt(d)."""
        lowest = (1 + EXCESS) * 2.0 ** (1 - self.levels) * math.sqrt(widest(layout, self.bucket))
        return 1 / 8 + min(lowest, lowest**2 / 4)

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the levels and of the norms."""
        return least_bits(encoded, layout)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """A norm per bucket and a signed level per entry."""
        check_input(x, layout)
        x, dtype = x.detach().contiguous(), DTYPE_NAMES[x.dtype]
        scales = (largest if self.norm == "linf" else norms)(x, layout, self.bucket)
        units, magnitudes, kind = round_up(scales, 1, dtype), _magnitudes(self.levels, dtype), level_type(self.levels)
        chosen = rounding(magnitudes, x.device, nearest=False)
        levels = quantise(x, edges(layout, self.bucket), units, kind, chosen, key.at("rounding"))
        book = table(magnitudes)
        return encode_levels(self.name, x, layout, self.bucket, levels, self.levels, units, book)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The power of two of a level times the norm."""
        return decode_levels(
            payload, layout, device, range(1, MOST + 1), lambda most: table(_magnitudes(most, payload.dtype))
        )


def _magnitudes(levels: int, dtype: str) -> Floats:
    """2^(1-s), ..., 1/2, 1."""
    return np.asarray(np.ldexp(1.0, np.arange(1 - levels, 1)).astype(dtype))
