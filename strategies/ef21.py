"""EF21 and EF21-PP: error feedback by a compressed difference.

Richtarik, Sokolov, Fatkhullin, "EF21: a new, simpler, theoretically better, and practically faster error feedback",
NeurIPS 2021, https://arxiv.org/abs/2106.05203; partial participation: Fatkhullin, Sokolov, Gorbunov, Li, Richtarik,
"EF21 with bells & whistles", 2021, https://arxiv.org/abs/2110.03294.

    client i in S:  c_i = C(D_i - g_i) ;  g_i <- g_i + c_i                   send c_i
    client i not in S:  g_i stays
    server:         g <- g + sum_{i in S} p_i c_i ;  x <- x - eta g          g = sum p_i g_i over ALL n clients

g_i estimate of D_i, known to client i and, bit for bit, to the server; starts at 0; D_i gradient of f_i at x, or
another direction of descent; C in B(alpha), a contractive compressor; S cohort; p_i weights; eta rate, in practice that
of the uncompressed method or half of it. Averaging g_i over the participants only does not converge.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Federation, Packet, Round
from strategies.contraction import as_contraction, check_contraction
from strategies.estimator import UPDATE, Estimator, gather, weighted_sum
from strategies.theory import Constants, Promise, Theory


@dataclass(frozen=True)
class EF21Client:
    """The estimate that the server knows too, and the compressor's warm start."""

    g: Tensor
    warm: Any = None


@dataclass(frozen=True)
class EF21Server:
    """The sum of all estimates, derived from the mirrors."""

    g: Tensor  # float64


@dataclass(frozen=True)
class EF21(Estimator):
    """Send the compressed change of an estimate of the direction. Contractive compressors; unbiased ones are scaled."""

    name: ClassVar[str] = "ef21"
    compressor: Compressor = field(default_factory=Identity)

    @cached_property
    def contraction(self) -> Compressor:
        """C in B(alpha)."""
        return as_contraction(self.compressor)

    def begin(self, x0: Tensor, federation: Federation) -> EF21Server:
        """g = 0: as good as a dense first round, and free."""
        return EF21Server(torch.zeros(federation.layout.numel, dtype=torch.float64))

    def join(self, x: Tensor, mirror: Tensor | None = None) -> EF21Client:
        """g_i as the server knows it, or 0."""
        return EF21Client(torch.zeros_like(x) if mirror is None else mirror.to(x, copy=True))

    def respond(self, direction: Tensor, private: EF21Client, round: Round) -> tuple[EF21Client, Packet]:
        """Send C(D_i - g_i) and add what the server will decode to g_i."""
        difference, key = direction - private.g, round.key(UPDATE, "up")
        encoded = self.contraction.encode(difference, round.federation.layout, key, round.place, private.warm)
        return EF21Client(private.g + encoded.decoded, encoded.warm), {UPDATE: encoded.payload}

    def aggregate(
        self,
        server: EF21Server,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[EF21Server, Tensor]:
        """g of all n clients, those who answered having moved."""
        g = gather(uplinks, self.contraction, round).total.add_(server.g)
        return EF21Server(g), g

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``1/(L + L_mean sqrt(beta/theta))``; under partial participation the constants of the extended analysis."""
        alpha = self.contraction.alpha(federation.layout)
        assert alpha is not None
        theta, p = 1 - math.sqrt(1 - alpha), participation
        beta = (1 - alpha) / theta
        if p < 1:
            rho = theta * p / (2 * (1 - p))
            theta, beta = theta * p / 2, beta * p + (1 + 1 / rho) * (1 - p)
        rate = 1 / (constants.L + constants.L_mean * math.sqrt(beta / theta))
        if constants.mu:
            rate = min(rate, theta / (2 * constants.mu))
        return Theory(Promise.LINEAR, rate, rate * constants.mu)

    @property
    def mirrored(self) -> bool:
        """The server knows every g_i."""
        return True

    def mirror(self, private: EF21Client) -> Tensor:
        """g_i."""
        return private.g

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """g_i + c_i."""
        return mirror + round.decode(uplink, UPDATE, self.contraction, round.key(UPDATE, "up"), mirror.device)

    def rebuild(self, server: EF21Server, mirrors: Iterable[Tensor], federation: Federation) -> EF21Server:
        """g = sum p_i g_i."""
        return EF21Server(weighted_sum(mirrors, federation))

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, the compressed difference."""
        return {UPDATE: self.contraction}

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a compressor that contracts nothing."""
        check_contraction(self.compressor, federation.layout, self.name)
