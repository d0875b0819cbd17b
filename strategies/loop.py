"""The pure loop: a method on a problem with a known answer, in memory, with every message packed and unpacked.

No host, no file, no network; the bytes are those of the packets. Faults can be put in, to show that they do no harm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from compressors import NonFinite, Payload, Place
from strategies import remembering
from strategies.base import Asks, Federation, Method, Oracle, Packet, Round
from strategies.trace import DIVERGED, Trace
from thinwire.layout import Layout
from thinwire.random import Key, choose, coin
from thinwire.wire.packet import pack, unpack

MOST_PACKET_BYTES = 1 << 30


class Problem(Protocol):
    """Functions or operators of n clients, and a measure of how far a point is from the answer."""

    @property
    def layout(self) -> Layout: ...  # noqa: D102
    @property
    def x0(self) -> Tensor: ...  # noqa: D102
    @property
    def oracles(self) -> Sequence[Oracle]: ...  # noqa: D102
    def error(self, x: Tensor) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Faults:
    """What goes wrong in a run."""

    loss: float = 0.0  # probability that an uplink is lost
    commit_on_ack: bool = True  # a client takes its lost uplink back; False is the naive client
    restart_round: int = 0  # before this round ``restart_client`` loses its private state; 0: never
    restart_client: int = 0
    recovery: Literal["reset", "restore", "zero"] = "reset"  # both ends anew; from the mirror; silently, on one end


@dataclass
class World:
    """All states of a run: one replica (every node's is the same), the server's, and each client's with its mirror."""

    method: Method
    oracles: Sequence[Oracle]
    federation: Federation
    replica: Any
    server: Any
    privates: list[Any]
    mirrors: list[Tensor | None]  # empty without ``audit``
    audit: bool = True  # also validate every uplink and keep the mirrors, as a server does
    pending: dict[int, Packet] = field(default_factory=dict)  # personal payloads, until its next uplink is in
    uplink_content_bytes: int = 0  # sent since the start without the packets' framing, all clients together
    downlink_content_bytes: int = 0

    @staticmethod
    def start(
        method: Method, problem: Problem, seed: int = 0, weights: Sequence[float] = (), audit: bool = True
    ) -> "World":
        """Before round 1; ``weights`` are p_i, equal when empty."""
        clients = len(problem.oracles)
        shares = tuple(weights) or (1.0 / clients,) * clients
        federation = Federation(problem.layout, clients, seed, problem.x0.dtype, shares)
        replica, server = method.begin(problem.x0.clone(), federation)
        privates = [method.join(replica) for _ in range(clients)]
        mirrors = [method.mirror(private) for private in privates] if audit else []
        return World(method, problem.oracles, federation, replica, server, privates, mirrors, audit)

    def cohort(self, number: int, participation: float) -> tuple[int, ...]:
        """Who is asked in this round, ascending."""
        asks, n = self.method.asks(self.replica, self.server, number), self.federation.clients
        if isinstance(asks, tuple):
            return asks
        count = n if asks is Asks.ALL else max(1, round(participation * n))
        return tuple(int(i) for i in choose(Key(self.federation.seed, "cohort", number), n, count))

    def play(self, number: int, participation: float = 1.0, faults: Faults | None = None) -> tuple[int, int]:
        """One round. Returns the bytes up, of all clients, and down, to all listeners."""
        faults = faults or Faults()
        if number == faults.restart_round:
            self.restart(faults.restart_client, faults.recovery)
        asked = self.cohort(number, participation)
        uplinks, sent = [], 0
        for place, client in enumerate(asked):
            uplink, size = self._ask(client, Place(place, len(asked)), number, faults)
            sent += size
            uplinks += [(client, uplink)] if uplink is not None else []
        return sent, self._finish(uplinks, asked, number)

    def _ask(self, client: int, place: Place, number: int, faults: Faults) -> tuple[Packet | None, int]:
        """One client's answer as the server unpacks it (None: lost) and its size."""
        blind = Federation(
            self.federation.layout, self.federation.clients, self.federation.seed, self.federation.dtype
        )  # a client does not know the weights
        here = Round(number, blind, client, place, personal=self.pending.get(client, {}))
        private, oracle = self.privates[client], self.oracles[client]
        after, uplink = remembering.respond(self.method, self.replica, private, oracle, here)
        data = pack(uplink)
        self.uplink_content_bytes += content_bytes(uplink)
        arrived = not coin(Key(self.federation.seed, "loss", number, client), faults.loss)
        if arrived or not faults.commit_on_ack:
            self.privates[client] = after
        if not arrived:
            return None, len(data)
        packet = unpack(data, Payload, MOST_PACKET_BYTES)
        if not self.audit:
            return packet, len(data)
        self.method.validate(packet, here)
        mirror = self.mirrors[client]
        if mirror is not None:
            self.mirrors[client] = self.method.advance(mirror, packet, here)
        return packet, len(data)

    def _finish(self, uplinks: list[tuple[int, Packet]], asked: tuple[int, ...], number: int) -> int:
        """The server's step and everyone's apply; the bytes down."""
        here = Round(number, self.federation, asked=asked)
        self.server, downlink = self.method.step(self.replica, self.server, iter(uplinks), here)
        data = pack(downlink.broadcast)
        personal = {client: pack(packet) for client, packet in downlink.personal.items()}
        for client, _ in uplinks:
            self.pending.pop(client, None)  # it has had its own
        self.pending |= {client: unpack(own, Payload, MOST_PACKET_BYTES) for client, own in personal.items()}
        self.replica = self.method.apply(self.replica, unpack(data, Payload, MOST_PACKET_BYTES), here)
        listeners = len(asked) if self.method.memoryless_downlink else self.federation.clients
        own_content = sum(content_bytes(packet) for packet in downlink.personal.values())
        self.downlink_content_bytes += content_bytes(downlink.broadcast) * listeners + own_content
        return len(data) * listeners + sum(len(own) for own in personal.values())

    def restart(self, client: int, recovery: str) -> None:
        """The client loses its private state and is brought back."""
        if recovery == "restore":
            self.privates[client] = self.method.join(self.replica, self.mirrors[client])
            return
        self.privates[client] = self.method.join(self.replica)
        if recovery == "reset":
            self.mirrors[client] = self.method.mirror(self.privates[client])
            self.rebuild()

    def rebuild(self) -> None:
        """The server's derived state summed anew from the mirrors, which are the clients' own where none are kept."""
        own = (remembering.private_of(private) for private in self.privates)
        kept = self.mirrors if self.audit else [self.method.mirror(private) for private in own]
        mirrors = [mirror for mirror in kept if mirror is not None]
        if mirrors:
            self.server = self.method.rebuild(self.server, mirrors, self.federation)

    @property
    def model(self) -> Tensor:
        """The server's model."""
        return self.method.model(self.replica, self.server)


def content_bytes(packet: Packet) -> int:
    """Bytes of a packet's payloads, without framing: what a formula of bits counts."""
    return sum(payload.size for payload in packet.values())


def run(
    method: Method,
    problem: Problem,
    rounds: int,
    *,
    participation: float = 1.0,
    seed: int = 0,
    weights: Sequence[float] = (),
    faults: Faults | None = None,
    until: float = 0.0,
    rebuild_every: int = 1000,
    check: bool = True,
    audit: bool = True,
) -> Trace:
    """Run until ``rounds``, an error of at most ``until``, or divergence.

    ``check=False`` runs what theory refuses, to show why. ``audit=False`` saves the time of validating every uplink and
    keeping mirrors; the bits are the same, and there can be no faults. Raises ConfigError from ``Method.check``.
    """
    assert audit or faults is None, "faults need the mirrors"
    world = World.start(method, problem, seed, weights, audit)
    if check:
        method.check(world.federation, participation)
    errors = [problem.error(world.model)]
    up: list[int] = []
    down: list[int] = []
    contents: list[tuple[int, int]] = []  # up and down, since the start
    for number in range(1, rounds + 1):
        try:
            sent, heard = world.play(number, participation, faults)
            error = problem.error(world.model)
        except NonFinite:
            sent, heard, error = 0, 0, math.inf
        if number % rebuild_every == 0:
            world.rebuild()
        errors.append(error if math.isfinite(error) else math.inf)
        up.append(sent)
        down.append(heard)
        contents.append((world.uplink_content_bytes, world.downlink_content_bytes))
        if not until < errors[-1] < DIVERGED:
            break
    return Trace(tuple(errors), tuple(up), tuple(down), world.federation.clients, world.model, tuple(contents))
