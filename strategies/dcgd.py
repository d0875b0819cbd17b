"""DCGD: compressed gradients around a fixed shift.

Khirirat, Feyzmahdavian, Johansson, "Distributed learning with compressed gradients", 2018,
https://arxiv.org/abs/1806.06573; with shifts: Shulgin, Richtarik, "Shifted compression framework: generalizations and
improvements", UAI 2022, https://arxiv.org/abs/2206.10452.

    client i in S:  m_i = Q(D_i - h_i)                      send m_i
    server:         G = sum p_i h_i + sum_{i in S} (p_i / pi) m_i ;  x <- x - gamma G

h_i shift of client i: fixed, known to all, 0 unless given; D_i gradient of f_i at x, or another direction of descent;
Q in U(omega), an unbiased compressor; S cohort, pi = |S|/n; p_i weights; gamma rate, in practice that of the
uncompressed method divided by 1 + omega/n. It ends in a neighbourhood of size proportional to gamma omega/n, unless
h_i = grad f_i(x*): that is dcgd-star. Methods that learn their shifts: diana, rand-diana.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Federation, Packet, Round
from strategies.estimator import UPDATE, Estimator, gather, weighted_sum
from strategies.theory import Constants, Promise, Theory
from strategies.unbiased import check_unbiased, joint_omega
from thinwire.errors import ConfigError


@dataclass(frozen=True)
class DCGD(Estimator):
    """Send the compressed difference to a fixed shift; clients keep no state. The compressor must be unbiased."""

    name: ClassVar[str] = "dcgd"
    compressor: Compressor = field(default_factory=Identity)
    shifts: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)  # h_i by roster index; empty: all zero

    def begin(self, x0: Tensor, federation: Federation) -> None:
        """The server keeps nothing: shifts are options."""

    def join(self, x: Tensor, mirror: Tensor | None = None) -> None:
        """Clients keep nothing."""

    def respond(self, direction: Tensor, private: None, round: Round) -> tuple[None, Packet]:
        """Send Q(D_i - h_i)."""
        difference = direction - self.shifts[round.client].to(direction) if self.shifts else direction
        return None, {UPDATE: round.encode(UPDATE, self.compressor, difference).payload}

    def aggregate(
        self,
        server: None,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[None, Tensor]:
        """G, whose error is that of the compressor and of the sample."""
        difference = gather(uplinks, self.compressor, round).sampled()
        return None, weighted_sum(self.shifts, round.federation) + difference if self.shifts else difference

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, the compressed difference."""
        return {UPDATE: self.compressor}

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a biased compressor, and shifts of another federation."""
        check_unbiased(self.compressor, federation.layout, self.name)
        sizes = {shift.numel() for shift in self.shifts}
        if self.shifts and (len(self.shifts) != federation.clients or sizes != {federation.layout.numel}):
            raise ConfigError(
                f"{len(self.shifts)} shifts of {sorted(sizes)} entries; this run needs one for each of its "
                f"{federation.clients} clients, of {federation.layout.numel} entries"
            )

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``1/(L + 2 L_max omega/n)``; nobody knows the floor of given shifts."""
        theory = descent_theory(joint_omega(self.compressor, federation, participation), constants)
        return replace(theory, floor=None) if self.shifts else theory


def descent_theory(joint: float, constants: Constants) -> Theory:
    """Of ``x <- x - gamma G`` with an unbiased G whose error is ``joint`` times the mean of |grad f_i(x)|^2.

    The floor is ``2 gamma/mu joint`` times that mean at x*, which is 0 in ``constants`` where nobody knows it.
    """
    rate = 1 / (constants.L + 2 * constants.L_max * joint)
    if joint == 0:
        return Theory(Promise.LINEAR, rate, rate * constants.mu)
    known = constants.mu and constants.heterogeneity
    floor = 2 * rate / constants.mu * joint * constants.heterogeneity if known else None
    return Theory(Promise.NEIGHBOURHOOD, rate, rate * constants.mu, floor)
