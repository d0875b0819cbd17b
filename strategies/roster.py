"""The roster: which client is which, and what the server knows of each."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from strategies.base import Federation
from strategies.store import ClientSaved
from thinwire.wire.exchange import chain_start


@dataclass
class ClientRecord:
    """One client. The first block outlives the process, the second is learnt anew after a restart."""

    name: str
    index: int
    weight: float = 0.0  # p_i
    examples: int = 0
    chain: bytes = b""
    fresh: bool = True
    epoch: int = 0
    drained: bool = False  # not asked for now
    ban: str | None = None  # why it is out of the run for good

    node: int | None = None  # Flower node id
    welcomed: bool = False
    frozen_digest: bytes = b""
    version: int | None = None  # of the replica it holds; None: it needs a snapshot
    history: bytes = b""
    absent_since: float | None = None  # host clock; None while connected
    uplink_bytes: int = 0  # as received, since the start of this process
    downlink_bytes: int = 0  # as sent, likewise


@dataclass
class Meter:
    """Bytes by client since the last look, as sent and received."""

    up: dict[int, int] = field(default_factory=dict)
    down: dict[int, int] = field(default_factory=dict)

    def sent(self, client: ClientRecord, count: int) -> None:
        """Downlink bytes to a client."""
        client.downlink_bytes += count
        self.down[client.index] = self.down.get(client.index, 0) + count

    def received(self, client: ClientRecord, count: int) -> None:
        """Uplink bytes from a client."""
        client.uplink_bytes += count
        self.up[client.index] = self.up.get(client.index, 0) + count


@dataclass
class Roster:
    """The clients in ascending index; frozen when the run starts, but for those that are banned or drained later."""

    run: str
    clients: list[ClientRecord] = field(default_factory=list)

    @staticmethod
    def freeze(run: str, names: Iterable[str]) -> "Roster":
        """Clients in the order of their names: the same roster on every host. Natural order, so that c10 follows c9."""
        ordered = sorted(names, key=natural)
        clients = [ClientRecord(name, i, chain=chain_start(run, i, 0)) for i, name in enumerate(ordered)]
        return Roster(run, clients)

    def weigh(self, by: str = "examples") -> None:
        """Set the weights p_i in proportion to the examples, or all equal (``uniform``, or when nobody has any).

        Banned clients have none.
        """
        members = [client for client in self.clients if client.ban is None]
        total = sum(client.examples for client in members) if by == "examples" else 0
        for client in self.clients:
            client.weight = 0.0
        for client in members:
            client.weight = client.examples / total if total else 1.0 / len(members)

    def federated(self, federation: Federation) -> Federation:
        """The federation with these clients' weights, without the banned and the drained ones."""
        return replace(
            federation,
            weights=tuple(client.weight for client in self.clients),
            banned=tuple(client.index for client in self.clients if client.ban is not None),
            drained=tuple(client.index for client in self.clients if client.drained),
        )

    def __post_init__(self) -> None:
        self._named = {client.name: client for client in self.clients}
        self._at: dict[int, ClientRecord] = {}

    def named(self, name: str) -> ClientRecord | None:
        """The client of that name."""
        return self._named.get(name)

    def at(self, node: int) -> ClientRecord | None:
        """The client behind a node."""
        return self._at.get(node)

    def seat(self, client: ClientRecord, node: int) -> None:
        """A client speaks through this node from now on, and is to be welcomed there."""
        if client.node is not None:
            self._at.pop(client.node, None)
        client.node, client.welcomed = node, False
        self._at[node] = client

    def reset(self, client: ClientRecord) -> None:
        """Make the server's side of a client that of a newcomer."""
        client.epoch += 1
        client.chain = chain_start(self.run, client.index, client.epoch)
        client.fresh = True

    def saved(self) -> tuple[ClientSaved, ...]:
        """What a checkpoint keeps."""
        return tuple(
            ClientSaved(c.name, c.weight, c.examples, c.chain, c.fresh, c.epoch, c.drained, c.ban) for c in self.clients
        )

    @staticmethod
    def restore(run: str, saved: Iterable[ClientSaved]) -> "Roster":
        """The roster of a checkpoint."""
        return Roster(
            run,
            [
                ClientRecord(c.name, i, c.weight, c.examples, c.chain, c.fresh, c.epoch, c.drained, c.ban)
                for i, c in enumerate(saved)
            ],
        )


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key that compares runs of digits as numbers."""
    parts: list[str] = [""]
    for character in name:
        if parts[-1] and character.isdigit() != parts[-1][-1].isdigit():
            parts.append("")
        parts[-1] += character
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)
