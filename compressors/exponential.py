"""Exponential dithering: stochastic rounding to powers of a base."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import ALONE, Compressor, Encoded, Payload, Place, check_input
from compressors.geometric import check_base, decode_powers, encode_powers, least_bits
from thinwire.layout import Layout
from thinwire.random import Key


@dataclass(frozen=True)
class Exponential(Compressor):
    """Round every entry at random to one of the two powers of b around it. Unbiased with omega = (b - 1)^2 / (4 b).

    That is (b + 1/b + 2) / 4 - 1, attained at 2 b / (b + 1) times a power; 1/8 for b = 2, which is natural. Powers
    reach 126 octaves below the largest entry; smaller ones are rounded to zero or to the last power, still without
    bias.

    The error of every entry is relative to that entry, so no scale is shared, and tails of any weight are kept. About
    3.5 - log2(log2 b) bits an entry for a Gaussian: 5.2 for b = 1.25, with a squared error below 1 per cent.

    Source: Beznosikov, Horvath, Richtarik, Safaryan, "On biased compression for distributed learning", JMLR 2023
    (general exponential dithering).
    """

    name: ClassVar[str] = "exponential"
    base: float = 1.25  # b, 1.01 to 256

    def __post_init__(self) -> None:
        check_base(self.base)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Powers near each other and far apart."""
        return (cls(), cls(3.0))

    def omega(self, layout: Layout) -> float:
        """(b - 1)^2 / (4 b), attained."""
        return (self.base - 1) ** 2 / (4 * self.base)

    def worst(self, layout: Layout) -> Tensor:
        """2 b / (b + 1) everywhere."""
        return torch.full((layout.numel,), 2 * self.base / (self.base + 1), dtype=torch.float64)

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the signed exponents."""
        return least_bits(encoded, layout)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """A signed level per entry."""
        check_input(x, layout)
        return encode_powers(self.name, x, self.base, key.at("rounding"))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The signed power of every level."""
        return decode_powers(payload, layout, device)
