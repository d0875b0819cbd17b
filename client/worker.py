"""The one thread in which a client computes, and the replies it keeps."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flwr.app import Context, Message, Metadata

from thinwire.errors import WireError
from thinwire.flower import APP_RAISED, App, Scalar, answer, error_reply, new_context
from thinwire.wire.frames import Outgoing, outgoing


@dataclass(frozen=True)
class Reply:
    """A reply, ready to be sent any number of times."""

    asked: Metadata  # of the request
    body: Outgoing


Listener = Callable[[Reply], None]
"""Called from the worker's thread."""


class Worker:
    """Runs the app on one message at a time, in the order of arrival; keeps the last reply until the next request.

    A request that waited here for longer than its time to live is dropped: the server has given it up before.
    """

    def __init__(self, app: App, node_config: Mapping[str, Scalar], run_config: Mapping[str, Scalar]) -> None:
        self._app = app
        self._node_config = node_config
        self._run_config = run_config
        self._context: Context | None = None
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[tuple[Message, float] | None] = queue.SimpleQueue()  # and when it came
        self._open: set[str] = set()  # requests that wait or are computed
        self._last: Reply | None = None
        self._listener: Listener | None = None
        self._thread = threading.Thread(target=self._work, name="thinwire-worker", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Drop what waits, and give the computation in progress so long to end."""
        self.keep(set())
        self._waiting.put(None)
        self._thread.join(seconds)

    def held(self) -> list[str]:
        """The requests that are here: waiting, being computed, or answered last."""
        with self._lock:
            return [*sorted(self._open), *([self._last.asked.message_id] if self._last else [])]

    def listen(self, listener: Listener | None) -> None:
        """Who hears of new replies; None: nobody."""
        with self._lock:
            self._listener = listener

    def keep(self, wanted: set[str]) -> None:
        """Forget the waiting requests that are not wanted any more."""
        with self._lock:
            self._open &= wanted

    def ask(self, message: Message) -> None:
        """Compute the reply to a request, unless it is here already; the listener hears of it either way."""
        message_id = message.metadata.message_id
        with self._lock:
            if message_id in self._open or self._is_last(message_id):
                return
            self._open.add(message_id)
        self._waiting.put((message, time.monotonic()))

    def reply(self, message_id: str) -> Reply | None:
        """The kept reply to a request."""
        with self._lock:
            return self._last if self._is_last(message_id) else None

    def _is_last(self, message_id: str) -> bool:
        return self._last is not None and self._last.asked.message_id == message_id

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            message, came = waiting
            message_id = message.metadata.message_id
            with self._lock:
                if time.monotonic() - came > message.metadata.ttl:
                    self._open.discard(message_id)
                if message_id not in self._open:
                    continue
                self._last = None  # its memory is free for the next reply
            reply = Reply(message.metadata, _packed(message, answer(self._app, message, self._context_of(message))))
            with self._lock:
                self._open.discard(message_id)
                self._last = reply
                listener = self._listener
            if listener is not None:
                listener(reply)
            del waiting, message, reply

    def _context_of(self, message: Message) -> Context:
        """The Context of the message's run; its state lives as long as this process serves that run."""
        run_id, node = message.metadata.run_id, message.metadata.dst_node_id
        if self._context is None or (self._context.run_id, self._context.node_id) != (run_id, node):
            self._context = new_context(run_id, node, self._node_config, self._run_config)
        return self._context


def _packed(message: Message, reply: Message) -> Outgoing:
    """The reply as buffers; an Error reply where it cannot be packed."""
    try:
        return outgoing(reply)
    except (WireError, ValueError, TypeError) as error:
        return outgoing(error_reply(message.metadata, APP_RAISED, f"the reply cannot be sent: {error}"))
