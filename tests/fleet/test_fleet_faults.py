"""Cut wires, restarts, late and repeated messages: each request is answered, and computed once."""

import queue
import threading
import time

import pytest
from fleet_support import (
    DEADLINE_SECONDS,
    RUN,
    Events,
    ask,
    clients,
    content,
    data_of,
    echo,
    fleet,
    proxy,
    raw_client,
    thread_names,
)
from flwr.app import Context, Message, Metadata

from client.fleet import SessionOptions
from client.worker import Reply, Worker
from thinwire.errors import ConfigError, RoundError
from thinwire.flower import MESSAGE_EXPIRED, make_message, node_id, request
from thinwire.v1.fleet_pb2 import Open
from thinwire.wire.frames import PROTOCOL, frames, outgoing

MEGABYTE = 1 << 20


class Gate:
    """An app that says when it is called and waits to be let on."""

    def __init__(self) -> None:
        self.calls = 0
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, message: Message, context: Context) -> Message:
        self.calls += 1
        self.entered.set()
        assert self.open.wait(DEADLINE_SECONDS)
        return echo(message, context)


def reply_frames(message_id: str, data: bytes, chunk_bytes: int = MEGABYTE) -> list:  # type: ignore[type-arg]
    return list(frames(message_id, outgoing(request(content(data), "train", 1, RUN)), chunk_bytes))


def test_a_wire_cut_while_computing_costs_neither_the_answer_nor_a_second_request() -> None:
    events, gate = Events(), Gate()
    with fleet(events) as grid, proxy(grid.address) as wire, clients(wire.address, "ann", app=gate):
        (node,) = grid.wait_for_nodes(1, 10)
        ids = grid.push_messages([ask(node, bytes(MEGABYTE))])
        assert gate.entered.wait(DEADLINE_SECONDS)
        before = wire.to_client_bytes
        wire.cut()
        events.wait("opened", "ann", count=2)
        gate.open.set()
        (reply,) = grid.replies(ids, timeout=10)
        assert data_of(reply) == bytes(MEGABYTE)
        assert gate.calls == 1
        assert wire.to_client_bytes - before < MEGABYTE / 2


