"""A Flower message as frames: a small header and the arrays' own bytes, cut into chunks without being copied first."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from flwr.app import Message

from thinwire.errors import WireError
from thinwire.flower import split
from thinwire.v1.fleet_pb2 import Frame, Header

PROTOCOL = 1
HEADER_BYTES = 4 << 20  # most bytes of a header: everything of a message but the data of its arrays
CHUNK_BYTES = 256 << 10  # larger chunks cost the server memory per client and gain nothing
MESSAGE_BYTES = 2 << 30
MESSAGE_ID_BYTES = 64
SMALL_CHUNK_BYTES = 1 << 10  # a message may have a frame for each so many bytes, and SMALL_FRAMES besides
SMALL_FRAMES = 64
FRAME_OVERHEAD_BYTES = 1 << 10  # what a frame may add to its chunk on the wire
LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Outgoing:
    """A message ready to be sent: its bytes as buffers in order. Arrays that messages share stay one copy."""

    buffers: tuple[bytes, ...]
    total_bytes: int


def outgoing(message: Message) -> Outgoing:
    """The message as buffers, none of the arrays' data copied.

    Raises WireError when everything but the arrays is over 4 MiB.
    """
    bare, data = split(message)
    header = Header(message=bare, segment_bytes=[len(segment) for segment in data]).SerializeToString()
    if len(header) > HEADER_BYTES:
        raise WireError(f"a message of {len(header)} bytes besides its arrays; at most {HEADER_BYTES}: use an Array")
    buffers = (LENGTH.pack(len(header)) + header, *data)
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
