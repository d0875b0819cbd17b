"""Peers that take too much, too often or too long; another client is served meanwhile, undisturbed."""

import contextlib
import re
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from fleet_support import DEADLINE_SECONDS, RUN, Events, RawClient, ask, clients, data_of, fleet, raw_client

from server.grids.fleet import FleetGrid
from server.grids.options import FleetOptions
from thinwire.errors import ConfigError, RoundError, WireError
from thinwire.flower import node_id
from thinwire.v1.fleet_pb2 import ConnectRequest, Frame, Open
from thinwire.wire.arrivals import Sequence
from thinwire.wire.frames import PROTOCOL, SMALL_FRAMES, frames, outgoing

LIMITS = ("_bytes", "connections", "_connection", "_per_minute", "_seconds", "stray_replies")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7


@contextlib.contextmanager
def scene(events: Events, **limits: object) -> Iterator[FleetGrid]:
    """A fleet with these limits and one good client, who is there before and after and notices nothing."""
    with fleet(events, **limits) as grid, clients(grid.address, "good"):
        grid.wait_for_nodes(1, DEADLINE_SECONDS)
        yield grid
        (reply,) = grid.send_and_receive([ask(node_id(RUN, "good"), b"undisturbed")], timeout=DEADLINE_SECONDS)
        assert data_of(reply) == b"undisturbed"
        assert [kind for kind, identity, _ in events.seen if identity == "good"] == ["opened"]


def opening(identity: str = "mallory") -> Open:
    return Open(protocol=PROTOCOL, identity=identity)


def asked(grid: FleetGrid, mallory: RawClient) -> str:
    """Let mallory in and ask her something; the identifier of the request."""
    mallory.send(opening())
    (message_id,) = grid.push_messages([ask(mallory.receive().opened.node)])
    assert mallory.receive_request() == message_id
    return message_id


def answer_of(address: str, identity: str) -> str:
    """What the server says to a newcomer: its reason, or nothing where it lets it in."""
    with raw_client(address, opening(identity)) as one:
        said = one.receive()
        assert said.HasField("opened") or said.refused.retry
        return said.refused.reason


# -- too often ---------------------------------------------------------------------------------------------------


def test_an_identity_that_connects_too_often_is_sent_away_for_a_while() -> None:
    events = Events()
    with scene(events, connects_per_minute=2.0) as grid:
        said = [answer_of(grid.address, "mallory") for _ in range(8)]
        assert said[:2] == [""] * 2
        assert set(said[2:]) == {"'mallory' connects too often: more than 2 a minute; try again later"}
        assert answer_of(grid.address, "bob") == ""
    told = [detail for kind, identity, detail in events.seen if (kind, identity) == ("refused", "mallory")]
    assert told == ["'mallory' connects too often: more than 2 a minute"]


def test_who_is_not_let_in_uses_up_nobodys_connects() -> None:
    with scene(Events(), connects_per_minute=3.0, token="") as grid:
        for _ in range(6):
            with raw_client(grid.address, Open(protocol=PROTOCOL, identity="bob", token="guess")) as stranger:
                assert stranger.receive().refused.reason == "wrong token"
        assert answer_of(grid.address, "bob") == ""


def test_an_address_that_connects_too_often_is_sent_away_for_a_while() -> None:
    events = Events()
    with scene(events, address_connects_per_minute=2.0) as grid:
        said = [answer_of(grid.address, name) for name in ("ann", "bob", "cid", "dan", "eve")]
        assert said[0] == ""  # the second from there, after the good one
        assert set(said[1:]) == {"127.0.0.1 connects too often: more than 2 a minute; try again later"}
    assert [detail for kind, _, detail in events.seen if kind == "refused"] == [
        "127.0.0.1 connects too often: more than 2 a minute"
    ]


