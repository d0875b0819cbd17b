from fleet_support import RUN, Events, ask, clients, data_of, fleet, raw_client

from thinwire.flower import node_id, request
from thinwire.v1.fleet_pb2 import Open
from thinwire.wire.frames import PROTOCOL, frames, outgoing

MEGABYTE = 1 << 20


def test_replies_above_the_allowance_wait_on_disk_and_come_back_whole() -> None:
    with fleet(spill_bytes=5 * MEGABYTE) as grid, clients(grid.address, "a", "b", "c", "d"):
        nodes = grid.wait_for_nodes(4, 10)
        data = {node: bytes([index]) * (2 * MEGABYTE) for index, node in enumerate(nodes)}
        ids = grid.push_messages([ask(node, data[node]) for node in nodes])
        room = grid._door._room
        mailbox = grid._mailbox
        for message_id in ids:
            assert mailbox.wait_for_reply([message_id], None) == message_id
        waiting = [mailbox._requests[message_id].reply for message_id in ids]
        assert [reply.spilled for reply in waiting].count(True) == 2  # type: ignore[union-attr]
        assert room.taken_bytes == 4 * MEGABYTE
        for reply in grid.pull_messages(ids):
            assert data_of(reply) == data[reply.metadata.src_node_id]
        assert room.taken_bytes == 0


def test_forgetting_and_closing_release_what_waits() -> None:
    with fleet(spill_bytes=3 * MEGABYTE) as grid, clients(grid.address, "a"):
        (node,) = grid.wait_for_nodes(1, 10)
        ids = grid.push_messages([ask(node, bytes(2 * MEGABYTE)) for _ in range(3)])
        mailbox, room = grid._mailbox, grid._door._room
        for message_id in ids:
            assert mailbox.wait_for_reply([message_id], None) == message_id
        files = [reply for request in ids if (reply := mailbox._requests[request].reply).spilled]  # type: ignore[union-attr]
        assert len(files) == 2
        grid.forget_messages(ids[:1])
        assert room.taken_bytes == 0
        grid.close()
        assert not any(reply.spilled for reply in files)  # type: ignore[union-attr]


def test_bytes_are_counted_per_client_as_they_are_sent() -> None:
    with fleet(Events()) as grid, raw_client(grid.address, Open(protocol=PROTOCOL, identity="ann")) as ann:
        node = ann.receive().opened.node
        message = ask(node, bytes(100_000))
        (message_id,) = grid.push_messages([message])
        assert ann.receive_request() == message_id
        body = outgoing(request(message.content, "train", node, RUN))
        for frame in frames(message_id, body, 30_000):
            ann.send(frame)
        (reply,) = grid.replies([message_id], timeout=10)
        traffic = grid.traffic()[node_id(RUN, "ann")]
        assert len(data_of(reply)) == 100_000
        assert traffic.identity == "ann"
        assert traffic.bytes_in == body.total_bytes
        assert 100_000 < traffic.bytes_out < 100_000 + 300
