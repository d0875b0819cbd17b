"""One connection of a client, from Open to its end."""

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from client.worker import Reply, Worker
from thinwire import __version__
from thinwire.errors import WireError
from thinwire.flower import APP_RAISED, error_reply
from thinwire.v1.fleet_pb2 import ConnectRequest, ConnectResponse, Frame, Open, Opened
from thinwire.wire.arrivals import Assembler
from thinwire.wire.frames import PROTOCOL, frames, outgoing

MOST_CHUNK_BYTES = 16 << 20

said = logging.getLogger("client.said")  # what whoever runs the client wants to see


@dataclass(frozen=True)
class Verdict:
    """How a connection ended."""

    opened: bool = False  # the server had let us in
    finished: str | None = None  # the run is over: the server's reason
    refused: str | None = None  # the server does not want us, ever: its reason
    trouble: str = ""  # anything else, for people


class Stream:
    """Sends Open, takes requests, sends the replies that this server asked for."""

    def __init__(
        self, connect: Callable[[Iterator[ConnectRequest]], Any], worker: Worker, identity: str, token: str, most: int
    ) -> None:
        """``most``: bytes of the largest message accepted from the server."""
        self._worker = worker
        self._most_bytes = most
        self._opening = Open(
            protocol=PROTOCOL, software=f"thinwire {__version__}", identity=identity, token=token, held=worker.held()
        )
        self._outbox: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()
        self._opened: Opened | None = None
        self._assembler: Assembler | None = None
        self._lock = threading.Lock()
        self._asked: set[str] = set()  # what the server still wants of us on this connection
        self._call = connect(self._requests())

    def hang_up(self) -> None:
        """End the connection; from any thread."""
        self._call.cancel()

    def leave(self) -> bool:
        """Say goodbye, if nothing that was asked waits for an answer; whether that was so. From any thread.

        What was answered is sent first; the server ends the connection when it has all of it.
        """
        with self._lock:
            if self._asked:
                return False
            self._outbox.put(None)
        return True

    def run(self) -> Verdict:
        """Serve until the connection ends. Raises WireError when the server breaks the protocol."""
        self._worker.listen(self._send)
        try:
            for response in self._call:
                verdict = self._take(response)
                if verdict is not None:
                    return verdict
            return self._ended("the server hung up")
        except grpc.RpcError as error:
            return self._ended(_trouble(error))
        finally:
            self._worker.listen(None)
            self._outbox.put(None)
            self._call.cancel()

    def _take(self, response: ConnectResponse) -> Verdict | None:
        """One message of the server; how the connection ended, if it did."""
        kind = response.WhichOneof("content")
        if kind == "finished":
            return Verdict(opened=True, finished=response.finished.reason)
        if kind == "refused":
            reason = response.refused.reason
            return self._ended(reason) if response.refused.retry else Verdict(refused=reason)
        if kind == "opened" and self._opened is None:
            self._begin(response.opened)
        elif kind == "frame" and self._opened is not None:
            self._receive(response.frame)
        else:
            raise WireError(f"the server sent {kind or 'nothing'} where the protocol does not allow it")
        return None

    def _begin(self, opened: Opened) -> None:
        """We are in: resend what the server still wants, forget what it does not."""
        if not 0 < opened.chunk_bytes <= MOST_CHUNK_BYTES:
            raise WireError(
                f"the server's chunks of {opened.chunk_bytes} bytes; at most {MOST_CHUNK_BYTES} are allowed"
            )
        said.info("%s: connected", self._opening.identity)
        wanted = set(opened.wanted) & set(self._opening.held)
        self._opened = opened
        self._worker.keep(wanted)
        for message_id in sorted(wanted):
            self._want(message_id)

    def _receive(self, frame: Frame) -> None:
        """One frame of a request."""
        if self._assembler is None:
            self._assembler = Assembler(self._most_bytes, MOST_CHUNK_BYTES)
        arrived = self._assembler.add(frame)
        if arrived is None:
            return
        self._assembler = None
        message = arrived.message()
        if message.metadata.message_id != frame.message:
            raise WireError(f"request {frame.message!r} says that it is {message.metadata.message_id[:80]!r}")
        self._worker.ask(message)
        self._want(frame.message)

    def _want(self, message_id: str) -> None:
        """The server wants the reply to this request: now, if it is here already."""
        with self._lock:
            self._asked.add(message_id)
        reply = self._worker.reply(message_id)
        if reply is not None:
            self._send(reply)

    def _send(self, reply: Reply) -> None:
        """Queue a reply, once, if this server asked for it; from any thread."""
        message_id = reply.asked.message_id
        with self._lock:
            if message_id not in self._asked:
                return
            self._asked.remove(message_id)
            self._outbox.put(reply)

    def _requests(self) -> Iterator[ConnectRequest]:
        """What we send, taken by gRPC in a thread of its own as fast as the wire allows."""
        yield ConnectRequest(open=self._opening)
        while (reply := self._outbox.get()) is not None:
            opened = self._opened
            assert opened is not None  # replies are queued after Opened
            body = reply.body
            if body.total_bytes > opened.message_bytes:
                reason = f"a reply of {body.total_bytes} bytes; the server takes at most {opened.message_bytes}"
                body = outgoing(error_reply(reply.asked, APP_RAISED, reason))
            for frame in frames(reply.asked.message_id, body, opened.chunk_bytes):
                yield ConnectRequest(frame=frame)

    def _ended(self, trouble: str) -> Verdict:
        return Verdict(opened=self._opened is not None, trouble=trouble)


def _trouble(error: grpc.RpcError) -> str:
    """One line about a broken connection."""
    lines = str(error.details() or "").splitlines() or [""]
    return f"{error.code().name}: {lines[0][:200]}"
