"""A run as an operator watches it: what its server says now, and what it recorded lately."""

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_ROWS, MOST_EVENTS = 2_000, 100
RATED_ROUNDS = 20  # over which the speed of a link is taken
MOST_RATED = 20_000  # answers that are looked at for it
QUIET = frozenset({"round", "roster", "hello", "fleet-opened", "opened"})
"""Kinds of events that the other parts of the picture show."""


@dataclass
class RunView:
    """Fed by a status, rounds, events and clients, from a server or from a record; drawn by ``watch_page``."""

    status: dict[str, Any]
    clients: list[dict[str, Any]] = field(default_factory=list)
    rows: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=MOST_ROWS))
    events: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))
    trouble: str = ""  # why the server does not answer
    unheard: str = ""  # why it is not asked, and the record is shown

    def add_row(self, row: Mapping[str, Any]) -> None:
        """A round that was decided; one that is decided again after a restart takes the place of the first."""
        number = int(row["round"])
        while self.rows and int(self.rows[-1]["round"]) >= number:
            self.rows.pop()
        self.rows.append(row)

    def add_event(self, event: Mapping[str, Any]) -> None:
        """An event that people want to see: ``event`` is its kind, ``time`` when it was."""
        if event["event"] not in QUIET:
            self.events.append(event)

    def history(self, name: str) -> list[float]:
        """A metric, by rounds in which it was taken."""
        return [float(row[name]) for row in self.rows if isinstance(row.get(name), (int, float))]

    def rates(self) -> dict[int, float]:
        """Bytes per second of each client's link, both ways together, over its last rounds; compute time included."""
        sums: dict[int, tuple[float, float, int]] = {}
        looked_at = 0
        for row in reversed(self.rows):
            if looked_at > MOST_RATED:
                break
            looked_at += len(row.get("client_seconds", {}))
            for index, seconds in row.get("client_seconds", {}).items():
                sent, taken, rounds = sums.get(int(index), (0.0, 0.0, 0))
                up, down = row.get("client_bytes", {}).get(index, (0, 0))
                if rounds < RATED_ROUNDS:
                    sums[int(index)] = sent + up + down, taken + float(seconds), rounds + 1
        return {index: sent / taken for index, (sent, taken, _) in sums.items() if taken > 0}

    def slowest(self, most: int) -> list[dict[str, Any]]:
        """The clients that take the longest, those that are not there behind them."""

        def slowness(client: Mapping[str, Any]) -> tuple[bool, float]:
            return client.get("state") in ("banned", "drained"), -(client.get("mean_seconds") or 0.0)

        return sorted(self.clients, key=slowness)[:most]

    def rounds_per_minute(self) -> float | None:
        """Over the last rounds; None before there are two."""
        recent = list(self.rows)[-RATED_ROUNDS:]
        if len(recent) < 2 or not recent[0].get("time") or not recent[-1].get("time"):
            return None
        taken = float(recent[-1]["time"]) - float(recent[0]["time"])
        return 60 * (len(recent) - 1) / taken if taken > 0 else None


def of_message(event: Any) -> dict[str, Any]:
    """An Event of the control service as the record has it."""
    fields = json.loads(event.fields or "{}")
    about = {"client": event.client or fields.get("client"), "round": event.round or fields.get("round")}
    named = {name: value for name, value in about.items() if value is not None}
    return {**fields, **named, "sequence": event.sequence, "time": event.time, "event": event.kind}


def told(view: RunView, events: Iterable[Mapping[str, Any]]) -> None:
    """Rounds and events as they were recorded."""
    for event in events:
        if event["event"] == "round" and "round" in event:
            view.add_row(event)
        else:
            view.add_event(event)
