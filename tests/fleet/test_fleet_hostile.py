"""Clients that mean harm, or are merely broken, while another one goes on undisturbed."""

import socket
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pytest
from fleet_support import RUN, Events, RawClient, ask, clients, data_of, fleet, raw_client

from client.fleet import SessionOptions
from server.grids.fleet import FleetGrid
from server.grids.options import FleetOptions
from thinwire.errors import ConfigError
from thinwire.flower import NODE_UNAVAILABLE, node_id
from thinwire.v1.fleet_pb2 import ConnectRequest, Frame, Open
from thinwire.wire.frames import LENGTH, PROTOCOL, frames, outgoing

LIMIT_BYTES = 1 << 20
CHUNK_BYTES = 64 << 10


class Scene(NamedTuple):
    grid: FleetGrid
    events: Events
    good: int


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A fleet with a secret, and one good client."""
    events = Events()
    roster = ("good", "mallory")
    with (
        fleet(
            events,
            token="s3cret",
            roster=roster,
            chunk_bytes=CHUNK_BYTES,
            message_bytes=LIMIT_BYTES,
            hello_seconds=0.3,
            spill_bytes=LIMIT_BYTES,
        ) as grid,
        clients(grid.address, "good", token="s3cret"),
    ):
        grid.wait_for_nodes(1, 10)
        yield Scene(grid, events, node_id(RUN, "good"))
        (reply,) = grid.send_and_receive([ask(node_id(RUN, "good"), b"undisturbed")], timeout=10)
        assert data_of(reply) == b"undisturbed"
        assert [event for event in events.seen if event[1] == "good"] == events.seen[:1]


def opening(**changes: object) -> Open:
    return Open(**{"protocol": PROTOCOL, "identity": "mallory", "token": "s3cret", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (opening(protocol=PROTOCOL + 1), f"this server speaks {PROTOCOL}"),
        (opening(token=""), "wrong token"),
        (opening(token="s3cres"), "wrong token"),
        (opening(token="é"), "wrong token"),
        (opening(identity="eve"), "unknown identity 'eve'"),
        (opening(identity=""), "bad client name"),
        (opening(identity="a\x00b"), "bad client name"),
        (opening(identity="x" * 129), "bad client name"),
        (Frame(message="m", total_bytes=4, chunk=b"four"), "the first message must be Open"),
        (ConnectRequest(), "the first message must be Open"),
        (b"\xff\xff\xff\xff", "cannot be read"),
    ],
)
def test_a_bad_first_word_is_refused_with_its_reason(
    scene: Scene, first: Open | Frame | ConnectRequest | bytes, reason: str
) -> None:
    with raw_client(scene.grid.address) as mallory:
        mallory.send(first)
        (last,) = mallory.rest()
    assert reason in last.refused.reason
    assert not last.refused.retry
    assert reason in scene.events.wait("refused")


def test_a_client_that_says_nothing_is_refused_after_a_while(scene: Scene) -> None:
    with raw_client(scene.grid.address) as mallory:
        (last,) = mallory.rest()
    assert "no Open within 0.3 seconds" in last.refused.reason


def test_a_connection_that_is_no_grpc_disturbs_nobody(scene: Scene) -> None:
    host, port = scene.grid.address.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=10) as silent,
        socket.create_connection((host, int(port)), timeout=10) as web,
    ):
        web.sendall(b"GET / HTTP/1.1\r\nHost: thinwire\r\n\r\n" + b"\x00" * 10_000)
        (reply,) = scene.grid.send_and_receive([ask(scene.good, b"meanwhile")], timeout=10)
        assert data_of(reply) == b"meanwhile"
        assert silent.fileno() > 0


def asked(scene: Scene, mallory: RawClient) -> str:
    """Let mallory in and ask her something; the identifier of the request."""
    mallory.send(opening())
    node = mallory.receive().opened.node
    (message_id,) = scene.grid.push_messages([ask(node)])
    assert mallory.receive_request() == message_id
    return message_id


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ([Frame(total_bytes=LIMIT_BYTES + 1, chunk=b"x")], "at most|are allowed"),
        ([Frame(total_bytes=1 << 63, chunk=b"x")], "are allowed"),
        ([Frame(total_bytes=100, offset=4, chunk=b"x")], "offset 4"),
        ([Frame(total_bytes=100, chunk=b"\0\0"), Frame(total_bytes=100, offset=1, chunk=b"x")], "offset 1"),
        ([Frame(total_bytes=100, chunk=b"\0\0"), Frame(total_bytes=99, offset=2, chunk=b"x")], "in the middle"),
        ([Frame(total_bytes=LIMIT_BYTES, chunk=bytes(CHUNK_BYTES + 1))], "a chunk of 65537"),
        ([Frame(total_bytes=9)], "a chunk of 0"),
        ([Frame(total_bytes=6, chunk=LENGTH.pack(2) + b"\xff\xff")], "malformed Header"),
        ([Frame(total_bytes=4, chunk=LENGTH.pack(0))], "not a Flower message"),
        ([Frame(total_bytes=100, chunk=LENGTH.pack(1 << 31))], "a header of 2147483648 bytes"),
        ([opening()], "only frames may follow Open"),
        ([b"\xff\xff\xff\xff"], "broke the protocol"),
    ],
)
def test_a_client_that_breaks_the_protocol_is_cut_off_and_its_messages_fail(
    scene: Scene, wrong: list[Frame | Open | bytes], reason: str
) -> None:
    with raw_client(scene.grid.address) as mallory:
        message_id = asked(scene, mallory)
        for frame in wrong:
            if isinstance(frame, Frame):
                frame.message = message_id
            mallory.send(frame)
        (last,) = mallory.rest()
        assert any(part in last.refused.reason for part in reason.split("|"))
        assert not last.refused.retry
        (reply,) = scene.grid.replies([message_id], timeout=10)
        assert reply.error.code == NODE_UNAVAILABLE
        assert "broke the protocol" in str(reply.error.reason)
        scene.events.wait("nonsense", "mallory")


def test_a_message_over_grpcs_own_limit_ends_the_stream(scene: Scene) -> None:
    with raw_client(scene.grid.address) as mallory:
        message_id = asked(scene, mallory)
        mallory.send(Frame(message=message_id, total_bytes=LIMIT_BYTES, chunk=bytes(CHUNK_BYTES + 2000)))
        assert mallory.rest() == []
        scene.events.wait("closed", "mallory")


def test_replies_nobody_asked_for_take_no_memory(scene: Scene) -> None:
    with raw_client(scene.grid.address) as mallory:
        asked(scene, mallory)
        tracemalloc.start()
        for number in range(30):
            for offset in range(0, LIMIT_BYTES, CHUNK_BYTES):
                mallory.send(
                    Frame(message=str(number), total_bytes=LIMIT_BYTES, offset=offset, chunk=bytes(CHUNK_BYTES))
                )
        scene.events.wait("dropped", "mallory", count=30)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert scene.grid._door._room.taken_bytes == 0
        assert held < 40 * LIMIT_BYTES  # the sender's own queue, at most


def test_a_client_that_stops_in_the_middle_of_a_reply_holds_no_memory_once_it_is_gone(scene: Scene) -> None:
    with raw_client(scene.grid.address) as mallory:
        message_id = asked(scene, mallory)
        body = outgoing(ask(1, bytes(LIMIT_BYTES // 2)))
        first, second, *_ = frames(message_id, body, CHUNK_BYTES)
        mallory.send(first)
        mallory.send(second)
        (reply,) = scene.grid.send_and_receive([ask(scene.good, b"meanwhile")], timeout=10)
        assert data_of(reply) == b"meanwhile"
    scene.events.wait("closed", "mallory")
    assert scene.grid._door._room.taken_bytes == 0
    assert scene.grid.pull_messages([message_id]) == []


def test_a_rejected_client_is_cut_off_and_refused_afterwards(scene: Scene) -> None:
    with raw_client(scene.grid.address) as mallory:
        message_id = asked(scene, mallory)
        scene.grid.reject(node_id(RUN, "mallory"), "sent a gradient of the wrong shape")
        (last,) = mallory.rest()
        assert last.refused.reason == "sent a gradient of the wrong shape"
    (reply,) = scene.grid.replies([message_id], timeout=10)
    assert "wrong shape" in str(reply.error.reason)
    with raw_client(scene.grid.address, opening()) as again:
        (last,) = again.rest()
        assert last.refused.reason == "sent a gradient of the wrong shape"


def test_an_events_callback_that_fails_does_not_harm_the_fleet(caplog: pytest.LogCaptureFixture) -> None:
    def fail(kind: str, identity: str, detail: str) -> None:
        raise ValueError(kind)

    with fleet(fail) as grid, clients(grid.address, "ann"):  # type: ignore[arg-type]
        (node,) = grid.wait_for_nodes(1, 10)
        assert len(grid.send_and_receive([ask(node)], timeout=10)) == 1
    assert "the events callback failed on 'opened'" in caplog.text


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"address": "0.0.0.0:0"}, "without TLS"),
        ({"address": "example.org:8500"}, "without TLS"),
        ({"address": "8500"}, "expected host:port"),
        ({"address": "127.0.0.1:99999"}, "expected host:port"),
        ({"address": "127.0.0.1:0", "certificate": "x.pem"}, "belong together"),
        ({"address": "127.0.0.1:0", "client_ca": "x.pem"}, "needs TLS"),
        ({"address": "127.0.0.1:0", "certificate": "missing.pem", "key": "missing.key"}, "cannot read"),
        ({"address": "127.0.0.1:0", "chunk_bytes": 1}, "chunk_bytes"),
        ({"address": "127.0.0.1:0", "hello_seconds": 0.0}, "hello_seconds"),
        ({"address": "127.0.0.1:0", "spill_bytes": -1}, "spill_bytes"),
    ],
)
def test_impossible_options_are_config_errors(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint), fleet(**options):  # type: ignore[arg-type]
        pytest.fail("it listens")


@pytest.mark.parametrize("address", ["0.0.0.0:8500", "[::]:8500", "10.0.0.5:8500", "server.example:8500"])
@pytest.mark.parametrize("options", [FleetOptions, partial(SessionOptions, identity="ann")], ids=["server", "client"])
def test_an_address_beyond_this_machine_goes_without_tls_only_when_that_was_said_twice(
    options: Callable[..., FleetOptions | SessionOptions], address: str
) -> None:
    with pytest.raises(ConfigError, match=r"set certificates .* both insecure = true and insecure_address"):
        options(address=address)
    with pytest.raises(ConfigError, match="insecure = true alone is for this machine only"):
        options(address=address, insecure=True)
    with pytest.raises(ConfigError, match=r"insecure_address is '10\.0\.0\.6:8500', another"):
        options(address=address, insecure=True, insecure_address="10.0.0.6:8500")
    with pytest.raises(ConfigError, match="without TLS"):
        options(address=address, insecure_address=address)
    assert options(address=address, insecure=True, insecure_address=address).address == address


@pytest.mark.parametrize("address", ["127.0.0.1:8500", "127.8.9.1:8500", "localhost:8500", "[::1]:8500"])
def test_loopback_goes_without_tls_unasked(address: str) -> None:
    for insecure in (False, True):
        assert FleetOptions(address, insecure=insecure).address == address
        assert SessionOptions(address, "ann", insecure=insecure).address == address
