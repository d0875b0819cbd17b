"""A clock for a simulation: who is there, how long each answer takes, and so which of them meet the deadline."""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict

from server.grids.in_process import InProcessGrid
from strategies.grid_transport import TYPES
from strategies.transport import MESSAGE, ROUND
from thinwire.errors import RoundError, WireError
from thinwire.flower import NodeInfo, Run, node_info
from thinwire.grid import WaitingGrid
from thinwire.simulation import Availability, Presence, Speed
from thinwire.wire.exchange import RoundReply, read

TRAIN = TYPES[ROUND]


@dataclass(order=True)
class Arrival:
    """A reply on its way."""

    seconds: float  # of the simulated clock
    index: int  # of its client: two that arrive at once keep this order
    message_id: str = field(compare=False)
    reply: Message = field(compare=False)


@dataclass(frozen=True)
class Sent:
    """A question on its way."""

    node: int
    index: int
    seconds: float
    size_bytes: int  # of its parts
    takes_time: bool  # rounds do; the door and evaluations do not: they are no part of training


class SimulatedGrid(WaitingGrid):
    """An in-process grid on simulated time; the server above it runs as it would, deadlines and patience included.

    An answer takes the client's wire both ways and its processor between them; what the server computes takes no time.
    Before the first round everybody is there. From then on a client that is away is not connected; one that goes while
    it answers loses its answer. The clock moves when the server waits, and never otherwise. The cohort's replies are
    in memory until they arrive. The same seed gives the same times and the same bits.
    """

    def __init__(self, inner: InProcessGrid, availability: Availability, speed: Speed, seed: int) -> None:
        """Raises ConfigError where a file of the models does not fit the clients."""
        self._inner = inner
        nodes = inner.get_node_ids()
        names = [found.identity for node in nodes if (found := inner.node(node)) is not None]
        self._presence: Presence = availability.of(names, seed)
        self._paces = speed.of(names, seed)
        self._order = nodes
        self._seconds = 0.0
        self._started = False
        self._sent: dict[str, Sent] = {}
        self._arriving: list[Arrival] = []  # a heap
        self._questions: Counter[int] = Counter()
        self._gone: dict[int, float] = {}  # nodes that vanished over an open question, and when
        self._online: tuple[float, list[int]] = (-1.0, [])  # until when, and who
        self.clock = self.now

    @property
    def run(self) -> Run:
        """The run."""
        return self._inner.run

    def set_run(self, run: Run) -> None:
        """Take another description of the same run."""
        self._inner.set_run(run)

    def now(self) -> float:
        """Simulated seconds since the first round began."""
        return self._seconds

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> list[int]:
        """The nodes that are there now, in the order of their index; the same list as long as they are the same."""
        until, nodes = self._online
        if self._seconds < until:
            return nodes
        here = self._inner.get_node_ids()
        if not self._started:
            return here
        flags = self._presence.online(self._seconds)
        connected = {node for node, flag in zip(self._order, flags.tolist(), strict=True) if flag}
        connected -= {node for node, seconds in self._gone.items() if seconds <= self._seconds}
        found = [node for node in here if node in connected]
        going = [seconds for seconds in self._gone.values() if seconds > self._seconds]
        self._online = min([self._presence.next_change(self._seconds), *going]), found if found != nodes else nodes
        return self._online[1]

    def get_nodes(self) -> list[NodeInfo]:
        """All nodes with their identities as names, and who is there."""
        here = set(self.get_node_ids())
        known = [(node, self._inner.node(node)) for node in self._order]
        return [node_info(node, found.identity, node in here) for node, found in known if found is not None]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send questions; the first of a round starts the clock."""
        asked = list(messages)
        sizes = [_size_bytes(message) for message in asked]
        message_ids = self._inner.push_messages(asked)
        for message_id, message, size_bytes in zip(message_ids, asked, sizes, strict=True):
            number = message.metadata.dst_node_id
            node = self._inner.node(number)
            takes_time = message.metadata.message_type == TRAIN
            index = len(self._order) if node is None else node.index
            self._sent[message_id] = Sent(number, index, self._seconds, size_bytes, takes_time)
            if takes_time and not self._started:
                self._started, self._online = True, (-1.0, [])
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have arrived by now."""
        return list(self.replies(message_ids, 0.0))

    def replies(self, message_ids: Iterable[str], timeout: float | None = None) -> Iterator[Message]:
        """The replies as they arrive. The clock stands at each one's arrival, and in the end at the timeout."""
        open_ids = set(message_ids) & self._sent.keys()
        self._compute([message_id for message_id in self._sent if message_id in open_ids])
        limit = math.inf if timeout is None else self._seconds + timeout
        kept = []
        while self._arriving and self._arriving[0].seconds <= limit:
            arrival = heapq.heappop(self._arriving)
            if arrival.message_id not in open_ids:
                kept.append(arrival)
                continue
            for other in kept:
                heapq.heappush(self._arriving, other)
            kept.clear()
            open_ids.discard(arrival.message_id)
            del self._sent[arrival.message_id]
            self._seconds = max(self._seconds, arrival.seconds)
            yield arrival.reply
        for other in kept:
            heapq.heappush(self._arriving, other)
        if open_ids & self._sent.keys() and limit < math.inf:
            self._seconds = max(self._seconds, limit)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Ask and wait."""
        return list(self.replies(self.push_messages(messages), timeout))

    def wait_for_nodes(self, count: int, timeout: float) -> list[int]:
        """The nodes when there are so many; the clock moves. Raises RoundError after ``timeout`` simulated seconds."""
        limit = self._seconds + timeout
        while len(here := self.get_node_ids()) < count:
            change = self._presence.next_change(self._seconds) if self._started else math.inf
            self._seconds = max(self._seconds, min(change, limit))
            if self._seconds >= limit:
                raise RoundError(f"{len(self.get_node_ids())} of {count} clients are there")
        return here

    def forget_messages(self, message_ids: Iterable[str]) -> None:
        """Replies to these are of no interest any more; whoever vanished over one is back."""
        gone = set(message_ids)
        for message_id in gone & self._sent.keys():
            self._gone.pop(self._sent.pop(message_id).node, None)
        self._arriving = [arrival for arrival in self._arriving if arrival.message_id not in gone]
        heapq.heapify(self._arriving)
        self._inner.forget_messages(gone)
        self._online = (-1.0, self._online[1])

    def reject(self, node_id: int, reason: str) -> None:
        """Leave a node out from now on."""
        self._inner.reject(node_id, reason)
        self._online = (-1.0, self._online[1])

    def close(self) -> None:
        """Forget what waits."""
        self._arriving.clear()
        self._sent.clear()
        self._inner.close()

    # -- how long it takes ---------------------------------------------------------------------------------------

    def _compute(self, message_ids: list[str]) -> None:
        """Have the answers computed, and put each on its way, if it gets there at all."""
        for reply in self._inner.replies(message_ids):
            message_id = reply.metadata.reply_to_message_id
            sent = self._sent[message_id]
            seconds = self._arrives(sent, reply)
            if seconds < math.inf:
                heapq.heappush(self._arriving, Arrival(seconds, sent.index, message_id, reply))

    def _arrives(self, sent: Sent, reply: Message) -> float:
        if not sent.takes_time or sent.index >= len(self._paces):
            return sent.seconds
        self._questions[sent.index] += 1
        takes = self._paces[sent.index].seconds(sent.size_bytes, _examples(reply), _size_bytes(reply))
        leaves = self._presence.leaves(sent.index, sent.seconds)
        share = self._presence.vanishes(sent.index, self._questions[sent.index])
        if share is not None:
            self._gone[sent.node] = sent.seconds + share * takes
            self._online = (-1.0, self._online[1])
            return math.inf
        return sent.seconds + takes if sent.seconds + takes <= leaves else math.inf


def _size_bytes(message: Message) -> int:
    """What a message takes on the wire, as the server counts it."""
    if not message.has_content():
        return 0
    return sum(len(array.data) for record in message.content.array_records.values() for array in record.values())


def _examples(reply: Message) -> float:
    """How many examples the client says that its training went through; 0 where it did not train."""
    records = reply.content.array_records.values() if reply.has_content() else ()
    packed = next((record[MESSAGE].data for record in records if MESSAGE in record), b"")
    try:
        return max(0.0, read(RoundReply, packed).metrics.get("examples", 0.0))
    except WireError:
        return 0.0
