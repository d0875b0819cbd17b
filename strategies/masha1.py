"""MASHA1: extragradient for variational inequalities and saddle points, unbiased compression of differences.

Beznosikov, Richtarik, Diskin, Ryabinin, Gasnikov, "Distributed methods with compressed communication for solving
variational inequalities, with theoretical guarantees", NeurIPS 2022, https://arxiv.org/abs/2110.03313.

    zb = (1-p) z + p w ;  zh = prox(zb - gamma F(w))
    device m in S:  c_m = Q(F_m(zh) - F_m(w))                               send c_m
    server:         D = Qs(sum_{m in S} (p_m / pi) c_m)                     send D
    everyone:       z <- prox(zb - gamma (D + F(w)))
                    with probability p:  w <- z ;  F_m(w) and F(w) travel uncompressed

F_m operator of device m, (grad_x f_m, -grad_y f_m) of a saddle point; F = sum p_m F_m, p_m weights; z iterate, w anchor
(the paper also writes w <- z before the move: ``reference = "old"``); S cohort, pi = |S|/n; Q, Qs in U(omega),
unbiased; prox of gamma h, h a constraint or regulariser; p such that refreshes cost as much uplink as messages. If the
clients' messages share a mask (rand-k with ``shared``), D lives on it: the downlink costs as many values as an uplink.

gamma: without a ``rate``, min(1, 1.2/sqrt((1+omega_s)(1+J))) sqrt(p)/lipschitz, J = omega/n (omega with a shared mask),
and at most 0.7/lipschitz, which is extragradient's. Verified on bilinear problems, where the least multiple that
diverges is 1.2; a cohort of few clients wants less.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compressors import Compressor, Payload
from strategies.anchored import Anchored, AnchoredClient, AnchoredReplica, AnchoredServer
from strategies.base import Federation, Round
from strategies.estimator import UPDATE
from strategies.prox import Prox, rounded
from strategies.theory import Constants, Promise, Theory
from strategies.unbiased import check_unbiased, joint_omega, omega_of
from thinwire.layout import Layout

MOST = 0.7
"""The practical step of extragradient, in 1/L: what p = 1 comes to."""


@dataclass(frozen=True)
class MASHA1(Anchored):
    """Compressed differences around an anchor: linear convergence on saddle points. Unbiased compressors both ways."""

    name: ClassVar[str] = "masha1"
    prox: Prox | None = None  # a constraint or regulariser: box, ball, simplex, l1, l2

    @property
    def operator(self) -> Compressor:
        """Q."""
        return self.compressor

    @property
    def downlink_operator(self) -> Compressor:
        """Qs."""
        return self.downlink_compressor

    def practical(self, p: float, federation: Federation) -> float:
        """``min(1, 1.2/sqrt((1+omega_s)(1+J))) sqrt(p)``, at most 0.7."""
        noise = 1 + joint_omega(self.compressor, federation)
        noise *= 1 + omega_of(self.downlink_compressor, federation.layout)
        return min(math.sqrt(p) * min(1.0, 1.2 / math.sqrt(noise)), MOST)

    def half(self, replica: AnchoredReplica, layout: Layout) -> Tensor:
        """``prox(zb - gamma F(w))``."""
        return self._step(replica, replica.F, layout)

    def message(
        self, replica: AnchoredReplica, private: AnchoredClient, vector: Tensor, round: Round
    ) -> tuple[AnchoredClient, Payload]:
        """c_m."""
        encoded = round.encode(UPDATE, self.compressor, vector, private.warm)
        return AnchoredClient(private.version, private.F, warm=encoded.warm), encoded.payload

    def answer(
        self, replica: AnchoredReplica, server: AnchoredServer, total: Tensor, round: Round
    ) -> tuple[AnchoredServer, Payload]:
        """D."""
        return server, self.encode_down(total, round)[0]

    def move(self, replica: AnchoredReplica, decoded: Tensor, layout: Layout) -> Tensor:
        """``prox(zb - gamma (D + F(w)))``."""
        return self._step(replica, decoded + replica.F, layout)

    def _step(self, replica: AnchoredReplica, direction: Tensor, layout: Layout) -> Tensor:
        moved = self.between(replica) - direction * rounded(replica.gamma, direction)
        return moved if self.prox is None else self.prox(moved, replica.gamma, layout)

    def begin(self, x0: Tensor, federation: Federation) -> tuple[AnchoredReplica, AnchoredServer]:
        """As the frame; the prox must know the model's tensors."""
        if self.prox is not None:
            self.prox.check(federation.layout)
        return super().begin(x0, federation)

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a biased compressor, up or down: masha2 takes it."""
        for compressor, where in ((self.compressor, "masha1"), (self.downlink_compressor, "the downlink of masha1")):
            check_unbiased(compressor, federation.layout, where)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``min(sqrt(p)/(2 C), p/(2 mu))``, ``C^2 = (1+omega_s) (L^2 + J L_mean^2)``, J = omega/n.

        A partial cohort adds to J; one mask for all clients makes it ``C^2 = (1+omega_s) (1+omega) L^2`` instead. The
        contraction, gamma mu/2 an iteration, is divided by 1 + p, for refreshes are rounds too. Proven without a prox;
        for minibatches give the constants of the components. Without variance reduction: a neighbourhood.
        """
        layout, p = federation.layout, self.probability(federation)
        noise = joint_omega(self.compressor, federation, participation)
        square = constants.L**2 + noise * constants.L_mean**2
        if self.work == "minibatch":
            square += constants.L_mean**2 / (participation * federation.clients)
        elif not self.compressor.independent and participation == 1:
            square = (1 + omega_of(self.compressor, layout)) * constants.L**2
        square *= 1 + omega_of(self.downlink_compressor, layout)
        rate = min(math.sqrt(p) / (2 * math.sqrt(square)), _most(p, constants.mu))
        exact = self.variance_reduction or (noise == 0 and omega_of(self.downlink_compressor, layout) == 0)
        if self.work == "steps" or not (exact and (self.variance_reduction or self.work == "full")):
            return Theory(Promise.NEIGHBOURHOOD, rate, proven=False)
        proven = self.prox is None and self.work == "full"
        return Theory(Promise.LINEAR, rate, rate * constants.mu / 2 / (1 + p), proven=proven)


def _most(p: float, mu: float) -> float:
    """The bound by strong monotonicity: p/(2 mu) and (1-p)/mu; 3/(8 mu) for p = 1, which is extragradient."""
    if not mu:
        return math.inf
    return min(p / (2 * mu), (1 - p) / mu) if p < 1 else 3 / (8 * mu)
