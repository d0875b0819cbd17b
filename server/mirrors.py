"""Mirrors on disk: the server's copies of the clients' mirrored states, two alternating slots each."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from server.disk import refusal

CHAIN_BYTES = 16
_DTYPES = {b"f4": np.float32, b"f8": np.float64}


class MirrorFiles:
    """``FOLDER/INDEX.A`` and ``.B``: chain, dtype, checksum, values. A write goes to the slot that is older."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(exist_ok=True)
        self._newest: dict[int, tuple[str, bytes]] = {}  # client -> slot and chain last written
        self._unsynced: set[Path] = set()

    def write(self, client: int, chain: bytes, mirror: Tensor) -> None:
        """Keep the mirror as of a chain (16 bytes); the newest one before it stays readable."""
        slot = "B" if self._slot_of_newest(client) == "A" else "A"
        values = mirror.detach().cpu().contiguous().numpy()
        head = chain + (b"f8" if values.dtype == np.float64 else b"f4")
        path = self._path(client, slot)
        try:
            with open(path, "wb") as file:
                file.write(_checksum(head, values.data) + head)
                file.write(values.data)
        except OSError as error:
            raise refusal("mirror", path, error, self._folder.parent) from None
        self._unsynced.add(path)
        self._newest[client] = slot, chain

    def read(self, client: int, chain: bytes) -> Tensor | None:
        """The mirror as of that chain; None when neither slot has it whole."""
        for slot in "AB":
            if self._chain(client, slot) == chain:
                return self._read(self._path(client, slot))
        return None

    def sync(self) -> None:
        """Make what was written durable. Raises RoundError when the disk does not take it."""
        for path in self._unsynced:
            try:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            except OSError as error:
                raise refusal("mirror", path, error, self._folder.parent) from None
        self._unsynced.clear()

    def _read(self, path: Path) -> Tensor | None:
        data = path.read_bytes()
        body = memoryview(data)[16:]
        if data[:16] != _checksum(body):
            return None
        kind = _DTYPES.get(bytes(body[CHAIN_BYTES : CHAIN_BYTES + 2]))
        return (
            None if kind is None else torch.from_numpy(np.frombuffer(body, dtype=kind, offset=CHAIN_BYTES + 2).copy())
        )

    def _slot_of_newest(self, client: int) -> str:
        """After a restart the newest whole slot is told by the files' times; one torn by a kill counts for nothing."""
        if client in self._newest:
            return self._newest[client][0]
        paths = {slot: path for slot in "AB" if (path := self._path(client, slot)).exists()}
        times = {slot: path.stat().st_mtime_ns for slot, path in paths.items() if self._read(path) is not None}
        return max(times, key=lambda slot: times[slot]) if times else "B"

    def _chain(self, client: int, slot: str) -> bytes:
        path = self._path(client, slot)
        if not path.exists():
            return b""
        with open(path, "rb") as file:
            file.seek(16)
            return file.read(CHAIN_BYTES)

    def _path(self, client: int, slot: str) -> Path:
        return self._folder / f"{client}.{slot}"


def _checksum(*pieces: Any) -> bytes:
    total = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        total.update(piece)
    return total.digest()
