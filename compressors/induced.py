"""Induced: a contractive compressor made unbiased by an unbiased one of what it leaves out."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import ALONE, Compressor, Encoded, Payload, Place, check_input
from compressors.drive import Drive
from compressors.nested import PROBE, codecs_around, decode_inner, finite, join_warm, nest, split_warm, unnest
from compressors.rand_k import RandK
from compressors.top_k import TopK
from thinwire.layout import Layout
from thinwire.random import Key

PURPOSES = ("contractive", "unbiased")


@dataclass(frozen=True)
class Induced(Compressor):
    """C(x) + Q(x - C(x)) for a contractive C and an unbiased Q: unbiased with omega = omega_Q (1 - alpha_C).

    Exact where both constants are, and then on the same vectors: Top-64 and Rand-64 of 1,024 have 15 (1 - 1/16) =
    14.06. It lets methods without error feedback use Top-k and low rank, for the bytes of both messages. Rand-128 alone
    has omega = 7 for the values of both and no index, so it pays only where C captures far more than its alpha says: a
    few large entries, a decaying spectrum.

    Source: Horvath and Richtarik, "A better alternative to error feedback for communication-efficient distributed
    learning", ICLR 2021.
    """

    name: ClassVar[str] = "induced"
    contractive: Compressor  # C
    unbiased: Compressor  # Q

    def __post_init__(self) -> None:
        if self.contractive.alpha(PROBE) is None:
            raise ValueError(f"contractive = {self.contractive}; allowed: one with an alpha (top-k, scaled rand-k)")
        if self.unbiased.omega(PROBE) is None:
            raise ValueError(f"unbiased = {self.unbiased}; allowed: one with an omega (rand-k, natural, eden)")

    @property
    def codecs(self) -> frozenset[str]:
        """Both of theirs."""
        return codecs_around(self.name, self.contractive, self.unbiased)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Two sparsifiers, and signs of the rest."""
        return (cls(TopK(0.1), RandK(0.1)), cls(TopK(0.05, "fp32", "global"), Drive()))

    def omega(self, layout: Layout) -> float | None:
        """omega (1 - alpha)."""
        alpha, omega = self.contractive.alpha(layout), self.unbiased.omega(layout)
        return None if alpha is None or omega is None else omega * (1 - alpha)

    def least_bits(self, encoded: Encoded, layout: Layout) -> float | None:
        """Of both messages."""
        pairs = zip((self.contractive, self.unbiased), unnest(encoded.payload, 2), strict=True)
        found = [compressor.least_bits(replace(encoded, payload=payload), layout) for compressor, payload in pairs]
        return None if None in found else sum(bits for bits in found if bits is not None)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """Both messages, in streams of randomness of their own."""
        check_input(x, layout)
        keys, (first, second) = [key.at(purpose) for purpose in PURPOSES], split_warm(warm, 2)
        found = self.contractive.encode(x, layout, keys[0], place, first)
        rest = self.unbiased.encode(finite(x.detach() - found.decoded), layout, keys[1], place, second)
        payload = nest(self.name, (found.payload, rest.payload))
        return Encoded(payload, finite(found.decoded + rest.decoded), join_warm(found.warm, rest.warm))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The sum of both."""
        pairs = zip(unnest(payload, 2), PURPOSES, strict=True)
        found, rest = (decode_inner(inner, layout, key.at(purpose), device) for inner, purpose in pairs)
        return finite(found + rest)
