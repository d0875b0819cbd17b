"""What a coordinator needs of a host that can write: a journal, checkpoints, mirrors, a spool and a record."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class ClientSaved:
    """The part of a client's record that outlives the server process."""

    name: str
    weight: float  # p_i
    examples: int
    chain: bytes  # hash chain over its applied uplinks
    fresh: bool  # the server's mirror of it is that of a newcomer
    epoch: int  # number of its resets
    drained: bool = False  # not asked for now
    ban: str | None = None  # why it is out of the run for good


@dataclass(frozen=True)
class Saved:
    """A checkpoint: everything the server knows after a round."""

    run: str
    incarnation: int
    round: int
    history: bytes
    replica: Any
    server: Any
    clients: tuple[ClientSaved, ...]
    personal: tuple[tuple[int, bytes], ...] = ()  # packed payloads for single clients, not given yet


@dataclass(frozen=True)
class Entry:
    """One decided round in the write-ahead journal."""

    round: int
    attempt: int
    asked: tuple[int, ...]
    uplinks: Iterable[tuple[int, bytes]]  # applied, ascending client index; packed packets
    downlink: bytes  # the packed broadcast
    digests: Mapping[int, bytes] = field(default_factory=dict)  # of the uplinks, where they are known already
    downlink_digest: bytes = b""  # likewise


class Spool(Protocol):
    """A round's uplinks by client; in memory, and beyond a limit on disk."""

    def put(self, client: int, data: bytes) -> None:
        """Keep one uplink."""
        ...

    def clients(self) -> list[int]:
        """Who is in, ascending."""
        ...

    def get(self, client: int) -> bytes:
        """One uplink."""
        ...

    def clear(self) -> None:
        """Forget all."""
        ...


class Store(Protocol):
    """The durable side of a server. ``append`` and ``checkpoint`` return only when the data are safe on disk."""

    def append(self, entry: Entry) -> None:
        """Write one journal entry."""
        ...

    def checkpoint(self, saved: Saved) -> None:
        """Write a checkpoint and start the journal anew."""
        ...

    def load(self) -> tuple[Saved, Iterator[Entry]] | None:
        """The newest sound checkpoint and the entries since; None when there is none."""
        ...

    @property
    def mirrors(self) -> bool:
        """Whether mirrors are kept."""
        ...

    def write_mirror(self, client: int, chain: bytes, mirror: Tensor) -> None:
        """Keep a client's mirror as of a chain; the one before it stays readable."""
        ...

    def read_mirror(self, client: int, chain: bytes) -> Tensor | None:
        """The mirror as of that chain, or None when it is not there or damaged."""
        ...

    def spool(self) -> Spool:
        """A place for one round's uplinks."""
        ...

    def record(self, kind: str, fields: Mapping[str, Any]) -> object:
        """One event or one round's numbers, for people and plots; what a store returns is its own affair."""
        ...


class MemorySpool:
    """Uplinks in a dictionary."""

    def __init__(self) -> None:
        self._uplinks: dict[int, bytes] = {}

    def put(self, client: int, data: bytes) -> None:
        """Keep one uplink."""
        self._uplinks[client] = data

    def clients(self) -> list[int]:
        """Who is in, ascending."""
        return sorted(self._uplinks)

    def get(self, client: int) -> bytes:
        """One uplink."""
        return self._uplinks[client]

    def clear(self) -> None:
        """Forget all."""
        self._uplinks.clear()


class MemoryStore:
    """Keeps nothing beyond the process: for notebooks and Flower users who do not ask for more.

    With ``mirrors=True`` the last two mirrors of each client are held in memory.
    """

    def __init__(self, mirrors: bool = False) -> None:
        self.mirrors = mirrors
        self.records: list[tuple[str, dict[str, Any]]] = []
        self._mirrors: dict[int, dict[bytes, Tensor]] = {}

    def append(self, entry: Entry) -> None:
        """Nothing is kept."""

    def checkpoint(self, saved: Saved) -> None:
        """Nothing is kept."""

    def load(self) -> tuple[Saved, Iterator[Entry]] | None:
        """There is nothing."""
        return None

    def write_mirror(self, client: int, chain: bytes, mirror: Tensor) -> None:
        """Keep it in memory."""
        slots = self._mirrors.setdefault(client, {})
        slots[chain] = mirror
        while len(slots) > 2:
            del slots[next(iter(slots))]

    def read_mirror(self, client: int, chain: bytes) -> Tensor | None:
        """From memory."""
        return self._mirrors.get(client, {}).get(chain)

    def spool(self) -> MemorySpool:
        """In memory."""
        return MemorySpool()

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Keep it in ``records``."""
        self.records.append((kind, dict(fields)))
