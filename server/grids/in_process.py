"""Flower's Grid without a network: virtual nodes whose ClientApp is called directly, or in worker processes."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence

from flwr.app import Message, RecordDict

from server.grids.answers import Answers, OfApp, VirtualNode
from thinwire.errors import ConfigError, RoundError
from thinwire.flower import (
    NODE_UNAVAILABLE,
    App,
    NodeInfo,
    Run,
    Scalar,
    addressed,
    enter_run,
    error_reply,
    node_id,
    node_info,
    request,
)
from thinwire.grid import WaitingGrid


class InProcessGrid(WaitingGrid):
    """Nodes in the order of their index, and so are the replies: same run, same bits, whoever computes them.

    An app runs when its reply is pulled; worker processes begin when they are asked. Time is not simulated: timeouts
    and times to live never cut a round short. An exception in the app becomes an Error reply; KeyboardInterrupt passes
    through.
    """

    def __init__(
        self,
        app: App | Answers,
        nodes: int,
        run_id: int,
        run_config: Mapping[str, Scalar] | None = None,
        identities: Sequence[str] | None = None,
    ) -> None:
        """``identities``: names of the clients, ``client-0`` and so on when None. Raises ConfigError for bad counts.

        Every node's config holds partition-id, num-partitions and client-id.
        """
        names = [f"client-{index}" for index in range(nodes)] if identities is None else list(identities)
        if nodes < 1 or len(names) != nodes or len(set(names)) != nodes:
            raise ConfigError(f"{nodes} nodes with {len(set(names))} different identities; one each, at least one")
        self._answers = app if isinstance(app, Answers) else OfApp(app, run_id, nodes, run_config)
        self._run = enter_run(run_id)
        self._rejected: dict[int, str] = {}
        self._waiting: dict[str, Message] = {}  # in the order of the pushes
        self._nodes: dict[int, VirtualNode] = {}
        for index, name in enumerate(names):
            node = node_id(run_id, name)
            self._nodes[node] = VirtualNode(node, index, name)

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def set_run(self, run: Run) -> None:
        """Take another description of the same run. Raises ConfigError for another run: node ids depend on it."""
        if run.run_id != self._run.run_id:
            raise ConfigError(f"this grid serves run {self._run.run_id}, not {run.run_id}")
        self._run = run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node; the same as Flower's Message constructor."""
        return request(content, message_type, dst_node_id, self._run.run_id, group_id, ttl)

    def get_node_ids(self) -> list[int]:
        """The nodes in the order of their index."""
        return [node for node in self._nodes if node not in self._rejected]

    def get_nodes(self) -> list[NodeInfo]:
        """The nodes with their identities as names."""
        return [node_info(node, self._nodes[node].identity, True) for node in self.get_node_ids()]

    def node(self, number: int) -> VirtualNode | None:
        """The node of that id."""
        return self._nodes.get(number)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take the messages."""
        message_ids = []
        for message in messages:
            message_id = secrets.token_hex(12)
            own = self._waiting[message_id] = addressed(message, self._run.run_id, message_id)
            message_ids.append(message_id)
            node = self._reached(own)
            if node is not None:
                self._answers.begin(own, node)
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Run the app for these messages; all their replies."""
        return list(self.replies(message_ids))

    def replies(self, message_ids: Iterable[str], timeout: float | None = None) -> Iterator[Message]:
        """The replies in node order, each computed when it is asked for. ``timeout`` has no meaning here."""
        known = [message_id for message_id in dict.fromkeys(message_ids) if message_id in self._waiting]
        for message_id in sorted(known, key=self._index):  # stable: two messages to one node keep their order
            message = self._waiting.pop(message_id, None)
            if message is not None:
                yield self._answer(message)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Run the app for these messages; all their replies in node order, whatever the timeout."""
        return self.pull_messages(self.push_messages(messages))

    def wait_for_nodes(self, count: int, timeout: float) -> list[int]:
        """The nodes; nobody else will come. Raises RoundError where they are fewer than ``count``."""
        if len(self.get_node_ids()) < count:
            raise RoundError(f"{len(self.get_node_ids())} of {count} clients are there")
        return self.get_node_ids()

    def forget_messages(self, message_ids: Iterable[str]) -> None:
        """These will never run."""
        for message_id in message_ids:
            if self._waiting.pop(message_id, None) is not None:
                self._answers.forget(message_id)

    def reject(self, node_id: int, reason: str) -> None:
        """Leave a node out from now on; messages to it are answered with an Error."""
        self._rejected[node_id] = reason

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._answers.close()

    def _index(self, message_id: str) -> int:
        """The node's index of a waiting message; unknown nodes come last."""
        node = self._nodes.get(self._waiting[message_id].metadata.dst_node_id)
        return len(self._nodes) if node is None else node.index

    def _reached(self, message: Message) -> VirtualNode | None:
        """The node that a message gets to."""
        number = message.metadata.dst_node_id
        return None if number in self._rejected else self._nodes.get(number)

    def _answer(self, message: Message) -> Message:
        asked = message.metadata
        node = self._reached(message)
        if node is not None:
            return self._answers.finish(message, node)
        self._answers.forget(asked.message_id)
        reason = self._rejected.get(asked.dst_node_id)
        return error_reply(asked, NODE_UNAVAILABLE, "no such node" if reason is None else f"rejected: {reason}")
