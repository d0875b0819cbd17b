"""What a run has recorded lately, for those who watch it: bounded, numbered, told from any thread."""

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from thinwire.v1.operator_pb2 import Event

MOST_EVENTS = 2_000
"""Events kept; a watcher that is further behind hears of a gap."""

MOST_FIELDS_BYTES = 64_000
GAP = "gap"
FLEET = "fleet-"


class EventLog:
    """The last events. Writers never wait for readers: whoever reads too slowly has a gap."""

    def __init__(self, last: int = 0, most: int = MOST_EVENTS) -> None:
        """``last``: the sequence number of the last event before this process."""
        self._lock = threading.Lock()
        self._events: deque[Event] = deque(maxlen=most)
        self._last = last
        self._forgotten = last  # the sequence number of the last event that is not kept any more
        self._listeners: set[Callable[[], None]] = set()

    @property
    def last(self) -> int:
        """Sequence number of the last event."""
        return self._last

    def append(self, kind: str, fields: Mapping[str, Any], sequence: int | None = None) -> None:
        """One more. ``sequence``: its number in the run's record, where that has numbers."""
        event = as_event(kind, fields)
        with self._lock:
            self._last = self._last + 1 if sequence is None else max(sequence, self._last + 1)
            event.sequence = self._last
            if len(self._events) == self._events.maxlen:
                self._forgotten = self._events[0].sequence
            self._events.append(event)
            listeners = list(self._listeners)
        for wake in listeners:
            wake()

    def after(self, sequence: int, most: int = 100) -> list[Event]:
        """The next events behind a number; first of them a gap where some are forgotten. At most ``most``."""
        with self._lock:
            found: list[Event] = []
            if sequence < self._forgotten:
                text = json.dumps({"after": sequence, "missed": self._forgotten - sequence})
                found.append(Event(sequence=self._forgotten, time=time.time(), kind=GAP, fields=text))
            for event in self._events:
                if event.sequence > sequence:
                    found.append(event)
                if len(found) >= most:
                    break
            return found

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` on each event, from the thread that writes; what is returned ends it."""
        with self._lock:
            self._listeners.add(wake)

        def leave() -> None:
            with self._lock:
                self._listeners.discard(wake)

        return leave


def as_event(kind: str, fields: Mapping[str, Any]) -> Event:
    """A record of a run as a message, without its number; what is too large is left out and named."""
    plain = {str(name): _plain(value) for name, value in fields.items() if name != "sequence"}
    text = json.dumps(plain, default=str)
    if len(text.encode()) > MOST_FIELDS_BYTES:
        sizes = {name: len(json.dumps(value, default=str).encode()) for name, value in plain.items()}
        small = {name: value for name, value in plain.items() if sizes[name] <= MOST_FIELDS_BYTES // 64}
        text = json.dumps({**dict(list(small.items())[:32]), "left_out": sorted(set(plain) - set(small))[:32]})
    client, number = plain.get("client"), plain.get("round")
    return Event(
        time=float(fields.get("time") or time.time()),
        kind=kind.removeprefix(FLEET)[:64],
        client=client[:128] if isinstance(client, str) else "",
        round=number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else 0,
        fields=text,
    )


def _plain(value: Any) -> Any:
    """What is not finite is null, as in the run's record."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
