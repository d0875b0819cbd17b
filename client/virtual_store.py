"""The state of a simulated client: in memory while there is room, on disk beyond, nothing before its first answer."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from torch import Tensor

from client.desk import Invitation
from client.store import ClientStore, DiskClientStore
from thinwire.v1.round_pb2 import WelcomeRequest

SHARED = ("replica", "frozen")  # the same for all clients of a process: they lie on its shelf
RECORD_BYTES = 2048  # what Python takes for a state beside its tensors


@dataclass
class Invitations:
    """The welcomes of all clients of a process: they differ in the client's place only, and that is a number."""

    _common: dict[str, WelcomeRequest] = field(default_factory=dict)  # by run
    _places: dict[tuple[str, str], int] = field(default_factory=dict)  # by run and client

    def write(self, client: str, invitation: Invitation) -> None:
        """Keep a client's welcome."""
        request = WelcomeRequest.FromString(invitation.packed)
        self._places[request.run, client] = request.index
        self._common[request.run] = request

    def read(self, run: str, client: str) -> Invitation | None:
        """The client's welcome; None where it had none."""
        place = self._places.get((run, client))
        if place is None:
            return None
        request = WelcomeRequest()
        request.CopyFrom(self._common[run])
        request.index = place
        return Invitation(request.SerializeToString())


class VirtualClientStore(ClientStore):
    """``client.store.ClientStore`` of one simulated client in one run.

    ``disk`` is where ``spill`` writes; with ``through`` every write goes there at once, so that whoever kills this
    process takes nothing with it. Without a disk everything stays in memory.
    """

    def __init__(
        self, run: str, client: str, invitations: Invitations, disk: DiskClientStore | None, through: bool = False
    ) -> None:
        self.run = run
        self._client = client
        self._invitations = invitations
        self._disk = disk
        self._through = through and disk is not None
        self._filed = disk is not None and disk.exists()  # whether there may be slots on disk
        self._near: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}  # of what is near
        self._unwritten: set[str] = set()

    def read(self, slot: str) -> Any | None:
        """The value last written."""
        if slot == "welcome":
            return self._invitations.read(self.run, self._client)
        if slot not in self._near and self._filed and slot not in SHARED:
            assert self._disk is not None
            value = self._disk.read(slot)
            if value is not None:
                self._keep(slot, value)
        return self._near.get(slot)

    def write(self, slot: str, value: Any) -> None:
        """Replace the value."""
        if slot == "welcome":
            self._invitations.write(self._client, value)
        elif slot not in SHARED:
            self._keep(slot, value)
            self._unwritten.add(slot)
            if self._through:
                self._write_near()

    def rename(self, slot: str, to: str) -> None:
        """Make one slot another."""
        self._near.pop(to, None)
        if slot in self._near:
            self._near[to] = self._near.pop(slot)
            self._sizes[to] = self._sizes[slot]
        self._unwritten.discard(to)
        if slot in self._unwritten:  # the disk has an older value under this name, or none
            self._unwritten.remove(slot)
            self._unwritten.add(to)
            self._remove_filed(slot)
        elif self._filed:
            assert self._disk is not None
            self._disk.remove(to)  # decided already, so it may go first; a file that replaces one is flushed by ext4
            self._disk.rename(slot, to)

    def _keep(self, slot: str, value: Any) -> None:
        self._near[slot] = value
        self._sizes[slot] = tensor_bytes(value)

    def remove(self, slot: str) -> None:
        """Forget a slot."""
        self._near.pop(slot, None)
        self._unwritten.discard(slot)
        self._remove_filed(slot)

    def spill(self) -> None:
        """Leave nothing in memory that the disk can hold."""
        if self._disk is not None:
            self._write_near()
            self._near.clear()

    @property
    def size_bytes(self) -> int:
        """About what is in memory; 0 where there is nothing."""
        return RECORD_BYTES + sum(self._sizes[slot] for slot in self._near) if self._near else 0

    def _write_near(self) -> None:
        assert self._disk is not None
        for slot in sorted(self._unwritten):
            self._disk.write(slot, self._near[slot])
            self._filed = True
        self._unwritten.clear()

    def _remove_filed(self, slot: str) -> None:
        if self._filed:
            assert self._disk is not None
            self._disk.remove(slot)


def tensor_bytes(value: Any) -> int:
    """Bytes of the tensors and byte strings in a state."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, tuple):
        return sum(map(tensor_bytes, value))
    if is_dataclass(value):
        return sum(tensor_bytes(getattr(value, f.name)) for f in fields(value))
    return 0


__all__ = ["Invitations", "VirtualClientStore", "tensor_bytes"]
