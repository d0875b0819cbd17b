"""Extragradient, uncompressed: the yardstick of the methods for variational inequalities and saddle points.

Korpelevich, "The extragradient method for finding saddle points and other problems", Ekonomika i Matematicheskie Metody
1976; with a prox: Nemirovski, "Prox-method with rate of convergence O(1/t)", SIAM J. Optim. 2004.

    zh = prox(z - gamma sum p_m F_m(z)) ;  z <- prox(z - gamma sum p_m F_m(zh))

F_m operator of device m, p_m weights, gamma step: 0.7/lipschitz without a ``rate``. Four dense vectors an iteration,
two up and two down. MASHA1 without compression is the same method.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from strategies.base import Federation
from strategies.estimator import Estimator
from strategies.fedavg import FedAvg
from strategies.half_steps import HalfSteps
from strategies.theory import Constants, Promise, Theory


@dataclass(frozen=True)
class Extragradient(HalfSteps):
    """Two dense half steps an iteration: linear convergence on strongly monotone operators."""

    name: ClassVar[str] = "extragradient"

    @cached_property
    def estimator(self) -> Estimator:
        """The plain mean."""
        return FedAvg()

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``1/(2 L)``, at most 3/(8 mu): |z - z*|^2 falls by 1 - gamma mu an iteration, of two rounds."""
        rate = half_step_rate(constants)
        if self.work != "full" or participation < 1:
            return Theory(Promise.NEIGHBOURHOOD, rate, rate * constants.mu / 2, proven=False)
        return Theory(Promise.LINEAR, rate, rate * constants.mu / 2, proven=self.prox is None)


def half_step_rate(constants: Constants) -> float:
    """``1/(2 L)``, at most 3/(8 mu)."""
    return min(1 / (2 * constants.L), 3 / (8 * constants.mu)) if constants.mu else 1 / (2 * constants.L)
