"""Mixed: a compressor for each kind of tensor, in one message."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compressors.base import ALONE, DTYPES, Compressor, Encoded, Payload, Place, check_input, require
from compressors.bounds import entropy_bits
from compressors.drive import Drive
from compressors.eden import Eden
from compressors.identity import Identity
from compressors.natural import Natural
from compressors.nested import PROBE, codecs_around, decode_inner, join_warm, nest, split_warm, unnest
from compressors.powers import Bytes
from compressors.top_k import TopK
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.wire.coding import pack_symbols, unpack_symbols


@dataclass(frozen=True)
class Mixed(Compressor):
    """Each tensor by a compressor chosen by its name, size or shape. The worst constant of those; all of one class.

    In this order: ``named`` for tensors whose name matches one of the patterns ``names``; ``small`` for those below
    ``least`` entries; ``matrices`` for those of two or more dimensions; ``large`` for the rest. ``named`` and
    ``matrices`` may be left out. The tensors of one kind are one vector, with their names and shapes, so that a message
    has at most four parts, whatever the number of tensors.

    By default biases and norms travel whole beside Top-k. Low rank for matrices and Top-k for embeddings:
    ``uplink.matrices.name = "power"``, ``uplink.named.name = "top-k"``, ``uplink.names = "*embed*,*head*"``. All must
    be unbiased, or all contractive (an unbiased one then within ``scaled``); identity is both.

    Source: Vogels, Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression", NeurIPS 2019 (low rank for
    matrices, biases whole).
    """

    name: ClassVar[str] = "mixed"
    large: Compressor = field(default_factory=TopK)  # what no other rule takes
    small: Compressor = field(default_factory=Identity)  # tensors with fewer than ``least`` entries
    least: int = 256  # entries from which a tensor is not small
    matrices: Compressor | None = None  # tensors with two dimensions or more; none: as ``large``
    named: Compressor | None = None  # tensors whose name matches; none: by size and shape
    names: str = "*embed*"  # patterns for ``named``: * and ? as in file names, separated by commas

    def __post_init__(self) -> None:
        if self.least < 0:
            raise ValueError(f"least = {self.least}; allowed: 0 or more entries")
        if any(one.omega(PROBE) is None for one in self._parts) and any(
            one.alpha(PROBE) is None for one in self._parts
        ):
            parts = ", ".join(map(str, self._parts))
            raise ValueError(f"{parts} together; allowed: all unbiased, or all contractive (scaled makes one so)")

    @property
    def _parts(self) -> tuple[Compressor, ...]:
        return tuple(one for one in (self.large, self.small, self.matrices, self.named) if one is not None)

    @property
    def codecs(self) -> frozenset[str]:
        """Those of all parts."""
        return codecs_around(self.name, *self._parts)

    @classmethod
    def examples(cls) -> tuple[Compressor, ...]:
        """Dense small tensors, and every rule with unbiased compressors."""
        return (cls(), cls(Drive(), Natural(), 40, Eden(2), Eden(3), "b*,*.bias"))

    def roles(self, layout: Layout) -> tuple[int, ...]:
        """Which of large, small, matrices and named (those that there are, in this order) takes each tensor."""
        last, patterns = len(self._parts) - 1, [pattern.strip() for pattern in self.names.split(",")]
        found = []
        for entry in layout.entries:
            if self.named is not None and any(fnmatchcase(entry.name, pattern) for pattern in patterns):
                found.append(last)
            elif entry.numel < self.least:
                found.append(1)
            else:
                found.append(2 if self.matrices is not None and len(entry.shape) > 1 else 0)
        return tuple(found)

    def omega(self, layout: Layout) -> float | None:
        """The largest of the parts that have a tensor; None unless all are unbiased."""
        found = [part.omega(own) for part, own in self._shares(layout)]
        if any(part.omega(PROBE) is None for part in self._parts) or None in found:
            return None
        return max((omega for omega in found if omega is not None), default=0.0)

    def alpha(self, layout: Layout) -> float | None:
        """The smallest of the parts that have a tensor; None unless all are contractive."""
        found = [part.alpha(own) for part, own in self._shares(layout)]
        if any(part.alpha(PROBE) is None for part in self._parts) or None in found:
            return None
        return min((alpha for alpha in found if alpha is not None), default=1.0)

    def _shares(self, layout: Layout) -> list[tuple[Compressor, Layout]]:
        """The parts that have a tensor, with their layouts."""
        shares = zip(self._parts, _split(layout, self.roles(layout), len(self._parts)), strict=True)
        return [(part, own) for part, (own, _) in shares if own.entries]

    def least_bits(self, encoded: Encoded, layout: Layout) -> float | None:
        """Of all parts, and the kind of every tensor."""
        roles, payloads = self.roles(layout), unnest(encoded.payload, len(self._parts), own_streams=1)
        total = entropy_bits(np.array(roles, np.uint8))
        for part, payload, (own, spans) in zip(
            self._parts, payloads, _split(layout, roles, len(payloads)), strict=True
        ):
            bits = part.least_bits(replace(encoded, payload=payload, decoded=_gather(encoded.decoded, spans)), own)
            if bits is None:
                return None
            total += bits
        return total

    def encode(self, x: Tensor, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        """One stream with the kind of every tensor; a message of each part."""
        check_input(x, layout)
        x, roles, parts = x.detach(), self.roles(layout), self._parts
        decoded, found = torch.empty_like(x), []
        shares = zip(parts, _split(layout, roles, len(parts)), split_warm(warm, len(parts)), strict=True)
        for index, (part, (own, spans), own_warm) in enumerate(shares):
            found.append(part.encode(_gather(x, spans), own, key.at(f"part-{index}"), place, own_warm))
            _scatter(decoded, found[-1].decoded, spans)
        stream = pack_symbols([np.array(roles, np.uint8)])
        payload = nest(self.name, [one.payload for one in found], streams=(stream,))
        return Encoded(payload, decoded, join_warm(*(one.warm for one in found)))

    @staticmethod
    def decode(payload: Payload, layout: Layout, key: Key, device: torch.device | str = "cpu") -> Tensor:
        """Every tensor by the part that the sender names for it."""
        payloads = unnest(payload, None, own_streams=1)
        roles = unpack_symbols(payload.streams[0], 1, len(layout.entries))[0]
        require(int(roles.max(initial=0)) < len(payloads), f"part {int(roles.max(initial=0))} of {len(payloads)}")
        out = torch.empty(layout.numel, dtype=DTYPES[payload.dtype], device=device)
        for index, (inner, (own, spans)) in enumerate(zip(payloads, _split(layout, roles, len(payloads)), strict=True)):
            _scatter(out, decode_inner(inner, own, key.at(f"part-{index}"), device), spans)
        return out


Spans = list[tuple[int, int]]


def _split(layout: Layout, roles: Iterable[int] | Bytes, count: int) -> list[tuple[Layout, Spans]]:
    """For each part, the layout of its tensors and where they stand in the whole vector."""
    own: list[list[int]] = [[] for _ in range(count)]
    for index, role in enumerate(roles):
        own[int(role)].append(index)
    spans = [[(layout.offsets[i], layout.offsets[i + 1]) for i in indices] for indices in own]
    return [(Layout(tuple(layout.entries[i] for i in one)), where) for one, where in zip(own, spans, strict=True)]


def _gather(x: Tensor, spans: Spans) -> Tensor:
    """The stretches one after the other."""
    return torch.cat([x[:0], *(x[start:stop] for start, stop in spans)])


def _scatter(out: Tensor, values: Tensor, spans: Spans) -> None:
    """Put them back."""
    place = 0
    for start, stop in spans:
        out[start:stop] = values[place : place + stop - start]
        place += stop - start
