"""Where the bytes of arriving messages wait: in memory while a shared allowance lasts, then on disk."""

import io
import tempfile
import threading
from typing import IO


class Room:
    """Bytes of memory that arriving and waiting messages may take together. Safe to share between threads."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def taken_bytes(self) -> int:
        """Bytes in use now."""
        return self._taken

    def take(self, count: int) -> bool:
        """Reserve ``count`` bytes; False, and nothing reserved, where they are not left."""
        with self._lock:
            if self._taken + count > self.limit_bytes:
                return False
            self._taken += count
            return True

    def give_back(self, count: int) -> None:
        """Release what ``take`` reserved."""
        with self._lock:
            self._taken -= count


class Store:
    """The arrays' bytes: one growing buffer per non-empty array, or one file for all where memory is short."""

    def __init__(self, room: Room) -> None:
        self.file: IO[bytes] | None = None
        self._room = room
        self._taken = 0
        self._buffers: list[io.BytesIO] = []

    def begin(self) -> None:
        """Open the next array."""
        if self.file is None:
            self._buffers.append(io.BytesIO())

    def append(self, part: memoryview) -> None:
        """Add bytes to the open array."""
        if self.file is None and not self._room.take(len(part)):
            self._spill()
        if self.file is None:
            self._taken += len(part)
            self._buffers[-1].write(part)
        else:
            self.file.write(part)

    def take_all(self, sizes: list[int]) -> list[bytes]:
        """The data of every array, in order; empty arrays were never opened."""
        if self.file is not None:
            self.file.seek(0)
            return [self.file.read(size) for size in sizes]
        buffers = iter(self._buffers)
        self._buffers = []
        return [next(buffers).getvalue() if size else b"" for size in sizes]

    def discard(self) -> None:
        """Release memory and file."""
        self._buffers = []
        self._room.give_back(self._taken)
        self._taken = 0
        if self.file is not None:
            self.file.close()
            self.file = None

    def _spill(self) -> None:
        """Move what is held to a file that has no name, so that no crash leaves it behind."""
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by discard
        for buffer in self._buffers:
            self.file.write(buffer.getbuffer())
        self._buffers = []
        self._room.give_back(self._taken)
        self._taken = 0
