"""EF-EG: extragradient with classical error feedback on both half steps, without an anchor. A baseline: it stalls.

As a baseline in Beznosikov, Richtarik, Diskin, Ryabinin, Gasnikov, "Distributed methods with compressed communication
for solving variational inequalities, with theoretical guarantees", NeurIPS 2022, https://arxiv.org/abs/2110.03313.

    zh = z - gamma sum_{m in S} (p_m / pi) c_m ,  c_m = C(F_m(z) + e_m) ,  e_m <- F_m(z) + e_m - c_m
    z <- z - gamma sum_{m in S} (p_m / pi) d_m ,  d_m = C(F_m(zh) + u_m) ,  u_m <- F_m(zh) + u_m - d_m

F_m operator of device m, p_m weights, S cohort, pi = |S|/n; C in B(alpha), contractive (unbiased ones are scaled); e_m,
u_m errors of the two half steps, in units of F_m. F_m(z*) is not 0 where devices differ, so the errors do not vanish: a
neighbourhood of size proportional to gamma, which masha2 removes. gamma: 0.7/lipschitz without a ``rate``.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Federation
from strategies.contraction import as_contraction, check_contraction
from strategies.ef14 import EF14
from strategies.estimator import Estimator
from strategies.extragradient import half_step_rate
from strategies.half_steps import HalfSteps
from strategies.theory import Constants, Promise, Theory


@dataclass(frozen=True)
class EFEG(HalfSteps):
    """Extragradient with error feedback; stops in a neighbourhood. Contractive compressors, or unbiased scaled."""

    name: ClassVar[str] = "ef-eg"
    compressor: Compressor = field(default_factory=Identity)

    @cached_property
    def estimator(self) -> Estimator:
        """Error feedback by memory."""
        return EF14(self.compressor)

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a compressor that contracts nothing."""
        check_contraction(self.compressor, federation.layout, self.name)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """Extragradient's ``1/(2 L)`` times alpha: verified."""
        alpha, rate = as_contraction(self.compressor).alpha(federation.layout), half_step_rate(constants)
        assert alpha is not None
        if alpha == 1 and self.work == "full" and participation == 1:
            return Theory(Promise.LINEAR, rate, rate * constants.mu / 2, proven=self.prox is None)
        return Theory(Promise.NEIGHBOURHOOD, rate * alpha * participation, proven=False)
