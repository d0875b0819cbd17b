"""Rand-DIANA: compressed differences to shifts that are gradients at points of the past.

Shulgin, Richtarik, "Shifted compression framework: generalizations and improvements", UAI 2022,
https://arxiv.org/abs/2206.10452.

    client i in S:  m_i = Q(D_i - h_i)                                       send m_i
                    with probability p:  r_i = D_i - h_i ;  h_i <- h_i + r_i     send r_i, dense
    client i not in S:  h_i stays
    server:         G = h + sum_{i in S} (p_i / pi) m_i ;  x <- x - gamma G
                    h <- h + sum_{i in S} p_i r_i                            h = sum p_i h_i over ALL n clients

h_i shift of client i, known to it and, bit for bit, to the server; starts at 0; m_i and G take the old one, the coin is
tossed after, from the run's key for each client and round; D_i gradient of f_i at x, or another direction of descent;
Q in U(omega), an unbiased compressor; S cohort, pi = |S|/n; p_i weights; p = 1/(1+omega); gamma rate, in practice up to
ten times that of theory. With rand-k the refreshes cost as many bits as the messages, so that DIANA takes fewer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Federation, Packet, Round
from strategies.diana import learning_theory
from strategies.estimator import UPDATE, Estimator, gather_all, weighted_sum
from strategies.theory import Constants, Theory
from strategies.unbiased import check_unbiased, joint_omega, omega_of
from thinwire.layout import Layout
from thinwire.random import coin

REFRESH = "refresh"
"""The name of the payload that carries a dense change of the shift."""


@dataclass(frozen=True)
class RandDIANAClient:
    """The shift that the server knows too, and the compressor's warm start."""

    h: Tensor
    warm: Any = None


@dataclass(frozen=True)
class RandDIANAServer:
    """The sum of all shifts, derived from the mirrors."""

    h: Tensor  # float64


@dataclass(frozen=True)
class RandDIANA(Estimator):
    """Send the compressed difference to a shift that is made anew now and then. The compressor must be unbiased."""

    name: ClassVar[str] = "rand-diana"
    compressor: Compressor = field(default_factory=Identity)
    probability: float = 0.0  # p in (0, 1] of a refresh; 0: 1/(1+omega)

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability = {self.probability} must lie in (0, 1], or be 0 for 1/(1+omega)")

    def _probability(self, layout: Layout) -> float:
        return self.probability or 1 / (1 + omega_of(self.compressor, layout))

    def begin(self, x0: Tensor, federation: Federation) -> RandDIANAServer:
        """h = 0."""
        return RandDIANAServer(torch.zeros(federation.layout.numel, dtype=torch.float64))

    def join(self, x: Tensor, mirror: Tensor | None = None) -> RandDIANAClient:
        """h_i as the server knows it, or 0."""
        return RandDIANAClient(torch.zeros_like(x) if mirror is None else mirror.to(x, copy=True))

    def respond(self, direction: Tensor, private: RandDIANAClient, round: Round) -> tuple[RandDIANAClient, Packet]:
        """Send Q(D_i - h_i); on heads also the difference itself, which makes h_i the direction."""
        difference, h = direction - private.h, private.h
        encoded = round.encode(UPDATE, self.compressor, difference, private.warm)
        uplink = {UPDATE: encoded.payload}
        if coin(round.key(REFRESH).at("coin"), self._probability(round.federation.layout)):
            refresh = round.encode(REFRESH, Identity(), difference)
            uplink[REFRESH], h = refresh.payload, h + refresh.decoded
        return RandDIANAClient(h, encoded.warm), uplink

    def aggregate(
        self,
        server: RandDIANAServer,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[RandDIANAServer, Tensor]:
        """G by the old h, and the next one."""
        gathered = gather_all(uplinks, self.uplink, round, self.optional)
        direction = server.h + gathered[UPDATE].sampled()
        return RandDIANAServer(gathered[REFRESH].total.add_(server.h)), direction

    @property
    def mirrored(self) -> bool:
        """The server knows every h_i."""
        return True

    def mirror(self, private: RandDIANAClient) -> Tensor:
        """h_i."""
        return private.h

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """h_i, or h_i + r_i."""
        if REFRESH not in uplink:
            return mirror
        return mirror + round.decode(uplink, REFRESH, Identity(), round.key(REFRESH, "up"), mirror.device)

    def rebuild(self, server: RandDIANAServer, mirrors: Iterable[Tensor], federation: Federation) -> RandDIANAServer:
        """h = sum p_i h_i."""
        return RandDIANAServer(weighted_sum(mirrors, federation))

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """The compressed difference, and the dense one."""
        return {UPDATE: self.compressor, REFRESH: Identity()}

    @property
    def optional(self) -> frozenset[str]:
        """The dense one comes on heads only."""
        return frozenset({REFRESH})

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a biased compressor."""
        check_unbiased(self.compressor, federation.layout, self.name)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``1/((1 + 6 omega/n) L_max)``, whatever p: the paper's with its free constant M = 4 omega/(n p)."""
        joint = joint_omega(self.compressor, federation, participation)
        return learning_theory(joint, self._probability(federation.layout) * participation, constants)
