"""Flower's Grid over one gRPC stream per client: the server's side of the fleet."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

from flwr.app import Message, RecordDict

from server.grids.door import Door
from server.grids.listener import listen
from server.grids.mailbox import Mailbox
from server.grids.nodes import Node
from server.grids.options import FleetOptions
from server.grids.streams import Events
from thinwire.errors import ConfigError, RoundError
from thinwire.flower import NodeInfo, Run, enter_run, node_info, request
from thinwire.grid import WaitingGrid
from thinwire.wire.room import Room


@dataclass(frozen=True)
class Traffic:
    """Bytes of the messages of one client since the server started, without the carrier's framing."""

    identity: str
    bytes_in: int
    bytes_out: int


class FleetGrid(WaitingGrid):
    """The nine methods of Flower's Grid, and what a fleet needs besides. Use from one thread; the server has its own.

    A message to a node that is away waits until the node is back or the message's time to live is over; then its
    reply is an Error, as it is at once for a node that is unknown, rejected, or breaks the protocol.
    """

    def __init__(self, options: FleetOptions, run_id: int, events: Events | None = None) -> None:
        """Listens when it returns. Raises ConfigError where it cannot. ``events`` runs in the server's thread."""
        self._run = enter_run(run_id)
        self._options = options
        self._mailbox = Mailbox(run_id, frozenset(options.roster or ()), self._wake)
        self._door = Door(options, self._mailbox, Room(options.spill_bytes), events)
        self._server = listen(self._door, options)

    @property
    def address(self) -> str:
        """Where clients find the server, host:port."""
        return self._server.address

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def set_run(self, run: Run) -> None:
        """Take another description of the same run. Raises ConfigError for another run: node ids depend on it."""
        if run.run_id != self._run.run_id:
            raise ConfigError(f"this fleet serves run {self._run.run_id}, not {run.run_id}")
        self._run = run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node; the same as Flower's Message constructor. ``ttl`` in seconds."""
        return request(content, message_type, dst_node_id, self._run.run_id, group_id, ttl)

    def get_node_ids(self) -> list[int]:
        """The connected nodes, ascending."""
        return [node.node for node in self._mailbox.nodes() if node.connected and node.rejected is None]

    def get_nodes(self) -> list[NodeInfo]:
        """The connected nodes with their identities as names."""
        return [node_info(node.node, node.identity, True) for node in self._connected()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send; the identifiers under which the replies are pulled. Raises RoundError over ``message_bytes``."""
        return [self._mailbox.push(message, self._options.message_bytes) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there, each once. Pull one identifier at a time to hold one reply at a time."""
        replies = (self._mailbox.take(message_id) for message_id in message_ids)
        return [reply for reply in replies if reply is not None]

    def replies(self, message_ids: Iterable[str], timeout: float | None = None) -> Iterator[Message]:
        """The replies as they come, one at a time in memory, until all are there or ``timeout`` seconds are over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        left = dict.fromkeys(message_ids)
        while left and (ready := self._mailbox.wait_for_reply(left, deadline)) is not None:
            del left[ready]
            reply = self._mailbox.take(ready)
            if reply is not None:
                yield reply
                del reply

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send, and wait for all replies or ``timeout`` seconds; what is missing then is forgotten.

        The replies come in the order of the messages, whoever was first.
        """
        message_ids = self.push_messages(messages)
        try:
            found = {reply.metadata.reply_to_message_id: reply for reply in self.replies(message_ids, timeout)}
        finally:
            self._mailbox.forget(message_ids)
        return [found[message_id] for message_id in message_ids if message_id in found]

    def forget_messages(self, message_ids: Iterable[str]) -> None:
        """Nobody will pull these: they are not sent (again), and answers to them are dropped when they come."""
        self._mailbox.forget(message_ids)

    def wait_for_nodes(self, count: int, timeout: float) -> list[int]:
        """The connected nodes when there are ``count``. Raises RoundError after ``timeout`` seconds."""
        if not self._mailbox.wait_for_nodes(count, time.monotonic() + timeout):
            raise RoundError(f"{len(self.get_node_ids())} of {count} clients came within {timeout:g} seconds")
        return self.get_node_ids()

    def reject(self, node_id: int, reason: str) -> None:
        """End a node's stream and refuse it from now on; its open messages are answered with an Error."""
        node = self._mailbox.find(node_id)
        if node is not None:
            self._mailbox.fail(node, reason, reject=True)
            self._server.call(self._door.reject, node_id, reason)

    def traffic(self) -> dict[int, Traffic]:
        """Bytes by node id, of every client seen."""
        return {node.node: Traffic(node.identity, node.bytes_in, node.bytes_out) for node in self._mailbox.nodes()}

    def finish(self, reason: str = "the run is finished") -> None:
        """Send the clients home, those too who come later."""
        self._server.call(self._door.finish, reason)

    def close(self) -> None:
        """Hang up; clients that were not sent home will try again. May be called again."""
        self._mailbox.close()
        self._server.close()

    def __enter__(self) -> FleetGrid:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _connected(self) -> list[Node]:
        return [node for node in self._mailbox.nodes() if node.connected and node.rejected is None]

    def _wake(self, node: int) -> None:
        self._server.call(self._door.wake, node)
