"""DIANA: compressed differences to shifts that learn the gradients.

Mishchenko, Gorbunov, Takac, Richtarik, "Distributed learning with compressed gradient differences", 2019,
https://arxiv.org/abs/1901.09269; any unbiased compressor: Horvath, Kovalev, Mishchenko, Richtarik, Stich, "Stochastic
distributed learning with gradient quantization and double variance reduction", 2019, https://arxiv.org/abs/1904.05115.

    client i in S:  m_i = Q(D_i - h_i) ;  h_i <- h_i + a m_i                 send m_i
    client i not in S:  h_i stays
    server:         G = h + sum_{i in S} (p_i / pi) m_i ;  x <- x - gamma G
                    h <- h + a sum_{i in S} p_i m_i                          h = sum p_i h_i over ALL n clients

With an inner compressor C, generalised DIANA of Shulgin, Richtarik, "Shifted compression framework: generalizations and
improvements", UAI 2022, https://arxiv.org/abs/2206.10452: C(D_i - h_i) moves the shift before Q, so that
m_i = c_i + Q(D_i - h_i - c_i) with c_i = C(D_i - h_i), and omega (1 - alpha) stands for omega. It sends both.

h_i shift of client i, known to it and, bit for bit, to the server; starts at 0 and learns grad f_i(x*), so that the
error of Q vanishes; G takes the old h; D_i gradient of f_i at x, or another direction of descent; Q in U(omega), an
unbiased compressor; S cohort, pi = |S|/n; p_i weights; a = 1/(1+omega); gamma rate, in practice up to ten times that of
theory, or that of the uncompressed method divided by 1 + omega/n. Sampled clients lead to x* as well (derived here and
verified): an absent one keeps h_i.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Federation, Packet, Round
from strategies.estimator import UPDATE, Estimator, gather, weighted_sum
from strategies.theory import Constants, Promise, Theory
from strategies.unbiased import around, check_inner, check_unbiased, joint_omega, omega_of
from thinwire.errors import ConfigError


@dataclass(frozen=True)
class DIANAClient:
    """The shift that the server knows too, and the compressor's warm start."""

    h: Tensor
    warm: Any = None


@dataclass(frozen=True)
class DIANAServer:
    """The sum of all shifts, derived from the mirrors."""

    h: Tensor  # float64


@dataclass(frozen=True)
class DIANA(Estimator):
    """Send the compressed difference to a shift that learns the gradient. The compressor must be unbiased."""

    name: ClassVar[str] = "diana"
    compressor: Compressor = field(default_factory=Identity)
    shift_rate: float = 0.0  # a in (0, 1]; 0: 1/(1+omega)
    inner: Compressor | None = None  # C, contractive

    def __post_init__(self) -> None:
        check_shift_rate(self.shift_rate)

    @cached_property
    def operator(self) -> Compressor:
        """Q, or C and Q together."""
        return around(self.inner, self.compressor)

    def _rate(self, federation: Federation) -> Tensor:
        """a in the run's dtype: the same number on both ends."""
        rate = self.shift_rate or 1 / (1 + omega_of(self.operator, federation.layout))
        return torch.tensor(rate, dtype=federation.dtype)

    def begin(self, x0: Tensor, federation: Federation) -> DIANAServer:
        """h = 0."""
        return DIANAServer(torch.zeros(federation.layout.numel, dtype=torch.float64))

    def join(self, x: Tensor, mirror: Tensor | None = None) -> DIANAClient:
        """h_i as the server knows it, or 0."""
        return DIANAClient(torch.zeros_like(x) if mirror is None else mirror.to(x, copy=True))

    def respond(self, direction: Tensor, private: DIANAClient, round: Round) -> tuple[DIANAClient, Packet]:
        """Send Q(D_i - h_i) and add a times what the server will decode to h_i."""
        encoded = round.encode(UPDATE, self.operator, direction - private.h, private.warm)
        h = private.h + encoded.decoded * self._rate(round.federation)
        return DIANAClient(h, encoded.warm), {UPDATE: encoded.payload}

    def aggregate(
        self,
        server: DIANAServer,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[DIANAServer, Tensor]:
        """G by the old h, and the next one."""
        gathered = gather(uplinks, self.operator, round)
        direction = server.h + gathered.sampled()
        return DIANAServer(gathered.total.mul_(self._rate(round.federation)).add_(server.h)), direction

    @property
    def mirrored(self) -> bool:
        """The server knows every h_i."""
        return True

    def mirror(self, private: DIANAClient) -> Tensor:
        """h_i."""
        return private.h

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """h_i + a m_i."""
        message = round.decode(uplink, UPDATE, self.operator, round.key(UPDATE, "up"), mirror.device)
        return mirror + message * self._rate(round.federation)

    def rebuild(self, server: DIANAServer, mirrors: Iterable[Tensor], federation: Federation) -> DIANAServer:
        """h = sum p_i h_i."""
        return DIANAServer(weighted_sum(mirrors, federation))

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, the compressed difference."""
        return {UPDATE: self.operator}

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a biased compressor, and an inner one that contracts nothing."""
        check_unbiased(self.compressor, federation.layout, self.name)
        check_inner(self.inner, federation.layout, self.name)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``1/((1 + 6 omega/n) L_max)``; of a cohort of s with (1+omega) n/s - 1 in the place of omega."""
        joint = joint_omega(self.operator, federation, participation)
        return learning_theory(joint, self.learning(federation) * participation, constants)

    def learning(self, federation: Federation) -> float:
        """The a of theory, at most 1/(1+omega). Raises ConfigError above."""
        most = 1 / (1 + omega_of(self.operator, federation.layout))
        if self.shift_rate > most:
            raise ConfigError(f"shifts have no theory for shift_rate = {self.shift_rate:g}; it allows up to {most:g}")
        return self.shift_rate or most


def check_shift_rate(rate: float) -> None:
    """Raise ValueError unless the rate lies in [0, 1]."""
    if not 0 <= rate <= 1:
        raise ValueError(f"shift_rate = {rate} must lie in (0, 1], or be 0 for 1/(1+omega)")


def learning_theory(joint: float, learning: float, constants: Constants) -> Theory:
    """Of ``x <- x - gamma G`` with shifts that approach the gradients by the share ``learning`` a round."""
    rate = 1 / ((1 + 6 * joint) * constants.L_max) if joint else 1 / constants.L  # nothing dropped: plain descent
    return Theory(Promise.LINEAR, rate, min(rate * constants.mu, learning / 2) if joint else rate * constants.mu)
