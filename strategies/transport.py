"""What a coordinator needs of a network: ask nodes, hear answers. Flower's Grid is behind it, or a test."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

HELLO = "hello"
WELCOME = "welcome"
ROUND = "round"
EVALUATE = "evaluate"

MESSAGE = "message"  # the small part of every message, one of round.proto
BASE = "base"  # how to get to the target version: shared by many clients, so it travels beside
UPLINK = "uplink"  # the packed uplink


@dataclass(frozen=True)
class Ask:
    """One question to one node."""

    node: int
    kind: str
    parts: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes as sent, without the carrier's framing."""
        return sum(len(part) for part in self.parts.values())


@dataclass(frozen=True)
class Answer:
    """What came back, or why nothing did."""

    node: int
    kind: str
    parts: Mapping[str, bytes] = field(default_factory=dict)
    error: str = ""

    @property
    def size(self) -> int:
        """Bytes as received, without the carrier's framing."""
        return sum(len(part) for part in self.parts.values())


class Transport(Protocol):
    """A network of nodes."""

    def nodes(self) -> set[int]:
        """The connected nodes."""
        ...

    def send(self, asks: Sequence[Ask], ttl_seconds: float) -> None:
        """Ask; a node gets at most one open question at a time, a newer one replaces an older."""
        ...

    def receive(self, timeout_seconds: float) -> Iterator[Answer]:
        """Answers as they come, one at a time in memory; ends after the timeout at the latest.

        May be left at any time: what was not taken comes next time. Waits for nodes where nothing is open.
        """
        ...

    def forget(self) -> None:
        """Answers to open rounds and evaluations are of no interest any more; those of the door still are."""
        ...

    def is_named(self, node: int, name: str) -> bool:
        """Whether a node may call itself so: False where the carrier knows the client behind it under another name."""
        ...

    def reject(self, node: int, reason: str) -> None:
        """This node is not wanted here."""
        ...

    def now(self) -> float:
        """The host's clock, in seconds."""
        ...

    def pause(self, seconds: float) -> None:
        """Wait for nodes to come, at most so long."""
        ...
