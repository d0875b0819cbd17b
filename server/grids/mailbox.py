"""Requests and replies of a fleet: who is connected, what waits for an answer, what waits to be pulled."""

import math
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable

from flwr.app import Message

from server.grids.nodes import Node, Request
from thinwire.errors import RoundError
from thinwire.flower import (
    MESSAGE_EXPIRED,
    NODE_UNAVAILABLE,
    addressed,
    error_reply,
    make_message,
    node_id,
    reply_metadata,
)
from thinwire.wire.arrivals import Arrived
from thinwire.wire.frames import Outgoing, outgoing


class Mailbox:
    """The state that the caller's thread and the server's loop share; every method may be called from any thread."""

    def __init__(self, run_id: int, roster: Iterable[str], wake: Callable[[int], None]) -> None:
        """``wake(node)`` is called, without the lock, when a node has something new to be sent."""
        self._run_id = run_id
        self._wake = wake
        self._changed = threading.Condition()
        self._nodes: dict[int, Node] = {}
        self._requests: dict[str, Request] = {}
        self._soonest = math.inf  # no open request expires before this
        self._closed = False
        for identity in roster:
            self.know(identity)

    def know(self, identity: str) -> Node:
        """The node of an identity, made when it is new."""
        node = node_id(self._run_id, identity)
        with self._changed:
            return self._nodes.setdefault(node, Node(node, identity))

    def nodes(self) -> list[Node]:
        """All known nodes in ascending id."""
        with self._changed:
            return [self._nodes[node] for node in sorted(self._nodes)]

    def find(self, node: int) -> Node | None:
        """A known node."""
        with self._changed:
            return self._nodes.get(node)

    def connect(self, node: Node, connected: bool) -> None:
        """Note that a node came or went."""
        with self._changed:
            node.connected = connected
            self._changed.notify_all()

    def push(self, message: Message, limit_bytes: int) -> str:
        """Queue a message for its node; the identifier under which its reply is pulled.

        Raises RoundError for a message over ``limit_bytes``, or after close.
        """
        message_id = secrets.token_hex(12)
        message = addressed(message, self._run_id, message_id)
        asked = message.metadata
        body = outgoing(message)
        if body.total_bytes > limit_bytes:
            raise RoundError(f"a message of {body.total_bytes} bytes; the fleet carries at most {limit_bytes}")
        expires = time.monotonic() + asked.created_at + asked.ttl - time.time()
        request = Request(message_id, asked, body, expires)
        with self._changed:
            if self._closed:
                raise RoundError("the fleet is closed")
            self._requests[message_id] = request
            node = self._nodes.get(asked.dst_node_id)
            if node is None or node.rejected is not None:
                reason = "no such node" if node is None else f"rejected: {node.rejected}"
                self._settle(request, error_reply(asked, NODE_UNAVAILABLE, reason))
                return message_id
            node.open[message_id] = request
            self._soonest = min(self._soonest, request.expires)
        self._wake(node.node)
        return message_id

    def unsent(self, node: Node, sent: Collection[str]) -> tuple[str, Outgoing] | None:
        """The oldest living request of a node that is not in ``sent``."""
        with self._changed:
            self._expire()
            for message_id, request in node.open.items():
                if message_id not in sent and request.outgoing is not None:
                    return message_id, request.outgoing
        return None

    def wants(self, node: Node, message_id: str) -> bool:
        """Whether this node's answer to this message is still awaited."""
        with self._changed:
            self._expire()
            return message_id in node.open

    def answer(self, node: Node, message_id: str, reply: Arrived) -> bool:
        """Keep a node's reply; False, and nothing kept, where it is not awaited (any more)."""
        with self._changed:
            self._expire()
            request = node.open.pop(message_id, None)
            if request is not None:
                self._settle(request, reply)
        if request is None:
            reply.discard()
        return request is not None

    def fail(self, node: Node, reason: str, reject: bool = False) -> None:
        """Answer everything open at a node with an Error; with ``reject``, everything later too."""
        with self._changed:
            if reject:
                node.rejected = reason
            for request in node.open.values():
                self._settle(request, error_reply(request.asked, NODE_UNAVAILABLE, reason))
            node.open.clear()

    def take(self, message_id: str) -> Message | None:
        """The reply to a message, once; None while there is none. A message that ran out of time has an Error."""
        with self._changed:
            self._expire()
            request = self._requests.get(message_id)
            if request is None or request.reply is None:
                return None
            del self._requests[message_id]
        if isinstance(request.reply, Message):
            return request.reply
        reply = request.reply.message()
        metadata = reply_metadata(request.asked)
        if reply.has_error():
            return make_message(metadata, error=reply.error)
        return make_message(metadata, content=reply.content)

    def forget(self, message_ids: Iterable[str]) -> None:
        """Nobody will pull these: they are sent no more, and answers to them are dropped."""
        with self._changed:
            for message_id in message_ids:
                request = self._requests.pop(message_id, None)
                if request is None:
                    continue
                node = self._nodes.get(request.asked.dst_node_id)
                if node is not None:
                    node.open.pop(message_id, None)
                if isinstance(request.reply, Arrived):
                    request.reply.discard()

    def wait_for_reply(self, message_ids: Collection[str], deadline: float | None) -> str | None:
        """The first of these messages that has a reply; None past the deadline (on time.monotonic) or after close."""
        with self._changed:
            while not self._closed:
                self._expire()
                alive = [self._requests[name] for name in message_ids if name in self._requests]
                for request in alive:
                    if request.reply is not None:
                        return request.message_id
                if not alive:
                    return None
                until = min(request.expires for request in alive)
                if not self._wait_until(until if deadline is None else min(until, deadline), deadline):
                    return None
        return None

    def wait_for_nodes(self, count: int, deadline: float) -> bool:
        """Wait until ``count`` nodes are connected; False past the deadline (on time.monotonic)."""
        with self._changed:
            while sum(node.connected for node in self._nodes.values()) < count:
                if self._closed or not self._wait_until(deadline, deadline):
                    return False
        return True

    def close(self) -> None:
        """Wake all who wait, and let go of every reply."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.forget(list(self._requests))

    def _wait_until(self, until: float, deadline: float | None) -> bool:
        """Wait for a change until a moment; False when the deadline had passed already."""
        left = until - time.monotonic()
        if deadline is not None and deadline <= time.monotonic():
            return False
        self._changed.wait(min(max(left, 0.0), threading.TIMEOUT_MAX))
        return True

    def _settle(self, request: Request, reply: Arrived | Message) -> None:
        """Keep a reply for the caller. The lock is held."""
        request.reply = reply
        request.outgoing = None
        self._changed.notify_all()

    def _expire(self) -> None:
        """Answer what ran out of time with an Error. The lock is held."""
        now = time.monotonic()
        if now < self._soonest:
            return
        for node in self._nodes.values():
            for request in [request for request in node.open.values() if request.expires <= now]:
                del node.open[request.message_id]
                self._settle(request, error_reply(request.asked, MESSAGE_EXPIRED, "the message's time to live is over"))
        open_requests = (request for node in self._nodes.values() for request in node.open.values())
        self._soonest = min((request.expires for request in open_requests), default=math.inf)
