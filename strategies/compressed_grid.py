"""A Flower Grid in front of another: strategies see dense models, the network sees packed payloads."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from logging import INFO, WARNING

from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from compressors import Place
from strategies.correspondence import Correspondence, Question, Shown
from strategies.cut import NamedArrays
from strategies.exchange_meter import Exchange
from strategies.grid_transport import KINDS, POLL_SECONDS, from_parts, holds_parts, to_parts
from strategies.transport import EVALUATE, HELLO, ROUND
from thinwire.errors import ConfigError, WireError
from thinwire.flower import (
    APP_RAISED,
    MESSAGE_EXPIRED,
    MOD_REFUSED,
    NODE_UNAVAILABLE,
    NodeInfo,
    Run,
    addressed,
    error_reply,
    make_message,
    reply_metadata,
    request,
)
from thinwire.grid import WaitingGrid

Begin = Callable[[NamedArrays], Correspondence]
"""Opens the correspondence of a run when its first model is known."""


@dataclass
class Open:
    """A message with a model in it, until its reply is taken."""

    asked: Message  # as the strategy made it
    question: Question
    exchange: Exchange
    dense_bytes: int  # of the model in it
    ttl_seconds: float
    expires: float  # monotonic
    visible_id: str = ""  # under which the strategy knows it
    sent_id: str = ""  # of what was sent last; another one once the client is asked again


class CompressedGrid(Grid):
    """Compresses the model in every message of training or evaluation, and decodes what comes back.

    The model is the first record of arrays in the first such message, or that of the name ``record``; other records
    pass through, and so do messages without it. What is no answer to its question becomes an Error reply.
    """

    def __init__(self, grid: Grid, begin: Begin, record: str = "") -> None:
        self._grid = grid
        self._begin = begin
        self._record = record
        self._correspondence: Correspondence | None = None
        self._open: dict[str, Open] = {}  # by the newest identifier that was sent
        self._sent: dict[str, str] = {}  # the identifier that the strategy knows -> that one, where they differ
        self.exchanges: list[Exchange] = []

    # -- what passes through -------------------------------------------------------------------------------------

    @property
    def run(self) -> Run:
        """The run."""
        return self._grid.run

    def set_run(self, run: Run) -> None:
        """Hand it on."""
        self._grid.set_run(run)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return request(content, message_type, dst_node_id, self.run.run_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """The connected nodes."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The connected nodes, described."""
        return self._grid.get_nodes()

    # -- sending -------------------------------------------------------------------------------------------------

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Compress and send. Raises ConfigError for another model than the run's, RoundError for one that diverged."""
        return self._push(list(messages), math.inf)

    def _push(self, messages: list[Message], timeout: float) -> list[str]:
        self._close([opened for opened in self._open.values() if opened.expires < time.monotonic()])
        models: dict[int, tuple[Shown, int]] = {}  # most messages of a batch share one record
        batches: dict[str, Exchange] = {}
        prepared: list[tuple[Message, Open | None]] = []
        for message in messages:
            opened = self._question(message, len(messages), models, batches, timeout)
            prepared.append((message, None) if opened is None else (self._message(opened), opened))
        self.exchanges += batches.values()
        ids = list(self._grid.push_messages([message for message, _ in prepared]))
        for message_id, (_, opened) in zip(ids, prepared, strict=True):
            if opened is not None and message_id:
                opened.visible_id = opened.sent_id = message_id
                self._open[message_id] = opened
            elif opened is not None:  # the grid did not take it
                self._forget(opened)
        return ids

    def _question(
        self,
        message: Message,
        count: int,
        models: dict[int, tuple[Shown, int]],
        batches: dict[str, Exchange],
        timeout: float,
    ) -> Open | None:
        """The message with the model in it as a question; None where there is no model."""
        category = message.metadata.message_type.partition(".")[0]
        kind, records = KINDS.get(category), message.content.array_records
        if kind not in (ROUND, EVALUATE) or not records:
            return None
        self._record = self._record or next(iter(records))
        if self._record not in records:
            if self._correspondence is None:
                raise ConfigError(f"no record {self._record!r} in the first message; it has {', '.join(records)}")
            return None
        if id(records[self._record]) not in models:
            models[id(records[self._record])] = self._show(records[self._record])
        shown, dense_bytes = models[id(records[self._record])]
        exchange = batches.setdefault(category, Exchange(category, 0))
        number = 1 + sum(past.kind == category for past in self.exchanges)
        assert self._correspondence is not None
        place = Place(exchange.asked, count)
        question = self._correspondence.ask(kind, message.metadata.dst_node_id, number, shown, place)
        exchange.asked += 1
        exchange.dense_bytes += dense_bytes
        ttl = min(message.metadata.ttl, max(1.0, timeout))
        return Open(message, question, exchange, dense_bytes, ttl, time.monotonic() + ttl)

    def _show(self, model: ArrayRecord) -> tuple[Shown, int]:
        arrays = {name: array.numpy() for name, array in model.items()}
        if self._correspondence is None:
            self._correspondence = self._begin(arrays)
        return self._correspondence.show(arrays), sum(len(array.data) for array in model.values())

    def _message(self, opened: Open) -> Message:
        """What goes over the wire for a question: the strategy's message with parts in the place of the model."""
        asked, parts = opened.asked.metadata, opened.question.parts
        opened.exchange.downlink_bytes += opened.question.size
        records = {n: to_parts(parts) if n == self._record else r for n, r in opened.asked.content.items()}
        where = asked.dst_node_id, self.run.run_id, asked.group_id
        return request(RecordDict(records), asked.message_type, *where, opened.ttl_seconds)

    # -- receiving -----------------------------------------------------------------------------------------------

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there, decoded; a client that lacks something is asked again under the same name."""
        replies = self._grid.pull_messages([self._sent.get(name, name) for name in message_ids])
        return [reply for raw in replies if (reply := self._take(raw)) is not None]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send, and wait for the replies until all are there or ``timeout`` seconds are over."""
        before = len(self.exchanges)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        waiting = {name for name in self._push(list(messages), deadline - time.monotonic()) if name}
        replies: list[Message] = []
        while waiting:
            left = deadline - time.monotonic()
            for reply in self._receive(waiting, left):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
            if left <= 0:
                break
        self._close([self._open[sent] for name in waiting if (sent := self._sent.get(name, name)) in self._open])
        for exchange in self.exchanges[before:]:
            log(INFO, "Thinwire, %s", exchange)
        return replies

    def _receive(self, waiting: set[str], left: float) -> Iterator[Message]:
        """What comes; ends when all is there, when time is over, or when a client was asked again."""
        names = [self._sent.get(name, name) for name in waiting]
        if isinstance(self._grid, WaitingGrid):
            for raw in self._grid.replies(names, None if math.isinf(left) else max(0.0, left)):
                reply = self._take(raw)
                if reply is None:
                    return
                yield reply
            return
        pulled = list(self._grid.pull_messages(names))
        yield from (reply for raw in pulled if (reply := self._take(raw)) is not None)
        if not pulled:
            time.sleep(min(POLL_SECONDS, max(0.0, left)))

    def _take(self, raw: Message) -> Message | None:
        """A reply as the strategy sees it; None where the client is asked again."""
        opened = self._open.pop(raw.metadata.reply_to_message_id, None)
        if opened is None:
            late = not raw.has_error() and any(holds_parts(record) for record in raw.content.array_records.values())
            return make_message(raw.metadata, error=Error(MESSAGE_EXPIRED, "it came too late")) if late else raw
        asked = addressed(opened.asked, self.run.run_id, opened.visible_id).metadata
        if raw.has_error():
            self._forget(opened)
            return error_reply(asked, raw.error.code, raw.error.reason or "no reason given")
        try:
            content = self._decode(opened, raw.content)
        except WireError as error:
            self._forget(opened)
            log(WARNING, "Thinwire: the reply of node %d is refused: %s", asked.dst_node_id, error)
            return error_reply(asked, MOD_REFUSED, f"refused: {error}")
        if isinstance(content, str):
            self._forget(opened)
            return error_reply(asked, APP_RAISED, content)
        if content is None and self._again(opened):
            return None
        self._forget(opened)
        if content is None:
            return error_reply(asked, NODE_UNAVAILABLE, "the node is not there any more")
        opened.exchange.replied += 1
        return make_message(reply_metadata(asked), content=content)

    def _decode(self, opened: Open, content: RecordDict) -> RecordDict | str | None:
        """The content with a dense model; or why there is none; None where the client is to be asked again."""
        question, correspondence = opened.question, self._correspondence
        assert correspondence is not None
        name = next((n for n, record in content.array_records.items() if holds_parts(record)), "")
        if not name and question.kind == ROUND:
            raise WireError("it holds no payload of Thinwire: the ClientApp needs the mod client.mod.compressed")
        parts = from_parts(content.array_records[name]) if name else {}
        opened.exchange.uplink_bytes += sum(len(part) for part in parts.values())
        heard = correspondence.hear(question, parts, set(self.get_node_ids()) if HELLO in parts else ())
        if heard.again is not None:
            opened.question = heard.again
            return None
        if heard.failure:
            return heard.failure
        records = {n: record for n, record in content.items() if n != name or heard.arrays is not None}
        if heard.arrays is not None:
            records[name] = ArrayRecord({n: Array(array) for n, array in heard.arrays.items()})
            opened.exchange.dense_bytes += opened.dense_bytes
        return RecordDict(records)

    def _again(self, opened: Open) -> bool:
        """Send the question that took the place of the first; whether the grid took it."""
        (sent_id,) = self._grid.push_messages([self._message(opened)])
        if sent_id:
            opened.sent_id = self._sent[opened.visible_id] = sent_id
            self._open[sent_id] = opened
        return bool(sent_id)

    def _close(self, overdue: list[Open]) -> None:
        """Replies to these are of no interest any more."""
        for opened in overdue:
            self._open.pop(opened.sent_id, None)
            self._forget(opened)
        if isinstance(self._grid, WaitingGrid):
            self._grid.forget_messages([opened.sent_id for opened in overdue])

    def _forget(self, opened: Open) -> None:
        self._sent.pop(opened.visible_id, None)
        assert self._correspondence is not None
        self._correspondence.close(opened.question)
