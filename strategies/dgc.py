"""DGC, deep gradient compression: momentum that is kept on the client, behind the sparsifier.

Lin, Han, Mao, Wang, Dally, "Deep gradient compression: reducing the communication bandwidth for distributed training",
ICLR 2018, https://arxiv.org/abs/1712.01887, Algorithm 2.

    client i in S:  D_i <- D_i min(1, clip / (sqrt(n) |D_i|))                gradient clipping, before accumulation
                    u_i <- m u_i + D_i ;  v_i <- v_i + u_i                   momentum correction
                    c_i = C(v_i) ;  M = (c_i != 0)                           send c_i
                    v_i <- v_i - c_i ;  u_i <- 0 where M                     momentum factor masking
    server:         G = sum_{i in S} (p_i / pi) c_i ;  x <- x - eta G

u_i momentum and v_i accumulated velocity of client i, both local and 0 at first: lost, they begin again; D_i gradient
of a minibatch at x, or another direction of descent; m momentum; C keeps a share of the entries (top-k, in all its
scopes), of which the first ``warm_up`` rounds keep more: the share falls from a quarter to its own by equal factors;
S cohort, pi = |S|/n; p_i weights; eta rate, in practice that of SGD with the same momentum, which the server must not
add again. The paper clears v_i where M; here what rounding left of those entries stays, as in any error feedback.
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
from strategies.base import Federation, Packet, Round
from strategies.contraction import alpha_of, as_contraction, check_contraction
from strategies.ef14 import memory_theory
from strategies.estimator import UPDATE, Estimator, gather
from strategies.theory import Constants, Theory

FIRST_SHARE = 0.25  # of the entries, when a warm-up begins


@dataclass(frozen=True)
class DGCClient:
    """Momentum and what it has added up to, in units of D_i."""

    u: Tensor
    v: Tensor
    warm: Any = None  # the compressor's warm start


@dataclass(frozen=True)
class DGC(Estimator):
    """Error feedback of momentum, which is forgotten where it was sent. For sparsifiers; unbiased ones are scaled."""

    name: ClassVar[str] = "dgc"
    compressor: Compressor = field(default_factory=Identity)
    momentum: float = 0.9  # m in [0, 1)
    clip: float = 0.0  # bound of the norm of the sum of n equal gradients; 0: none
    warm_up: int = 0  # rounds in which the share of the entries falls from a quarter to ``uplink.fraction``

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum = {self.momentum} must lie in [0, 1)")
        if not 0 <= self.clip < math.inf or self.warm_up < 0:
            raise ValueError(f"clip = {self.clip} and warm_up = {self.warm_up} must be at least 0")
        if self.warm_up and self._share is None:
            raise ValueError(
                f"warm_up = {self.warm_up} needs a compressor with a fraction (top-k, rand-k), "
                f"not {self.compressor.name!r}"
            )

    @property
    def _share(self) -> float | None:
        """The share of the entries that the compressor keeps, where it has one."""
        share = getattr(self.compressor, "fraction", None)
        return float(share) if share is not None else None

    @cached_property
    def contraction(self) -> Compressor:
        """C in B(alpha), as it is after the warm-up."""
        return as_contraction(self.compressor)

    def in_round(self, number: int) -> Compressor:
        """C of a round: any receiver of the last one decodes it, for a payload says how many entries it has."""
        share = self._share
        if share is None or number > self.warm_up or share >= FIRST_SHARE:
            return self.contraction
        present = FIRST_SHARE * (share / FIRST_SHARE) ** ((number - 1) / self.warm_up)
        return as_contraction(replace(self.compressor, fraction=present))  # type: ignore[call-arg]

    def begin(self, x0: Tensor, federation: Federation) -> None:
        """The server keeps nothing."""

    def join(self, x: Tensor, mirror: Tensor | None = None) -> DGCClient:
        """No momentum yet, and nothing added up."""
        return DGCClient(torch.zeros_like(x), torch.zeros_like(x))

    def respond(self, direction: Tensor, private: DGCClient, round: Round) -> tuple[DGCClient, Packet]:
        """Accumulate, send C(v_i), and forget what was sent."""
        u = self.momentum * private.u + self._clipped(direction, round.federation.clients)
        v = private.v + u
        c = round.encode(UPDATE, self.in_round(round.number), v, private.warm)
        u = u.masked_fill(c.decoded != 0, 0.0)
        return DGCClient(u, v - c.decoded, c.warm), {UPDATE: c.payload}

    def _clipped(self, direction: Tensor, clients: int) -> Tensor:
        """Each of n clients may have a share of 1/sqrt(n) of the norm, as n independent gradients add up."""
        if not self.clip:
            return direction
        norm = float(torch.linalg.vector_norm(direction))
        most = self.clip / math.sqrt(clients)
        return direction * (most / norm) if norm > most else direction

    def aggregate(
        self,
        server: None,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[None, Tensor]:
        """G, the sampled sum, so that all that was added up arrives with its own weight p_i in the long run."""
        return None, gather(uplinks, self.contraction, round).sampled()

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, the compressed velocity."""
        return {UPDATE: self.contraction}

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a compressor that contracts nothing."""
        check_contraction(self.compressor, federation.layout, self.name)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """EF14's step times 1 - momentum, for momentum makes every gradient that much larger; verified."""
        alpha = alpha_of(self.compressor, federation.layout)
        exact = not self.momentum and not self.clip and not self.warm_up
        theory = memory_theory(constants, 1 / alpha, participation, exact)
        return replace(theory, rate=theory.rate * (1 - self.momentum))
