"""The helm: what may be done to a run while no round is open."""

from collections.abc import Callable
from typing import Any

from strategies.collection import banned
from strategies.coordinator import Coordinator
from strategies.ledger import Ledger
from strategies.roster import ClientRecord
from thinwire.run_config import RunConfig


class Helm:
    """For whoever steers; every call on the run's own thread, but those that only look (``check_``, properties)."""

    def __init__(self, coordinator: Coordinator, change: Callable[[RunConfig], Callable[[], None]]) -> None:
        """``change`` checks a configuration and returns what puts it into use; it raises ConfigError."""
        self._coordinator = coordinator
        self._change = change

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

    def roster(self) -> dict[str, Any]:
        """The fields of an event that says who is in the run, in ascending index, and with what weight."""
        clients = [{"name": c.name, "weight": c.weight, "examples": c.examples} for c in self.clients]
        return {"run": self.ledger.run, "clients": clients}

    def wait(self, seconds: float) -> None:
        """Let clients come and go for at most so long."""
        self._coordinator.collector.attend(seconds)

    def checkpoint(self) -> int:
        """Write a checkpoint; the round that it is of. Raises RoundError where the disk does not take it."""
        self.ledger.checkpoint()
        return self.version

    def client(self, name: str) -> ClientRecord | None:
        """A client of the roster."""
        return self.ledger.roster.named(name)

    def check_drain(self, record: ClientRecord, undo: bool = False) -> None:
        """Raises ConfigError where rounds would wait for a client that is not asked, or it is asked already."""
        self.ledger.check_drain(record, undo)

    def drain(self, record: ClientRecord, undo: bool = False) -> None:
        """Ask a client no more, or again; with a checkpoint. Raises ConfigError."""
        self.ledger.drain(record, undo)

    def check_ban(self, record: ClientRecord) -> None:
        """Raises ConfigError where the run would have nobody left."""
        self.ledger.check_ban(record)

    def ban(self, record: ClientRecord, reason: str) -> list[str]:
        """Put a client out of the run for good, with a checkpoint, and turn it away; who begins anew besides it.

        Raises ConfigError.
        """
        anew = self.ledger.ban(record, reason)
        self._coordinator.collector.turn_away({record.name: banned(record.name, reason)})
        return [self.clients[index].name for index in anew]

    def check_change(self, config: RunConfig) -> None:
        """Raises ConfigError where the run cannot go on with this configuration."""
        self._change(config)

    def change(self, config: RunConfig, keep: Callable[[RunConfig], None]) -> None:
        """Go on with another configuration, which ``keep`` makes durable. Raises ConfigError, and RoundError.

        A checkpoint comes first: no journal that has to be replayed spans a change.
        """
        adopt = self._change(config)
        self.ledger.checkpoint()
        keep(config)
        adopt()
