"""What MASHA1 and MASHA2 share: an iterate that every node replays, and an anchor where the operator is known.

The iterate z never crosses the wire: replicas move by the same small downlinks. Around an anchor w, whose F(w) all
nodes know and whose F_m(w) every client knows, clients send compressed differences. A run alternates between two
phases, of which one round is one of either:

- *operator*: a cohort sends its message; everyone moves z. A coin of probability p, tossed with a key that all share,
  then decides whether w follows, and the next phase is
- *refresh*: every client sends F_m(w) uncompressed. Those from whom nothing came are asked again, as often as it takes,
  while the sum of the others waits on the server and the downlinks are empty; then F(w) goes down uncompressed.

F_m(w) is a cache, tagged with the round that made w: a client that lost it computes it anew. Without variance
reduction (``variance_reduction = false``, for deep networks) w follows z in every round of phase *operator* and phase
*refresh* is a round like any other: its cohort sends its operators at w compressed. That is p = 1, extragradient with
compressed messages.

What a client computes: its operator over all examples (``full``); of a minibatch, the same one at both points
(``minibatch``, the finite-sum form; the refresh is over all examples where variance is reduced); or the pseudo-operator
(z - z_H)/(H rate) of H local steps (``steps``, a heuristic: biased where clients differ).
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from compressors import Compressor, Payload
from compressors.identity import Identity
from strategies.base import Asks, Downlink, Federation, Method, Oracle, Packet, Round
from strategies.descent import Work
from strategies.estimator import UPDATE, gather
from strategies.masked_sum import decode_sum, encode_sum
from strategies.operators import operator_at
from strategies.probe import probe
from strategies.prox import rounded
from thinwire.errors import WireError
from thinwire.layout import Layout
from thinwire.random import SHARED, Key, coin

ANCHOR = "anchor"
"""The name of the payload that carries F_m(w) up and F(w) down."""

REFRESH, OPERATOR = "refresh", "operator"


@dataclass(frozen=True)
class AnchoredReplica:
    """What all nodes agree on."""

    z: Tensor
    w: Tensor
    F: Tensor  # F(w); of an older w while the phase is refresh
    phase: str  # REFRESH or OPERATOR
    version: int  # the round that made w
    p: float  # as the server measured it: no other node may get another one
    gamma: float


@dataclass(frozen=True)
class AnchoredServer:
    """The refresh that is under way, and the server's own error (MASHA2)."""

    missing: tuple[int, ...]  # clients whose F_m(w) has not come
    total: Tensor | None = None  # the sum of what has, float64
    e: Tensor | None = None


@dataclass(frozen=True)
class AnchoredClient:
    """F_m(w) of one version of w, the client's own error (MASHA2), and the compressor's warm start."""

    version: int = -1  # of F; -1: none
    F: Tensor | None = None
    e: Tensor | None = None
    warm: Any = None


