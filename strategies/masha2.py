"""MASHA2: extragradient for variational inequalities and saddle points, contractive compression with error feedback.

Beznosikov, Richtarik, Diskin, Ryabinin, Gasnikov, "Distributed methods with compressed communication for solving
variational inequalities, with theoretical guarantees", NeurIPS 2022, https://arxiv.org/abs/2110.03313.

    zb = (1-p) z + p w ;  zh = zb - gamma F(w)
    device m in S:  a = gamma (F_m(zh) - F_m(w)) + e_m ;  c_m = C(a) ;  e_m <- a - c_m             send c_m
    server:         s = sum_{m in S} (p_m / pi) c_m + e ;  g = Cs(s) ;  e <- s - g                 send g
    everyone:       z <- zh - g
                    with probability p:  w <- z ;  F_m(w) and F(w) travel uncompressed ;  e_m and e stay

F_m operator of device m, (grad_x f_m, -grad_y f_m) of a saddle point; F = sum p_m F_m, p_m weights; z iterate, w
anchor; e_m, e errors of device and server, in units of z, so that gamma may not change; S cohort, pi = |S|/n, others
keep their e_m; C, Cs in B(alpha), contractive (unbiased ones are scaled); p such that refreshes cost as much uplink as
messages.

gamma: without a ``rate``, 0.8 sqrt(a a_s p)/lipschitz, a and a_s the shares of the energy of a Gaussian vector that C
and Cs keep (measured), and at most 0.7/lipschitz. Verified on bilinear problems, where the least multiple that diverges
is 1.2. On dense operators it takes as many bytes as extragradient; heavy tails are its use.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from compressors import Compressor, Payload
from strategies.anchored import Anchored, AnchoredClient, AnchoredReplica, AnchoredServer
from strategies.base import Federation, Round
from strategies.contraction import as_contraction, check_contraction
from strategies.estimator import UPDATE
from strategies.probe import probe
from strategies.prox import rounded
from strategies.theory import Constants, Promise, Theory
from thinwire.layout import Layout

MOST = 0.7
"""The practical step of extragradient, in 1/L: what p = 1 comes to."""


@dataclass(frozen=True)
class MASHA2(Anchored):
    """Compressed differences around an anchor, with error feedback. Contractive compressors, or unbiased scaled."""

    name: ClassVar[str] = "masha2"

    @cached_property
    def operator(self) -> Compressor:
        """C."""
        return as_contraction(self.compressor)

    @cached_property
    def downlink_operator(self) -> Compressor:
        """Cs."""
        return as_contraction(self.downlink_compressor)

    def practical(self, p: float, federation: Federation) -> float:
        """``0.8 sqrt(a a_s p)``, at most 0.7."""
        kept = self._kept(self.operator, federation) * self._kept(self.downlink_operator, federation)
        return min(0.8 * math.sqrt(kept * p), MOST)

    def _kept(self, compressor: Compressor, federation: Federation) -> float:
        alpha = compressor.alpha(federation.layout)
        measured = probe(compressor, federation.layout, federation.dtype, federation.clients).kept
        return measured if alpha is None else max(measured, alpha)

    def half(self, replica: AnchoredReplica, layout: Layout) -> Tensor:
        """``zb - gamma F(w)``; without variance reduction gamma is in what came down."""
        step = replica.F * rounded(replica.gamma, replica.F) if self.variance_reduction else replica.F
        return self.between(replica) - step

    def message(
        self, replica: AnchoredReplica, private: AnchoredClient, vector: Tensor, round: Round
    ) -> tuple[AnchoredClient, Payload]:
        """c_m; e_m keeps the rest."""
        a = vector * replica.gamma if private.e is None else vector * replica.gamma + private.e
        encoded = round.encode(UPDATE, self.operator, a, private.warm)
        return replace(private, e=a - encoded.decoded, warm=encoded.warm), encoded.payload

    def answer(
        self, replica: AnchoredReplica, server: AnchoredServer, total: Tensor, round: Round
    ) -> tuple[AnchoredServer, Payload]:
        """g; e keeps the rest."""
        s = total if server.e is None else total + server.e
        payload, decoded = self.encode_down(s, round)
        return replace(server, e=s - decoded.to("cpu", torch.float64)), payload

    def move(self, replica: AnchoredReplica, decoded: Tensor, layout: Layout) -> Tensor:
        """``zh - g``."""
        return self.half(replica, layout) - decoded

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a compressor that contracts nothing, up or down."""
        for compressor, where in ((self.compressor, "masha2"), (self.downlink_compressor, "the downlink of masha2")):
            check_contraction(compressor, federation.layout, where)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``sqrt(alpha alpha_s p)/(2 L_mean)``, at most p/(2 mu): verified; the paper's constants are far smaller.

        The contraction, gamma mu/2 an iteration, is divided by 1 + p, for refreshes are rounds too. For minibatches
        give the constants of the components. Without variance reduction: a neighbourhood.
        """
        layout, p = federation.layout, self.probability(federation)
        alpha, alpha_down = self.operator.alpha(layout), self.downlink_operator.alpha(layout)
        assert alpha is not None
        assert alpha_down is not None
        rate = math.sqrt(alpha * alpha_down * p * participation) / (2 * constants.L_mean)
        rate = min(rate, p / (2 * constants.mu)) if constants.mu else rate
        if self.work == "steps" or not self.variance_reduction:
            return Theory(Promise.NEIGHBOURHOOD, rate, proven=False)
        return Theory(Promise.LINEAR, rate, rate * constants.mu / 2 / (1 + p), proven=False)
