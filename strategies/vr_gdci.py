"""VR-GDCI: compressed iterates, with shifts that learn them.

Shulgin, Richtarik, "Shifted compression framework: generalizations and improvements", UAI 2022,
https://arxiv.org/abs/2206.10452.

    client i in S:  T_i = x - gamma D_i ;  m_i = Q(T_i - h_i) ;  h_i <- h_i + a m_i      send m_i
    client i not in S:  h_i stays
    server:         T = h + sum_{i in S} (p_i / pi) m_i ;  x <- (1 - eta) x + eta T
                    h <- h + a sum_{i in S} p_i m_i                          h = sum p_i h_i over ALL n clients

T_i the model after client i's own step, and all else as in gdci; h_i shift of client i, known to it and, bit for bit,
to the server; starts at 0 and learns x* - gamma grad f_i(x*), so that the error of Q vanishes; a = 1/(1+omega); the
rate in practice up to ten times that of theory. The shifts obey DIANA's rule, with T_i in the place of the direction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Downlink, Federation, Method, Oracle, Packet, Round
from strategies.channels import Channel, Dense
from strategies.descent import Work, direction_at, narrowed
from strategies.diana import DIANA, DIANAClient, DIANAServer, check_shift_rate
from strategies.gdci import check_rates, iterate_theory
from strategies.optimiser import SGD
from strategies.theory import Constants, Theory
from strategies.unbiased import check_unbiased, joint_omega


@dataclass(frozen=True)
class VRGDCIServer:
    """The server's own x, and the sum of the shifts."""

    x: Tensor
    shifts: DIANAServer


@dataclass(frozen=True)
class VRGDCI(Method):
    """Compress what a client's step makes of the model, less a shift. The compressor must be unbiased."""

    name: ClassVar[str] = "vr-gdci"
    compressor: Compressor = field(default_factory=Identity)
    eta: float = 0.01  # share of the clients' models in the next one, in (0, 1]
    rate: float = 1.0  # eta gamma, the step of the gradient descent that it is without compression
    shift_rate: float = 0.0  # a in (0, 1]; 0: 1/(1+omega)
    channel: Channel = field(default_factory=Dense)
    work: Work = "steps"

    def __post_init__(self) -> None:
        check_rates(self.eta, self.rate)
        check_shift_rate(self.shift_rate)

    @cached_property
    def diana(self) -> DIANA:
        """Makes T of the T_i."""
        return DIANA(self.compressor, self.shift_rate)

    def begin(self, x0: Tensor, federation: Federation) -> tuple[Tensor, VRGDCIServer]:
        """Everyone starts at x0, with shifts of 0."""
        return x0, VRGDCIServer(x0, self.diana.begin(x0, federation))

    def join(self, replica: Tensor, mirror: Tensor | None = None) -> DIANAClient:
        """h_i as the server knows it, or 0."""
        return self.diana.join(replica, mirror)

    def respond(
        self, replica: Tensor, private: DIANAClient, oracle: Oracle, round: Round
    ) -> tuple[DIANAClient, Packet]:
        """Send Q(T_i - h_i)."""
        iterate = replica - self.rate / self.eta * direction_at(self.work, oracle, replica, round)
        return self.diana.respond(iterate, private, round)

    def step(
        self, replica: Tensor, server: VRGDCIServer, uplinks: Iterable[tuple[int, Packet]], round: Round
    ) -> tuple[VRGDCIServer, Downlink]:
        """Mix T into x."""
        shifts, iterate = self.diana.aggregate(server.shifts, uplinks, round)
        x, _ = SGD(self.eta).step(server.x, replica - iterate, None, round.federation.layout)
        return VRGDCIServer(x, shifts), Downlink(self.channel.send(x, replica, round))

    def apply(self, replica: Tensor, downlink: Packet, round: Round) -> Tensor:
        """The channel's part."""
        return self.channel.apply(replica, downlink, round)

    def model(self, replica: Tensor, server: VRGDCIServer | None = None) -> Tensor:
        """x on the server, what the channel made of it on a client."""
        return replica if server is None else server.x

    @property
    def mirrored(self) -> bool:
        """The server knows every h_i."""
        return True

    def mirror(self, private: DIANAClient) -> Tensor:
        """h_i."""
        return private.h

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """h_i + a m_i."""
        return self.diana.advance(mirror, uplink, round)

    def rebuild(self, server: VRGDCIServer, mirrors: Iterable[Tensor], federation: Federation) -> VRGDCIServer:
        """h = sum p_i h_i."""
        return replace(server, shifts=self.diana.rebuild(server.shifts, mirrors, federation))

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, the compressed difference."""
        return self.diana.uplink

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
        learning = self.diana.learning(federation) * participation
        theory = iterate_theory(self.eta, 6 * joint_omega(self.compressor, federation, participation), constants)
        theory = replace(theory, contraction=min(theory.contraction, learning / 2))
        return narrowed(self.channel.narrow(theory, constants, federation), self.work)

    def at(self, rate: float) -> "VRGDCI":
        """With the same eta and another gamma."""
        return replace(self, rate=rate)
