"""Scaled sign: one bit an entry."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.base import ALONE, DTYPE_NAMES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.bounds import value_bits
from compressors.buckets import MOST, edges, first_of_widest, means, spread, widest
from compressors.powers import Floats
from compressors.quantised import by_stretch
from compressors.symbols import pack_digits, unpack_digits
from compressors.values import decode_values, encode_values
from thinwire.layout import Layout
from thinwire.random import Key


@dataclass(frozen=True)
class Sign(Compressor):
    """Send the signs of every tensor, and its mean magnitude |x|_1 / d. Contractive; biased, so pair it with feedback.

    alpha = 1/d with d the size of the largest tensor, exact: attained where all entries but one are 0. What a vector
    really keeps is |x|_1^2 / (d |x|_2^2), 2/pi = 0.637 of a Gaussian. Each tensor has its own magnitude, however small
    it is. A zero has a sign too, that of its bits, so it is decoded to plus or minus the magnitude. One bit an entry.

    Source: Bernstein, Wang, Azizzadenesheli, Anandkumar, "signSGD: compressed optimisation for non-convex problems",
    ICML 2018; Karimireddy, Rebjock, Stich, Jaggi, "Error feedback fixes SignSGD", ICML 2019.
    """

    name: ClassVar[str] = "sign"

    def alpha(self, layout: Layout) -> float:
        """1/d of the largest tensor."""
        return 1 / widest(layout, MOST)

    def worst(self, layout: Layout) -> Tensor:
        """One entry of the largest tensor."""
        x = torch.zeros(layout.numel, dtype=torch.float64)
        x[first_of_widest(layout, MOST).start] = 1
        return x

    def least_bits(self, encoded: Encoded, layout: Layout) -> float:
        """A bit per entry, and the magnitudes."""
        return layout.numel + value_bits(_unpack(encoded.payload, layout)[0])

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """The magnitudes, then the signs, eight to a byte."""
        check_input(x, layout)
        x = x.detach().contiguous()
        magnitudes = means(x, layout, MOST).astype(DTYPE_NAMES[x.dtype])
        description, stream, sent = encode_values(magnitudes, "fp32", None)
        word = torch.int32 if x.dtype == torch.float32 else torch.int64
        negative = by_stretch(x, torch.uint8, lambda part, start, _: (part.view(word) < 0).view(torch.uint8))
        payload = Payload(self.name, DTYPE_NAMES[x.dtype], description, (stream, pack_digits(negative, 2, 8)))
        return Encoded(payload, _signed(negative, sent, layout))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Plus or minus the magnitude of the tensor."""
        magnitudes, negative = _unpack(payload, layout)
        return _signed(torch.from_numpy(negative).to(device), magnitudes, layout)


def _unpack(payload: Payload, layout: Layout) -> tuple[Floats, NDArray[np.uint8]]:
    """The magnitude of every tensor that has entries, and 1 for every negative entry."""
    require(len(payload.streams) == 2, f"sign of {len(payload.streams)} streams; expected 2")
    count = len(edges(layout, MOST)) - 1
    magnitudes = decode_values(payload.parameters, payload.streams[0], count, payload.dtype)
    require(not bool((magnitudes < 0).any()), "negative magnitude")
    return magnitudes, unpack_digits(payload.streams[1], layout.numel, 2)


def _signed(negative: Tensor, magnitudes: Floats, layout: Layout) -> Tensor:
    """Plus or minus the magnitude of its tensor for every entry."""
    bounds, factors = edges(layout, MOST), torch.from_numpy(magnitudes).to(negative.device)

    def work(part: Tensor, start: int, _: Tensor | None) -> Tensor:
        signs = part.to(factors.dtype).mul_(-2).add_(1)
        return signs.mul_(spread(factors, bounds, start, start + len(part)))

    return by_stretch(negative, factors.dtype, work)
