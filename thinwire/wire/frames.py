"""A Flower message as frames: a small header and the arrays' own bytes, cut into chunks without being copied first."""

from __future__ import annotations

import io
import struct
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from flwr.app import Message

from thinwire.errors import WireError
from thinwire.flower import join, split
from thinwire.v1.fleet_pb2 import Frame, Header
from thinwire.wire.packet import parse

PROTOCOL = 1
HEADER_BYTES = 16 << 20  # most bytes of a header: everything of a message but the data of its arrays
CHUNK_BYTES = 1 << 20
MESSAGE_BYTES = 2 << 30
MESSAGE_ID_BYTES = 64
FRAME_OVERHEAD_BYTES = 1 << 10  # what a frame may add to its chunk on the wire
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Outgoing:
    """A message ready to be sent: its bytes as buffers in order. Arrays that messages share stay one copy."""

    buffers: tuple[bytes, ...]
    total_bytes: int


def outgoing(message: Message) -> Outgoing:
    """The message as buffers, none of the arrays' data copied.

    Raises WireError when everything but the arrays is over 16 MiB.
    """
    bare, data = split(message)
    header = Header(message=bare, segment_bytes=[len(segment) for segment in data]).SerializeToString()
    if len(header) > HEADER_BYTES:
        raise WireError(f"a message of {len(header)} bytes besides its arrays; at most {HEADER_BYTES}: use an Array")
    buffers = (_LENGTH.pack(len(header)) + header, *data)
    return Outgoing(buffers, sum(len(buffer) for buffer in buffers))


def frames(message_id: str, message: Outgoing, chunk_bytes: int) -> Iterator[Frame]:
    """The frames of a message, made one at a time; every chunk but the last has ``chunk_bytes`` bytes."""
    offset = 0
    for chunk in chunks(message.buffers, chunk_bytes):
        yield Frame(message=message_id, total_bytes=message.total_bytes, offset=offset, chunk=chunk)
        offset += len(chunk)


def chunks(buffers: tuple[bytes, ...], chunk_bytes: int) -> Iterator[bytes]:
    """The concatenated buffers in pieces of ``chunk_bytes``, the last one shorter."""
    pieces: list[memoryview] = []
    room = chunk_bytes
    for buffer in buffers:
        view = memoryview(buffer)
        while len(view):
            pieces.append(view[:room])
            view = view[len(pieces[-1]) :]
            room -= len(pieces[-1])
            if not room:
                yield b"".join(pieces)
                pieces, room = [], chunk_bytes
    if pieces:
        yield b"".join(pieces)


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


class Arrived:
    """A complete message whose header was checked; its arrays wait in memory or in an unnamed temporary file."""

    def __init__(self, total_bytes: int, header: Header, store: _Store) -> None:
        self.total_bytes = total_bytes
        self._header = header
        self._store = store

    @property
    def spilled(self) -> bool:
        """Whether the arrays wait on disk."""
        return self._store.file is not None

    def message(self) -> Message:
        """The Flower message; call once. Raises WireError when its header is no Flower message."""
        try:
            return join(self._header.message, self._store.take_all(list(self._header.segment_bytes)))
        finally:
            self.discard()

    def discard(self) -> None:
        """Release memory and disk; may be called again."""
        self._store.discard()


class Assembler:
    """Puts the frames of one message together, checking each before its bytes are kept.

    Memory grows with what has arrived, never with what was announced, and moves to disk where ``room`` has none left.
    """

    def __init__(self, limit_bytes: int, chunk_bytes: int = CHUNK_BYTES, room: Room | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._chunk_bytes = chunk_bytes
        self._store = _Store(room or Room(limit_bytes + HEADER_BYTES))
        self._message: str | None = None
        self._total = 0
        self._offset = 0
        self._head = bytearray()
        self._header: Header | None = None
        self._segments: Iterator[int] = iter(())
        self._left = 0

    def add(self, frame: Frame) -> Arrived | None:
        """Keep the next frame; the message when it is complete.

        Raises WireError on anything but the next frame of the same message, within the limits; nothing is kept then.
        """
        try:
            self._check(frame)
            chunk = memoryview(frame.chunk)
            self._offset += len(chunk)
            if self._header is None:
                chunk = self._read_header(chunk)
            self._keep(chunk)
        except BaseException:
            self.discard()
            raise
        if self._offset < self._total:
            return None
        if self._header is None:
            self.discard()
            raise WireError(f"a message of {self._total} bytes ends within its header")
        return Arrived(self._total, self._header, self._store)

    def discard(self) -> None:
        """Release what was kept."""
        self._store.discard()

    def _check(self, frame: Frame) -> None:
        """Raise WireError unless this frame may come next."""
        if self._message is None:
            if not 0 < frame.total_bytes <= self._limit_bytes:
                raise WireError(
                    f"a message of {frame.total_bytes} bytes; between 1 and {self._limit_bytes} are allowed"
                )
            self._message, self._total = frame.message, frame.total_bytes
        if frame.message != self._message or frame.total_bytes != self._total:
            raise WireError(f"a frame of message {frame.message[:80]!r} in the middle of {self._message!r}")
        if frame.offset != self._offset:
            raise WireError(f"a frame at offset {frame.offset}; the next one is at {self._offset}")
        if not 0 < len(frame.chunk) <= min(self._chunk_bytes, self._total - self._offset):
            raise WireError(f"a chunk of {len(frame.chunk)} bytes at offset {frame.offset} of {self._total}")

    def _read_header(self, chunk: memoryview) -> memoryview:
        """Take the header's bytes from the front of a chunk, and what is left of the chunk."""
        missing = _LENGTH.size - len(self._head)
        if missing > 0:
            self._head += chunk[:missing]
            chunk = chunk[missing:]
            if len(self._head) < _LENGTH.size:
                return chunk
        (length,) = _LENGTH.unpack_from(self._head)
        end = _LENGTH.size + length
        if end > min(self._total, HEADER_BYTES):
            raise WireError(f"a header of {length} bytes in a message of {self._total}; at most {HEADER_BYTES}")
        missing = end - len(self._head)
        self._head += chunk[:missing]
        if len(self._head) == end:
            self._header = parse(Header, bytes(self._head[_LENGTH.size :]))
            announced = sum(self._header.segment_bytes)
            if end + announced != self._total:
                raise WireError(f"{announced} bytes of arrays after a header of {end} bytes, in {self._total} bytes")
            self._segments = iter(list(self._header.segment_bytes))
            self._head = bytearray()
        return chunk[missing:]

    def _keep(self, chunk: memoryview) -> None:
        """Append a chunk to the arrays it belongs to."""
        while len(chunk):
            while not self._left:
                self._left = next(self._segments)
                self._store.begin()
            part = chunk[: self._left]
            self._store.append(part)
            self._left -= len(part)
            chunk = chunk[len(part) :]


class _Store:
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
