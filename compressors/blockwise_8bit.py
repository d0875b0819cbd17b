"""Block-wise 8 bit: the dynamic code of eight-bit optimisers."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input
from compressors.buckets import EXCESS, check_bucket, edges, first_of_widest, largest, round_up, widest
from compressors.codebook import rounding, table, worst_of_bucket
from compressors.powers import Floats
from compressors.quantised import decode_levels, encode_levels, least_bits, quantise
from compressors.symbols import level_type
from thinwire.layout import Layout
from thinwire.random import Key

LEVELS = 127


@dataclass(frozen=True)
class Blockwise8Bit(Compressor):
    """Round every entry to the nearest of 255 dynamic levels times the largest magnitude of its block. Contractive.

    The levels are those of eight-bit optimisers: in each decade below 1 half as many as in the one above, 64 in the
    first, down to 3e-6; and 0 and 1. So large entries are sent to 0.7 per cent of the largest, and small ones are not
    lost. alpha is exact: the worst block has one large entry and d - 1 small ones; 0.996 for d = 2,048. With
    ``unbiased`` entries are rounded at random to one of the levels around them; then omega is exact, 0.004 for
    d = 2,048. d is the size of the largest block; no block spans two tensors.

    About 7 bits an entry, and a squared error of 0.02 per cent of a Gaussian, 0.04 of heavy tails: where nothing shall
    be lost.

    Source: Dettmers, Lewis, Shleifer, Zettlemoyer, "8-bit optimizers via block-wise quantization", ICLR 2022.
    """

    name: ClassVar[str] = "blockwise-8bit"
    bucket: int = 2_048  # entries of a block, 8 or more; 2,147,483,647 for whole tensors
    unbiased: bool = False  # round at random

    def __post_init__(self) -> None:
        check_bucket(self.bucket)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Both classes."""
        return (cls(), cls(256, unbiased=True))

    def omega(self, layout: Layout) -> float | None:
        """If unbiased: the supremum over blocks with one large entry and equal small ones, which are the worst."""
        return self._worst(layout)[0] if self.unbiased else None

    def alpha(self, layout: Layout) -> float | None:
        """1 - the supremum over such blocks, unless unbiased."""
        return None if self.unbiased else 1 - self._worst(layout)[0]

    def _worst(self, layout: Layout) -> tuple[float, float, float]:
        return worst_of_bucket(_magnitudes("float64"), widest(layout, self.bucket), EXCESS, not self.unbiased)

    def worst(self, layout: Layout) -> Tensor:
        """That block, of entries relative to a scale that exceeds the largest by almost 2^-7; then zeros."""
        _, top, rest = self._worst(layout)
        x, block = torch.zeros(layout.numel, dtype=torch.float64), first_of_widest(layout, self.bucket)
        x[block] = rest * (1 + EXCESS)
        x[block.start : block.start + 1] = max(top * (1 + EXCESS), 1 + 1e-9)
        return x

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the levels and of the scales."""
        return least_bits(encoded, layout)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """A scale per block and a signed level per entry."""
        check_input(x, layout)
        x, dtype = x.detach().contiguous(), DTYPE_NAMES[x.dtype]
        units, magnitudes = round_up(largest(x, layout, self.bucket), 1, dtype), _magnitudes(dtype)
        chosen, noise = rounding(magnitudes, x.device, not self.unbiased), key.at("rounding")
        bounds, kind = edges(layout, self.bucket), level_type(LEVELS)
        levels = quantise(x, bounds, units, kind, chosen, noise if self.unbiased else None)
        return encode_levels(self.name, x, layout, self.bucket, levels, LEVELS, units, table(magnitudes))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The magnitude of a level times the scale."""
        book = table(_magnitudes(payload.dtype))
        return decode_levels(payload, layout, device, range(LEVELS, LEVELS + 1), lambda _: book)


def _magnitudes(dtype: str) -> Floats:
    """The middles of 2^i equal parts of the decade up to 10^(i-6), i = 1..6, and 1; ascending."""
    decades = [[(0.1 + 0.9 * (j + 0.5) / 2**i) / 10 ** (6 - i) for j in range(2**i)] for i in range(1, 7)]
    return np.array([magnitude for decade in decades for magnitude in decade] + [1.0]).astype(dtype)
