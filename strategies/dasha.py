"""DASHA: compressed differences with momentum, and no dense round ever.

Tyurin, Richtarik, "DASHA: distributed nonconvex optimization with communication compression and optimal oracle
complexity", ICLR 2023, https://arxiv.org/abs/2202.01268.

    client i:       m_i = Q(D_i - d_i - a (g_i - d_i)) ;  g_i <- g_i + m_i ;  d_i <- D_i     send m_i
    server:         g <- g + sum p_i m_i ;  x <- x - gamma g                 g = sum p_i g_i over all n clients

g_i estimate of D_i, known to client i and, bit for bit, to the server; starts at 0; D_i gradient of f_i at x, or
another direction of descent; d_i the D_i of the round before, 0 at first; Q in U(omega), an unbiased compressor; p_i
weights; a = 1/(2 omega + 1); gamma rate, in practice that of gradient descent or half of it. All clients take part in
every round; a message that is lost does no lasting harm. A reference to compare with.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Federation, Packet, Round
from strategies.estimator import UPDATE, Estimator, gather, weighted_sum
from strategies.theory import Constants, Promise, Theory
from strategies.unbiased import check_unbiased, joint_omega, omega_of
from thinwire.errors import ConfigError
from thinwire.layout import Layout


@dataclass(frozen=True)
class DASHAClient:
    """The estimate that the server knows too, the last direction, and the compressor's warm start."""

    g: Tensor
    last: Tensor
    warm: Any = None


@dataclass(frozen=True)
class DASHAServer:
    """The sum of all estimates, derived from the mirrors."""

    g: Tensor  # float64


@dataclass(frozen=True)
class DASHA(Estimator):
    """Send compressed differences of directions, drawn back to the direction by momentum. Unbiased compressors."""

    name: ClassVar[str] = "dasha"
    compressor: Compressor = field(default_factory=Identity)
    momentum: float = 0.0  # a in (0, 1]; 0: 1/(2 omega + 1)

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum = {self.momentum} must lie in (0, 1], or be 0 for 1/(2 omega + 1)")

    def _momentum(self, layout: Layout) -> float:
        return self.momentum or 1 / (2 * omega_of(self.compressor, layout) + 1)

    def begin(self, x0: Tensor, federation: Federation) -> DASHAServer:
        """g = 0: free, where the paper starts with a dense round."""
        return DASHAServer(torch.zeros(federation.layout.numel, dtype=torch.float64))

    def join(self, x: Tensor, mirror: Tensor | None = None) -> DASHAClient:
        """g_i as the server knows it, or 0; a lost direction is taken to be what was estimated."""
        g = torch.zeros_like(x) if mirror is None else mirror.to(x, copy=True)
        return DASHAClient(g, g)

    def respond(self, direction: Tensor, private: DASHAClient, round: Round) -> tuple[DASHAClient, Packet]:
        """Send Q(D_i - d_i - a (g_i - d_i)) and add what the server will decode to g_i."""
        momentum = self._momentum(round.federation.layout)
        difference = direction - private.last - momentum * (private.g - private.last)
        encoded = round.encode(UPDATE, self.compressor, difference, private.warm)
        return DASHAClient(private.g + encoded.decoded, direction, encoded.warm), {UPDATE: encoded.payload}

    def aggregate(
        self,
        server: DASHAServer,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[DASHAServer, Tensor]:
        """g of all n clients, those who answered having moved."""
        g = gather(uplinks, self.compressor, round).total.add_(server.g)
        return DASHAServer(g), g

    @property
    def mirrored(self) -> bool:
        """The server knows every g_i."""
        return True

    def mirror(self, private: DASHAClient) -> Tensor:
        """g_i."""
        return private.g

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """g_i + m_i."""
        return mirror + round.decode(uplink, UPDATE, self.compressor, round.key(UPDATE, "up"), mirror.device)

    def rebuild(self, server: DASHAServer, mirrors: Iterable[Tensor], federation: Federation) -> DASHAServer:
        """g = sum p_i g_i."""
        return DASHAServer(weighted_sum(mirrors, federation))

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, the compressed difference."""
        return {UPDATE: self.compressor}

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a biased compressor, and a cohort that is not everybody."""
        check_unbiased(self.compressor, federation.layout, self.name)
        if participation < 1:
            raise ConfigError(
                f"dasha needs all clients in every round, not a share of {participation:g}: set participation.fraction "
                "= 1, or choose method diana, marina or ef21"
            )

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``1/(L + L_mean sqrt(16 omega (2 omega + 1)/n))``; verified, not proven, that it is linear."""
        omega = omega_of(self.compressor, federation.layout)
        joint = joint_omega(self.compressor, federation)
        rate = 1 / (constants.L + constants.L_mean * math.sqrt(16 * joint * (2 * omega + 1)))
        if constants.mu:
            rate = min(rate, self._momentum(federation.layout) / (4 * constants.mu)) if omega else rate
        return Theory(Promise.LINEAR, rate, rate * constants.mu, proven=not omega or not constants.mu)
