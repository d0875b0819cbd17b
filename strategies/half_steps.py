"""Extragradient without an anchor: look ahead, step from where you were; two rounds an iteration.

Korpelevich, "The extragradient method for finding saddle points and other problems", 1976. With minibatches both points
see the same one: Mishchenko, Kovalev, Shulgin, Richtarik, Malitsky, "Revisiting stochastic extragradient", AISTATS
2020, https://arxiv.org/abs/1905.11373.

    look:  zh = prox(z - gamma G(z))         G(z) what an estimator makes of the clients' F_m(z)
    step:  z <- prox(z - gamma G(zh))

The frame of the baselines; G goes down uncompressed.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from torch import Tensor

from compressors import Compressor
from compressors.identity import Identity
from strategies.base import Downlink, Federation, Method, Oracle, Packet, Round
from strategies.descent import Work
from strategies.estimator import UPDATE, Estimator
from strategies.operators import operator_at
from strategies.prox import Prox, rounded
from thinwire.random import SHARED

LOOK, STEP = "look", "step"


@dataclass(frozen=True)
class HalfStepsReplica:
    """What all nodes agree on."""

    z: Tensor
    point: Tensor  # where clients work: z in phase look, zh in phase step
    phase: str  # LOOK or STEP
    version: int  # the round that made z; names the minibatches of both phases


@dataclass(frozen=True)
class Halves:
    """A state of the estimator for each phase: what is owed to a look must not be paid to a step."""

    look: Any
    step: Any

    def of(self, phase: str) -> Any:
        """The state of a phase."""
        return self.look if phase == LOOK else self.step

    def moved(self, phase: str, after: Any) -> "Halves":
        """With the next state of a phase."""
        return replace(self, look=after) if phase == LOOK else replace(self, step=after)


@dataclass(frozen=True)
class HalfSteps(Method):
    """Extragradient on what an estimator makes of compressed operators. Subclasses name the estimator."""

    rate: float = 0.0  # gamma; 0: 0.7/lipschitz
    lipschitz: float = 1.0  # L of F
    prox: Prox | None = None  # a constraint or regulariser: box, ball, simplex, l1, l2
    work: Work = "full"

    def __post_init__(self) -> None:
        if not 0 <= self.rate < math.inf or not 0 < self.lipschitz < math.inf:
            raise ValueError(
                f"rate = {self.rate} must be at least 0, lipschitz = {self.lipschitz} above 0, both finite"
            )

    @property
    @abstractmethod
    def estimator(self) -> Estimator:
        """What makes G of the clients' operators; without mirrored state."""

    @property
    def gamma(self) -> float:
        """The step."""
        return self.rate or 0.7 / self.lipschitz

    def begin(self, x0: Tensor, federation: Federation) -> tuple[HalfStepsReplica, Halves]:
        """Everyone looks from z0."""
        if self.prox is not None:
            self.prox.check(federation.layout)
        server = Halves(self.estimator.begin(x0, federation), self.estimator.begin(x0, federation))
        return HalfStepsReplica(x0, x0, LOOK, 0), server

    def join(self, replica: HalfStepsReplica, mirror: Tensor | None = None) -> Halves:
        """The estimator's private state, twice."""
        return Halves(self.estimator.join(replica.z), self.estimator.join(replica.z))

    def respond(
        self, replica: HalfStepsReplica, private: Halves, oracle: Oracle, round: Round
    ) -> tuple[Halves, Packet]:
        """Send what the estimator makes of the operator at the point."""
        key = round.key("batch").at(round=replica.version)
        operator = operator_at(self.work, oracle, replica.point, key)
        after, uplink = self.estimator.respond(operator, private.of(replica.phase), round)
        return private.moved(replica.phase, after), uplink

    def step(
        self, replica: HalfStepsReplica, server: Halves, uplinks: Iterable[tuple[int, Packet]], round: Round
    ) -> tuple[Halves, Downlink]:
        """Send G; nothing where nobody answered."""
        answers = iter(uplinks)
        first = next(answers, None)
        if first is None:
            return server, Downlink({})
        after, total = self.estimator.aggregate(server.of(replica.phase), chain((first,), answers), round)
        encoded = round.encode(UPDATE, Identity(), total.to(round.federation.dtype), direction="down")
        return server.moved(replica.phase, after), Downlink({UPDATE: encoded.payload})

    def apply(self, replica: HalfStepsReplica, downlink: Packet, round: Round) -> HalfStepsReplica:
        """zh from a look, z from a step."""
        if not downlink:
            return replica
        key = round.key(UPDATE, "down", SHARED)
        direction = round.decode(downlink, UPDATE, Identity(), key, replica.z.device)
        moved = replica.z - direction * rounded(self.gamma, direction)
        moved = moved if self.prox is None else self.prox(moved, self.gamma, round.federation.layout)
        if replica.phase == LOOK:
            return replace(replica, point=moved, phase=STEP)
        return HalfStepsReplica(moved, moved, LOOK, round.number)

    def model(self, replica: HalfStepsReplica, server: Halves | None = None) -> Tensor:
        """z."""
        return replica.z

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """The estimator's payloads."""
        return self.estimator.uplink

    @property
    def downlink(self) -> Mapping[str, Compressor]:
        """G, dense."""
        return {UPDATE: Identity()}

    def check(self, federation: Federation, participation: float) -> None:
        """What the estimator refuses."""
        self.estimator.check(federation, participation)

    def at(self, rate: float) -> "HalfSteps":
        """With that gamma."""
        return replace(self, rate=rate)
