"""What the methods around EF21 share: an estimate g_i of each client's direction, the same on both ends.

    client i in S:      sends c_i = C(something that vanishes at the solution) ;  g_i <- g_i + c_i
    client i not in S:  g_i stays
    server:             g <- g + sum_{i in S} p_i c_i                            g = sum p_i g_i over ALL n clients

The methods differ in what a client compresses. Averaging g_i over the participants only does not converge.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from compressors import Compressor, Encoded
from compressors.identity import Identity
from strategies.base import Federation, Packet, Round
from strategies.contraction import as_contraction, check_contraction
from strategies.estimator import UPDATE, Estimator, gather, weighted_sum


@dataclass(frozen=True)
class TrackingServer:
    """The sum of all estimates, derived from the mirrors."""

    g: Tensor  # float64


@dataclass(frozen=True)
class Tracking(Estimator):
    """The server's half, and the mirrors; a method adds ``join``, ``respond``, ``mirror`` and its theory."""

    compressor: Compressor = field(default_factory=Identity)

    @cached_property
    def contraction(self) -> Compressor:
        """C in B(alpha)."""
        return as_contraction(self.compressor)

    def begin(self, x0: Tensor, federation: Federation) -> TrackingServer:
        """g = 0: as good as a dense first round, and free."""
        return TrackingServer(torch.zeros(federation.layout.numel, dtype=torch.float64))

    def estimate(self, x: Tensor, mirror: Tensor | None) -> Tensor:
        """g_i of a client that joins: as the server knows it, or 0."""
        return torch.zeros_like(x) if mirror is None else mirror.to(x, copy=True)

    def compress(self, vector: Tensor, warm: Any, round: Round) -> tuple[Encoded, Packet]:
        """c_i = C(vector), and the uplink that carries it."""
        encoded = round.encode(UPDATE, self.contraction, vector, warm)
        return encoded, {UPDATE: encoded.payload}

    def aggregate(
        self,
        server: TrackingServer,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[TrackingServer, Tensor]:
        """g of all n clients, those who answered having moved."""
        g = gather(uplinks, self.contraction, round).total.add_(server.g)
        return TrackingServer(g), g

    @property
    def mirrored(self) -> bool:
        """The server knows every g_i."""
        return True

    @abstractmethod
    def mirror(self, private: Any) -> Tensor:
        """g_i."""

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """g_i + c_i."""
        return mirror + round.decode(uplink, UPDATE, self.contraction, round.key(UPDATE, "up"), mirror.device)

    def rebuild(self, server: TrackingServer, mirrors: Iterable[Tensor], federation: Federation) -> TrackingServer:
        """g = sum p_i g_i."""
        return TrackingServer(weighted_sum(mirrors, federation))

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, c_i."""
        return {UPDATE: self.contraction}

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a compressor that contracts nothing."""
        check_contraction(self.compressor, federation.layout, self.name)
