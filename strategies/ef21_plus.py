"""EF21+: EF21, unless compressing the direction itself comes nearer to it.

Richtarik, Sokolov, Fatkhullin, "EF21: a new, simpler, theoretically better, and practically faster error feedback",
NeurIPS 2021, https://arxiv.org/abs/2106.05203, section 3.5.

    client i in S:  b = C(D_i) ;  c = C(D_i - g_i)
                    |b - D_i| <= |g_i + c - D_i| :   g_i <- b                send b, as ``fresh``
                    otherwise:                       g_i <- g_i + c          send c, as ``update``
    client i not in S:  g_i stays
    server:         the same g_i ;  x <- x - eta g                           g = sum p_i g_i over ALL n clients

g_i estimate of D_i, starts at 0; D_i gradient of f_i at x, or another direction of descent; C in B(alpha), contractive
and deterministic: the contraction of the better of the two needs that b is within (1 - alpha)|D_i|^2 for certain;
S cohort; p_i weights; eta rate, in practice that of EF21. The paper's flag is the name of the payload. An estimate that
is replaced must be subtracted from g, so the server holds all n of them: n models of memory, beside the mirrors.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from compressors import Compressor, Encoded
from compressors.identity import Identity
from strategies.base import Federation, Packet, Round
from strategies.contraction import alpha_of, check_contraction, check_deterministic, ef21_rate, feedback_constants
from strategies.estimator import UPDATE, Estimator, weighted_sum
from strategies.theory import Constants, Promise, Theory

FRESH = "fresh"
"""The name of the payload that takes the estimate's place; ``update`` is added to it."""


@dataclass(frozen=True)
class EF21PlusClient:
    """The estimate that the server knows too. A deterministic compressor has no warm start to keep."""

    g: Tensor


@dataclass(frozen=True)
class EF21PlusServer:
    """Every client's estimate, and their sum, derived from them."""

    own: tuple[Tensor, ...]  # the run's dtype, the bits of the mirrors
    g: Tensor  # float64


@dataclass(frozen=True)
class EF21Plus(Estimator):
    """Send the better of C(D_i) and C(D_i - g_i). The compressor must be contractive and deterministic."""

    name: ClassVar[str] = "ef21-plus"
    compressor: Compressor = field(default_factory=Identity)

    def begin(self, x0: Tensor, federation: Federation) -> EF21PlusServer:
        """g_i = 0, all one tensor until they move."""
        zero = torch.zeros_like(x0)
        return EF21PlusServer((zero,) * federation.clients, torch.zeros(federation.layout.numel, dtype=torch.float64))

    def join(self, x: Tensor, mirror: Tensor | None = None) -> EF21PlusClient:
        """g_i as the server knows it, or 0."""
        return EF21PlusClient(torch.zeros_like(x) if mirror is None else mirror.to(x, copy=True))

    def respond(self, direction: Tensor, private: EF21PlusClient, round: Round) -> tuple[EF21PlusClient, Packet]:
        """Compress both and send the better one."""
        b, c = self._encode(FRESH, direction, round), self._encode(UPDATE, direction - private.g, round)
        moved = private.g + c.decoded
        if torch.linalg.vector_norm(b.decoded - direction) <= torch.linalg.vector_norm(moved - direction):
            return EF21PlusClient(b.decoded), {FRESH: b.payload}
        return EF21PlusClient(moved), {UPDATE: c.payload}

    def _encode(self, name: str, vector: Tensor, round: Round) -> Encoded:
        return round.encode(name, self.compressor, vector)

    def aggregate(
        self,
        server: EF21PlusServer,
        uplinks: Iterable[tuple[int, Packet]],
        round: Round,
    ) -> tuple[EF21PlusServer, Tensor]:
        """g of all n clients, those who answered having moved."""
        own, g = list(server.own), server.g
        for client, packet in uplinks:
            before, weight = own[client], round.federation.weights[client]
            own[client] = self._moved(before, packet, round, client)
            g = g + weight * (own[client].to(g) - before.to(g))
        return EF21PlusServer(tuple(own), g), g

    def _moved(self, g: Tensor, packet: Packet, round: Round, client: int | None = None) -> Tensor:
        """g_i after an uplink, with the same bits on both ends."""
        name = FRESH if FRESH in packet else UPDATE
        message = round.decode(packet, name, self.compressor, round.key(name, "up", client), g.device)
        return message if name == FRESH else g + message

    @property
    def mirrored(self) -> bool:
        """The server knows every g_i."""
        return True

    def mirror(self, private: EF21PlusClient) -> Tensor:
        """g_i."""
        return private.g

    def advance(self, mirror: Tensor, uplink: Packet, round: Round) -> Tensor:
        """b, or g_i + c."""
        return self._moved(mirror, uplink, round)

    def rebuild(self, server: EF21PlusServer, mirrors: Iterable[Tensor], federation: Federation) -> EF21PlusServer:
        """The mirrors, and g = sum p_i g_i."""
        own = tuple(mirror.to("cpu") for mirror in mirrors)
        return EF21PlusServer(own, weighted_sum(own, federation))

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """Either payload."""
        return {UPDATE: self.compressor, FRESH: self.compressor}

    @property
    def exclusive(self) -> frozenset[str]:
        """One of the two."""
        return frozenset({UPDATE, FRESH})

    def check(self, federation: Federation, participation: float) -> None:
        """Refuse a compressor that contracts nothing, or draws at random."""
        check_deterministic(self.compressor, federation.layout, self.name)
        check_contraction(self.compressor, federation.layout, self.name)

    def theory(self, constants: Constants, federation: Federation, participation: float = 1.0) -> Theory:
        """EF21's: the better of two estimates is at least as good as one of them."""
        theta, beta = feedback_constants(alpha_of(self.compressor, federation.layout), participation)
        rate = ef21_rate(constants, theta, beta)
        return Theory(Promise.LINEAR, rate, rate * constants.mu)
