"""A client's state on its own disk (or in memory, in a simulation): committed, pending, replica, welcome."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import xxhash
from torch import Tensor

from thinwire import state
from thinwire.errors import ConfigError, WireError

MAGIC = b"thinwire client state 1\n"
HEAD_BYTES = len(MAGIC) + 16  # with the checksum
MAPPED_BYTES = 1 << 16
"""From this size on a file is mapped: a smaller one is read in less time."""


@dataclass(frozen=True)
class Committed:
    """The private state after all applied uplinks, and the chain over them."""

    chain: bytes
    private: Any


@dataclass(frozen=True)
class Pending:
    """The private state after an uplink that is not decided yet, and all that is needed to send it again."""

    chain: bytes  # after this uplink
    private: Any
    question: bytes  # digest of the request that it answers
    uplink: bytes
    uplink_digest: bytes
    metrics: tuple[tuple[str, float], ...]

    def as_committed(self) -> Committed:
        """What it becomes when the server has applied it."""
        return Committed(self.chain, self.private)


@dataclass(frozen=True)
class Held:
    """The replica at its version."""

    version: int
    history: bytes
    incarnation: int
    replica: Any


@dataclass(frozen=True)
class Frozen:
    """The frozen parameters that the server believes this client has."""

    digest: bytes
    packed: bytes = b""  # safetensors, where they came from the server; empty where they are the task's own


class ClientStore(Protocol):
    """Slots of one client in one run. Reading a slot that is absent or damaged gives None: the protocol heals it."""

    def read(self, slot: str) -> Any | None:
        """The value last written."""
        ...

    def write(self, slot: str, value: Any) -> None:
        """Replace the value, all or nothing."""
        ...

    def rename(self, slot: str, to: str) -> None:
        """Make one slot another, atomically."""
        ...

    def remove(self, slot: str) -> None:
        """Forget a slot."""
        ...


def read_committed(store: ClientStore) -> Committed | None:
    """The committed state; its slot holds what was written as pending, for a commit only renames."""
    value = store.read("committed")
    return value.as_committed() if isinstance(value, Pending) else value


class MemoryClientStore:
    """Slots in memory: lost with the process, as in a simulation. The replica is not kept; it lies on the shelf."""

    def __init__(self) -> None:
        self._slots: dict[str, Any] = {}

    def read(self, slot: str) -> Any | None:
        """The value last written."""
        return self._slots.get(slot)

    def write(self, slot: str, value: Any) -> None:
        """Replace the value."""
        if slot != "replica":
            self._slots[slot] = value

    def rename(self, slot: str, to: str) -> None:
        """Make one slot another."""
        self._slots[to] = self._slots.pop(slot)

    def remove(self, slot: str) -> None:
        """Forget a slot."""
        self._slots.pop(slot, None)


class DiskClientStore:
    """Slots as files ``ROOT/RUN/CLIENT/SLOT.state`` with a checksum; written aside and renamed, mapped to be read.

    A value that was read has its tensors in the mapped file: they take no memory of the process but what the system's
    cache of files can take back, and to write to them changes no file. A file is replaced as a whole and never changed,
    so that whoever has mapped it keeps what it held.
    The files survive ``kill -9`` of the client. A power cut may damage the last ones; the checksum tells, and the
    protocol restores what is lost, so nothing is synced.
    """

    def __init__(self, root: Path, run: str, client: str) -> None:
        self._folder = root / run / client
        self._made = False  # at the first write: a server that names runs fills no disk with folders

    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self._made or self._folder.exists()

    def read(self, slot: str) -> Any | None:
        """The value last written, or None when it is absent or damaged."""
        data = _content(self._path(slot))
        if data is None:
            return None
        body = data[HEAD_BYTES:]
        if data[:HEAD_BYTES].numpy().tobytes() != MAGIC + _checksum(body.numpy()):
            return None
        try:
            return state.view(body)
        except WireError:
            return None

    def write(self, slot: str, value: Any) -> None:
        """Write aside and rename."""
        self._make_folder()
        body = state.pieces(value)
        aside = self._path(slot).with_suffix(".new")
        try:
            with open(aside, "wb") as file:
                file.write(MAGIC + _checksum(*body))
                file.writelines(body)
            os.replace(aside, self._path(slot))
        except OSError as error:
            raise ConfigError(f"cannot write client state {self._path(slot)}: {error.strerror}") from None

    def rename(self, slot: str, to: str) -> None:
        """Atomic on the file system."""
        try:
            os.replace(self._path(slot), self._path(to))
        except OSError as error:
            raise ConfigError(f"cannot rename client state {self._path(slot)}: {error.strerror}") from None

    def remove(self, slot: str) -> None:
        """Delete the file."""
        with contextlib.suppress(FileNotFoundError):
            self._path(slot).unlink()

    def _make_folder(self) -> None:
        if self._made:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"cannot keep client state in {self._folder}: {error.strerror}; choose --state") from None
        self._made = True

    def _path(self, slot: str) -> Path:
        return self._folder / f"{slot}.state"


def _content(path: Path) -> Tensor | None:
    """A file as bytes (uint8), mapped if it is long; None when it is absent, or cannot be read."""
    try:
        size = path.stat().st_size
        if size >= MAPPED_BYTES:
            with contextlib.suppress(RuntimeError):  # a file system that cannot map
                return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) if size else None
    except OSError:
        return None


def _checksum(*pieces: Any) -> bytes:
    total = xxhash.xxh3_128()
    for piece in pieces:
        total.update(piece)
    return total.digest()
