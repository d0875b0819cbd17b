"""What our own grids can do beyond Flower's Grid: wait without polling, and turn a node away."""

from abc import abstractmethod
from collections.abc import Iterable

import thinwire.flower  # noqa: F401  keeps Flower quiet before it is imported

from flwr.serverapp import Grid  # isort: skip


class WaitingGrid(Grid):
    """A Grid that tells when replies are there."""

    @abstractmethod
    def ready(self, message_ids: Iterable[str], timeout_seconds: float) -> list[str]:
        """Those of the messages whose replies can be pulled now; waits until there is one, or for the timeout."""

    @abstractmethod
    def await_nodes(self, known: int, timeout_seconds: float) -> None:
        """Wait until another number of nodes is connected than ``known``, or for the timeout."""

    @abstractmethod
    def reject(self, node_id: int, reason: str) -> None:
        """End a node's part in the run, telling it why."""

    @abstractmethod
    def forget(self, message_ids: Iterable[str]) -> None:
        """Replies to these messages are of no interest any more."""
