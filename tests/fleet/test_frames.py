import tracemalloc

import pytest
from fleet_support import RUN, content, data_of
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.errors import WireError
from thinwire.flower import error_reply, request, split
from thinwire.v1.fleet_pb2 import Frame, Header
from thinwire.wire.arrivals import Arrived, Assembler
from thinwire.wire.frames import HEADER_BYTES, LENGTH, Outgoing, chunks, frames, outgoing
from thinwire.wire.room import Room

MEGABYTE = 1 << 20


def message(records: RecordDict) -> Message:
    return request(records, "train", 7, RUN, group="3", ttl=60.0)


def sent(body: Outgoing, chunk_bytes: int = MEGABYTE, limit_bytes: int = 1 << 30, room: Room | None = None) -> Arrived:
    assembler = Assembler(limit_bytes, chunk_bytes, room)
    arrived = [assembler.add(frame) for frame in frames("m", body, chunk_bytes)]
    assert arrived[:-1] == [None] * (len(arrived) - 1)
    assert arrived[-1] is not None
    return arrived[-1]


def raw(data: bytes) -> Outgoing:
    return Outgoing((data,), len(data))


def with_header(header: bytes, rest: bytes = b"") -> Outgoing:
    return raw(LENGTH.pack(len(header)) + header + rest)


