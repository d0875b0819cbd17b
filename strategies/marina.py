"""MARINA: compressed differences of gradients, and dense gradients now and then.

Gorbunov, Burlachenko, Li, Richtarik, "MARINA: faster non-convex distributed learning with compression", ICML 2021,
https://arxiv.org/abs/2102.07845, with its VR-MARINA and PP-MARINA.

    round 1, and others with probability p, dense:
        all clients:    send D_i(x)                             server: g <- sum p_i D_i(x)
    else:
        client i in S:  m_i = Q(D_i(x) - D_i(x-)) ;  send m_i   server: g <- g + sum_{i in S} (p_i / pi) m_i
    server:             x <- x - gamma g                        x- the x before

D_i(x) gradient of f_i at x, or another direction of descent; the difference is taken on one minibatch, and a dense
round of minibatches takes the full gradient (VR-MARINA); Q in U(omega), an unbiased compressor; S cohort, pi = |S|/n;
p_i weights; p = 1/(1+omega), the coin from the run's key; gamma rate, in practice that of gradient descent or half.
Clients keep no state, but each round costs them two gradients and a replica of two models; a dense round needs everyone
at once: whoever is missing is asked again, and x waits. A reference to compare with.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Asks, Downlink, Federation, Method, Oracle, Packet, Round
from strategies.channels import Channel, Dense
from strategies.descent import Work, direction_at, narrowed
from strategies.estimator import UPDATE, gather
from strategies.optimiser import SGD, Optimiser
from strategies.theory import Constants, Promise, Theory
from strategies.unbiased import check_unbiased, joint_omega, omega_of
from thinwire.errors import WireError
from thinwire.layout import Layout
from thinwire.random import SHARED, coin

DENSE = "dense"
"""The name of the payload that carries a client's whole direction."""


@dataclass(frozen=True)
class MARINAReplica:
    """Where the clients compute, and what for."""

    x: Tensor
    before: Tensor
    dense: bool  # whether the next round is dense


@dataclass(frozen=True)
class MARINAServer:
    """The server's own x, its estimate, and what has arrived of a dense round."""

    x: Tensor
    g: Tensor  # float64
    optimiser: Any
    missing: tuple[int, ...]  # clients whose dense direction is still awaited, ascending; in other rounds none
    total: Tensor | None = None  # weighted sum of the dense directions that have arrived, float64


