"""What a run has recorded lately, for those who watch it: bounded, numbered, told from any thread."""

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from server.observers import Recorded
from thinwire.v1.operator_pb2 import Event

MOST_EVENTS = 2_000
"""Events kept; a watcher that is further behind hears of a gap."""

MOST_AT_ONCE = 100  # events that a watcher takes from the log at a time
MOST_FIELDS_BYTES = 64_000
"""Of the fields of one event, as JSON."""

GAP = "gap"
FLEET = "fleet-"


class EventLog:
    """The last events. Writers never wait for readers: whoever reads too slowly has a gap."""

    def __init__(self, most: int = MOST_EVENTS) -> None:
        self._lock = threading.Lock()
        self._events: deque[Event] = deque(maxlen=most)
        self._arrived = 0  # in all; the last of them is the newest that is kept
        self._last = 0
        self._forgotten = 0  # the highest sequence number that is not kept any more
        self._listeners: set[Callable[[], None]] = set()

    @property
    def last(self) -> int:
        """The highest sequence number."""
        return self._last

    def append(self, kind: str, fields: Mapping[str, Any]) -> None:
        """One more; its number is that of the run's record, where it has one."""
        event = as_event(kind, fields)
        with self._lock:
            event.sequence = fields.sequence if isinstance(fields, Recorded) else self._last + 1
            self._last = max(self._last, event.sequence)
            if len(self._events) == self._events.maxlen:
                self._forgotten = max(self._forgotten, self._events[0].sequence)
            self._events.append(event)
            self._arrived += 1
            listeners = list(self._listeners)
        for wake in listeners:
            wake()

    def since(self, arrival: int, after: int) -> tuple[int, list[Event]]:
        """The next events for a watcher that has had ``arrival`` of them, and how many it has had then.

        Those with a sequence number above ``after``, in the order in which they came, which around a change of threads
        may not be that of their numbers. The first is a gap where some of them are forgotten.
        """
        with self._lock:
            oldest = self._arrived - len(self._events)
            found: list[Event] = []
            if self._forgotten > after and arrival < oldest and (arrival or after):  # 0 and 0: all that there is
                missed = json.dumps({"missed": oldest - arrival if arrival else self._forgotten - after})
                found.append(Event(sequence=self._forgotten, time=time.time(), kind=GAP, fields=missed))
            start = max(arrival - oldest, 0)
            fresh = [self._events[place] for place in range(start, min(start + MOST_AT_ONCE, len(self._events)))]
            return oldest + start + len(fresh), found + [event for event in fresh if event.sequence > after]

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
    plain = {str(name): _plain(value) for name, value in fields.items()}
    text = json.dumps(plain, default=str)
    if len(text) > MOST_FIELDS_BYTES:  # all of it is ASCII
        text = _cut(plain)
    client, number = plain.get("client"), plain.get("round")
    return Event(
        time=fields.time if isinstance(fields, Recorded) else time.time(),
        kind=kind.removeprefix(FLEET)[:64],
        client=client[:128] if isinstance(client, str) else "",
        round=number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else 0,
        fields=text,
    )


def _cut(plain: Mapping[str, Any]) -> str:
    """The fields that fit, the smallest first, and the names of some that do not."""
    sizes = {name: len(json.dumps({name: value}, default=str)) for name, value in plain.items()}
    left, kept = MOST_FIELDS_BYTES // 2, set()
    for name in sorted(plain, key=lambda name: sizes[name]):
        left -= sizes[name]
        if left < 0:
            break
        kept.add(name)
    left_out = sorted(set(plain) - kept, key=lambda name: -sizes[name])[:32]
    fields = {name: value for name, value in plain.items() if name in kept}
    return json.dumps({**fields, "left_out": [name[:64] for name in left_out]}, default=str)


def _plain(value: Any) -> Any:
    """What is not finite is null, as in the run's record."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
