"""The server's end of the replicated state machine: versions, missed downlinks, snapshots."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from compressors import Payload
from strategies.base import Round
from strategies.bundle import Bundle, Replica
from thinwire import state
from thinwire.wire.exchange import Base, DownlinkStep, Snapshot, chain_over, digest
from thinwire.wire.packet import unpack


def history_start(run: str) -> bytes:
    """The history of version 0."""
    return digest(f"history {run}".encode())


@dataclass
class Replicated:
    """The replica at its version, and the downlinks that led to it as long as they are cheaper than a snapshot."""

    bundle: Bundle
    replica: Replica
    history: bytes
    version: int = 0
    frozen: bytes = b""  # frozen parameters as safetensors, for clients that have others
    _missed: "deque[tuple[int, bytes, bytes]]" = field(default_factory=deque)  # version, history before, packet
    _missed_bytes: int = 0
    _cache: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.frozen_digest = digest(self.frozen)

    def apply(self, packed: bytes, packed_digest: bytes, round: Round) -> None:
        """Move to the next version by the bytes that clients get."""
        packet = unpack(packed, Payload, len(packed), verified=True)
        self.replica = self.bundle.apply(self.replica, packet, round)
        self._missed.append((round.number, self.history, packed))
        self._missed_bytes += len(packed)
        self.history = chain_over(self.history, packed_digest)
        self.version = round.number
        self._cache.clear()
        keep = 1 if self.bundle.method.memoryless_downlink else 2
        while len(self._missed) > keep and self._missed_bytes > self._snapshot_bytes():
            self._missed_bytes -= len(self._missed.popleft()[2])

    def base(self, version: int | None, history: bytes, with_frozen: bool) -> bytes:
        """A packed Base that takes a client from its version (None: it has nothing) to the present one.

        The same bytes object for all clients in the same situation; missed downlinks or a snapshot, whichever is fewer.
        """
        missed = self._since(version, history) if not with_frozen else None
        key = ("snapshot", int(with_frozen)) if missed is None else ("missed", self.version - len(missed))
        if key not in self._cache:
            self._cache[key] = self._pack_missed(missed) if missed is not None else self._pack_snapshot(with_frozen)
        return self._cache[key]

    def digest(self) -> bytes:
        """Digest of the replica's bits; computed once a version."""
        if ("digest", 0) not in self._cache:
            self._cache["digest", 0] = state.digest(self.replica)
        return self._cache["digest", 0]

    def _since(self, version: int | None, history: bytes) -> list[tuple[int, bytes, bytes]] | None:
        """The downlinks a client needs, or None when only a snapshot does."""
        if version is None and not history and self.bundle.method.memoryless_downlink and self._missed:
            return [self._missed[-1]]  # a newcomer; one that says it lacks something is sent a snapshot
        if version is None or version > self.version:
            return None
        if version == self.version:
            return [] if history == self.history else None
        if self.bundle.method.memoryless_downlink:
            return [self._missed[-1]] if self._missed else None
        needed = [item for item in self._missed if item[0] > version]
        if not needed or needed[0][0] != version + 1 or needed[0][1] != history:
            return None
        return needed if sum(len(item[2]) for item in needed) <= self._snapshot_bytes() else None

    def _snapshot_bytes(self) -> int:
        return _tensor_bytes(self.replica)

    def _pack_missed(self, missed: list[tuple[int, bytes, bytes]]) -> bytes:
        memoryless = self.bundle.method.memoryless_downlink
        base = Base(base_history=b"" if memoryless or not missed else missed[0][1], target_history=self.history)
        base.downlinks.extend(DownlinkStep(version=number, packet=packet) for number, _, packet in missed)
        return base.SerializeToString()

    def _pack_snapshot(self, with_frozen: bool) -> bytes:
        snapshot = Snapshot(version=self.version, state=state.dump(self.replica))
        if with_frozen:
            snapshot.frozen = self.frozen
        return Base(snapshot=snapshot, target_history=self.history).SerializeToString()


def _tensor_bytes(value: Any) -> int:
    """Bytes of the tensors in a state."""
    tensors: dict[str, Any] = {}
    state.describe(value, tensors)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
