"""Flower's messages and grids, as the coordinator sees them: parts of bytes, questions and answers."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from logging import INFO

from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.transport import EVALUATE, HELLO, ROUND, WELCOME, Answer, Ask
from thinwire.errors import RoundError, WireError
from thinwire.flower import node_id, request
from thinwire.grid import WaitingGrid

RECORD = "thinwire"
STYPE = "thinwire.v1"
TYPES = {HELLO: "query.hello", WELCOME: "query.welcome", ROUND: "train", EVALUATE: "evaluate"}
KINDS = {flower: kind for kind, flower in TYPES.items()}
POLL_SECONDS = 0.25  # on grids that cannot wait
HELLO_SECONDS = 300.0  # a SuperNode starts a process for every message: a minute, where the machine is small or busy


class GridTransport:
    """``strategies.transport.Transport`` over any Flower Grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._waiting_grid = grid if isinstance(grid, WaitingGrid) else None
        self._clock = None if self._waiting_grid is None else self._waiting_grid.clock
        self._open: dict[str, tuple[int, str]] = {}
        self._pulled: deque[Message] = deque()  # from grids that give what they have all at once

    def nodes(self) -> set[int]:
        """The connected nodes."""
        return set(self._grid.get_node_ids())

    def send(self, asks: Sequence[Ask], ttl_seconds: float) -> None:
        """Push one message per question."""
        run_id = self._grid.run.run_id
        messages = [
            request(to_record(ask.parts), TYPES[ask.kind], ask.node, run_id, ttl=self._ttl(ask.kind, ttl_seconds))
            for ask in asks
        ]
        for ask, message_id in zip(asks, self._grid.push_messages(messages), strict=True):
            if message_id:
                self._open[message_id] = ask.node, ask.kind

    def _ttl(self, kind: str, seconds: float) -> float:
        """For how long a message lives: at the door of Flower's engines, for as long as a process takes to start."""
        return max(HELLO_SECONDS if kind == HELLO and self._waiting_grid is None else 1.0, seconds)

    def receive(self, timeout_seconds: float) -> Iterator[Answer]:
        """Replies one at a time; on grids that cannot wait, all open messages are polled together."""
        if not self._open:
            self.pause(timeout_seconds)
            return
        replies = (
            self._poll(timeout_seconds)
            if self._waiting_grid is None
            else self._waiting_grid.replies(list(self._open), timeout_seconds)
        )
        for reply in replies:
            known = self._open.pop(reply.metadata.reply_to_message_id, None)
            if known is not None:
                yield _answer(*known, reply)

    def forget(self) -> None:
        """Drop what is still open but for handshakes."""
        gone = [message_id for message_id, (_, kind) in self._open.items() if kind not in (HELLO, WELCOME)]
        if self._waiting_grid is not None:
            self._waiting_grid.forget_messages(gone)
        for message_id in gone:
            del self._open[message_id]

    def is_named(self, node: int, name: str) -> bool:
        """On grids of our own the node's id is made of its client's identity."""
        return self._waiting_grid is None or node_id(self._grid.run.run_id, name) == node

    def reject(self, node: int, reason: str) -> None:
        """On grids of our own the node is told; elsewhere it is only ignored, and the log tells."""
        if self._waiting_grid is not None:
            self._waiting_grid.reject(node, reason)
        else:
            log(INFO, "node %d is refused: %s", node, reason)

    def now(self) -> float:
        """A monotonic clock, or the grid's simulated one."""
        return time.monotonic() if self._clock is None else self._clock()

    @property
    def simulated(self) -> bool:
        """Whether ``now`` is simulated time."""
        return self._clock is not None

    def pause(self, seconds: float) -> None:
        """Wait for a change in the set of nodes."""
        if self._waiting_grid is None:
            time.sleep(min(seconds, POLL_SECONDS))
            return
        with contextlib.suppress(RoundError):
            self._waiting_grid.wait_for_nodes(len(self.nodes()) + 1, seconds)

    def _poll(self, timeout_seconds: float) -> Iterator[Message]:
        deadline = time.monotonic() + timeout_seconds
        while self._open:
            if not self._pulled:
                self._pulled += self._grid.pull_messages(list(self._open))
            while self._pulled:  # what the caller does not wait for stays for the next call
                yield self._pulled.popleft()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, POLL_SECONDS))


def _answer(node: int, kind: str, reply: Message) -> Answer:
    if reply.has_error():
        return Answer(node, kind, error=f"error {reply.error.code}: {reply.error.reason}"[:1000])
    try:
        return Answer(node, kind, from_record(reply.content))
    except WireError as error:
        return Answer(node, kind, error=str(error))


def to_record(parts: Mapping[str, bytes]) -> RecordDict:
    """Parts as the content of a message of ours."""
    return RecordDict({RECORD: to_parts(parts)})


def from_record(content: RecordDict) -> dict[str, bytes]:
    """The parts of a message, which is empty afterwards. Raises WireError when it is not one of ours."""
    record = content.get(RECORD)
    if not isinstance(record, ArrayRecord) or any(array.stype != STYPE for array in record.values()):
        raise WireError("the message holds no Thinwire record; client and server must both run Thinwire")
    return from_parts(record)


def to_parts(parts: Mapping[str, bytes]) -> ArrayRecord:
    """Parts as opaque arrays, which Flower carries in chunks and never looks into."""
    record = ArrayRecord()
    for name, data in parts.items():
        record[name] = Array("uint8", (len(data),), STYPE, data)  # a dictionary given to the record would be copied
    return record


def holds_parts(record: ArrayRecord) -> bool:
    """Whether a record is one of ours."""
    return bool(record) and all(array.stype == STYPE for array in record.values())


def from_parts(record: ArrayRecord) -> dict[str, bytes]:
    """The parts of such a record, which is empty afterwards.

    Flower's records refer to themselves: whatever they hold stays until the garbage collector passes.
    """
    parts = {name: array.data for name, array in record.items()}
    for array in record.values():
        array.data = b""
    return parts
