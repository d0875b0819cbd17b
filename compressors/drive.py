"""DRIVE: the signs of a rotated vector, one bit an entry."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import ALONE, Compressor, Encoded, Payload, Place
from compressors.rotated import Form, decode_rotated, encode_rotated, least_rotated_bits
from thinwire.layout import Layout
from thinwire.random import Key

SIGNS = Form(1)


@dataclass(frozen=True)
class Drive(Compressor):
    """Rotate at random, send signs and a scale for each chunk: 1 bit an entry. Unbiased, omega = (pi/2 - 1)(1 + 1/n).

    That is 0.571 for chunks of n = 4096, for any vector and to within 1 per cent also on every single one: the smallest
    error of all unbiased compressors with one bit. With ``biased`` the scale is |Rx|_1 / n instead of |x|^2 / |Rx|_1:
    contractive with alpha = 0.637 - 1.1/n, the best that one bit can do, to be paired with error feedback.

    Each tensor is cut into chunks of 128 to 4,096 entries of its own, the last one padded; tensors below 256 entries
    travel whole. alpha is proven for every vector: a sum of random signs with weights y, |y| = 1, has a mean magnitude
    of at least sqrt(2/pi) (1 - sum y^4 / 4) (Haagerup), and after the first round the mean of sum y^4 is 3.2/n at most.
    omega is a bound that nothing measured exceeds: Gaussian, flat and geometric vectors, 1 to 16 equal entries above
    noise of any size, at n = 128, 256 and 4,096. The mean is not exact as for a uniform rotation: it is off by at most
    0.35 per cent of |x| at n = 128, and by less than can be measured (0.15) from n = 256 on. What overflows is clamped.

    Source: Vargaftik, Ben Basat, Portnoy, Mendelson, Ben-Itzhak, Mitzenmacher, "DRIVE: one-bit distributed mean
    estimation", NeurIPS 2021; Haagerup, "The best constants in the Khintchine inequality", Studia Mathematica 1981.
    """

    name: ClassVar[str] = "drive"
    biased: bool = False  # the nearest scale: contractive instead of unbiased

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Both scales."""
        return (cls(), cls(biased=True))

    def omega(self, layout: Layout) -> float | None:
        """(pi/2 - 1)(1 + 1/n) of the smallest chunk, 0 where all is dense; None if biased. A bound, measured."""
        return None if self.biased else SIGNS.omega(layout)

    def alpha(self, layout: Layout) -> float | None:
        """1 - (1 - 2/pi)(1 + 3/n) of the smallest chunk, if biased. A bound, proven; attained but for the 3/n."""
        return SIGNS.alpha(layout) if self.biased else None

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """One bit for every rotated entry, and the scales."""
        return least_rotated_bits(encoded.payload, layout)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """A stream of signs; the scales, then the dense tensors."""
        return encode_rotated(self.name, x, layout, key, SIGNS, self.biased)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The scaled signs, rotated back."""
        return decode_rotated(payload, layout, key, device, most_bits=1)