@dataclass(frozen=True)
class Anchored(Method):
    """The frame of both: phases, refresh, coin, and the downlink. Subclasses say what is sent and how z moves."""

    compressor: Compressor = field(default_factory=Identity)
    downlink_compressor: Compressor = field(default_factory=Identity)
    rate: float = 0.0  # gamma; 0: the practical step, for which ``lipschitz`` must be right
    lipschitz: float = 1.0  # L of F
    p: float = 0.0  # probability of a refresh, in (0, 1]; 0: bytes of a message / bytes of a dense one
    reference: Literal["new", "old"] = "new"  # what w becomes: the z after the move, or the one before it
    variance_reduction: bool = True  # False: p = 1, extragradient without refreshes, for deep networks
    work: Work = "full"

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p = {self.p} must lie in (0, 1], or be 0 for bytes of a message / bytes of a dense one")
        if not 0 <= self.rate < math.inf or not 0 < self.lipschitz < math.inf:
            raise ValueError(
                f"rate = {self.rate} must be at least 0, lipschitz = {self.lipschitz} above 0, both finite"
            )
        if not self.variance_reduction and (self.p not in (0, 1) or self.reference == "old"):
            raise ValueError("without variance reduction w follows z in every step: leave p and reference alone")

    # -- what MASHA1 and MASHA2 differ in ------------------------------------------------------------------------

    @property
    @abstractmethod
    def operator(self) -> Compressor:
        """What compresses the uplink."""

    @property
    @abstractmethod
    def downlink_operator(self) -> Compressor:
        """What compresses the downlink."""

    @abstractmethod
    def practical(self, p: float, federation: Federation) -> float:
        """The step gamma for L = 1 that a configuration without a step gets."""

    @abstractmethod
    def half(self, replica: AnchoredReplica, layout: Layout) -> Tensor:
        """zh, where clients work in phase operator. Portable arithmetic only."""

    @abstractmethod
    def message(
        self, replica: AnchoredReplica, private: AnchoredClient, vector: Tensor, round: Round
    ) -> tuple[AnchoredClient, Payload]:
        """On a client: the compressed difference (or operator at w, without variance reduction)."""

    @abstractmethod
    def answer(
        self, replica: AnchoredReplica, server: AnchoredServer, total: Tensor, round: Round
    ) -> tuple[AnchoredServer, Payload]:
        """On the server: the weighted sum of the messages (float64), compressed."""

    @abstractmethod
    def move(self, replica: AnchoredReplica, decoded: Tensor, layout: Layout) -> Tensor:
        """The next z from what came down. Portable arithmetic only."""

    # -- the method ----------------------------------------------------------------------------------------------

    def begin(self, x0: Tensor, federation: Federation) -> tuple[AnchoredReplica, AnchoredServer]:
        """z = w = z0, whose F is not known yet."""
        p = self.probability(federation)
        gamma = self.rate or self.practical(p, federation) / self.lipschitz
        replica = AnchoredReplica(x0, x0.clone(), torch.zeros_like(x0), REFRESH, 0, p, gamma)
        return replica, AnchoredServer(tuple(range(federation.clients)))

    def probability(self, federation: Federation) -> float:
        """p as given, or such that refreshes cost as much uplink as messages do."""
        if not self.variance_reduction:
            return 1.0
        return self.p or probe(self.operator, federation.layout, federation.dtype, federation.clients).share

    def join(self, replica: AnchoredReplica, mirror: Tensor | None = None) -> AnchoredClient:
        """Nothing is known, nothing is owed."""
        return AnchoredClient()

    def asks(self, replica: AnchoredReplica, server: AnchoredServer, round: int) -> Asks | tuple[int, ...]:
        """A cohort; in a refresh all whose F_m(w) is missing."""
        return server.missing if self._refreshing(replica) else Asks.SAMPLE

    @property
    def needs_everyone(self) -> bool:
        """A refresh does."""
        return self.variance_reduction

    def leave(self, server: AnchoredServer, federation: Federation) -> AnchoredServer:
        """A refresh under way begins anew; else F(w) has a part of whoever left until the next one."""
        return replace(server, missing=federation.members, total=None)

    def respond(
        self, replica: AnchoredReplica, private: AnchoredClient, oracle: Oracle, round: Round
    ) -> tuple[AnchoredClient, Packet]:
        """F_m(w), or the message at zh."""
        if self._refreshing(replica):
            after = self._known(replica, private, oracle, round)
            payload = round.encode(ANCHOR, Identity(), _given(after.F)).payload
            return private if self._anew else after, {ANCHOR: payload}
        if replica.phase == OPERATOR:
            private, vector = self._difference(replica, private, oracle, round)
        else:
            private = self._known(replica, private, oracle, round)
            vector = _given(private.F)
        private, payload = self.message(replica, private, vector, round)
        return private, {UPDATE: payload}

    def step(
        self, replica: AnchoredReplica, server: AnchoredServer, uplinks: Iterable[tuple[int, Packet]], round: Round
    ) -> tuple[AnchoredServer, Downlink]:
        """Add up and compress; nothing goes down where nobody answered or a refresh is not complete."""
        if self._refreshing(replica):
            return self._collect(replica, server, uplinks, round)
        fitting = ((client, packet) for client, packet in uplinks if UPDATE in packet)
        gathered = gather(fitting, self.operator, round)
        if not gathered.replies:
            return server, Downlink({})
        server, payload = self.answer(replica, server, gathered.sampled(), round)
        return server, Downlink({UPDATE: payload})

    def apply(self, replica: AnchoredReplica, downlink: Packet, round: Round) -> AnchoredReplica:
        """Learn F(w), or move z and toss the coin."""
        if not downlink:
            return replica
        if not 0 < replica.p <= 1:
            raise WireError(f"a replica with p = {replica.p}")
        if self._refreshing(replica):
            known = round.decode(downlink, ANCHOR, Identity(), round.key(ANCHOR, "down", SHARED), replica.z.device)
            return replace(replica, F=known, phase=OPERATOR)
        decoded = decode_sum(downlink, self.operator, self.downlink_operator, round, replica.z.device)
        if replica.phase == REFRESH:
            return replace(replica, F=decoded, phase=OPERATOR)
        z = self.move(replica, decoded, round.federation.layout)
        if not coin(round.key("refresh", client=SHARED), replica.p):
            return replace(replica, z=z)
        w = z if self.reference == "new" else replica.z
        return replace(replica, z=z, w=w, phase=REFRESH, version=round.number)

    def model(self, replica: AnchoredReplica, server: AnchoredServer | None = None) -> Tensor:
        """z."""
        return replica.z

    @property
    def uplink(self) -> Mapping[str, Compressor]:
        """A message, or F_m(w)."""
        return {UPDATE: self.operator, **({ANCHOR: Identity()} if self.variance_reduction else {})}

    @property
    def downlink(self) -> Mapping[str, Compressor]:
        """A message, or F(w)."""
        return {UPDATE: self.downlink_operator, **({ANCHOR: Identity()} if self.variance_reduction else {})}

    def validate(self, uplink: Packet, round: Round) -> None:
        """Exactly one of the two payloads; one of the wrong phase counts as no answer."""
        if len(uplink) != 1 or not set(uplink) <= set(self.uplink):
            raise WireError(f"payloads {', '.join(sorted(uplink)) or 'none'}; expected one of {', '.join(self.uplink)}")
        (name,) = uplink
        round.decode(uplink, name, self.uplink[name], round.key(name, "up"))

    def at(self, rate: float) -> "Anchored":
        """With that gamma."""
        return replace(self, rate=rate)

    # -- what the subclasses use ---------------------------------------------------------------------------------

    def between(self, replica: AnchoredReplica) -> Tensor:
        """zb = (1-p) z + p w."""
        z, w = replica.z, replica.w
        return z * rounded(1.0 - replica.p, z) + w * rounded(replica.p, w)

    def encode_down(self, total: Tensor, round: Round) -> tuple[Payload, Tensor]:
        """The downlink of a float64 sum of messages, and what it decodes to."""
        return encode_sum(total, self.operator, self.downlink_operator, round)

    # -- inside --------------------------------------------------------------------------------------------------

    def _refreshing(self, replica: AnchoredReplica) -> bool:
        return replica.phase == REFRESH and self.variance_reduction

    @property
    def _anew(self) -> bool:
        """Whether each round draws its own minibatches for both points, so that F_m(w) need not be kept."""
        return self.variance_reduction and self.work != "full"

    def _collect(
        self, replica: AnchoredReplica, server: AnchoredServer, uplinks: Iterable[tuple[int, Packet]], round: Round
    ) -> tuple[AnchoredServer, Downlink]:
        """Add what came to what is there; F(w) goes down when nobody is missing."""
        missing = set(server.missing)

        def new() -> Iterator[tuple[int, Packet]]:
            for client, packet in uplinks:
                if client in missing and ANCHOR in packet:
                    missing.remove(client)
                    yield client, packet

        came = gather(new(), Identity(), round, ANCHOR).total
        total = came if server.total is None else server.total + came
        if missing:
            return replace(server, missing=tuple(sorted(missing)), total=total), Downlink({})
        everyone = round.federation.members
        known = round.encode(ANCHOR, Identity(), total.to(round.federation.dtype), direction="down")
        return replace(server, missing=everyone, total=None), Downlink({ANCHOR: known.payload})

    def _known(self, replica: AnchoredReplica, private: AnchoredClient, oracle: Oracle, round: Round) -> AnchoredClient:
        """With F_m(w) of this version: found, or computed."""
        if private.version == replica.version:
            return private
        whole = self.variance_reduction and self.work == "minibatch"
        work: Work = "full" if whole else self.work
        found = operator_at(work, oracle, replica.w, _anchor_key(replica, round))
        return replace(private, version=replica.version, F=found)

    def _difference(
        self, replica: AnchoredReplica, private: AnchoredClient, oracle: Oracle, round: Round
    ) -> tuple[AnchoredClient, Tensor]:
        """F_m(zh) - F_m(w), both of one minibatch; a new one each round where variance is reduced."""
        zh = self.half(replica, round.federation.layout)
        if self._anew:
            key = round.key("batch")
            return private, operator_at(self.work, oracle, zh, key) - operator_at(self.work, oracle, replica.w, key)
        private = self._known(replica, private, oracle, round)
        return private, operator_at(self.work, oracle, zh, _anchor_key(replica, round)) - _given(private.F)


def _anchor_key(replica: AnchoredReplica, round: Round) -> Key:
    """Of the minibatches that belong to this w."""
    return round.key("anchor batch").at(round=replica.version)


def _given(known: Tensor | None) -> Tensor:
    assert known is not None, "F_m(w) is computed before it is used"
    return known
