"""The metrics of a server, by name: https://prometheus.io/docs/practices/naming/."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
WRITES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Families:
    """All of them, in one registry; ``labels`` by name, where there are any."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.labels: dict[str, tuple[str, ...]] = {"thinwire_roster_connected": ("client",)}

        def counter(name: str, text: str, *labels: str) -> Counter:
            self.labels[f"thinwire_{name}"] = labels
            return Counter(f"thinwire_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            self.labels[f"thinwire_{name}"] = labels
            return Gauge(f"thinwire_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"thinwire_{name}", text, buckets=buckets, registry=registry)

        self.labels["thinwire_run_info"] = ("method", "uplink", "downlink", "task", "software")
        self.run = Info("thinwire_run", "What runs here.", registry=registry)
        self.rounds = counter("rounds_total", "Rounds that this process has decided.")
        self.round = gauge("round", "The last round that was decided.")
        self.open_round = gauge("open_round", "The round that is under way; 0 when the run is over.")
        self.planned = gauge("planned_rounds", "Rounds that the run is to have.")
        self.paused = gauge("paused", "1 while the operator holds the run, or else 0.")
        self.decided_at = gauge("last_round_timestamp_seconds", "When the last round was decided, since 1970.")
        self.round_seconds = histogram("round_seconds", "From the first question of a round to its decision.", SECONDS)
        self.answer_seconds = histogram("answer_seconds", "From a client's question to its accepted answer.", SECONDS)
        self.client_seconds = gauge("roster_answer_seconds", "The same, of each client's last answer.", "client")
        self.bytes = counter(
            "bytes_total", "Bytes of messages as sent (down) and received (up), with handshakes.", "direction", "client"
        )
        self.dense_bytes = counter("dense_bytes_total", "What float32 both ways would have taken in the same rounds.")
        self.ratio = gauge("compression_ratio", "Dense bytes over bytes, both ways, of the last round.")
        self.error = gauge(
            "compression_error", "Relative squared error of the last round's compressed messages.", "direction"
        )
        self.questions = counter("questions_total", "Clients asked, in rounds that were decided.", "client")
        outcomes = "What came of it: replied, declined, failed, hostile, or late (or never)."
        self.answers = counter("answers_total", outcomes, "outcome", "client")
        self.failures = counter(
            "failures_total", "What cost somebody a round, a message or a connection, by kind of event.", "kind"
        )
        self.openings = counter("connections_total", "Streams that clients have opened.")
        self.roster = gauge("roster_clients", "Clients of the run.")
        self.loss = gauge("loss", "Of the model (evaluation, clients), or of local training (training).", "source")
        self.accuracy = gauge("accuracy_ratio", "Likewise, in [0, 1].", "source")
        self.task = gauge("task_metric", "Any other metric that the task has.", "source", "metric")
        self.writes = {
            "journal": histogram("journal_seconds", "To write a decision to the journal, synced.", WRITES),
            "checkpoint": histogram("checkpoint_seconds", "To write a checkpoint.", WRITES),
        }
        ProcessCollector(registry=registry)  # process_resident_memory_bytes and the like; on Linux


class Connected(Collector):
    """Who is connected at the moment of the scrape."""

    def __init__(self, names: Callable[[], Iterable[str]], labels: Callable[[], Iterable[str]]) -> None:
        """``labels``: the clients that have label values of their own."""
        self._names = names
        self._labels = labels

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The number of all, and one value for each client of a small roster."""
        here = set(self._names())
        yield GaugeMetricFamily("thinwire_connected_clients", "Clients that are connected now.", len(here))
        text = "Whether a client of the roster is connected now."
        each = GaugeMetricFamily("thinwire_roster_connected", text, labels=["client"])
        for name in self._labels():
            each.add_metric([name], float(name in here))
        yield each
