"""Composed: one compressor after another."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import ALONE, Compressor, Encoded, Payload, Place, check_input, require
from compressors.eden import Eden
from compressors.natural import Natural
from compressors.nested import (
    PROBE,
    codecs_around,
    decode_inner,
    inner_kind,
    join_warm,
    nest,
    split_warm,
    unnest,
)
from compressors.rand_k import RandK
from compressors.scope import Indices
from compressors.top_k import TopK
from thinwire.errors import WireError
from thinwire.layout import Layout
from thinwire.random import Key

PURPOSES = ("first", "second")


@dataclass(frozen=True)
class Composed(Compressor):
    """Q2(Q1(x)) with independent randomness. Unbiased if both are: 1 + omega = (1 + omega_1)(1 + omega_2).

    If the first keeps some entries and drops the rest (Rand-k, Top-k, PermK), the second sees only those, as one flat
    vector: the message costs their places, which for Rand-k are in the key, and what the second makes of k values. Give
    the first ``values = "fp32"``: what it would round is rounded again. If the first keeps all entries, its own message
    is not sent, only the second's of the whole vector.

    A contractive first one must keep entries as they are (Top-k), and the second be contractive: alpha = alpha_1
    alpha_2. The second is then given the entries of x, never rounded ones. Both constants are exact where those of the
    two are and are attained on the same vectors.

    Source: Horvath, Ho, Horvath, Sahu, Canini, Richtarik, "Natural compression for distributed deep learning", 2022
    (two unbiased ones); Basu, Data, Karakus, Diggavi, "Qsparse-local-SGD", NeurIPS 2019 (Top-k, then a
    quantiser).
    """

    name: ClassVar[str] = "composed"
    first: Compressor  # Q1, applied to x
    second: Compressor  # Q2, applied to what Q1 keeps

    def __post_init__(self) -> None:
        if self.first.omega(PROBE) is not None and self.second.omega(PROBE) is not None:
            return
        if not (_selects(type(self.first)) and self.first.alpha(PROBE) and self.second.alpha(PROBE)):
            raise ValueError(
                f"first = {self.first} and second = {self.second}; allowed: two unbiased compressors, or a contractive "
                "one that keeps entries as they are (top-k, biased rand-k) and a contractive second"
            )

    @property
    def codecs(self) -> frozenset[str]:
        """Those of both."""
        return codecs_around(self.name, self.first, self.second)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Places from the key, places that travel, and a first one that keeps everything."""
        return (
            cls(RandK(0.3, "fp32"), Eden(2)),
            cls(TopK(0.2, "fp32"), Eden(3, biased=True)),
            cls(Natural(), RandK(0.5, "fp32")),
        )

    def omega(self, layout: Layout) -> float | None:
        """(1 + omega_1)(1 + omega_2) - 1; the second constant for as many values as one message of the first keeps."""
        first, second = self.first.omega(layout), self.second.omega(self._seen(layout))
        return None if first is None or second is None else (1 + first) * (1 + second) - 1

    def alpha(self, layout: Layout) -> float | None:
        """alpha_1 alpha_2, if the first keeps entries as they are: of what they hold, the second loses 1 - alpha_2."""
        first, second = self.first.alpha(layout), self.second.alpha(self._seen(layout))
        return None if first is None or second is None or not _selects(type(self.first)) else first * second

    def _seen(self, layout: Layout) -> Layout:
        """The layout of what the second is given."""
        return Layout.flat(_kept(self.first, layout)) if _selects(type(self.first)) else layout

    def least_bits(self, encoded: Encoded, layout: Layout) -> float | None:
        """The places as they travel, and the second's bits; None if the first keeps another number in every message."""
        shell, content = unnest(encoded.payload, 2)
        seen, decoded = self._seen(layout), encoded.decoded
        inner = replace(encoded, payload=content, decoded=decoded[decoded != 0] if seen is not layout else decoded)
        try:
            bits = self.second.least_bits(inner, seen)
        except WireError:  # as many symbols as this message has, not as the one that was made to count them
            return None
        return None if bits is None else bits + 8.0 * sum(len(stream) for stream in shell.streams)

    def support(self, layout: Layout, key: Key) -> Indices | None:
        """That of the first."""
        return self.first.support(layout, key.at(PURPOSES[0]))

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """The first message without its values, the second whole."""
        check_input(x, layout)
        keys, (one, two) = [key.at(purpose) for purpose in PURPOSES], split_warm(warm, 2)
        first = self.first.encode(x, layout, keys[0], place, one)
        positions = type(self.first).positions(first.payload, layout, keys[0])
        if positions is None:
            shell = Payload(first.payload.codec, first.payload.dtype, b"", ())
            second = self.second.encode(first.decoded, layout, keys[1], place, two)
            return Encoded(nest(self.name, (shell, second.payload)), second.decoded, join_warm(first.warm, second.warm))
        shell = replace(first.payload, streams=first.payload.streams[:-1])
        source = x.detach() if self.first.omega(layout) is None else first.decoded
        kept = source[torch.from_numpy(positions).to(x.device)]
        second = self.second.encode(kept, Layout.flat(len(kept)), keys[1], place, two)
        decoded = _put(positions, second.decoded, layout.numel)
        return Encoded(nest(self.name, (shell, second.payload)), decoded, join_warm(first.warm, second.warm))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """What the second decodes to, at the places of the first."""
        shell, content = unnest(payload, 2)
        keys, kind = [key.at(purpose) for purpose in PURPOSES], inner_kind(shell.codec)
        if not _selects(kind):
            require(not shell.parameters and not shell.streams, f"{payload.codec} with a message of {shell.codec}")
            return decode_inner(content, layout, keys[1], device)
        positions = kind.positions(shell, layout, keys[0])
        assert positions is not None, f"{kind} keeps entries"
        values = decode_inner(content, Layout.flat(len(positions)), keys[1], device)
        return _put(positions, values, layout.numel)


def _selects(kind: type[Compressor]) -> bool:
    """Whether its messages are values at places."""
    return kind.positions is not Compressor.positions


@lru_cache(maxsize=64)
def _kept(first: Compressor, layout: Layout) -> int:
    """How many entries a message of the first one keeps: by making one."""
    key = Key(0, "composed")
    payload = first.encode(torch.ones(layout.numel), layout, key).payload
    positions = type(first).positions(payload, layout, key)
    return layout.numel if positions is None else len(positions)


def _put(positions: Indices, values: Tensor, numel: int) -> Tensor:
    """Zeros with the values at the positions, on their device."""
    vector = torch.zeros(numel, dtype=values.dtype, device=values.device)
    vector[torch.from_numpy(positions).to(values.device)] = values
    return vector