@pytest.mark.parametrize("room_bytes", [1 << 30, 3 * MEGABYTE, 0], ids=["memory", "memory then disk", "disk"])
@pytest.mark.parametrize("size", [0, 1, 64 * MEGABYTE])
def test_a_message_arrives_bit_for_bit(size: int, room_bytes: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    room = Room(room_bytes)
    arrived = sent(outgoing(message(content(data))), room=room)
    assert arrived.spilled == (size > room_bytes)
    assert room.taken_bytes == (0 if arrived.spilled else size)
    assert data_of(arrived.message()) == data
    assert room.taken_bytes == 0


@pytest.mark.parametrize("chunk_bytes", [1, 3, 7, 1024])
@pytest.mark.parametrize("room_bytes", [1 << 20, 5])
def test_records_of_every_kind_arrive_in_any_chunks(chunk_bytes: int, room_bytes: int) -> None:
    arrays = [b"", b"abc", b"", b"d", bytes(100), b""]
    records = RecordDict(
        {
            "b": ArrayRecord({str(i): Array("uint8", (len(a),), "raw", a) for i, a in enumerate(arrays)}),
            "metrics": MetricRecord({"loss": 0.25, "steps": [1, 2]}),
            "config": ConfigRecord({"name": "x", "blob": b"\0\1", "flags": [True, False]}),
            "a": ArrayRecord({"w": Array("float32", (1,), "numpy.ndarray", b"wxyz")}),
        }
    )
    original = message(records)
    back = sent(outgoing(original), chunk_bytes, room=Room(room_bytes)).message()
    assert back.metadata.__dict__ == original.metadata.__dict__
    assert list(back.content) == list(records)
    for name, record in records.items():
        assert dict(back.content[name]) == dict(record)


def test_an_error_arrives() -> None:
    back = sent(outgoing(error_reply(message(content()).metadata, 2, "boom"))).message()
    assert back.error == Error(2, "boom")


def test_arrays_are_shared_not_copied() -> None:
    data = bytes(8 * MEGABYTE)
    records = content(data)
    tracemalloc.start()
    bodies = [outgoing(message(records)) for _ in range(100)]
    for frame in frames("m", bodies[0], MEGABYTE):
        assert len(frame.chunk) <= MEGABYTE
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(body.buffers[1] is data for body in bodies)
    assert peak < 4 * MEGABYTE


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 50))
def test_chunks_are_the_concatenation(buffers: list[bytes], chunk_bytes: int) -> None:
    found = list(chunks(tuple(buffers), chunk_bytes))
    assert b"".join(found) == b"".join(buffers)
    assert all(len(chunk) == chunk_bytes for chunk in found[:-1])
    assert all(found)


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (Frame(message="m", total_bytes=0, chunk=b"x"), "0 bytes"),
        (Frame(message="m", total_bytes=1001, chunk=b"x"), "between 1 and 1000"),
        (Frame(message="m", total_bytes=1 << 63, chunk=b"x"), "between 1 and 1000"),
        (Frame(message="", total_bytes=9, chunk=b"x"), "identifier"),
        (Frame(message="m" * 65, total_bytes=9, chunk=b"x"), "identifier"),
        (Frame(message="m", total_bytes=9, offset=1, chunk=b"x"), "offset 1"),
        (Frame(message="m", total_bytes=9, chunk=b""), "chunk of 0"),
        (Frame(message="m", total_bytes=9, chunk=bytes(10)), "chunk of 10"),
        (Frame(message="m", total_bytes=900, chunk=bytes(101)), "chunk of 101"),
    ],
)
def test_a_first_frame_out_of_bounds_is_refused(frame: Frame, complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        Assembler(1000, 100).add(frame)


@pytest.mark.parametrize(
    "second",
    [
        Frame(message="other", total_bytes=90, offset=10, chunk=b"x"),
        Frame(message="m", total_bytes=91, offset=10, chunk=b"x"),
        Frame(message="m", total_bytes=90, offset=0, chunk=b"x"),
        Frame(message="m", total_bytes=90, offset=9, chunk=b"x"),
        Frame(message="m", total_bytes=90, offset=11, chunk=b"x"),
        Frame(message="m", total_bytes=90, offset=10, chunk=bytes(81)),
    ],
    ids=["message", "total", "again", "overlap", "gap", "beyond"],
)
def test_a_frame_that_does_not_follow_is_refused_and_lets_go_of_memory(second: Frame) -> None:
    body = outgoing(message(content(bytes(1000))))
    room = Room(10_000)
    assembler = Assembler(10_000, 100, room)
    for frame in list(frames("m", body, 100))[:-1]:
        assembler.add(frame)
    assert room.taken_bytes > 0
    with pytest.raises(WireError):
        assembler.add(second)
    assert room.taken_bytes == 0


def test_what_is_announced_takes_no_memory() -> None:
    header = Header(message=split(message(content(b"")))[0], segment_bytes=[1 << 30]).SerializeToString()
    body = LENGTH.pack(len(header)) + header + b"only this"
    assembler = Assembler(2 << 30, MEGABYTE)
    tracemalloc.start()
    assembler.add(Frame(message="m", total_bytes=LENGTH.size + len(header) + (1 << 30), chunk=body))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def hollow_header(segments: list[int], records: RecordDict) -> bytes:
    return Header(message=split(message(records))[0], segment_bytes=segments).SerializeToString()


@pytest.mark.parametrize(
    "body",
    [
        raw(b"abc"),
        raw(LENGTH.pack(5) + b"abc"),
        raw(LENGTH.pack(HEADER_BYTES + 1) + bytes(HEADER_BYTES + 1)),
        with_header(b"\xff\xff\xff"),
        with_header(b""),
        with_header(Header(message=b"\xff\xff").SerializeToString()),
        with_header(hollow_header([5], content()), b"four"),
        with_header(hollow_header([3], content()), b"four"),
        with_header(hollow_header([1 << 63, 1 << 63, 4], content()), b"four"),
        with_header(hollow_header([2, 2], content()), b"four"),
        with_header(hollow_header([], content()), b""),
        with_header(
            Header(
                message=split(message(content()))[0].replace(b"train", b"drain"), segment_bytes=[4]
            ).SerializeToString(),
            b"four",
        ),
    ],
    ids=[
        "no length",
        "cut header",
        "huge header",
        "garbage header",
        "empty header",
        "garbage message",
        "too few bytes",
        "too many bytes",
        "sum overflows",
        "too many arrays",
        "too few arrays",
        "bad type",
    ],
)
def test_nonsense_within_a_message_is_a_wire_error(body: Outgoing) -> None:
    room = Room(1 << 30)
    with pytest.raises(WireError):
        sent(body, chunk_bytes=32 * MEGABYTE, room=room)
    assert room.taken_bytes == 0


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_to_a_header_is_a_wire_error_or_a_message(draw: st.DataObject) -> None:
    records = content(b"1234")
    records["config"] = ConfigRecord({"k": [1, 2], "s": "text"})
    whole = bytearray(b"".join(outgoing(message(records)).buffers))
    for _ in range(draw.draw(st.integers(1, 4))):
        whole[draw.draw(st.integers(0, len(whole) - 1))] = draw.draw(st.integers(0, 255))
    try:
        back = sent(raw(bytes(whole))).message()
    except WireError:
        return
    assert back.has_content() != back.has_error()


def test_a_large_value_outside_an_array_is_refused_by_the_sender() -> None:
    with pytest.raises(WireError, match="use an Array"):
        outgoing(message(RecordDict({"c": ConfigRecord({"blob": bytes(HEADER_BYTES + 1)})})))