def test_a_client_that_is_sent_away_for_a_while_comes_back_by_itself() -> None:
    events = Events()
    with fleet(events, connects_per_minute=300.0) as grid:
        while not answer_of(grid.address, "ann"):
            continue
        with clients(grid.address, "ann"):
            (node,) = grid.wait_for_nodes(1, DEADLINE_SECONDS)
            (reply,) = grid.send_and_receive([ask(node, b"back")], timeout=DEADLINE_SECONDS)
            assert data_of(reply) == b"back"


def test_refusals_of_one_address_are_told_only_so_often() -> None:
    events = Events()
    with scene(events, roster=("good",)) as grid:
        for number in range(60):
            with raw_client(grid.address, opening(f"stranger-{number}")) as stranger:
                assert stranger.receive().refused.reason == f"unknown identity 'stranger-{number}'"
    assert 30 <= sum(kind == "refused" for kind, _, _ in events.seen) < 50


# -- too many ----------------------------------------------------------------------------------------------------


def test_more_connections_than_allowed_are_sent_away_for_a_while() -> None:
    events = Events()
    with scene(events, connections=4) as grid, contextlib.ExitStack() as stack:
        for name in ("ann", "bob", "cid"):
            held = stack.enter_context(raw_client(grid.address, opening(name)))
            assert held.receive().HasField("opened")
        assert [answer_of(grid.address, name) for name in ("dan", "eve")] == [
            "4 connections are open already, the most there may be; try again later"
        ] * 2
        held.close()
        events.wait("closed", "cid")
        assert answer_of(grid.address, "dan") == ""
    assert sum(kind == "refused" for kind, _, _ in events.seen) == 1


def test_sockets_beyond_the_connections_are_closed_at_once() -> None:
    with scene(Events(), connections=2, hello_seconds=600.0) as grid, contextlib.ExitStack() as stack:
        waiting = {stack.enter_context(dialled(grid.address)) for _ in range(40)}
        while len(waiting) > 2 + 16:
            gone, _, _ = select.select(list(waiting), [], [], DEADLINE_SECONDS)
            assert gone, f"{len(waiting)} sockets are open"
            waiting -= {one for one in gone if hung_up(one, 0)}


def test_more_streams_than_allowed_on_one_connection_are_refused() -> None:
    """By HTTP/2's own rule; gRPC's clients know it from the server's settings and wait."""
    with scene(Events(), streams_per_connection=3) as grid, dialled(grid.address) as mallory:
        mallory.sendall(PREFACE + frame(SETTINGS, 0, 0))
        settings = next(body for kind, _, body in frames_of(mallory) if kind == SETTINGS)
        most = {struct.unpack_from(">HI", settings, at) for at in range(0, len(settings), 6)}
        assert (3, 3) in most  # SETTINGS_MAX_CONCURRENT_STREAMS


def test_replies_that_nobody_asked_for_are_no_way_to_fill_the_log() -> None:
    events = Events()
    with scene(events, stray_replies=5) as grid, raw_client(grid.address) as mallory:
        asked(grid, mallory)
        for number in range(200):
            mallory.send(Frame(message=str(number), total_bytes=1, chunk=b"x"))
        (last,) = mallory.rest()
        assert last.refused.reason == "broke the protocol: more than 5 replies that nobody asked for"
    assert sum(kind == "dropped" for kind, _, _ in events.seen) == 5


def test_answers_that_nobody_asked_for_are_counted_and_too_many_are_the_end() -> None:
    """The first late answer to each request is forgiven, however many there are."""
    events = Events()
    with scene(events, stray_replies=2) as grid, raw_client(grid.address) as ann:
        ann.send(opening("ann"))
        node = ann.receive().opened.node
        for turn in range(10):
            ids = grid.push_messages([ask(node)])
            assert ann.receive_request() == ids[0]
            grid.forget_messages(ids)
            ann.send(Frame(message=ids[0], total_bytes=1, chunk=b"x"))
            events.wait("dropped", "ann", count=turn + 1)
        for _ in range(3):
            ann.send(Frame(message=ids[0], total_bytes=1, chunk=b"x"))
        (last,) = ann.rest()
        assert "more than 2 replies that nobody asked for" in last.refused.reason


