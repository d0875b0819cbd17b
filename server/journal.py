"""The write-ahead journal: decided rounds, each with its checksum, synced before anybody hears of them."""

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from server.disk import refusal
from strategies.store import Entry
from thinwire.wire.exchange import digest

MAGIC = b"thinwire journal 2\n"
_HEAD = struct.Struct("<4sQ")  # mark, length of the JSON header
_MARK = b"ROUN"


class Journal:
    """A file of entries. An entry cut off by a crash was never acted upon, and is dropped when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def append(self, entry: Entry) -> None:
        """Write an entry and sync it. Raises RoundError when the disk does not take it; the round is then undecided."""
        start: int | None = None
        try:
            if self._file is None:
                self._file = open(self.path, "ab")  # noqa: SIM115  held open for the next entries
            file, start = self._file, self._file.tell()
            if start == 0:
                file.write(MAGIC)
            _write(file, entry)
            file.flush()
            os.fdatasync(file.fileno())
        except OSError as error:
            if start is not None:
                self._cut(start)
            raise refusal("journal", self.path, error, self.path.parent) from None

    def _cut(self, start: int) -> None:
        """Leave nothing of an entry that the disk did not take; closing may still write what lies in the buffer."""
        with contextlib.suppress(OSError):
            self.close()
        with contextlib.suppress(OSError):
            os.truncate(self.path, start)

    def start(self) -> None:
        """An empty journal, after a checkpoint. Raises RoundError when the disk does not take it."""
        self.close()
        try:
            self._file = open(self.path, "wb")  # noqa: SIM115
            self._file.write(MAGIC)
            self._file.flush()
            os.fdatasync(self._file.fileno())
        except OSError as error:
            self._cut(0)
            raise refusal("journal", self.path, error, self.path.parent) from None

    def read(self) -> Iterator[Entry]:
        """The sound entries, and the file cut off behind them."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            sound = len(MAGIC) if file.read(len(MAGIC)) == MAGIC else 0
            while sound and (entry := _read(file)) is not None:
                sound = file.tell()
                yield entry
        if sound < self.path.stat().st_size:
            os.truncate(self.path, sound)

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _write(file: BinaryIO, entry: Entry) -> None:
    """Header (JSON), uplinks one at a time, downlink, each with its size; a checksum over the digests of all."""
    total = hashlib.blake2b(digest_size=16)

    def put(data: bytes, known: bytes | None = None) -> None:
        total.update(known or digest(data))
        file.write(data)

    header = json.dumps({"round": entry.round, "attempt": entry.attempt, "asked": entry.asked}).encode()
    put(_HEAD.pack(_MARK, len(header)))
    put(header)
    for client, uplink in entry.uplinks:
        put(struct.pack("<qQ", client, len(uplink)))
        put(uplink, entry.digests.get(client))
    put(struct.pack("<qQ", -1, len(entry.downlink)))
    put(entry.downlink, entry.downlink_digest)
    file.write(total.digest())


def _read(file: BinaryIO) -> Entry | None:
    """One entry, or None at the end or at damage."""
    total = hashlib.blake2b(digest_size=16)

    def take(count: int) -> bytes:
        data = file.read(count)
        if len(data) != count:
            raise EOFError
        total.update(digest(data))
        return data

    try:
        mark, length = _HEAD.unpack(take(_HEAD.size))
        if mark != _MARK or length > 1 << 30:
            return None
        header = json.loads(take(length))
        uplinks: list[tuple[int, bytes]] = []
        while True:
            client, size = struct.unpack("<qQ", take(16))
            data = take(size) if size <= os.fstat(file.fileno()).st_size else b""
            if client < 0:
                break
            uplinks.append((client, data))
        expected = total.digest()
        if file.read(16) != expected:
            return None
        return Entry(header["round"], header["attempt"], tuple(header["asked"]), tuple(uplinks), data)
    except (EOFError, ValueError, KeyError):
        return None
