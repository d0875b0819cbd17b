"""CEG: extragradient whose operators are compressed, without an anchor. A baseline: it stalls.

As a baseline in Beznosikov, Richtarik, Diskin, Ryabinin, Gasnikov, "Distributed methods with compressed communication
for solving variational inequalities, with theoretical guarantees", NeurIPS 2022, https://arxiv.org/abs/2110.03313.

    zh = z - gamma mean_{m in S} Q(F_m(z)) ;  z <- z - gamma mean_{m in S} Q(F_m(zh))

F_m operator of device m; S cohort, the mean weighted by p_m; Q in U(omega), unbiased. F_m(z*) is not 0 where devices
differ, so the compressor's error does not vanish: a neighbourhood of size proportional to gamma omega, which masha1
removes. gamma: 0.7/lipschitz without a ``rate``.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Federation
from strategies.estimator import Estimator
from strategies.extragradient import half_step_rate
from strategies.fedavg import FedAvg
from strategies.half_steps import HalfSteps
from strategies.theory import Constants, Promise, Theory
from strategies.unbiased import check_unbiased, joint_omega


@dataclass(frozen=True)
class CEG(HalfSteps):
    """Extragradient with compressed operators; stops in a neighbourhood. The compressor must be unbiased."""

    name: ClassVar[str] = "ceg"
    compressor: Compressor = field(default_factory=Identity)

    @cached_property
    def estimator(self) -> Estimator:
        """The mean of the compressed operators."""
        return FedAvg(self.compressor)

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a biased compressor."""
        check_unbiased(self.compressor, federation.layout, self.name)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``mu/(4 J L_mean^2)``, J = omega/n, but not above extragradient's ``1/(2 L)``: verified."""
        noise, rate = joint_omega(self.compressor, federation, participation), half_step_rate(constants)
        if noise == 0 and self.work == "full":
            return Theory(Promise.LINEAR, rate, rate * constants.mu / 2, proven=self.prox is None)
        if not constants.mu:
            return Theory(Promise.NOTHING, rate, proven=False)
        rate = min(rate, constants.mu / (4 * noise * constants.L_mean**2) if noise else math.inf)
        return Theory(Promise.NEIGHBOURHOOD, rate, rate * constants.mu / 2, proven=False)
