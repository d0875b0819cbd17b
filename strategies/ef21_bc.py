"""EF21-BC: EF21 on the clients and on the server.

Fatkhullin, Sokolov, Gorbunov, Li, Richtarik, "EF21 with bells & whistles: practical algorithmic extensions of modern
error feedback", 2021, https://arxiv.org/abs/2110.03294, Algorithm 5.

    client i in S:  c_i = C(D_i - gt_i) ;  gt_i <- gt_i + c_i                send c_i
    client i not in S:  gt_i stays
    server:         gt <- gt + sum_{i in S} p_i c_i                          gt = sum p_i gt_i over ALL n clients
                    b = CM(gt - g)                                           send b
    every node:     g <- g + b ;  x <- x - gamma g

gt_i estimate of D_i (the paper's g tilde), known to client i and, bit for bit, to the server; g estimate of gt that all
nodes share; all start at 0; D_i gradient of f_i at x, or another direction of descent; C and CM contractive
compressors, in B(alpha) and B(alpha_M); S cohort; p_i weights. x never crosses the wire: every node replays it, and
must hear every b. gamma rate, in practice nearly that of the uncompressed method, where the theory's is thousands of
times smaller: 1 for local training, and for gradients the local rate unless it is given.
Of the schemes that compress both ways it was the cheapest on deterministic gradients.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Downlink, Federation, Method, Oracle, Packet, Round
from strategies.contraction import alpha_of, as_contraction, check_contraction, feedback_constants
from strategies.descent import Work, direction_at, narrowed
from strategies.ef21 import EF21, EF21Client
from strategies.theory import Constants, Promise, Theory
from strategies.tracking import TrackingServer
from thinwire.random import SHARED

ESTIMATE = "estimate"
"""The name of the downlink's payload."""


@dataclass(frozen=True)
class EF21BCReplica:
    """What all nodes agree on: the model, and the direction in which it last moved."""

    x: Tensor
    g: Tensor


@dataclass(frozen=True)
class EF21BCServer:
    """gt, derived from the mirrors, and the downlink compressor's warm start."""

    tracked: TrackingServer
    warm: Any = None


@dataclass(frozen=True)
class EF21BC(Method):
    """EF21 up and down; all nodes replay the steps of x. Contractive compressors; unbiased ones are scaled."""

    name: ClassVar[str] = "ef21-bc"
    compressor: Compressor = field(default_factory=Identity)
    downlink_compressor: Compressor = field(default_factory=Identity)
    rate: float = 1.0  # gamma
    work: Work = "steps"

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"rate = {self.rate} must be positive and finite")

    @cached_property
    def estimator(self) -> EF21:
        """The clients' half."""
        return EF21(self.compressor)

    @cached_property
    def contraction(self) -> Compressor:
        """CM in B(alpha_M)."""
        return as_contraction(self.downlink_compressor)

    def begin(self, x0: Tensor, federation: Federation) -> tuple[EF21BCReplica, EF21BCServer]:
        """Everyone starts at x0 with estimates of 0."""
        return EF21BCReplica(x0, torch.zeros_like(x0)), EF21BCServer(self.estimator.begin(x0, federation))

    def join(self, replica: EF21BCReplica, mirror: Tensor | None = None) -> EF21Client:
        """gt_i as the server knows it, or 0."""
        return self.estimator.join(replica.x, mirror)

    def respond(
        self, replica: EF21BCReplica, private: EF21Client, oracle: Oracle, round: Round
    ) -> tuple[EF21Client, Packet]:
        """Send C(D_i - gt_i) and add what the server will decode to gt_i."""
        return self.estimator.respond(direction_at(self.work, oracle, replica.x, round), private, round)

    def step(
        self,
        replica: EF21BCReplica,
        server: EF21BCServer,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[EF21BCServer, Downlink]:
        """Send CM(gt - g)."""
        tracked, gt = self.estimator.aggregate(server.tracked, uplinks, round)
        difference = (gt - replica.g.to(gt)).to(replica.g)
        b = round.encode(ESTIMATE, self.contraction, difference, server.warm, direction="down")
        return EF21BCServer(tracked, b.warm), Downlink({ESTIMATE: b.payload})

    def apply(self, replica: EF21BCReplica, downlink: Packet, round: Round) -> EF21BCReplica:
        """g <- g + b ; x <- x - gamma g."""
        key = round.key(ESTIMATE, "down", SHARED)
        g = replica.g + round.decode(downlink, ESTIMATE, self.contraction, key, replica.g.device)
        return EF21BCReplica(replica.x - g * torch.tensor(self.rate, dtype=g.dtype), g)

    def model(self, replica: EF21BCReplica, server: EF21BCServer | None = None) -> Tensor:
        """x, the same everywhere."""
        return replica.x

    @property
    def mirrored(self) -> bool:
        """The server knows every gt_i."""
        return True

    def mirror(self, private: EF21Client) -> Tensor:
        """gt_i."""
        return self.estimator.mirror(private)

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """gt_i + c_i."""
        return self.estimator.advance(mirror, uplink, round)

    def rebuild(self, server: EF21BCServer, mirrors: Iterable[Tensor], federation: Federation) -> EF21BCServer:
        """gt = sum p_i gt_i."""
        return replace(server, tracked=self.estimator.rebuild(server.tracked, mirrors, federation))

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, c_i."""
        return self.estimator.uplink

    @property
    def downlink(self) -> Mapping[str, Compressor]:
        """One payload, b."""
        return {ESTIMATE: self.contraction}

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse compressors that contract nothing."""
        check_contraction(self.compressor, federation.layout, self.name)
        check_contraction(self.downlink_compressor, federation.layout, f"the downlink of {self.name}")

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """``1/(L + L_mean sqrt(16 beta_M/theta_M + 2 (beta/theta)(1 + 8 beta_M/theta_M)))``: derived here, verified.

        Uncompressed it is gradient descent's 1/L.
        """
        theta, beta = feedback_constants(alpha_of(self.compressor, federation.layout), participation)
        theta_M, beta_M = feedback_constants(alpha_of(self.downlink_compressor, federation.layout))  # noqa: N806
        up, down = beta / theta, beta_M / theta_M
        rate = 1 / (constants.L + constants.L_mean * math.sqrt(16 * down + 2 * up * (1 + 8 * down)))
        if constants.mu:
            rate = min(rate, theta / (2 * constants.mu), theta_M / (2 * constants.mu))
        return narrowed(Theory(Promise.LINEAR, rate, rate * constants.mu, proven=False), self.work)

    def at(self, rate: float) -> "EF21BC":
        """With another gamma."""
        return replace(self, rate=rate)
