"""EF21-SGDM: EF21 on a momentum estimate of the gradient, for minibatches.

Fatkhullin, Tyurin, Richtarik, "Momentum provably improves error feedback!", NeurIPS 2023,
https://arxiv.org/abs/2305.15155, Algorithm 1.

    client i in S:  v_i <- (1 - momentum) v_i + momentum D_i                 the first time v_i <- D_i
                    c_i = C(v_i - g_i) ;  g_i <- g_i + c_i                   send c_i
    client i not in S:  v_i and g_i stay
    server:         g <- g + sum_{i in S} p_i c_i ;  x <- x - gamma g        g = sum p_i g_i over ALL n clients

v_i momentum estimate, local: lost, it begins again with the next D_i; g_i estimate of v_i, known to client i and, bit
for bit, to the server; starts at 0; D_i stochastic gradient of f_i at x, or another direction of descent; momentum the
paper's eta: 0.1 suits single minibatches, 1 (which is EF21) directions that are averages already, such as five local
steps or more; C in B(alpha), a contractive compressor; S cohort; p_i weights; gamma rate, in practice that of SGD.
EF21 alone feeds the noise of its gradients back: at equal steps its floor is several times higher.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from strategies.base import Federation, Packet, Round
from strategies.contraction import alpha_of
from strategies.theory import Constants, Promise, Theory
from strategies.tracking import Tracking


@dataclass(frozen=True)
class EF21SGDMClient:
    """The estimate that the server knows too; the momentum, and the compressor's warm start, which it does not."""

    g: Tensor
    v: Tensor | None = None  # before the first direction: none
    warm: Any = None


@dataclass(frozen=True)
class EF21SGDM(Tracking):
    """EF21 of a moving average of stochastic gradients. Contractive compressors; unbiased ones are scaled."""

    name: ClassVar[str] = "ef21-sgdm"
    momentum: float = 0.1  # eta in (0, 1]: weight of the newest direction; 1: EF21

    def __post_init__(self) -> None:
        if not 0 < self.momentum <= 1:
            raise ValueError(f"momentum = {self.momentum} must lie in (0, 1]")

    def join(self, x: Tensor, mirror: Tensor | None = None) -> EF21SGDMClient:
        """g_i as the server knows it, or 0; no momentum."""
        return EF21SGDMClient(self.estimate(x, mirror))

    def respond(self, direction: Tensor, private: EF21SGDMClient, round: Round) -> tuple[EF21SGDMClient, Packet]:
        """Average, send C(v_i - g_i), and add what the server will decode to g_i."""
        v = direction if private.v is None else (1 - self.momentum) * private.v + self.momentum * direction
        c, uplink = self.compress(v - private.g, private.warm, round)
        return EF21SGDMClient(private.g + c.decoded, v, c.warm), uplink

    def mirror(self, private: EF21SGDMClient) -> Tensor:
        """g_i."""
        return private.g

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """The paper's ``min(alpha/(20 L_mean), momentum/(7 L))``, times the share of the clients that is asked (ours).

        With full gradients it has no noise to average and is linear, verified; the paper's theorem is for any smooth f.
        """
        alpha = alpha_of(self.compressor, federation.layout)
        rate = participation * min(alpha / (20 * constants.L_mean), self.momentum / (7 * constants.L))
        return Theory(Promise.LINEAR, rate, proven=False)
