"""What the fleet's server remembers of a client and of a message to it."""

from dataclasses import dataclass, field

from flwr.app import Message, Metadata

from thinwire.wire.arrivals import Arrived
from thinwire.wire.frames import Outgoing


@dataclass
class Request:
    """A message on its way, until its reply is pulled."""

    message_id: str
    asked: Metadata
    outgoing: Outgoing | None  # None once it is answered: nobody needs it again
    expires: float  # on time.monotonic
    reply: Arrived | Message | None = None


@dataclass
class Node:
    """One identity, as the server knows it. Byte counts are of chunks, without the carrier's framing."""

    node: int
    identity: str
    connected: bool = False
    rejected: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    open: dict[str, Request] = field(default_factory=dict)  # unanswered, oldest first
