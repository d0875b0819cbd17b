"""EF14: error feedback by memory; with H local steps and a server optimiser, Fed-EF.

Seide, Fu, Droppo, Li, Yu, "1-bit stochastic gradient descent", Interspeech 2014,
https://www.microsoft.com/en-us/research/publication/1-bit-stochastic-gradient-descent; analysed by Stich, Cordonnier,
Jaggi, "Sparsified SGD with memory", NeurIPS 2018, https://arxiv.org/abs/1809.07599. Sampled clients and local steps:
Li, Li, "Analysis of error feedback in federated non-convex optimization with biased compression", ICML 2023,
https://arxiv.org/abs/2211.14292.

    client i in S:  e_i <- sigma^missed e_i
                    u = beta e_i + D_i ;  c_i = C(u) ;  e_i <- u - c_i       send c_i
    server:         G = sum_{i in S} (p_i / pi) c_i ;  x <- x - eta G

e_i residual of client i, in units of D_i, so that the rate eta may change; starts at 0 and waits while the client is
absent; D_i direction of descent; C in B(alpha), a contractive compressor; S cohort, pi = |S|/n; p_i weights; beta decay
of the residual (1 here; below 1 is SparseLoCo's, https://arxiv.org/abs/2508.15706); sigma decay for each round that the
client was absent, missed of them since its last answer (1: a residual never grows stale); eta rate, in practice that of
the uncompressed method or half of it.
With heterogeneous clients and a constant rate it reaches a neighbourhood; a lost message does no lasting harm.
With warm power iteration as C it is PowerSGD: Vogels, Karimireddy, Jaggi, NeurIPS 2019,
https://arxiv.org/abs/1905.13727.
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
from strategies.contraction import alpha_of, as_contraction, check_contraction
from strategies.estimator import UPDATE, Estimator, gather
from strategies.theory import Constants, Promise, Theory


@dataclass(frozen=True)
class EF14Client:
    """The residual that is still to be sent, the round that left it, and the compressor's warm start."""

    e: Tensor
    warm: Any = None
    answered: int = 0  # number of the round; 0: none yet


@dataclass(frozen=True)
class EF14(Estimator):
    """Add what compression dropped to the next message. Contractive compressors; unbiased ones are scaled."""

    name: ClassVar[str] = "ef14"
    compressor: Compressor = field(default_factory=Identity)
    decay: float = 1.0  # beta in (0, 1]: the share of the residual that is kept for the next answer
    absence_decay: float = 1.0  # sigma in (0, 1]: the share of it that outlives a round of absence

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1 or not 0 < self.absence_decay <= 1:
            raise ValueError(f"decay = {self.decay} and absence_decay = {self.absence_decay} must lie in (0, 1]")

    @cached_property
    def contraction(self) -> Compressor:
        """C in B(alpha)."""
        return as_contraction(self.compressor)

    def begin(self, x0: Tensor, federation: Federation) -> None:
        """The server keeps nothing."""

    def join(self, x: Tensor, mirror: Tensor | None = None) -> EF14Client:
        """No residual yet."""
        return EF14Client(torch.zeros_like(x))

    def respond(self, direction: Tensor, private: EF14Client, round: Round) -> tuple[EF14Client, Packet]:
        """Send C(beta e_i + D_i) and keep the rest."""
        missed = max(0, round.number - private.answered - 1) if private.answered else 0
        u = self.decay * self.absence_decay**missed * private.e + direction
        encoded = round.encode(UPDATE, self.contraction, u, private.warm)
        return EF14Client(u - encoded.decoded, encoded.warm, round.number), {UPDATE: encoded.payload}

    def aggregate(
        self,
        server: None,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[None, Tensor]:
        """G, the sampled sum, so that every residual arrives with its own weight p_i in the long run."""
        return None, gather(uplinks, self.contraction, round).sampled()

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, the compressed update."""
        return {UPDATE: self.contraction}

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a compressor that contracts nothing."""
        check_contraction(self.compressor, federation.layout, self.name)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``memory_theory`` with the errors of the clients; a residual that decays is outside of it."""
        alpha = alpha_of(self.compressor, federation.layout)
        return memory_theory(constants, 1 / alpha, participation, exact=self.decay == self.absence_decay == 1)


def memory_theory(constants: Constants, stretch: float, participation: float, exact: bool = True) -> Theory:
    """The step of methods that keep residuals, of order alpha/L, to a floor of order gamma^2 zeta^2 / alpha^2.

    By the virtual iterate of Stich and Karimireddy, "The error-feedback framework", JMLR 2020 (constants ours):
    y = x - gamma e, where e is the sum of p_i e_i and of the server's own residual, moves by exact gradients at x, so

        |y+ - x*|^2 <= (1 - gamma mu/2)|y - x*|^2 - gamma/2 (f(x) - f*) + 3 L gamma^3 |e|^2    for gamma <= 1/(4 L)

    and |e|^2 <= 4 stretch^2 (4 L_max (f(x) - f*) + 2 zeta^2). The second term pays for what the first part adds to the
    third; what the second part adds is the floor. ``stretch`` is 1/alpha with one compressor on the way. Uncompressed
    this is gradient descent. A sampled cohort costs a factor of its share in the step and, like methods that are not
    ``exact`` error feedback, has no stated floor.
    """
    if stretch == 1 and participation == 1 and exact:
        return Theory(Promise.LINEAR, 1 / constants.L, constants.mu / constants.L)
    rate = min(1 / (4 * constants.L), 1 / (14 * stretch * math.sqrt(constants.L * constants.L_max)))
    if not constants.mu or participation < 1 or not exact:
        return Theory(Promise.NEIGHBOURHOOD, participation * rate, proven=False)
    residual = 8 * (rate * stretch) ** 2 * constants.heterogeneity  # of gamma^2 |e|^2
    virtual = 6 * constants.L / constants.mu * residual
    promise = Promise.NEIGHBOURHOOD if residual else Promise.LINEAR
    return Theory(promise, rate, rate * constants.mu / 2, 2 * (virtual + residual) or None, proven=False)
