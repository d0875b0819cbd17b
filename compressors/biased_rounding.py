"""Biased rounding: to the nearest power of a base."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import ALONE, Compressor, Encoded, Payload, Place, check_input
from compressors.geometric import check_base, decode_powers, encode_powers, least_bits
from thinwire.layout import Layout
from thinwire.random import Key


@dataclass(frozen=True)
class BiasedRounding(Compressor):
    """Round every entry to the nearest power of b. Contractive with alpha = 4 b / (b + 1)^2; deterministic.

    8/9 for b = 2. Attained in the middle between two powers, at (b + 1) / 2 times one: nearest in the plain sense is
    what makes the worst relative error least, (b - 1) / (b + 1). Powers reach 126 octaves below the largest entry.

    The error of every entry is relative to that entry, so no scale is shared, and tails of any weight are kept. About
    3.5 - log2(log2 b) bits an entry for a Gaussian: 4.3 for b = 1.5, with a squared error of 1.3 per cent.

    Source: Beznosikov, Horvath, Richtarik, Safaryan, "On biased compression for distributed learning", JMLR 2023
    (general biased rounding).
    """

    name: ClassVar[str] = "biased-rounding"
    base: float = 1.5  # b, 1.01 to 256

    def __post_init__(self) -> None:
        check_base(self.base)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Powers far apart, and so near to each other that a level takes more than a byte."""
        return (cls(), cls(1.02))

    def alpha(self, layout: Layout) -> float:
        """4 b / (b + 1)^2, attained."""
        return 4 * self.base / (self.base + 1) ** 2

    def worst(self, layout: Layout) -> Tensor:
        """(b + 1) / 2 everywhere."""
        return torch.full((layout.numel,), (self.base + 1) / 2, dtype=torch.float64)

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the signed exponents."""
        return least_bits(encoded, layout)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """A signed level per entry."""
        check_input(x, layout)
        return encode_powers(self.name, x, self.base, None)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The signed power of every level."""
        return decode_powers(payload, layout, device)
