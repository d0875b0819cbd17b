"""What our own grids can do beyond Flower's Grid: wait without polling, and turn a node away."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator

import thinwire.flower  # noqa: F401  keeps Flower quiet before it is imported

from flwr.app import Message  # isort: skip
from flwr.serverapp import Grid  # isort: skip


class WaitingGrid(Grid):
    """A Grid that tells when replies are there."""

    clock: Callable[[], float] | None = None  # seconds of simulated time; None where time is real

    @abstractmethod
    def replies(self, message_ids: Iterable[str], timeout: float | None = None) -> Iterator[Message]:
        """The replies as they come, one at a time in memory, until all are there or ``timeout`` seconds are over."""

    @abstractmethod
    def wait_for_nodes(self, count: int, timeout: float) -> list[int]:
        """The connected nodes when there are ``count``. Raises RoundError after ``timeout`` seconds."""

    @abstractmethod
    def forget_messages(self, message_ids: Iterable[str]) -> None:
        """Replies to these messages are of no interest any more."""

    @abstractmethod
    def reject(self, node_id: int, reason: str) -> None:
        """End a node's part in the run, telling it why."""