# -- too large, too small ----------------------------------------------------------------------------------------


def test_a_message_over_the_runs_own_limit_is_the_end_of_its_sender() -> None:
    with scene(Events(), message_bytes=100_000) as grid, raw_client(grid.address) as mallory:
        message_id = asked(grid, mallory)
        mallory.send(Frame(message=message_id, total_bytes=100_001, chunk=b"x"))
        (last,) = mallory.rest()
        assert "a message of 100001 bytes; between 1 and 100000 are allowed" in last.refused.reason


def test_a_chunk_over_the_limit_is_the_end_of_its_sender() -> None:
    with scene(Events(), chunk_bytes=2_048) as grid, raw_client(grid.address) as mallory:
        message_id = asked(grid, mallory)
        mallory.send(Frame(message=message_id, total_bytes=100_000, chunk=bytes(2_049)))
        (last,) = mallory.rest()
        assert "a chunk of 2049 bytes" in last.refused.reason


def test_a_reply_in_single_bytes_is_cut_off() -> None:
    with scene(Events()) as grid, raw_client(grid.address) as mallory:
        message_id = asked(grid, mallory)
        body = outgoing(ask(1, bytes(5_000)))
        for one in frames(message_id, body, 1):
            mallory.send(one)
        (last,) = mallory.rest()
        assert "65 frames for 65 bytes; chunks must be larger" in last.refused.reason


