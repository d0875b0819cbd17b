"""Many clients in one process, as a simulation has them: one model, one replica, and little for each client."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import thinwire.flower  # noqa: F401  keeps Flower quiet before it is imported
from client.app import respond
from client.desk import Desk
from client.participant import Shelf
from client.store import DiskClientStore
from client.virtual_store import Invitations, VirtualClientStore
from client.workshop import Workshops

from flwr.app import Context, Message  # isort: skip

NEAR = 1000  # clients whose examples stay in memory
STATE_BYTES = 64 << 20  # of private states that stay in memory; the others are mapped when they are needed


class VirtualClients:
    """Clients by name. The memory that they take does not grow with their number, where there is a ``folder``.

    Private states stay in memory up to ``state_bytes``; those of the clients that were asked longest ago go to the
    folder, and are mapped from there. With ``through`` each state is on disk before it is answered with, for a process
    that may be killed. The examples of the last ``near`` clients stay, the others' are made anew. Usable as a
    ClientApp, whose node config names the client (``client-id``).
    """

    def __init__(
        self,
        task: Mapping[str, Any],
        device: str = "auto",
        folder: Path | None = None,
        *,
        through: bool = False,
        state_bytes: int = STATE_BYTES,
        near: int = NEAR,
    ) -> None:
        self._workshops = Workshops(task, device)
        self._task = str(task.get("name", ""))
        self._folder = folder
        self._through = through
        self._state_bytes = state_bytes
        self._most_near = near
        self._shelf = Shelf()
        self._invitations = Invitations()
        self._desks: OrderedDict[str, Desk] = OrderedDict()  # longest ago first
        self._stores: dict[str, VirtualClientStore] = {}  # of the desks, and of whoever has something in memory
        self._sizes: OrderedDict[str, int] = OrderedDict()  # of what stores have in memory; longest ago first
        self._held_bytes = 0

    def answer(self, name: str, kind: str, parts: Mapping[str, bytes]) -> dict[str, bytes]:
        """One client's reply to one message. Raises WireError when the server sent nonsense."""
        with self._at_desk(name) as desk:
            return desk.answer(kind, parts)

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as the node that the context names."""
        with self._at_desk(str(context.node_config["client-id"])) as desk:
            return respond(desk, message)

    @property
    def state_bytes(self) -> int:
        """About what private states take in memory now."""
        return self._held_bytes

    @contextmanager
    def _at_desk(self, name: str) -> Iterator[Desk]:
        """The client's desk; after its answer there is room again."""
        desk = self._desks.pop(name, None) or Desk(
            name, self._task, self._workshops.open, lambda run: self._store(run, name), lambda: self._shelf
        )
        self._desks[name] = desk
        try:
            yield desk
        finally:
            self._held_bytes -= self._sizes.pop(name, 0)
            if name in self._stores and (size := self._stores[name].size_bytes):
                self._held_bytes += size
                self._sizes[name] = size
            self._make_room()

    def _store(self, run: str, name: str) -> VirtualClientStore:
        """A client's slots in a run; it is in one at a time."""
        if name not in self._stores or self._stores[name].run != run:
            disk = None if self._folder is None else DiskClientStore(self._folder, run, name)
            self._stores[name] = VirtualClientStore(run, name, self._invitations, disk, self._through)
        return self._stores[name]

    def _make_room(self) -> None:
        while len(self._desks) > self._most_near:
            name, _ = self._desks.popitem(last=False)
            if name not in self._sizes:
                self._stores.pop(name, None)
        while self._folder is not None and self._held_bytes > self._state_bytes and len(self._sizes) > 1:
            name, size = self._sizes.popitem(last=False)
            self._held_bytes -= size
            self._stores[name].spill()
            if name in self._desks:
                self._desks[name].rest()  # its participant holds the same tensors
            else:
                del self._stores[name]


__all__ = ["VirtualClients"]
