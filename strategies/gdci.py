"""GDCI: gradient descent with compressed iterates.

Chraibi, Khaled, Kovalev, Richtarik, Salim, Takac, "Distributed fixed point methods with compressed iterates", 2019,
https://arxiv.org/abs/1912.09925; Shulgin, Richtarik, "Shifted compression framework: generalizations and
improvements", UAI 2022, https://arxiv.org/abs/2206.10452.

    client i in S:  T_i = x - gamma D_i ;  m_i = Q(T_i)                      send m_i
    server:         x <- x + eta sum_{i in S} (p_i / pi) (m_i - x)           all n: x <- (1 - eta) x + eta sum p_i m_i

T_i the model after client i's own step; D_i gradient of f_i at x, or another direction of descent: after local training
D_i = x - x_i^H, and with gamma = 1 the client sends its own model x_i^H; Q in U(omega), an unbiased compressor; S
cohort, pi = |S|/n; p_i weights; eta share of the clients' models in the next one; rate = eta gamma: uncompressed, it is
gradient descent with this rate, whatever eta. By theory gamma = 1/mu, that is eta = mu rate; the smaller eta, the less
of x itself goes through Q. It ends in a neighbourhood of size proportional to
eta omega/n mean |x* - gamma grad f_i(x*)|^2; vr-gdci does not.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Downlink, Federation, Method, Oracle, Packet, Round
from strategies.channels import Channel, Dense
from strategies.descent import Work, direction_at, narrowed
from strategies.estimator import gather
from strategies.optimiser import SGD
from strategies.theory import Constants, Promise, Theory
from strategies.unbiased import check_unbiased, joint_omega, sampling_omega
from thinwire.errors import ConfigError

ITERATE = "iterate"
"""The name of the payload that carries a client's compressed model."""


@dataclass(frozen=True)
class GDCI(Method):
    """Compress what a client's step makes of the model, and mix it into the model. The compressor must be unbiased."""

    name: ClassVar[str] = "gdci"
    compressor: Compressor = field(default_factory=Identity)
    eta: float = 0.01  # share of the clients' models in the next one, in (0, 1]
    rate: float = 1.0  # eta gamma, the step of the gradient descent that it is without compression
    channel: Channel = field(default_factory=Dense)
    work: Work = "steps"

    def __post_init__(self) -> None:
        check_rates(self.eta, self.rate)

    def begin(self, x0: Tensor, federation: Federation) -> tuple[Tensor, Tensor]:
        """Everyone starts at x0; the server's state is its x."""
        return x0, x0

    def join(self, replica: Tensor, mirror: Tensor | None = None) -> None:
        """Clients keep nothing."""

    def respond(self, replica: Tensor, private: None, oracle: Oracle, round: Round) -> tuple[None, Packet]:
        """Send Q(T_i)."""
        iterate = replica - self.rate / self.eta * direction_at(self.work, oracle, replica, round)
        return None, {ITERATE: round.encode(ITERATE, self.compressor, iterate).payload}

    def step(
        self, replica: Tensor, server: Tensor, uplinks: Iterable[tuple[int, Packet]], round: Round
    ) -> tuple[Tensor, Downlink]:
        """Mix the clients' models into x."""
        gathered = gather(uplinks, self.compressor, round, ITERATE)
        ahead = gathered.total.sub_(replica, alpha=gathered.weight)  # sum p_i (m_i - x)
        x, _ = SGD(self.eta).step(server, -replace(gathered, total=ahead).sampled(), None, round.federation.layout)
        return x, Downlink(self.channel.send(x, replica, round))

    def apply(self, replica: Tensor, downlink: Packet, round: Round) -> Tensor:
        """The channel's part."""
        return self.channel.apply(replica, downlink, round)

    def model(self, replica: Tensor, server: Tensor | None = None) -> Tensor:
        """x on the server, what the channel made of it on a client."""
        return replica if server is None else server

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, the compressed model."""
        return {ITERATE: self.compressor}

    @property
    def downlink(self) -> Mapping[str, Compressor]:
        """The channel's payload."""
        return self.channel.downlink

    @property
    def memoryless_downlink(self) -> bool:
        """As the channel is."""
        return self.channel.memoryless

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a biased compressor."""
        check_unbiased(self.compressor, federation.layout, self.name)
        self.channel.check(federation.layout)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """The rate for this eta; the paper's two steps at eta = mu rate."""
        sampling = sampling_omega(federation, participation)
        noise = 2 * (joint_omega(self.compressor, federation, participation) - sampling)
        theory = iterate_theory(self.eta, noise, constants, 2 * sampling)
        if noise or sampling:
            theory = replace(theory, promise=Promise.NEIGHBOURHOOD)
        return narrowed(self.channel.narrow(theory, constants, federation), self.work)

    def at(self, rate: float) -> "GDCI":
        """With the same eta and another gamma."""
        return replace(self, rate=rate)


def check_rates(eta: float, rate: float) -> None:
    """Raise ValueError unless eta lies in (0, 1] and the rate is positive."""
    if not 0 < eta <= 1:
        raise ValueError(f"eta = {eta} must lie in (0, 1]")
    if not 0 < rate < math.inf:
        raise ValueError(f"rate = {rate} must be positive and finite")


def best_eta(noise: float, constants: Constants) -> float:
    """The paper's eta, ``1/(L/mu + noise (L_max/mu - 1))``, to which gamma = 1/mu belongs; noise as below."""
    return constants.mu / (constants.L + noise * (constants.L_max - constants.mu))


def iterate_theory(eta: float, noise: float, constants: Constants, sampling: float = 0.0) -> Theory:
    """Of compressed iterates for any eta (derived here); ``noise`` is 2 omega/n, or 6 omega/n with shifts.

    ``|x - x*|^2`` falls by 1 - rho, ``rho = mu (1 + noise eta) rate - noise eta^2``, at the rate
    ``(1 + noise eta)/(L + (noise + sampling) L_max)``. Raises ConfigError where rho is not positive.
    """
    rate = (1 + noise * eta) / (constants.L + (noise + sampling) * constants.L_max)
    rho = constants.mu * (1 + noise * eta) * rate - noise * eta**2
    if noise and not constants.mu:
        raise ConfigError("compressed iterates have a theory for strongly convex problems only, and mu = 0 here")
    if noise and rho <= 0:
        raise ConfigError(
            f"compressed iterates have no theory for eta = {eta:g} on this problem; {best_eta(noise, constants):.3g} "
            "is the best"
        )
    return Theory(Promise.LINEAR, rate, rho)
