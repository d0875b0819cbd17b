"""A client that is asked to leave gives the answer that it owes first; the server has it, and sees the client go."""

import threading

from fleet_support import DEADLINE_SECONDS, Events, ask, data_of, fleet
from flwr.app import Message

from client.fleet import FleetSession, SessionOptions


class Leaving:
    """A session in a thread whose app waits until it may go on."""

    def __init__(self, address: str, patience_seconds: float = 300.0) -> None:
        self.computing, self.go_on, self.leave = threading.Event(), threading.Event(), threading.Event()
        self.outcome: list[str] = []
        options = SessionOptions(address, "ann", patience_seconds=patience_seconds, first_wait_seconds=0.05)
        self._session = FleetSession(options, self._app)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _app(self, message: Message, context: object) -> Message:
        self.computing.set()
        assert self.go_on.wait(DEADLINE_SECONDS)
        return Message(message.content, reply_to=message)

    def _run(self) -> None:
        self.outcome.append(self._session.run_forever(threading.Event(), self.leave))

    def join(self) -> list[str]:
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()
        return self.outcome


def test_a_client_that_leaves_gives_the_answer_that_it_owes() -> None:
    events = Events()
    with fleet(events) as grid:
        ann = Leaving(grid.address)
        (node,) = grid.wait_for_nodes(1, 10)
        (message_id,) = grid.push_messages([ask(node, b"the last")])
        assert ann.computing.wait(DEADLINE_SECONDS)
        ann.leave.set()
        ann.go_on.set()
        (reply,) = grid.replies([message_id], timeout=DEADLINE_SECONDS)
        assert data_of(reply) == b"the last"
        assert ann.join() == [""]
        assert events.wait("closed", "ann") == "the client hung up"
        assert grid.get_node_ids() == []


def test_a_client_that_owes_nothing_leaves_at_once() -> None:
    with fleet() as grid:
        ann = Leaving(grid.address)
        grid.wait_for_nodes(1, 10)
        ann.leave.set()
        assert ann.join() == [""]


def test_a_client_without_a_server_leaves_at_once() -> None:
    ann = Leaving("127.0.0.1:1")
    ann.leave.set()
    assert ann.join() == [""]
