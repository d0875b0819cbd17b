"""Who else wants to know what a run records: metrics endpoints, event files, an operator's stream."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Recorded(dict[str, Any]):
    """The fields of a record, with its place in the run's record and its time."""

    def __init__(self, fields: Mapping[str, Any], sequence: int, time: float) -> None:
        super().__init__(fields)
        self.sequence = sequence  # ascending, rounds and events counted together
        self.time = time  # seconds since 1970


class Observer(Protocol):
    """Told of everything that is recorded of a run. Calls may come from any thread, and must return soon."""

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """``round``: a row of the run's metrics. Any other kind: an event, with its fields.

        A run directory gives ``Recorded`` fields, which know their sequence number and time.
        """
        ...

    def close(self) -> None:
        """The run is over, or this process's part in it."""
        ...


class Observers:
    """All of them. One that fails is told nothing more; a run never fails for being watched."""

    def __init__(self) -> None:
        self._observers: list[Observer] = []

    def add(self, observer: Observer) -> None:
        """One more."""
        self._observers.append(observer)

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Tell all."""
        for observer in list(self._observers):
            try:
                observer.record(kind, fields)
            except Exception:
                self._observers.remove(observer)
                log.exception(
                    "%s failed on a record of kind %r and is told nothing more", type(observer).__name__, kind
                )

    def close(self) -> None:
        """Tell all that it is over."""
        while self._observers:
            observer = self._observers.pop()
            try:
                observer.close()
            except Exception:
                log.exception("%s failed to close", type(observer).__name__)
