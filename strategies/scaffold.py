"""SCAFFOLD: local steps that do not drift, as a shift that corrects them.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: stochastic controlled averaging for federated learning", ICML
2020, https://arxiv.org/abs/1910.06378 (option II); with compressed differences as in DIANA,
https://arxiv.org/abs/1901.09269, or EF21, https://arxiv.org/abs/2106.05203.

    client i in S:  z = x ;  H times  z <- z - lr (grad f_i(z) - h_i + h)
                    D_i = (x - z) / (lr H) - (h - h_i)                       the mean of grad f_i on the way
                    m_i = C(D_i - h_i) ;  h_i <- h_i + a m_i                 send m_i
    client i not in S:  h_i stays
    server:         C unbiased:     G = h + sum_{i in S} (p_i / pi) m_i ;  h <- h + a sum_{i in S} p_i m_i
                    C contractive:  h <- h + sum_{i in S} p_i m_i ;  G = h   a = 1, h = sum p_i h_i over ALL n clients
                    x <- x - eta G                                           send x and h

h_i control of client i (the paper's c_i, in gradient units), known to it and, bit for bit, to the server; h that of the
server (c), a part of the replica, so that every node corrects by the same one; both start at 0 and learn the gradients
at x*, where nothing is left that could drift: with full gradients x reaches x*, at any number of local steps and any
cohort; S cohort, pi = |S|/n; p_i weights; a = 1/(1 + omega): 1 without compressor, which is the paper's method;
lr and H rate and number of the local steps, plain SGD; eta rate on a gradient: lr H unless it is given, the paper's
global step of 1. The downlink carries two vectors, both through the channel.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Downlink, Federation, Method, Oracle, Packet, Round
from strategies.channels import MODEL, Channel, Dense
from strategies.diana import DIANA, DIANAServer
from strategies.ef21 import EF21
from strategies.optimiser import SGD, Optimiser
from strategies.theory import Constants, Theory
from thinwire.layout import Layout

SHIFT = "shift"
"""The name of the downlink's payload that carries h, beside ``model``."""


@dataclass(frozen=True)
class ScaffoldReplica:
    """What all nodes agree on: the model, and the control that they correct by."""

    x: Tensor
    h: Tensor


@dataclass(frozen=True)
class ScaffoldServer:
    """The server's own model, the estimator's sum of all controls, the optimiser's memory."""

    x: Tensor
    estimator: Any
    optimiser: Any


@dataclass(frozen=True)
class Scaffold(Method):
    """Local training whose steps are corrected by shifts. Any compressor that is unbiased or contractive."""

    name: ClassVar[str] = "scaffold"
    plain_local_steps: ClassVar[bool] = True
    compressor: Compressor = field(default_factory=Identity)
    channel: Channel = field(default_factory=Dense)
    optimiser: Optimiser = field(default_factory=SGD)

    @cached_property
    def estimator(self) -> DIANA | EF21:
        """The shift rule: DIANA's where C is unbiased, EF21's where it is contractive."""
        unbiased = self.compressor.omega(Layout.flat(1)) is not None
        return DIANA(self.compressor) if unbiased else EF21(self.compressor)

    def begin(self, x0: Tensor, federation: Federation) -> tuple[ScaffoldReplica, ScaffoldServer]:
        """Everyone starts at x0, with controls of 0."""
        estimated, memory = self.estimator.begin(x0, federation), self.optimiser.begin(federation.layout)
        return ScaffoldReplica(x0, torch.zeros_like(x0)), ScaffoldServer(x0, estimated, memory)

    def join(self, replica: ScaffoldReplica, mirror: Tensor | None = None) -> Any:
        """h_i as the server knows it, or 0."""
        return self.estimator.join(replica.x, mirror)

    def respond(self, replica: ScaffoldReplica, private: Any, oracle: Oracle, round: Round) -> tuple[Any, Packet]:
        """Train with corrected steps and send C(D_i - h_i)."""
        correction = replica.h - self.estimator.mirror(private)
        local = oracle.local(replica.x, round.key("batch"), correction)
        direction = local.update / (local.rate * local.steps) - correction.to(local.update)
        return self.estimator.respond(direction, private, round)

    def step(
        self,
        replica: ScaffoldReplica,
        server: ScaffoldServer,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[ScaffoldServer, Downlink]:
        """Aggregate, step, send x and h."""
        estimated, direction = self.estimator.aggregate(server.estimator, uplinks, round)
        x, memory = self.optimiser.step(server.x, direction, server.optimiser, round.federation.layout)
        h = (estimated.h if isinstance(estimated, DIANAServer) else estimated.g).to(replica.h)
        sent = {**self.channel.send(x, replica.x, round), **self.channel.send(h, replica.h, round, SHIFT)}
        return ScaffoldServer(x, estimated, memory), Downlink(sent)

    def apply(self, replica: ScaffoldReplica, downlink: Packet, round: Round) -> ScaffoldReplica:
        """The channel's part, twice."""
        x = self.channel.apply(replica.x, downlink, round)
        return ScaffoldReplica(x, self.channel.apply(replica.h, downlink, round, SHIFT))

    def model(self, replica: ScaffoldReplica, server: ScaffoldServer | None = None) -> Tensor:
        """x on the server, what the channel made of it on a client."""
        return replica.x if server is None else server.x

    @property
    def mirrored(self) -> bool:
        """The server knows every h_i."""
        return True

    def mirror(self, private: Any) -> Tensor:
        """h_i."""
        return self.estimator.mirror(private)

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """h_i + a m_i."""
        return self.estimator.advance(mirror, uplink, round)

    def rebuild(self, server: ScaffoldServer, mirrors: Iterable[Tensor], federation: Federation) -> ScaffoldServer:
        """h = sum p_i h_i."""
        return replace(server, estimator=self.estimator.rebuild(server.estimator, mirrors, federation))

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, m_i."""
        return self.estimator.uplink

    @property
    def downlink(self) -> Mapping[str, Compressor]:
        """x and h."""
        return {MODEL: self.channel.operator, SHIFT: self.channel.operator}

    @property
    def memoryless_downlink(self) -> bool:
        """As the channel is."""
        return self.channel.memoryless

    def check(self, federation: Federation, participation: float) -> None:
        """What the shift rule, the channel or the optimiser refuses."""
        self.estimator.check(federation, participation)
        self.channel.check(federation.layout)
        self.optimiser.check(federation.layout)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """The shift rule's step on full gradients: verified with local steps that together are no longer (lr H <= eta).

        The paper's steps have the same order; its constants are 81 times smaller.
        """
        theory = self.estimator.theory(constants, federation, participation)
        return replace(self.channel.narrow(theory, constants, federation), proven=False)

    def at(self, rate: float) -> "Scaffold":
        """With plain SGD of that rate on the server, and the prox that was there."""
        prox = self.optimiser.prox if isinstance(self.optimiser, SGD) else None
        return replace(self, optimiser=SGD(rate, prox))
