"""Grids that can only be polled, as Flower's own: no reply is lost between two looks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hosts_support import CLIENTS, events_of, in_process, on_grid, options_of

from client.app import respond
from client.desk import Desk
from client.store import MemoryClientStore
from client.workshop import Workshops
from server.grids.in_process import InProcessGrid
from strategies.grid_transport import GridTransport
from strategies.transport import HELLO, ROUND, Ask
from thinwire.flower import NodeInfo, Run

from flwr.app import Context, Message, RecordDict  # isort: skip
from flwr.serverapp import Grid  # isort: skip


class PolledGrid(Grid):
    """The nine methods of Flower's Grid and nothing more; every reply is there at once, and is given out once."""

    def __init__(self, inner: InProcessGrid) -> None:
        self.inner = inner

    @property
    def run(self) -> Run:
        return self.inner.run

    def set_run(self, run: Run) -> None:
        self.inner.set_run(run)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self.inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> list[int]:
        return self.inner.get_node_ids()

    def get_nodes(self) -> list[NodeInfo]:
        return self.inner.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return self.inner.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return self.inner.send_and_receive(messages, timeout=timeout)


class Forgetful:
    """Clients that lose their replica before every message, and so are asked again while others' replies wait."""

    def __init__(self) -> None:
        self._workshops = Workshops({}, "cpu")
        self._stores: dict[str, MemoryClientStore] = {}

    def __call__(self, message: Message, context: Context) -> Message:
        name = str(context.node_config["client-id"])
        store = self._stores.setdefault(name, MemoryClientStore())
        store.remove("replica")
        return respond(Desk(name, "", self._workshops.open, lambda run: store, warm=False), message)


def test_replies_that_wait_while_another_client_is_asked_again_are_not_lost(tmp_path: Path) -> None:
    options: dict[str, Any] = options_of("ef21 top-k, natural down", tmp_path, participation={"fraction": 1.0})
    grid = PolledGrid(InProcessGrid(Forgetful(), CLIENTS, run_id=5))
    model = on_grid(grid, options, tmp_path / "polled")
    assert events_of(tmp_path / "polled", "client-lacks")
    assert model == in_process(options, tmp_path / "simulated")


def test_a_hello_outlives_the_start_of_a_process_and_a_round_ends_with_its_deadline() -> None:
    lives: list[float] = []

    class Noting(PolledGrid):
        def push_messages(self, messages: Iterable[Message]) -> list[str]:
            pushed = list(messages)
            lives.extend(message.metadata.ttl for message in pushed)
            return super().push_messages(pushed)

    transport = GridTransport(Noting(InProcessGrid(Forgetful(), 1, run_id=5)))
    (node,) = transport.nodes()
    transport.send([Ask(node, HELLO, {}), Ask(node, ROUND, {})], 30.0)
    assert lives == [300.0, 30.0]
