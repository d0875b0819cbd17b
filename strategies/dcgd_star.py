"""DCGD-STAR: the best shifts that there are. An oracle, to compare other methods with: it needs the solution.

Shulgin, Richtarik, "Shifted compression framework: generalizations and improvements", UAI 2022,
https://arxiv.org/abs/2206.10452.

    client i in S:  h_i = grad f_i(x*) + C(D_i - grad f_i(x*)) ;  m_i = Q(D_i - h_i)         send C(...) and m_i
    server:         G = sum p_i grad f_i(x*) + sum_{i in S} (p_i / pi) (C(...) + m_i) ;  x <- x - gamma G

D_i gradient of f_i at x; x* the solution; C in B(alpha), contractive, optional; Q in U(omega), unbiased; S cohort,
pi = |S|/n; p_i weights; gamma rate. It is dcgd with fixed shifts and, where there is a C, with C and Q in one.
Without shifts, as a configuration builds it, they are 0 and it is dcgd: only code can give it a solution.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Federation, Oracle, Packet, Round
from strategies.dcgd import DCGD
from strategies.estimator import Estimator
from strategies.theory import Constants, Promise, Theory
from strategies.unbiased import around, check_inner, check_unbiased, joint_omega


def optimal_shifts(oracles: Sequence[Oracle], solution: Tensor) -> tuple[Tensor, ...]:
    """grad f_i(x*) of every client, by roster index."""
    return tuple(oracle.full(solution) for oracle in oracles)


@dataclass(frozen=True)
class DCGDStar(Estimator):
    """DCGD around the gradients at the solution, an oracle for experiments. The compressor must be unbiased."""

    name: ClassVar[str] = "dcgd-star"
    compressor: Compressor = field(default_factory=Identity)
    inner: Compressor | None = None  # C, contractive
    shifts: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)  # grad f_i(x*), see ``optimal_shifts``

    @cached_property
    def dcgd(self) -> DCGD:
        """The same with fixed shifts, and one compressor."""
        return DCGD(around(self.inner, self.compressor), self.shifts)

    def begin(self, x0: Tensor, federation: Federation) -> None:
        """The server keeps nothing: shifts are options."""

    def join(self, x: Tensor, mirror: Tensor | None = None) -> None:
        """Clients keep nothing."""

    def respond(self, direction: Tensor, private: None, round: Round) -> tuple[None, Packet]:
        """Send both messages, in one payload."""
        return self.dcgd.respond(direction, private, round)

    def aggregate(
        self,
        server: None,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[None, Tensor]:
        """G."""
        return self.dcgd.aggregate(server, uplinks, round)

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload."""
        return self.dcgd.uplink

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a biased compressor, an inner one that contracts nothing, and shifts of another federation."""
        check_unbiased(self.compressor, federation.layout, self.name)
        check_inner(self.inner, federation.layout, self.name)
        self.dcgd.check(federation, participation)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``1/(L + L_max omega (1-alpha)/n)``; without shifts, DCGD's."""
        if not self.shifts:
            return self.dcgd.theory(constants, federation, participation)
        joint = joint_omega(self.dcgd.compressor, federation, participation)
        rate = 1 / (constants.L + constants.L_max * joint)
        return Theory(Promise.LINEAR, rate, rate * constants.mu)
