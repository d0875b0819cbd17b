"""DoubleSqueeze: error feedback by memory on the clients and on the server.

Tang, Yu, Lian, Zhang, Liu, "DoubleSqueeze: parallel stochastic gradient descent with double-pass error-compensated
compression", ICML 2019, https://arxiv.org/abs/1905.05957, Algorithm 1.

    client i in S:  u = e_i + D_i ;  c_i = C(u) ;  e_i <- u - c_i            send c_i
    server:         s = e + sum_{i in S} (p_i / pi) c_i ;  b = Cs(s) ;  e <- s - b       send b
    every node:     x <- x - gamma b

e_i residual of client i, e of the server, both 0 at first and in units of D_i, so that gamma may change; D_i gradient
of f_i at x, or another direction of descent; C and Cs contractive compressors, in B(alpha) and B(alpha_s); S cohort,
pi = |S|/n; p_i weights. x never crosses the wire: every node replays the same small b. gamma rate, in practice half of
the uncompressed method's: 1 for local training, and for gradients the local rate unless it is given.
With heterogeneous clients and a constant rate it reaches a neighbourhood; a lost uplink does no lasting harm.
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
from strategies.contraction import alpha_of, as_contraction, check_contraction
from strategies.descent import Work, direction_at, narrowed
from strategies.ef14 import EF14, EF14Client, memory_theory
from strategies.theory import Constants, Theory
from thinwire.random import SHARED

STEP = "step"
"""The name of the downlink's payload."""


@dataclass(frozen=True)
class DoubleSqueezeServer:
    """The server's residual, and its compressor's warm start."""

    e: Tensor  # float64
    warm: Any = None


@dataclass(frozen=True)
class DoubleSqueeze(Method):
    """EF14 up and down; all nodes replay the steps of x. Contractive compressors; unbiased ones are scaled."""

    name: ClassVar[str] = "double-squeeze"
    compressor: Compressor = field(default_factory=Identity)
    downlink_compressor: Compressor = field(default_factory=Identity)
    rate: float = 1.0  # gamma
    work: Work = "steps"

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"rate = {self.rate} must be positive and finite")

    @cached_property
    def estimator(self) -> EF14:
        """The clients' half."""
        return EF14(self.compressor)

    @cached_property
    def contraction(self) -> Compressor:
        """Cs in B(alpha_s)."""
        return as_contraction(self.downlink_compressor)

    def begin(self, x0: Tensor, federation: Federation) -> tuple[Tensor, DoubleSqueezeServer]:
        """Everyone starts at x0, without residuals."""
        return x0, DoubleSqueezeServer(torch.zeros(federation.layout.numel, dtype=torch.float64))

    def join(self, replica: Tensor, mirror: Tensor | None = None) -> EF14Client:
        """No residual yet."""
        return self.estimator.join(replica, mirror)

    def respond(self, replica: Tensor, private: EF14Client, oracle: Oracle, round: Round) -> tuple[EF14Client, Packet]:
        """Send C(e_i + D_i) and keep the rest."""
        return self.estimator.respond(direction_at(self.work, oracle, replica, round), private, round)

    def step(
        self,
        replica: Tensor,
        server: DoubleSqueezeServer,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[DoubleSqueezeServer, Downlink]:
        """Send Cs(e + G) and keep the rest."""
        _, direction = self.estimator.aggregate(None, uplinks, round)
        s = server.e + direction
        b = round.encode(STEP, self.contraction, s.to(replica), server.warm, direction="down")
        return DoubleSqueezeServer(s - b.decoded.to(s), b.warm), Downlink({STEP: b.payload})

    def apply(self, replica: Tensor, downlink: Packet, round: Round) -> Tensor:
        """x <- x - gamma b."""
        key = round.key(STEP, "down", SHARED)
        b = round.decode(downlink, STEP, self.contraction, key, replica.device)
        return replica - b * torch.tensor(self.rate, dtype=b.dtype)

    def model(self, replica: Tensor, server: DoubleSqueezeServer | None = None) -> Tensor:
        """x, the same everywhere."""
        return replica

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, c_i."""
        return self.estimator.uplink

    @property
    def downlink(self) -> Mapping[str, Compressor]:
        """One payload, b."""
        return {STEP: self.contraction}

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse compressors that contract nothing."""
        check_contraction(self.compressor, federation.layout, self.name)
        check_contraction(self.downlink_compressor, federation.layout, f"the downlink of {self.name}")

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """EF14's, with the sum of all residuals in the place of the clients': ours, and far from tight.

        Where both compress, ``|e|^2 <= 4 stretch^2 B`` holds with ``stretch^2 = 56/(alpha alpha_s)^2``: the clients'
        residuals are within 4/alpha^2 B, so what they send is within 27/alpha^2 B, and the server's within 4/alpha_s^2
        times that.
        """
        up = alpha_of(self.compressor, federation.layout)
        down = alpha_of(self.downlink_compressor, federation.layout)
        both = 56**0.5 if up < 1 and down < 1 else 1.0
        return narrowed(memory_theory(constants, both / (up * down), participation), self.work)

    def at(self, rate: float) -> "DoubleSqueeze":
        """With another gamma."""
        return replace(self, rate=rate)