@pytest.mark.parametrize("chunk_bytes", [100, 1 << 10, 256 << 10])
def test_frames_that_are_too_small_are_refused(chunk_bytes: int) -> None:
    """Whole chunks are never too many; halves of the smallest that a server may ask for are, some time."""
    total = 1 << 20
    whole, half = Sequence(total, chunk_bytes), Sequence(total, chunk_bytes)
    size = min(chunk_bytes, 1 << 10)
    for offset in range(0, total, size):
        whole.check(Frame(message="m", total_bytes=total, offset=offset, chunk=bytes(min(size, total - offset))))
    assert whole.message is None
    for number in range(2 * SMALL_FRAMES):
        half.check(Frame(message="m", total_bytes=total, offset=number * (size // 2), chunk=bytes(size // 2)))
    with pytest.raises(WireError, match="chunks must be larger"):
        half.check(Frame(message="m", total_bytes=total, offset=half.offset, chunk=bytes(size // 2)))


# -- too long ----------------------------------------------------------------------------------------------------


def test_a_connection_that_never_says_hello_is_hung_up() -> None:
    with scene(Events(), hello_seconds=0.3) as grid, dialled(grid.address) as silent, raw_client(grid.address) as mute:
        assert hung_up(silent, DEADLINE_SECONDS)
        (last,) = mute.rest()
        assert last.refused.reason == "no Open within 0.3 seconds"
        assert last.refused.retry


def test_a_connection_without_a_stream_is_hung_up() -> None:
    with scene(Events(), idle_seconds=0.5) as grid, dialled(grid.address) as idle:
        idle.sendall(PREFACE + frame(SETTINGS, 0, 0))
        assert GOAWAY in [kind for kind, _, _ in frames_of(idle)]


def test_a_peer_that_answers_no_ping_is_taken_for_gone() -> None:
    """Its kernel is there and confirms what comes; its process says nothing any more."""
    events = Events()
    with scene(events, keepalive_seconds=1.0, stall_seconds=0.5) as grid, dialled(grid.address) as mallory:
        mallory.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, 1, 0) + call() + said(opening()))
        events.wait("opened", "mallory")
        events.wait("closed", "mallory")


def test_a_reply_that_stalls_is_given_up() -> None:
    events = Events()
    with scene(events, stall_seconds=0.3) as grid, raw_client(grid.address) as mallory:
        message_id = asked(grid, mallory)
        mallory.send(next(iter(frames(message_id, outgoing(ask(1, bytes(5_000))), 1_024))))
        (last,) = mallory.rest()
        assert last.refused.reason == "no frame for 0.3 seconds in the middle of a reply"
        assert last.refused.retry
        events.wait("closed", "mallory")
        assert grid._door._room.taken_bytes == 0


def test_a_client_that_takes_nothing_is_given_up() -> None:
    """It answers every ping, as gRPC does for it, and leaves its window closed."""
    events = Events()
    with scene(events, stall_seconds=0.5) as grid, raw_client(grid.address, opening()) as mallory:
        node = mallory.receive().opened.node
        grid.push_messages([ask(node, bytes(8 << 20))])
        assert events.wait("closed", "mallory") == "took nothing of a request for 0.5 seconds"


def test_silence_between_messages_is_nothing_bad() -> None:
    """For several times as long as every limit: the stream that was open before still is."""
    with (
        scene(Events(), stall_seconds=0.2, hello_seconds=0.2, idle_seconds=0.2) as grid,
        pytest.raises(RoundError, match=r"1 of 2 clients came within 0\.8 seconds"),
    ):
        grid.wait_for_nodes(2, 0.8)


def test_a_flood_of_pings_is_cut_off() -> None:
    with scene(Events()) as grid, dialled(grid.address) as mallory:
        with contextlib.suppress(OSError):  # it hangs up while we still talk
            mallory.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(PING, 0, 0, bytes(8)) * 2_000)
        assert hung_up(mallory, DEADLINE_SECONDS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chunk_bytes", 1_023),
        ("message_bytes", 0),
        ("spill_bytes", -1),
        ("connections", 0),
        ("streams_per_connection", 0),
        ("connects_per_minute", 0.0),
        ("address_connects_per_minute", -1.0),
        ("stray_replies", -1),
        ("hello_seconds", float("nan")),
        ("idle_seconds", 0.0),
        ("stall_seconds", 0.0),
        ("keepalive_seconds", 0.0),
    ],
)
def test_limits_that_let_nobody_in_are_config_errors(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} = "):
        FleetOptions(**{name: value})  # type: ignore[arg-type]


def test_the_guide_has_a_row_for_every_limit_with_its_default() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
    section = guide[guide.index('id="limits"') : guide.index('id="upgrades"')]
    rows = dict(re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", section, re.M))
    told = {name: default for names, default in rows.items() for name in re.findall(r"`(\w+)`", names)}
    limits = {field.name: field.default for field in fields(FleetOptions) if field.name.endswith(LIMITS)}
    assert set(told) == set(limits)
    for name, default in limits.items():
        amount = f"{default >> 20} MiB" if name == "spill_bytes" else f"{default:,g}"
        assert name in ("chunk_bytes", "message_bytes") or told[name].startswith(amount), name
    assert told["chunk_bytes"].startswith(f"{limits['chunk_bytes'] >> 10} KiB")


# -- HTTP/2 by hand ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def dialled(address: str) -> Iterator[socket.socket]:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS) as one:
        yield one


def hung_up(one: socket.socket, seconds: float) -> bool:
    """Whether the other end closes within so many seconds, whatever it says before."""
    one.settimeout(seconds)
    try:
        while one.recv(1 << 16):
            continue
    except (TimeoutError, BlockingIOError):
        return False
    except OSError:
        return True
    return True


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def frames_of(one: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and body of the frames that come, until the end."""
    with one.makefile("rb") as file:
        while len(head := file.read(9)) == 9:
            yield head[3], head[4], file.read(int.from_bytes(head[:3], "big"))


def call() -> bytes:
    """HEADERS of a call of Connect, on stream 1; literals without a name in the table (RFC 7541, 6.2.2)."""
    pairs = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/thinwire.v1.FleetService/Connect",
        ":authority": "thinwire",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    body = b"".join(b"\0" + text(name) + text(value) for name, value in pairs.items())
    return frame(1, 4, 1, body)


def text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def said(first: Open) -> bytes:
    """DATA with one message of the call."""
    message = ConnectRequest(open=first).SerializeToString()
    return frame(0, 0, 1, b"\0" + struct.pack(">I", len(message)) + message)
