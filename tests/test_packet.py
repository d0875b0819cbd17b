"""Packets: the bytes of named payloads, and everything that is refused."""

import re

import pytest

from compressors import Payload
from thinwire.errors import WireError
from thinwire.v1 import packet_pb2
from thinwire.wire import packet
from thinwire.wire.codec import MOST_CODEC_BYTES, Codec, parse_codec
from thinwire.wire.packet import pack, unpack

PAYLOADS = {
    "update": Payload("top-k", "float32", b"\x01\x02", (b"abc", b"")),
    "buffers": Payload("scaled(natural)", "float64", b"", (b"\x00" * 100,)),
}


def test_payloads_come_back_in_the_order_of_names():
    data = pack(PAYLOADS)
    found = unpack(data, Payload, len(data))
    assert found == PAYLOADS
    assert list(found) == ["buffers", "update"]
    assert data == pack(dict(reversed(PAYLOADS.items()))), "the same payloads, the same bytes"
    assert unpack(pack({}), Payload, 100) == {}


def test_the_bytes_are_the_golden_ones():
    assert (
        pack({"x": Payload("natural", "float32", b"\x01", (b"ab", b"c"))}).hex()
        == "0a210a0178121c0a076e61747572616c1207666c6f617433321a010122026162220163117f1f2448cde75bf2"
    )


def test_framing_is_small():
    payload = Payload("top-k", "float32", bytes(8), (bytes(20_000), bytes(30_000)))
    assert len(pack({"update": payload})) - payload.size < 80


def test_a_packet_over_the_limit_is_refused_unread():
    data = pack(PAYLOADS)
    with pytest.raises(WireError, match=f"at most {len(data) - 1} are allowed"):
        unpack(data, Payload, len(data) - 1)


def test_any_changed_bit_and_any_cut_is_refused():
    data = pack(PAYLOADS)
    for index in range(len(data)):
        with pytest.raises(WireError):
            unpack(data[:index], Payload, len(data))
        for bit in range(8):
            changed = bytearray(data)
            changed[index] ^= 1 << bit
            with pytest.raises(WireError):
                unpack(bytes(changed), Payload, len(data))


@pytest.mark.parametrize(
    ("payloads", "message"),
    [
        ({"Update": PAYLOADS["update"]}, "bad name"),
        ({"": PAYLOADS["update"]}, "bad name"),
        ({"u" * 65: PAYLOADS["update"]}, "bad name"),
        ({"u": Payload("../top-k", "float32", b"", ())}, "malformed"),
        ({"u": Payload("a" * (MOST_CODEC_BYTES + 1), "float32", b"", ())}, "at most 128"),
        ({"u": Payload("top-k", "float16", b"", ())}, "bad dtype"),
        ({"u": Payload("top-k", "float32", bytes(packet.MOST_PARAMETER_BYTES + 1), ())}, "over the limits"),
        ({"u": Payload("top-k", "float32", b"", (b"",) * (packet.MOST_STREAMS + 1))}, "over the limits"),
        ({f"u{i:03}": PAYLOADS["update"] for i in range(packet.MOST_PAYLOADS + 1)}, "at most 64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_packets_over_the_limits_of_the_format_are_refused(payloads, message):
    data = pack(payloads)
    with pytest.raises(WireError, match=message):
        unpack(data, Payload, len(data))


def test_names_twice_or_out_of_order_are_refused():
    whole = packet_pb2.Packet.FromString(pack(PAYLOADS))
    for order in ([1, 0], [0, 0], [0, 1, 1]):
        changed = packet_pb2.Packet(checksum=whole.checksum, payloads=[whole.payloads[i] for i in order])
        with pytest.raises(WireError):
            unpack(changed.SerializeToString(), Payload, 10_000)


@pytest.mark.parametrize(
    "codec",
    [
        Codec("natural"),
        Codec("scaled", (Codec("rand-k"),)),
        Codec("mixed", (Codec("top-k"), Codec("scaled", (Codec("composed", (Codec("a"), Codec("b-8"))),)))),
        Codec("x" * 128),
    ],
    ids=str,
)
def test_a_codec_is_read_from_its_name(codec):
    assert parse_codec(str(codec)) == codec
    assert codec.names() == frozenset(re.findall(r"[a-z0-9-]+", str(codec)))


@pytest.mark.parametrize(
    "text",
    [
        *("", "(", "a(", "a()", "a(b", "a(b))", "a(b)c", "a(b,)", "a(,b)", "a,b", "a.b", "A", "-a", "a b", "(a)"),
        *("a(b)(c)", "a\n", "\u0430", "a(b,c", "a(b,(c))", "a(b(c(d(e))))", "x" * 129),
    ],
    ids=repr,
)
def test_a_name_that_is_no_codec_or_too_deep_or_too_long_is_refused(text):
    with pytest.raises(WireError, match=re.escape(repr(text[:80]))):
        parse_codec(text)
