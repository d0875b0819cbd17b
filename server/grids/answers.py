"""Who computes what the virtual nodes of a simulation are asked: an app, clients by name, or worker processes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from strategies.grid_transport import KINDS, from_record, to_record
from thinwire.errors import WireError
from thinwire.flower import (
    APP_RAISED,
    App,
    Scalar,
    answer,
    detached,
    error_reply,
    make_message,
    new_context,
    reply_metadata,
)

from flwr.app import Context, Message  # isort: skip

ByName = Callable[[str, str, Mapping[str, bytes]], dict[str, bytes]]
"""A client's reply: (its name, the kind of message, its parts) -> parts."""


@dataclass(frozen=True)
class VirtualNode:
    """One client of a simulation."""

    number: int  # Flower's node id
    index: int
    identity: str


class Answers(ABC):
    """Computes answers. A question is begun when it is asked, and finished when its reply is wanted."""

    @abstractmethod
    def begin(self, message: Message, node: VirtualNode) -> None:
        """A question that will be finished, or forgotten."""

    @abstractmethod
    def finish(self, message: Message, node: VirtualNode) -> Message:
        """The reply; waits for it, or computes it now. Raises RoundError when it cannot be had."""

    @abstractmethod
    def forget(self, message_id: str) -> None:
        """The reply is of no interest any more."""

    @abstractmethod
    def close(self) -> None:
        """No more questions."""


class OfApp(Answers):
    """A Flower app that is called in this process, with a Context for each node.

    Records are the app's own copy, the arrays' bytes are shared. An exception in the app becomes an Error reply.
    """

    def __init__(self, app: App, run_id: int, nodes: int, run_config: Mapping[str, Scalar] | None) -> None:
        self._app = app
        self._run_id = run_id
        self._nodes = nodes
        self._run_config = run_config
        self._contexts: dict[int, Context] = {}  # by node, from its first question on

    def begin(self, message: Message, node: VirtualNode) -> None:
        """Nothing is done before the reply is wanted."""

    def finish(self, message: Message, node: VirtualNode) -> Message:
        """Call the app."""
        context = self._contexts.get(node.number)
        if context is None:
            context = self._contexts[node.number] = self._new_context(node)
        reply = answer(self._app, make_message(message.metadata, content=detached(message.content)), context)
        if reply.has_content():
            reply.content = detached(reply.content)
        return reply

    def forget(self, message_id: str) -> None:
        """Nothing was done."""

    def close(self) -> None:
        """Nothing is open."""

    def _new_context(self, node: VirtualNode) -> Context:
        config: dict[str, Scalar] = {
            "partition-id": node.index,
            "num-partitions": self._nodes,
            "client-id": node.identity,
        }
        return new_context(self._run_id, node.number, config, self._run_config)


class OfClients(Answers):
    """Thinwire's own clients, called by name in this process; messages are emptied, not copied."""

    def __init__(self, clients: ByName) -> None:
        self._clients = clients

    def begin(self, message: Message, node: VirtualNode) -> None:
        """Nothing is done before the reply is wanted."""

    def finish(self, message: Message, node: VirtualNode) -> Message:
        """Call the client."""
        try:
            kind, parts = opened(message)
            return replied(message, self._clients(node.identity, kind, parts))
        except Exception as error:  # the task is the user's code: whatever it raises is this client's answer
            return error_reply(message.metadata, APP_RAISED, f"{type(error)}:<'{error}'>")

    def forget(self, message_id: str) -> None:
        """Nothing was done."""

    def close(self) -> None:
        """Nothing is open."""


def opened(message: Message) -> tuple[str, dict[str, bytes]]:
    """The kind and the parts of a question; the message is empty afterwards. Raises WireError."""
    kind = KINDS.get(message.metadata.message_type)
    if kind is None:
        raise WireError(f"unknown type of message {message.metadata.message_type!r}")
    return kind, from_record(message.content)


def replied(message: Message, parts: Mapping[str, Any]) -> Message:
    """The reply with these parts."""
    return make_message(reply_metadata(message.metadata), content=to_record(parts))
