"""What Prometheus may scrape of a server: an observer that turns a run's records into counters, gauges, histograms."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry

import thinwire
from server.metric_families import Connected, Families
from server.timed_store import TimedStore
from server.totals import OWN
from strategies.store import Store
from thinwire.run_config import RunConfig

MOST_CLIENTS = 50
"""Clients of a roster up to which each has label values of its own."""
MOST_TASK_METRICS = 32
"""Clients name what they measure; so many names become label values."""
ALL = "all"
OUTCOMES = {"client-error": "failed", "hostile": "hostile", "client-lacks": "declined"}
FAILURES = frozenset({
    "client-error", "client-lacks", "hostile", "reset", "refused", "round-repeated", "fleet-refused", "fleet-rejected",
    "fleet-nonsense", "fleet-dropped", "fleet-storage", "checkpoint-damaged", "fleet-replaced",
})  # fmt: skip
DECLINED = "declined"


class ServerMetrics:
    """An observer (``server.observers``) with a registry of its own, so that a process can serve several runs.

    Labels are bounded: ``client`` is a name of the roster, or ``all`` where the roster has more than ``most_clients``.
    """

    def __init__(
        self,
        config: RunConfig,
        connected: Callable[[], Iterable[str]] = tuple,
        most_clients: int = MOST_CLIENTS,
        registry: CollectorRegistry | None = None,
    ) -> None:
        """``connected`` is asked at each scrape, from another thread."""
        self.registry = own = registry or CollectorRegistry()
        self._most_clients = most_clients
        self._roster: list[str] = []
        self._outcomes: dict[str, str] = {}  # of the open round, by client, where it is not a reply
        self._lock = threading.Lock()
        self.families = Families(own)
        own.register(Connected(connected, self._labels))
        self._seen: set[tuple[str, str]] = set()
        self.families.run.info({
            "method": str(config.method["name"]),
            "uplink": str(config.uplink.get("name", "")),
            "downlink": str(config.downlink.get("name", "")),
            "task": str(config.task.get("name", "")),
            "software": thinwire.__version__,
        })  # fmt: skip
        self.families.planned.set(config.rounds)
        self.families.open_round.set(1)

    def timed(self, store: Store) -> Store:
        """The store, its writes measured."""
        return TimedStore(store, lambda what, seconds: self.families.writes[what].observe(seconds))

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """A row or an event."""
        with self._lock:
            if kind == "round":
                self._row(fields)
            else:
                self._event(kind, fields)

    def close(self) -> None:
        """Nothing is open any more."""
        self.families.open_round.set(0)

    def _event(self, kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "roster":
            self._roster = [str(client["name"]) for client in fields["clients"]]
            self.families.roster.set(len(self._roster))
        elif kind == "resumed":
            self.families.round.set(int(fields["round"]))
            self.families.open_round.set(int(fields["round"]) + 1)
        elif kind == "fleet-opened":
            self.families.openings.inc()
        elif kind in ("paused", "unpaused"):
            self.families.paused.set(float(kind == "paused"))
        elif kind == "changed" and "rounds" in fields["keys"]:
            self.families.planned.set(float(fields["keys"]["rounds"][1]))  # [before, after]
        elif kind in FAILURES:
            self.families.failures.labels(kind).inc()
        outcome = OUTCOMES.get(kind)
        if outcome and (outcome != DECLINED or str(fields.get("detail", "")).startswith(DECLINED)):
            self._outcomes[str(fields.get("client", ""))] = outcome

    def _row(self, row: Mapping[str, Any]) -> None:
        self.families.rounds.inc()
        self.families.round.set(row["round"])
        self.families.open_round.set(row["round"] + 1)
        self.families.decided_at.set(time.time())
        self.families.round_seconds.observe(row["seconds"])
        self.families.dense_bytes.inc(row["dense_bytes"])
        both = row["uplink_bytes"] + row["downlink_bytes"]
        if both:
            self.families.ratio.set(row["dense_bytes"] / both)
        self._traffic(row)
        self._participation(row)
        self._measured(row)

    def _traffic(self, row: Mapping[str, Any]) -> None:
        for index, (up, down) in row["client_bytes"].items():
            self.families.bytes.labels("up", self._label(index)).inc(up)
            self.families.bytes.labels("down", self._label(index)).inc(down)
        for index, seconds in row["client_seconds"].items():
            self.families.answer_seconds.observe(seconds)
            if self._label(index) != ALL:
                self.families.client_seconds.labels(self._label(index)).set(seconds)

    def _participation(self, row: Mapping[str, Any]) -> None:
        replied = set(row["replied"])
        for index in row["asked"]:
            self.families.questions.labels(self._label(index)).inc()
            outcome = "replied" if index in replied else self._outcomes.get(self._name(index), "late")
            self.families.answers.labels(outcome, self._label(index)).inc()
        self._outcomes.clear()

    def _measured(self, row: Mapping[str, Any]) -> None:
        if "downlink_error" in row:
            self.families.error.labels("down").set(row["downlink_error"])
        for name, value in row["train"].items():
            if name == "compression_error":
                self.families.error.labels("up").set(value)
            elif name not in ("seconds", "examples"):
                self._metric("training", name.removeprefix("train_"), value)
        for name in row.keys() - OWN:
            source = "clients" if name.startswith("client_") else "evaluation"
            if isinstance(row[name], (int, float)):
                self._metric(source, name.removeprefix("client_"), row[name])

    def _metric(self, source: str, name: str, value: float) -> None:
        if name == "loss":
            self.families.loss.labels(source).set(value)
        elif name == "accuracy":
            self.families.accuracy.labels(source).set(value)
        elif (source, name) in self._seen or len(self._seen) < MOST_TASK_METRICS:
            self._seen.add((source, name))
            self.families.task.labels(source, name).set(value)

    def _labels(self) -> tuple[str, ...]:
        """The clients that have label values of their own."""
        return tuple(self._roster) if len(self._roster) <= self._most_clients else ()

    def _name(self, index: int | str) -> str:
        place = int(index)
        return self._roster[place] if place < len(self._roster) else ""

    def _label(self, index: int | str) -> str:
        return self._name(index) or ALL if len(self._roster) <= self._most_clients else ALL
