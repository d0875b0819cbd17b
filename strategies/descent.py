"""Descent: an uplink estimator, a server optimiser and a downlink channel make a method."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from torch import Tensor

from compressors import Compressor
from strategies.base import Downlink, Federation, Method, Oracle, Packet, Round
from strategies.channels import Channel, Dense
from strategies.estimator import Estimator
from strategies.optimisers import SGD, Optimiser
from strategies.theory import Constants, Promise, Theory

Work = Literal["steps", "minibatch", "full"]
"""What a client computes: local training, the gradient of one minibatch, or of all its examples."""


def direction_at(work: Work, oracle: Oracle, x: Tensor, round: Round) -> Tensor:
    """A client's direction of descent at x; in one round on the same minibatches, whatever the point."""
    key = round.key("batch")
    if work == "steps":
        return oracle.local(x, key).update
    return oracle.sample(x, key) if work == "minibatch" else oracle.full(x)


def narrowed(theory: Theory, work: Work) -> Theory:
    """What is left of a theory for full gradients: minibatches and local steps leave a neighbourhood."""
    if work == "full" or theory.promise is Promise.NOTHING:
        return theory
    return replace(theory, promise=Promise.NEIGHBOURHOOD, floor=None, proven=False)


@dataclass(frozen=True)
class DescentServer:
    """The server's own state; the replica is what the clients know of x."""

    x: Tensor
    estimator: Any
    optimiser: Any


@dataclass(frozen=True)
class Descent(Method):
    """``x <- optimiser(x, G)``: clients work at the replica w of x, the estimator makes G, the channel sends x."""

    name: ClassVar[str] = "descent"
    estimator: Estimator
    optimiser: Optimiser = field(default_factory=SGD)
    channel: Channel = field(default_factory=Dense)
    work: Work = "steps"

    def begin(self, x0: Tensor, federation: Federation) -> tuple[Tensor, DescentServer]:
        """Everyone starts at x0."""
        memory = self.optimiser.begin(federation.layout)
        return x0, DescentServer(x0, self.estimator.begin(x0, federation), memory)

    def join(self, replica: Tensor, mirror: Tensor | None = None) -> Any:
        """The private state is the estimator's."""
        return self.estimator.join(replica, mirror)

    def respond(self, replica: Tensor, private: Any, oracle: Oracle, round: Round) -> tuple[Any, Packet]:
        """Work at the replica and send what the estimator makes of the direction."""
        return self.estimator.respond(direction_at(self.work, oracle, replica, round), private, round)

    def step(
        self,
        replica: Tensor,
        server: DescentServer,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[DescentServer, Downlink]:
        """Aggregate, step, send."""
        estimated, direction = self.estimator.aggregate(server.estimator, uplinks, round)
        x, memory = self.optimiser.step(server.x, direction, server.optimiser, round.federation.layout)
        return DescentServer(x, estimated, memory), Downlink(self.channel.send(x, replica, round))

    def apply(self, replica: Tensor, downlink: Packet, round: Round) -> Tensor:
        """The channel's part."""
        return self.channel.apply(replica, downlink, round)

    def model(self, replica: Tensor, server: DescentServer | None = None) -> Tensor:
        """x on the server, w on a client."""
        return replica if server is None else server.x

    def mirror(self, private: Any) -> Tensor | None:
        """The estimator's."""
        return self.estimator.mirror(private)

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """The estimator's."""
        return self.estimator.advance(mirror, uplink, round)

    def rebuild(self, server: DescentServer, mirrors: Iterable[Tensor], federation: Federation) -> DescentServer:
        """The estimator's part summed anew."""
        return replace(server, estimator=self.estimator.rebuild(server.estimator, mirrors, federation))

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """The estimator's payloads."""
        return self.estimator.uplink

    @property
    def optional(self) -> frozenset[str]:
        """The estimator's optional payloads."""
        return self.estimator.optional

    @property
    def exclusive(self) -> frozenset[str]:
        """The estimator's exclusive payloads."""
        return self.estimator.exclusive

    @property
    def downlink(self) -> Mapping[str, Compressor]:
        """The channel's payload."""
        return self.channel.downlink

    @property
    def memoryless_downlink(self) -> bool:
        """As the channel is."""
        return self.channel.memoryless

    @property
    def mirrored(self) -> bool:
        """As the estimator is."""
        return self.estimator.mirrored

    @property
    def sends_directions(self) -> bool:
        """As the estimator does."""
        return self.estimator.sends_directions

    def direction(self, uplink: Packet, round: Round) -> Tensor | None:
        """The estimator's."""
        return self.estimator.direction(uplink, round)

    def check(self, federation: Federation, participation: float) -> None:
        """What any of the three parts refuses."""
        self.estimator.check(federation, participation)
        self.channel.check(federation.layout)
        self.optimiser.check(federation.layout)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """The estimator's, narrowed by the channel; minibatches and local steps leave a neighbourhood."""
        theory = self.channel.narrow(self.estimator.theory(constants, federation, participation), constants, federation)
        return narrowed(theory, self.work)

    def at(self, rate: float) -> "Descent":
        """With plain SGD of that rate on the server, and the prox that was there."""
        prox = self.optimiser.prox if isinstance(self.optimiser, SGD) else None
        return replace(self, optimiser=SGD(rate, prox))