def test_a_wire_cut_in_the_middle_of_a_request_has_it_sent_again() -> None:
    events = Events()
    with fleet(events, chunk_bytes=64 << 10) as grid, proxy(grid.address) as wire, clients(wire.address, "ann"):
        (node,) = grid.wait_for_nodes(1, 10)
        wire.cut_after_bytes = wire.to_client_bytes + 2 * MEGABYTE
        data = bytes(range(256)) * (4 * MEGABYTE // 256)
        (reply,) = grid.send_and_receive([ask(node, data)], timeout=10)
        assert data_of(reply) == data
        events.wait("opened", "ann", count=2)


def test_a_run_survives_wires_cut_every_round() -> None:
    events = Events()
    with fleet(events) as grid, proxy(grid.address) as wire, clients(wire.address, "ann", "bob"):
        nodes = grid.wait_for_nodes(2, 10)
        for turn in range(5):
            ids = grid.push_messages([ask(node, bytes([turn]) * 300_000) for node in nodes])
            wire.cut()
            replies = list(grid.replies(ids, timeout=15))
            assert [data_of(reply) for reply in replies] == [bytes([turn]) * 300_000] * 2


def test_a_client_whose_address_changes_in_mid_reply_goes_on_where_it_was() -> None:
    """Another network, another NAT: the name is what counts, and the reply is not computed twice."""
    events, gate = Events(), Gate()
    gate.open.set()
    data = bytes(range(256)) * (4 * MEGABYTE // 256)
    with fleet(events) as grid, proxy(grid.address) as wire:
        wire.source = "127.0.0.2"
        with clients(wire.address, "ann", app=gate):
            (node,) = grid.wait_for_nodes(1, 10)
            wire.source = "127.0.0.3"
            wire.cut_after_reply_bytes = wire.to_server_bytes + 2 * MEGABYTE
            (reply,) = grid.send_and_receive([ask(node, data)], timeout=10)
            assert data_of(reply) == data
            assert grid.get_node_ids() == [node]
        assert gate.calls == 1
        assert "from ipv4:127.0.0.2:" in events.wait("opened", "ann")
        assert "from ipv4:127.0.0.3:" in events.wait("opened", "ann", count=2)


def test_a_request_that_takes_longer_than_the_pings_behind_it_arrives() -> None:
    """On a thin wire a ping waits behind what was sent before it; who cuts off then, sends the same again for ever."""
    with (
        fleet(keepalive_seconds=1.0) as grid,
        proxy(grid.address) as wire,
        clients(wire.address, "ann", keepalive_seconds=1.0),
    ):
        (node,) = grid.wait_for_nodes(1, 10)
        wire.bytes_per_second = 120_000.0
        (reply,) = grid.send_and_receive([ask(node, bytes(400_000))], timeout=15)
        assert data_of(reply) == bytes(400_000)


def test_unanswered_messages_go_to_the_client_that_comes_later() -> None:
    with fleet(roster=("ann",)) as grid:
        node = node_id(RUN, "ann")
        assert grid.get_node_ids() == []
        ids = grid.push_messages([ask(node, b"1"), ask(node, b"2")])
        assert grid.pull_messages(ids) == []
        with clients(grid.address, "ann"):
            assert [data_of(reply) for reply in grid.replies(ids, timeout=10)] == [b"1", b"2"]


def test_a_restarted_client_is_sent_what_the_old_one_left_unanswered() -> None:
    events, gate = Events(), Gate()
    with fleet(events) as grid:
        opening = Open(protocol=PROTOCOL, identity="ann")
        with raw_client(grid.address, opening) as first:
            node = first.receive().opened.node
            ids = grid.push_messages([ask(node, b"again")])
            assert first.receive_request() == ids[0]
        events.wait("closed", "ann")
        gate.open.set()
        with clients(grid.address, "ann", app=gate):
            (reply,) = grid.replies(ids, timeout=10)
            assert data_of(reply) == b"again"
            assert gate.calls == 1


def test_a_reply_that_was_lost_with_the_wire_is_sent_again_without_computing_twice() -> None:
    events, gate = Events(), Gate()
    gate.open.set()
    data = bytes(range(256)) * (4 * MEGABYTE // 256)
    with (
        fleet(events, chunk_bytes=64 << 10) as grid,
        proxy(grid.address) as wire,
        clients(wire.address, "ann", app=gate),
    ):
        (node,) = grid.wait_for_nodes(1, 10)
        wire.cut_after_reply_bytes = wire.to_server_bytes + 2 * MEGABYTE
        (reply,) = grid.send_and_receive([ask(node, data)], timeout=10)
        assert data_of(reply) == data
        assert gate.calls == 1
        events.wait("opened", "ann", count=2)
        assert wire.to_client_bytes < 5 * MEGABYTE  # the request travelled once


def test_a_request_asked_again_is_answered_from_the_kept_reply() -> None:
    """The server asks once more on a new stream although the client had answered."""
    gate = Gate()
    gate.open.set()
    worker = Worker(gate, {}, {})
    heard: queue.SimpleQueue[Reply] = queue.SimpleQueue()
    worker.listen(heard.put)
    worker.start()
    asked = make_message(Metadata(RUN, "m1", 1, 7, "", "", time.time(), 60.0, "train"), content=content())
    worker.ask(asked)
    reply = heard.get(timeout=DEADLINE_SECONDS)
    worker.ask(asked)
    assert worker.held() == ["m1"]
    assert worker.reply("m1") is reply
    worker.stop(DEADLINE_SECONDS)
    assert gate.calls == 1


def test_a_request_whose_time_ran_out_behind_another_is_not_computed() -> None:
    """A client that is slower than the rounds answers the newest question, not a queue of dead ones."""
    gate = Gate()
    worker = Worker(gate, {}, {})
    heard: queue.SimpleQueue[Reply] = queue.SimpleQueue()
    worker.listen(heard.put)
    worker.start()
    for message_id, ttl in (("m1", 60.0), ("m2", 0.0), ("m3", 60.0)):
        metadata = Metadata(RUN, message_id, 1, 7, "", "", time.time(), ttl, "train")
        worker.ask(make_message(metadata, content=content()))
    gate.open.set()
    assert [heard.get(timeout=DEADLINE_SECONDS).asked.message_id for _ in range(2)] == ["m1", "m3"]
    assert worker.held() == ["m3"]
    worker.stop(DEADLINE_SECONDS)
    assert gate.calls == 2


def test_a_stranger_to_the_run_hears_only_of_what_is_still_wanted() -> None:
    with fleet() as grid:
        with raw_client(grid.address, Open(protocol=PROTOCOL, identity="ann")) as first:
            node = first.receive().opened.node
            wanted, forgotten = grid.push_messages([ask(node, b"1"), ask(node, b"2")])
            assert [first.receive_request(), first.receive_request()] == [wanted, forgotten]
            grid.forget_messages([forgotten])
        again = Open(protocol=PROTOCOL, identity="ann", held=[wanted, forgotten, "invented"])
        with raw_client(grid.address, again) as second:
            assert list(second.receive().opened.wanted) == [wanted]
            for frame in reply_frames(wanted, b"answer"):
                second.send(frame)
            assert [data_of(reply) for reply in grid.replies([wanted], timeout=10)] == [b"answer"]
            (third,) = grid.push_messages([ask(node, b"3")])
            assert second.receive_request() == third


def test_the_newest_stream_of_an_identity_wins() -> None:
    events = Events()
    with fleet(events) as grid, clients(grid.address, "ann") as (old,):
        (node,) = grid.wait_for_nodes(1, 10)
        with clients(grid.address, "ann"):
            outcome = old.join()
            assert isinstance(outcome, ConfigError)
            assert "another client connected with this identity" in str(outcome)
            events.wait("closed", "ann")
            assert grid.get_node_ids() == [node]
            (reply,) = grid.send_and_receive([ask(node, b"new")], timeout=10)
            assert data_of(reply) == b"new"


def test_repeated_and_unknown_replies_are_dropped() -> None:
    events = Events()
    with fleet(events) as grid, raw_client(grid.address, Open(protocol=PROTOCOL, identity="ann")) as ann:
        node = ann.receive().opened.node
        ids = grid.push_messages([ask(node)])
        assert ann.receive_request() == ids[0]
        for message_id, data in [("unknown", b"?"), (ids[0], b"first"), (ids[0], b"second"), ("unknown", b"?")]:
            for frame in reply_frames(message_id, data, chunk_bytes=50):
                ann.send(frame)
        events.wait("dropped", "ann", count=3)
        assert [data_of(reply) for reply in grid.replies(ids, timeout=10)] == [b"first"]
        (more,) = grid.push_messages([ask(node)])
        assert ann.receive_request() == more


def test_a_message_past_its_time_to_live_is_an_error_and_its_answer_is_dropped() -> None:
    events, gate = Events(), Gate()
    with fleet(events) as grid, clients(grid.address, "ann", app=gate):
        (node,) = grid.wait_for_nodes(1, 10)
        start = time.monotonic()
        (reply,) = grid.send_and_receive([ask(node, ttl=0.3)], timeout=10)
        assert 0.25 < time.monotonic() - start < 5
        assert reply.error.code == MESSAGE_EXPIRED
        gate.open.set()
        events.wait("dropped", "ann")


def test_a_message_that_expired_while_its_node_was_away_is_not_sent() -> None:
    with fleet(roster=("ann",)) as grid:
        node = node_id(RUN, "ann")
        late, living = grid.push_messages([ask(node, b"late", ttl=0.01), ask(node, b"living")])
        (reply,) = grid.replies([late], timeout=10)
        assert reply.error.code == MESSAGE_EXPIRED
        with raw_client(grid.address, Open(protocol=PROTOCOL, identity="ann")) as ann:
            assert ann.receive().HasField("opened")
            assert ann.receive_request() == living


def test_a_timeout_returns_what_is_there_and_forgets_the_rest() -> None:
    events, gate = Events(), Gate()
    with fleet(events) as grid, clients(grid.address, "ann"), clients(grid.address, "bob", app=gate):
        grid.wait_for_nodes(2, 10)
        replies = grid.send_and_receive([ask(node_id(RUN, "bob")), ask(node_id(RUN, "ann"))], timeout=0.5)
        assert [reply.metadata.src_node_id for reply in replies] == [node_id(RUN, "ann")]
        gate.open.set()
        events.wait("dropped", "bob")


def test_a_finished_run_sends_everyone_home_and_newcomers_too() -> None:
    with fleet() as grid, clients(grid.address, "ann") as (ann,):
        grid.wait_for_nodes(1, 10)
        grid.finish("all 3 rounds are done")
        assert ann.join() == "all 3 rounds are done"
        with clients(grid.address, "bob") as (bob,):
            assert bob.join() == "all 3 rounds are done"


def test_a_server_that_restarts_on_its_address_is_found_again() -> None:
    with fleet() as grid:
        address = grid.address
        with clients(address, "ann"):
            before = grid.wait_for_nodes(1, 10)
            grid.close()
            with fleet(address=address) as second:
                assert second.wait_for_nodes(1, 10) == before
                assert len(second.send_and_receive([ask(before[0])], timeout=10)) == 1


def test_a_server_that_nobody_finds_is_one_line_for_the_operator() -> None:
    with fleet() as grid:
        address = grid.address
    with clients(address, "ann", patience_seconds=0.3) as (ann,):
        outcome = ann.join()
    assert isinstance(outcome, ConfigError)
    assert address in str(outcome)
    assert "check the address" in str(outcome)
    assert "\n" not in str(outcome)


def test_a_session_can_be_stopped_while_it_waits_for_a_server() -> None:
    with fleet() as grid:
        address = grid.address
    with clients(address, "ann", patience_seconds=float("inf")) as (ann,):
        ann.session.stop()
        assert ann.join() == ""


def test_a_reply_larger_than_the_server_takes_is_an_error_reply() -> None:
    def large(message: Message, context: Context) -> Message:
        return Message(content(bytes(200_000)), reply_to=message)

    with fleet(message_bytes=100_000) as grid, clients(grid.address, "ann", app=large):
        (node,) = grid.wait_for_nodes(1, 10)
        (reply,) = grid.send_and_receive([ask(node)], timeout=10)
        assert "at most 100000" in str(reply.error.reason)
        with pytest.raises(RoundError, match="at most 100000"):
            grid.push_messages([ask(node, bytes(200_000))])


def test_a_port_that_is_taken_is_a_config_error() -> None:
    with fleet() as grid, pytest.raises(ConfigError, match="port is taken"), fleet(address=grid.address):
        pytest.fail("two servers on one port")


def test_a_closed_fleet_leaves_no_thread_behind_and_wakes_those_who_wait() -> None:
    assert thread_names() == {"MainThread"}
    with fleet() as grid, clients(grid.address, "ann", "bob", app=Gate()) as sessions:
        nodes = grid.wait_for_nodes(2, 10)
        ids = grid.push_messages([ask(node) for node in nodes])
        found: list[list[Message]] = []
        waiting = threading.Thread(target=lambda: found.append(list(grid.replies(ids))))
        waiting.start()
        grid.close()
        waiting.join(DEADLINE_SECONDS)
        assert found == [[]]
        with pytest.raises(RoundError, match="closed"):
            grid.push_messages([ask(nodes[0])])
        for session in sessions:
            session.session._worker._app.open.set()  # type: ignore[attr-defined]
    assert thread_names() == {"MainThread"}


@pytest.mark.parametrize("identity", ["", "a" * 129, " ann", "a\nb"])
def test_a_bad_identity_is_refused_before_anything_is_dialled(identity: str) -> None:
    with pytest.raises(ConfigError, match="bad client name"):
        SessionOptions("127.0.0.1:1", identity)