@dataclass(frozen=True)
class MARINA(Method):
    """Send compressed differences of gradients, and dense gradients now and then. The compressor must be unbiased."""

    name: ClassVar[str] = "marina"
    compressor: Compressor = field(default_factory=Identity)
    probability: float = 0.0  # p in (0, 1] of a dense round; 0: 1/(1+omega)
    optimiser: Optimiser = field(default_factory=SGD)
    channel: Channel = field(default_factory=Dense)
    work: Work = "steps"

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability = {self.probability} must lie in (0, 1], or be 0 for 1/(1+omega)")

    def _probability(self, layout: Layout) -> float:
        return self.probability or 1 / (1 + omega_of(self.compressor, layout))

    def begin(self, x0: Tensor, federation: Federation) -> tuple[MARINAReplica, MARINAServer]:
        """Everyone starts at x0; the first round is dense."""
        g = torch.zeros(federation.layout.numel, dtype=torch.float64)
        memory, everyone = self.optimiser.begin(federation.layout), tuple(range(federation.clients))
        return MARINAReplica(x0, x0, True), MARINAServer(x0, g, memory, everyone)

    def join(self, replica: MARINAReplica, mirror: Tensor | None = None) -> None:
        """Clients keep nothing."""

    def asks(self, replica: MARINAReplica, server: MARINAServer, round: int) -> Asks | tuple[int, ...]:
        """A cohort; in a dense round everyone who has not answered it."""
        return server.missing or Asks.SAMPLE

    @property
    def needs_everyone(self) -> bool:
        """A dense round does."""
        return True

    def leave(self, server: MARINAServer, federation: Federation) -> MARINAServer:
        """A dense round under way begins anew; else g has a part of whoever left until the next one."""
        return replace(server, missing=federation.members, total=None) if server.missing else server

    def respond(self, replica: MARINAReplica, private: None, oracle: Oracle, round: Round) -> tuple[None, Packet]:
        """Send D_i(x), or Q(D_i(x) - D_i(x-))."""
        if replica.dense:
            work: Work = "full" if self.work == "minibatch" else self.work
            whole = direction_at(work, oracle, replica.x, round)
            return None, {DENSE: round.encode(DENSE, Identity(), whole).payload}
        before = direction_at(self.work, oracle, replica.before, round)
        difference = direction_at(self.work, oracle, replica.x, round) - before
        return None, {UPDATE: round.encode(UPDATE, self.compressor, difference).payload}

    def step(
        self, replica: MARINAReplica, server: MARINAServer, uplinks: Iterable[tuple[int, Packet]], round: Round
    ) -> tuple[MARINAServer, Downlink]:
        """Renew g and step; while a dense round lacks anyone, or nobody answered, nothing moves."""
        if replica.dense:
            server = self._collect(server, uplinks, round)
            if server.missing or server.total is None:
                return server, Downlink({})
            g = server.total
        else:
            gathered = gather(_with(UPDATE, uplinks), self.compressor, round)
            if not gathered.replies:
                return server, Downlink({})
            g = gathered.sampled().add_(server.g)
        x, memory = self.optimiser.step(server.x, g, server.optimiser, round.federation.layout)
        everyone = round.federation.members if self._toss(round) else ()
        return MARINAServer(x, g, memory, everyone), Downlink(self.channel.send(x, replica.x, round))

    def _collect(self, server: MARINAServer, uplinks: Iterable[tuple[int, Packet]], round: Round) -> MARINAServer:
        """Add the dense directions that have arrived to those that had."""
        awaited, arrived = set(server.missing), []

        def first() -> Iterator[tuple[int, Packet]]:
            for client, packet in _with(DENSE, uplinks):
                if client in awaited:
                    arrived.append(client)
                    yield client, packet

        total = gather(first(), Identity(), round, DENSE).total
        missing = tuple(sorted(awaited.difference(arrived)))
        return replace(server, missing=missing, total=total if server.total is None else total.add_(server.total))

    def _toss(self, round: Round) -> bool:
        """Whether the round after this one is dense; the same answer on every node."""
        return coin(round.key(DENSE, client=SHARED), self._probability(round.federation.layout))

    def apply(self, replica: MARINAReplica, downlink: Packet, round: Round) -> MARINAReplica:
        """The channel's part; x- is the x before. An empty downlink leaves the question open."""
        if not downlink:
            return replica
        return MARINAReplica(self.channel.apply(replica.x, downlink, round), replica.x, self._toss(round))

    def model(self, replica: MARINAReplica, server: MARINAServer | None = None) -> Tensor:
        """x on the server, what the channel made of it on a client."""
        return replica.x if server is None else server.x

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """The compressed difference, or the whole direction."""
        return {UPDATE: self.compressor, DENSE: Identity()}

    @property
    def optional(self) -> frozenset[str]:
        """An uplink has one of the two."""
        return frozenset(self.uplink)

    def validate(self, uplink: Packet, round: Round) -> None:
        """Refuse an uplink that has not one payload. Which of the two it must be is for ``step`` to know."""
        if len(uplink) != 1:
            raise WireError(f"{len(uplink)} payloads in an uplink; {self.name} sends one of {', '.join(self.uplink)}")
        super().validate(uplink, round)

    @property
    def downlink(self) -> Mapping[str, Compressor]:
        """The channel's payload."""
        return self.channel.downlink

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a biased compressor."""
        check_unbiased(self.compressor, federation.layout, self.name)
        self.channel.check(federation.layout)
        self.optimiser.check(federation.layout)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``1/(L + L_mean sqrt((1-p) omega/(p n)))``; twice the root's content where f is strongly convex."""
        p, mu = self._probability(federation.layout), constants.mu
        joint = joint_omega(self.compressor, federation, participation)
        rate = 1 / (constants.L + constants.L_mean * math.sqrt((2 if mu else 1) * (1 - p) / p * joint))
        rate = min(rate, p / (2 * mu)) if mu and p < 1 else rate
        theory = Theory(Promise.LINEAR, rate, rate * mu)
        return narrowed(self.channel.narrow(theory, constants, federation), self.work)

    def at(self, rate: float) -> "MARINA":
        """With plain SGD of that rate on the server, and the prox that was there."""
        prox = self.optimiser.prox if isinstance(self.optimiser, SGD) else None
        return replace(self, optimiser=SGD(rate, prox))


def _with(name: str, uplinks: Iterable[tuple[int, Packet]]) -> Iterator[tuple[int, Packet]]:
    """The uplinks that answer the question of this round."""
    return ((client, packet) for client, packet in uplinks if name in packet)
