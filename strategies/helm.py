"""The helm: what may be done to a run while no round is open."""

from strategies.coordinator import Coordinator
from strategies.ledger import Ledger
from strategies.roster import ClientRecord
from thinwire.run_config import RunConfig


class Helm:
    """For whoever steers; every call on the run's own thread, but those that only look."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    @property
    def ledger(self) -> Ledger:
        """What is decided."""
        return self._coordinator.ledger

    @property
    def config(self) -> RunConfig:
        """The configuration that is used now."""
        return self.ledger.config

    @property
    def clients(self) -> list[ClientRecord]:
        """The roster in ascending index; may be looked at from any thread, and is never changed but here."""
        return self.ledger.roster.clients

    @property
    def version(self) -> int:
        """Rounds decided."""
        return self.ledger.replicated.version

    def wait(self, seconds: float) -> None:
        """Let clients come and go for at most so long."""
        self._coordinator.collector.attend(seconds)

    def checkpoint(self) -> int:
        """Write a checkpoint; the round that it is of. Raises RoundError where the disk does not take it."""
        self.ledger.checkpoint()
        return self.version
