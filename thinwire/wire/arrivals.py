"""The receiving end of frames: every frame is checked before its bytes are kept."""

from collections.abc import Iterator

from flwr.app import Message

from thinwire.errors import WireError
from thinwire.flower import hollow
from thinwire.v1.fleet_pb2 import Frame, Header
from thinwire.wire.frames import (
    CHUNK_BYTES,
    HEADER_BYTES,
    LENGTH,
    MESSAGE_ID_BYTES,
    SMALL_CHUNK_BYTES,
    SMALL_FRAMES,
)
from thinwire.wire.packet import parse
from thinwire.wire.room import Room, Store


class Arrived:
    """A complete message, checked but for the arrays' data, which waits in memory or in an unnamed temporary file."""

    def __init__(self, total_bytes: int, header: Header, store: Store) -> None:
        """Raises WireError when the header is no Flower message."""
        self.total_bytes = total_bytes
        self._message, self._arrays = hollow(header.message, len(header.segment_bytes))
        self._sizes = list(header.segment_bytes)
        self._store = store

    @property
    def spilled(self) -> bool:
        """Whether the arrays wait on disk."""
        return self._store.file is not None

    def message(self) -> Message:
        """The Flower message; call once."""
        for array, data in zip(self._arrays, self._store.take_all(self._sizes), strict=True):
            array.data = data
        self.discard()
        return self._message

    def discard(self) -> None:
        """Release memory and disk; may be called again."""
        self._store.discard()


class Sequence:
    """Checks that frames are those of one message after the other, contiguous, in order and within the limits."""

    def __init__(self, limit_bytes: int, chunk_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._chunk_bytes = chunk_bytes
        self.message: str | None = None
        self.total_bytes = 0
        self.offset = 0
        self._frames = 0

    def check(self, frame: Frame) -> bool:
        """Whether this frame completes its message. Raises WireError unless it may come next."""
        if self.message is None:
            if not 0 < frame.total_bytes <= self._limit_bytes:
                raise WireError(
                    f"a message of {frame.total_bytes} bytes; between 1 and {self._limit_bytes} are allowed"
                )
            if not 0 < len(frame.message.encode()) <= MESSAGE_ID_BYTES:
                raise WireError(f"a message's identifier must have 1 to {MESSAGE_ID_BYTES} bytes")
            self.message, self.total_bytes, self.offset = frame.message, frame.total_bytes, 0
            self._frames = 0
        if frame.message != self.message or frame.total_bytes != self.total_bytes:
            raise WireError(f"a frame of message {frame.message[:80]!r} in the middle of {self.message!r}")
        if frame.offset != self.offset:
            raise WireError(f"a frame at offset {frame.offset}; the next one is at {self.offset}")
        if not 0 < len(frame.chunk) <= min(self._chunk_bytes, self.total_bytes - self.offset):
            raise WireError(f"a chunk of {len(frame.chunk)} bytes at offset {frame.offset} of {self.total_bytes}")
        self.offset += len(frame.chunk)
        self._frames += 1
        if self._frames > SMALL_FRAMES + self.offset // min(self._chunk_bytes, SMALL_CHUNK_BYTES):
            raise WireError(f"{self._frames} frames for {self.offset} bytes; chunks must be larger")
        if self.offset < self.total_bytes:
            return False
        self.message = None
        return True


class Assembler:
    """Puts the frames of one message together, checking each before its bytes are kept.

    Memory grows with what has arrived, never with what was announced, and moves to disk where ``room`` has none left.
    """

    def __init__(self, limit_bytes: int, chunk_bytes: int = CHUNK_BYTES, room: Room | None = None) -> None:
        self._sequence = Sequence(limit_bytes, chunk_bytes)
        self._store = Store(room or Room(limit_bytes))
        self._head = bytearray()
        self._header: Header | None = None
        self._segments: Iterator[int] = iter(())
        self._left = 0

    def add(self, frame: Frame) -> Arrived | None:
        """Keep the next frame; the message when it is complete.

        Raises WireError on anything but the next frame of the same message, within the limits; nothing is kept then.
        """
        try:
            complete = self._sequence.check(frame)
            chunk = memoryview(frame.chunk)
            if self._header is None:
                chunk = self._read_header(chunk)
            self._keep(chunk)
            if not complete:
                return None
            if self._header is None:
                raise WireError(f"a message of {frame.total_bytes} bytes ends within its header")
            return Arrived(frame.total_bytes, self._header, self._store)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Release what was kept."""
        self._store.discard()

    def _read_header(self, chunk: memoryview) -> memoryview:
        """Take the header's bytes from the front of a chunk; what is left of the chunk."""
        missing = LENGTH.size - len(self._head)
        if missing > 0:
            self._head += chunk[:missing]
            chunk = chunk[missing:]
            if len(self._head) < LENGTH.size:
                return chunk
        (length,) = LENGTH.unpack_from(self._head)
        end = LENGTH.size + length
        total = self._sequence.total_bytes
        if end > total or length > HEADER_BYTES:
            raise WireError(f"a header of {length} bytes in a message of {total}; at most {HEADER_BYTES}")
        missing = end - len(self._head)
        self._head += chunk[:missing]
        if len(self._head) == end:
            self._open(parse(Header, bytes(self._head[LENGTH.size :])), total - end)
        return chunk[missing:]

    def _open(self, header: Header, left_bytes: int) -> None:
        """The header is complete: the arrays it announces must be what is left."""
        announced = sum(header.segment_bytes)
        if announced != left_bytes:
            raise WireError(f"a header announces {announced} bytes of arrays; {left_bytes} bytes follow")
        self._header = header
        self._segments = iter(list(header.segment_bytes))
        self._head = bytearray()

    def _keep(self, chunk: memoryview) -> None:
        """Append a chunk to the arrays it belongs to."""
        while len(chunk):
            while not self._left:
                self._left = next(self._segments)
                if self._left:
                    self._store.begin()
            part = chunk[: self._left]
            self._store.append(part)
            self._left -= len(part)
            chunk = chunk[len(part) :]
