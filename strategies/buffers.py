"""Sidecars: what travels beside a method in the same packets; here, the buffers of BatchNorm and the like."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from compressors import Expectation, decode
from compressors.identity import Identity
from strategies.base import Packet, Round
from thinwire.errors import WireError
from thinwire.layout import Entry, Layout
from thinwire.random import SHARED


@dataclass(frozen=True)
class Sidecar(ABC):
    """One replicated tensor beside the method's replica, and the payloads that renew it."""

    name: ClassVar[str]

    @abstractmethod
    def begin(self, value: Tensor) -> Tensor:
        """The replica before round 1, from the server's initial value."""

    @abstractmethod
    def collect(self, replica: Tensor, after: Tensor, round: Round) -> Packet:
        """On a client: its payloads, from the value that local work left."""

    @abstractmethod
    def validate(self, packet: Packet, round: Round) -> None:
        """Decode a client's payloads for nothing but errors. Raises WireError."""

    @abstractmethod
    def combine(self, replica: Tensor, uplinks: Iterable[tuple[int, Packet]], round: Round) -> Packet:
        """On the server: the downlink's payloads; none when nobody answered."""

    @abstractmethod
    def apply(self, replica: Tensor, packet: Packet, round: Round) -> Tensor:
        """On every node: the next replica; the same one when the packet is empty. Portable arithmetic only."""


MEAN = "mean"


@dataclass(frozen=True)
class Buffers(Sidecar):
    """Floating-point buffers (running means and variances): the dense weighted mean over those who answered."""

    name: ClassVar[str] = "buffers"
    layout: Layout  # of the buffers, not of the trainable parameters

    @staticmethod
    def of(module: nn.Module) -> "Buffers | None":
        """Those of a module's buffers that its state dict keeps and that hold floats; None when there are none."""
        kept = module.state_dict(keep_vars=True)
        entries = [
            Entry(name, tuple(buffer.shape))
            for name, buffer in module.named_buffers()
            if name in kept and buffer.is_floating_point()
        ]
        return Buffers(Layout(tuple(entries))) if entries else None

    def begin(self, value: Tensor) -> Tensor:
        """As the server's model has them."""
        return value

    def collect(self, replica: Tensor, after: Tensor, round: Round) -> Packet:
        """The client's own values, dense."""
        return self._packet(after, round, round.client)

    def validate(self, packet: Packet, round: Round) -> None:
        """One dense payload of this layout and nothing else."""
        if set(packet) != {MEAN}:
            raise WireError(f"buffers carry one payload {MEAN!r}, not {', '.join(sorted(packet)) or 'none'}")
        self._vector(packet, round, "cpu")

    def combine(self, replica: Tensor, uplinks: Iterable[tuple[int, Packet]], round: Round) -> Packet:
        """The mean with weights renormalised over the cohort, summed in float64."""
        total = torch.zeros(self.layout.numel, dtype=torch.float64)
        weight = 0.0
        for client, packet in uplinks:
            share = round.federation.weights[client]
            total += self._vector(packet, round, "cpu").to(torch.float64).mul_(share)
            weight += share
        return self._packet((total / weight).to(replica), round, SHARED) if weight else {}

    def apply(self, replica: Tensor, packet: Packet, round: Round) -> Tensor:
        """The mean as it was sent."""
        return self._vector(packet, round, replica.device) if packet else replica

    def _packet(self, vector: Tensor, round: Round, client: int) -> Packet:
        key = round.key(self.name, client=client)
        return {MEAN: Identity().encode(vector.to(round.federation.dtype), self.layout, key).payload}

    def _vector(self, packet: Packet, round: Round, device: torch.device | str) -> Tensor:
        if MEAN not in packet:
            raise WireError(f"payload {MEAN!r} of the buffers is missing")
        expectation = Expectation(self.layout, round.federation.dtype, Identity().codecs)
        return decode(packet[MEAN], expectation, round.key(self.name), device)
