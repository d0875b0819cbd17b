"""CGDA: gradient descent-ascent with compressed operators. A baseline for saddle points: it stalls.

As a baseline in Beznosikov, Richtarik, Diskin, Ryabinin, Gasnikov, "Distributed methods with compressed communication
for solving variational inequalities, with theoretical guarantees", NeurIPS 2022, https://arxiv.org/abs/2110.03313;
analysed in Beznosikov, Gorbunov, Berard, Loizou, "Stochastic gradient descent-ascent: unified theory and new efficient
methods", AISTATS 2023, https://arxiv.org/abs/2202.07262 (QSGDA).

    client m in S:  m_m = Q(F_m(z))                         send m_m
    server:         z <- prox(z - gamma sum_{m in S} (p_m / pi) m_m)

F_m operator of device m, (grad_x f_m, -grad_y f_m); p_m weights; S cohort, pi = |S|/n; Q in U(omega), unbiased; gamma
the server's rate (``optimiser.rate``). It is DCGD on an operator, where the step must be mu/L^2 instead of 1/L.
"""

from dataclasses import dataclass
from typing import ClassVar

from strategies.base import Federation
from strategies.dcgd import DCGD
from strategies.theory import Constants, Promise, Theory
from strategies.unbiased import joint_omega


@dataclass(frozen=True)
class CGDA(DCGD):
    """Compressed descent-ascent; clients keep no state, and it stops in a neighbourhood. Unbiased compressors."""

    name: ClassVar[str] = "cgda"

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``mu/(L^2 + 2 J L_mean^2)``, J = omega/n; the floor is ``2 gamma J/mu`` times the mean of |F_m(z*)|^2.

        By |z' - z*|^2 <= (1 - 2 gamma mu)|z - z*|^2 + gamma^2 |G|^2 in expectation. Without mu: nothing.
        """
        noise = joint_omega(self.compressor, federation, participation)
        if not constants.mu:
            return Theory(Promise.NOTHING, 1 / (4 * constants.L), proven=False)
        rate = constants.mu / (constants.L**2 + 2 * noise * constants.L_mean**2)
        if noise == 0:
            return Theory(Promise.LINEAR, rate, rate * constants.mu)
        floor = 2 * rate / constants.mu * noise * constants.heterogeneity
        return Theory(Promise.NEIGHBOURHOOD, rate, rate * constants.mu, floor or None)
