"""EDEN: a rotated vector on the centroids of a Gaussian, at any rate up to 8 bits an entry."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import ALONE, Compressor, Encoded, Payload, Place
from compressors.lloyd_max import MOST_BITS
from compressors.rotated import Form, decode_rotated, encode_rotated, least_rotated_bits
from thinwire.layout import Layout
from thinwire.random import Key


@dataclass(frozen=True)
class Eden(Compressor):
    """Rotate at random, round every entry to one of 2^bits centroids. Unbiased with omega = D/(1 - D) (1 + 1/n).

    D is the error of the best quantiser of a Gaussian: 0.363, 0.117, 0.0345, 0.0095, 0.0025 for 1 to 5 bits, so omega
    is 0.571, 0.133, 0.036, 0.0096, 0.0025 for any vector, however heavy its tail. Symbols are entropy-coded: 1.91,
    2.82, 3.77, 4.73 bits an entry for 2 to 5 bits. With ``biased`` each chunk's scale is the nearest: contractive with
    alpha = 1 - D (1 + 3/n). ``bits`` below 1 are a share of the rotated entries, one bit each, as Rand-k before DRIVE:
    1 + omega and alpha are those of one bit over and times ``bits``. Where a sparsifier keeps fewer than one entry in
    ten with many bits each, this sends all or many with few: better for dense vectors, worse for sparse ones.

    Chunks, and how far omega, alpha and the mean are proven or measured: as for DRIVE.

    Source: Vargaftik, Ben Basat, Portnoy, Mendelson, Ben-Itzhak, Mitzenmacher, "EDEN: communication-efficient and
    robust distributed mean estimation for federated learning", ICML 2022.
    """

    name: ClassVar[str] = "eden"
    bits: float = 4.0  # per entry: 1 to 8 (whole), or a share in (0, 1)
    biased: bool = False  # the nearest scale: contractive instead of unbiased

    def __post_init__(self) -> None:
        whole = self.bits in range(1, MOST_BITS + 1)
        if not (0 < self.bits < 1 or whole):
            raise ValueError(f"bits = {self.bits}; allowed: whole numbers from 1 to {MOST_BITS}, or between 0 and 1")

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Centroids, a share of the entries, both scales."""
        return (cls(), cls(2, biased=True), cls(0.3), cls(0.5, biased=True))

    @property
    def _form(self) -> Form:
        return Form.of(self.bits)

    def omega(self, layout: Layout) -> float | None:
        """D/(1 - D) (1 + 1/n) of the smallest chunk, 0 where all is dense; None if biased. A bound, measured."""
        return None if self.biased else self._form.omega(layout)

    def alpha(self, layout: Layout) -> float | None:
        """1 - D (1 + 3/n) of the smallest chunk, if biased. A bound, proven for one bit and less, else measured."""
        return self._form.alpha(layout) if self.biased else None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """The entropy of the symbols, and the scales."""
        return least_rotated_bits(encoded.payload, layout)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """A stream of symbols; the scales, then the dense tensors."""
        return encode_rotated(self.name, x, layout, key, self._form, self.biased)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The scaled centroids, rotated back."""
        return decode_rotated(payload, layout, key, device, most_bits=MOST_BITS)
