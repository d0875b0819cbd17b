"""EF14: error feedback by memory.

Seide, Fu, Droppo, Li, Yu, "1-bit stochastic gradient descent", Interspeech 2014,
https://www.microsoft.com/en-us/research/publication/1-bit-stochastic-gradient-descent; analysed by Stich, Cordonnier,
Jaggi, "Sparsified SGD with memory", NeurIPS 2018, https://arxiv.org/abs/1809.07599.

    client i in S:  u = beta e_i + D_i ;  c_i = C(u) ;  e_i <- u - c_i       send c_i
    server:         G = sum_{i in S} (p_i / pi) c_i ;  x <- x - eta G

e_i residual of client i, in units of D_i, so that the rate eta may change; starts at 0 and waits while the client is
absent; D_i direction of descent; C in B(alpha), a contractive compressor; S cohort, pi = |S|/n; p_i weights; beta decay
of the residual (1 here; below 1 is SparseLoCo's, https://arxiv.org/abs/2508.15706).
With heterogeneous clients and a constant rate it reaches a neighbourhood; a lost message does no lasting harm.
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
from strategies.contraction import as_contraction, check_contraction
from strategies.estimator import UPDATE, Estimator, gather


@dataclass(frozen=True)
class EF14Client:
    """The residual that is still to be sent, and the compressor's warm start."""

    e: Tensor
    warm: Any = None


@dataclass(frozen=True)
class EF14(Estimator):
    """Add what compression dropped to the next message. Contractive compressors; unbiased ones are scaled."""

    name: ClassVar[str] = "ef14"
    compressor: Compressor = field(default_factory=Identity)
    decay: float = 1.0  # beta in (0, 1]: the share of the residual that is kept for the next round

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay = {self.decay} must lie in (0, 1]")

    @cached_property
    def contraction(self) -> Compressor:
        """C in B(alpha)."""
        return as_contraction(self.compressor)

    def begin(self, x0: Tensor, federation: Federation) -> None:
        """The server keeps nothing."""

    def join(self, x: Tensor, mirror: Tensor | None = None) -> EF14Client:
        """No residual yet."""
        return EF14Client(torch.zeros_like(x))

    def respond(self, direction: Tensor, private: EF14Client, round: Round) -> tuple[EF14Client, Packet]:
        """Send C(beta e_i + D_i) and keep the rest."""
        u = self.decay * private.e + direction
        key = round.key(UPDATE, "up")
        encoded = self.contraction.encode(u, round.federation.layout, key, round.place, private.warm)
        return EF14Client(u - encoded.decoded, encoded.warm), {UPDATE: encoded.payload}

    def aggregate(
        self,
        server: None,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[None, Tensor]:
        """G, the sampled sum, so that every residual arrives with its own weight p_i in the long run."""
        return None, gather(uplinks, self.contraction, round).sampled()

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """One payload, the compressed update."""
        return {UPDATE: self.contraction}

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a compressor that contracts nothing."""
        check_contraction(self.compressor, federation.layout, self.name)
