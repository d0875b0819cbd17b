"""Pack and unpack: named payloads as the bytes of one protobuf Packet, checked before anything else looks at them."""

import re
from collections.abc import Mapping
from typing import Protocol, TypeVar

import xxhash
from google.protobuf.message import DecodeError, Message

from thinwire.errors import WireError
from thinwire.v1 import packet_pb2
from thinwire.wire.codec import parse_codec

MOST_PAYLOADS = 64
MOST_STREAMS = 16
MOST_NAME_BYTES = 64
MOST_PARAMETER_BYTES = 4_096
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
DTYPES = frozenset({"float32", "float64"})


class PayloadLike(Protocol):
    """The four fields of ``compressors.Payload``."""

    @property
    def codec(self) -> str: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def parameters(self) -> bytes: ...  # noqa: D102
    @property
    def streams(self) -> tuple[bytes, ...]: ...  # noqa: D102


P = TypeVar("P", covariant=True)
M = TypeVar("M", bound=Message)


class MakePayload(Protocol[P]):
    """The constructor of ``compressors.Payload``."""

    def __call__(self, codec: str, dtype: str, parameters: bytes, streams: tuple[bytes, ...]) -> P: ...  # noqa: D102


def pack(payloads: Mapping[str, PayloadLike]) -> bytes:
    """The packet's bytes, the same for the same payloads."""
    packet = packet_pb2.Packet(checksum=_checksum(payloads))
    for name in sorted(payloads):
        payload, place = payloads[name], packet.payloads.add(name=name).payload  # filled in place: no copy of a copy
        place.codec, place.dtype, place.parameters = payload.codec, payload.dtype, payload.parameters
        place.streams.extend(payload.streams)
    return packet.SerializeToString(deterministic=True)


def unpack(data: bytes, make: MakePayload[P], limit_bytes: int, *, verified: bool = False) -> dict[str, P]:
    """The named payloads of a packet; their contents are still to be decoded by their codecs.

    ``verified``: this process has packed or unpacked these very bytes before, so the checksum is not computed again.
    Raises WireError on more than ``limit_bytes``, malformed bytes, a bad checksum, or anything over the limits.
    """
    if len(data) > limit_bytes:
        raise WireError(f"packet of {len(data)} bytes; at most {limit_bytes} are allowed here")
    packet = parse(packet_pb2.Packet, data)
    if len(packet.payloads) > MOST_PAYLOADS:
        raise WireError(f"packet of {len(packet.payloads)} payloads; at most {MOST_PAYLOADS} are allowed")
    found: dict[str, P] = {}
    raw: dict[str, PayloadLike] = {}
    for named in packet.payloads:
        payload = named.payload
        if not NAME.fullmatch(named.name):
            raise WireError(f"bad name {named.name[:80]!r} in a packet")
        parse_codec(payload.codec)
        if payload.dtype not in DTYPES:
            raise WireError(f"bad dtype {payload.dtype[:80]!r} in a packet; expected {' or '.join(sorted(DTYPES))}")
        if len(payload.streams) > MOST_STREAMS or len(payload.parameters) > MOST_PARAMETER_BYTES:
            raise WireError(f"payload {named.name!r} is over the limits of the format")
        if raw and named.name <= next(reversed(raw)):
            raise WireError(f"payload {named.name!r} is out of order or twice in a packet")
        found[named.name] = make(payload.codec, payload.dtype, payload.parameters, tuple(payload.streams))
        raw[named.name] = found[named.name]  # type: ignore[assignment]  # make builds a PayloadLike
    if not verified and packet.checksum != _checksum(raw):
        raise WireError("the packet's checksum does not match its content")
    return found


def parse(kind: type[M], data: bytes) -> M:
    """A protobuf message from bytes. Raises WireError when they are malformed."""
    try:
        return kind.FromString(data)
    except (DecodeError, RecursionError) as error:
        raise WireError(f"malformed {kind.DESCRIPTOR.name}: {error}") from None


def _checksum(payloads: Mapping[str, PayloadLike]) -> int:
    """XXH3 with 64 bits over every part with its length before it, in the order of names."""
    digest = xxhash.xxh3_64()
    for name in sorted(payloads):
        payload = payloads[name]
        for part in (name.encode(), payload.codec.encode(), payload.dtype.encode(), payload.parameters):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        digest.update(len(payload.streams).to_bytes(8, "little"))
        for stream in payload.streams:
            digest.update(len(stream).to_bytes(8, "little"))
            digest.update(stream)
    return digest.intdigest()
