"""Scaled: an unbiased compressor made contractive, as error feedback needs it."""

import math
import struct
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.base import ALONE, Compressor, Encoded, Payload, Place, require
from compressors.natural import Natural
from compressors.nested import codecs_around, decode_inner, inner_kind, nest, unnest
from compressors.rand_k import RandK
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.random import Key

FACTOR = struct.Struct("<d")
ANY = Layout.flat(1)


@dataclass(frozen=True)
class Scaled(Compressor):
    """Q(x) / (1 + omega) for an unbiased Q: contractive with alpha = 1 / (1 + omega).

    Left unscaled, Q would be contractive with 1 - omega, which is never better: (1 - omega)(1 + omega) <= 1, with
    equality at omega = 0 only, where the factor is 1. Its codec is ``scaled`` with that of Q in parentheses, so that a
    receiver that expects one Q decodes no other.

    Source: Richtarik, Sokolov, Fatkhullin, "EF21", NeurIPS 2021, section 2.
    """

    name: ClassVar[str] = "scaled"
    inner: Compressor  # the unbiased compressor Q

    def __post_init__(self) -> None:
        if isinstance(self.inner, Scaled) or self.inner.omega(ANY) is None:
            raise ValueError(f"inner = {self.inner}; allowed: an unbiased compressor (rand-k, natural, identity)")

    @property
    def codecs(self) -> frozenset[str]:
        """Those of the inner compressor, each within ``scaled``."""
        return codecs_around(self.name, self.inner)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Around each unbiased compressor of ours."""
        return (cls(Natural()), cls(RandK(0.25, "natural")), cls(RandK(0.1, "fp32", "global")))

    def alpha(self, layout: Layout) -> float:
        """1 / (1 + omega) of the inner compressor."""
        return self._factor(layout)

    def _factor(self, layout: Layout) -> float:
        omega = self.inner.omega(layout)
        assert omega is not None, f"{self.inner} is unbiased for one layout only"
        return 1 / (1 + omega)

    def least_bits(self, encoded: Encoded, layout: Layout) -> float | None:
        """As for the inner compressor."""
        factor = torch.tensor(self._factor(layout), dtype=encoded.decoded.dtype)
        (content,) = unnest(encoded.payload, 1, FACTOR.size)
        return self.inner.least_bits(replace(encoded, payload=content, decoded=encoded.decoded / factor), layout)

    @property
    def linear(self) -> bool:
        """As the inner compressor."""
        return self.inner.linear

    def support(self, layout: Layout, key: Key) -> NDArray[np.int64] | None:
        """As for the inner compressor."""
        return self.inner.support(layout, key)

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """The inner payload with the factor before its parameters."""
        factor, inner = self._factor(layout), self.inner.encode(x, layout, key, place, warm)
        payload = nest(self.name, [inner.payload], FACTOR.pack(factor))
        return Encoded(payload, _multiply(inner.decoded, factor), inner.warm)

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """The factor times what the inner codec decodes."""
        (content,) = unnest(payload, 1, FACTOR.size)
        require(inner_kind(content.codec) is not Scaled, f"codec {payload.codec!r}: scaled within scaled")
        (factor,) = FACTOR.unpack_from(payload.parameters)
        require(math.isfinite(factor) and 0 < factor <= 1, f"factor {factor}; allowed: above 0 and at most 1")
        return _multiply(decode_inner(content, layout, key, device), factor)


def _multiply(vector: Tensor, factor: float) -> Tensor:
    """One product per entry, with the factor rounded to the vector's dtype first."""
    return vector * torch.tensor(factor, dtype=vector.dtype)


def contractive(compressor: Compressor, layout: Layout = ANY) -> Compressor:
    """The compressor itself if it has an alpha, or else scaled. Raises ConfigError if it is not unbiased either."""
    if compressor.alpha(layout) is not None:
        return compressor
    if compressor.omega(layout) is None:
        raise ConfigError(f"{compressor} is neither contractive nor unbiased; top-k, rand-k and natural are")
    return Scaled(compressor)
