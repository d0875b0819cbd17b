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

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from strategies.base import Federation, Packet, Round
from strategies.contraction import alpha_of, ef21_rate, feedback_constants
from strategies.theory import Constants, Promise, Theory
from strategies.tracking import Tracking


@dataclass(frozen=True)
class EF21Client:
    """The estimate that the server knows too, and the compressor's warm start."""

    g: Tensor
    warm: Any = None


@dataclass(frozen=True)
class EF21(Tracking):
    """Send the compressed change of an estimate of the direction. Contractive compressors; unbiased ones are scaled."""

    name: ClassVar[str] = "ef21"

    def join(self, x: Tensor, mirror: Tensor | None = None) -> EF21Client:
        """g_i as the server knows it, or 0."""
        return EF21Client(self.estimate(x, mirror))

    def respond(self, direction: Tensor, private: EF21Client, round: Round) -> tuple[EF21Client, Packet]:
        """Send C(D_i - g_i) and add what the server will decode to g_i."""
        c, uplink = self.compress(direction - private.g, private.warm, round)
        return EF21Client(private.g + c.decoded, c.warm), uplink

    def mirror(self, private: EF21Client) -> Tensor:
        """g_i."""
        return private.g

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``1/(L + L_mean sqrt(beta/theta))``; under partial participation the constants of the extended analysis."""
        theta, beta = feedback_constants(alpha_of(self.compressor, federation.layout), participation)
        rate = ef21_rate(constants, theta, beta)
        return Theory(Promise.LINEAR, rate, rate * constants.mu)
