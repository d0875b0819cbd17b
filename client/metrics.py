"""What Prometheus may scrape of a client: where its time goes, what it sends, and what its compressor drops."""

import time
from collections.abc import Callable, Iterable

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

import thinwire
from client.participant import Answered
from strategies.transport import ROUND
from thinwire.wire.exchange import REASONS

PHASES = ("training", "compression", "other", "waiting")


class Session(Collector):
    """What is asked at the moment of the scrape: how often the server was dialled, and the memory of a GPU."""

    def __init__(self, dials: Callable[[], int]) -> None:
        self._dials = dials

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """Memory only of a process that uses a GPU."""
        text = "Connections dialled; each after the first is a reconnect."
        yield CounterMetricFamily("thinwire_client_dials", text, self._dials())
        memory = GaugeMetricFamily("thinwire_client_gpu_memory_bytes", "Memory of the GPU.", labels=["kind"])
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            memory.add_metric(["allocated"], torch.cuda.memory_allocated())
            memory.add_metric(["reserved"], torch.cuda.memory_reserved())
            memory.add_metric(["peak"], torch.cuda.max_memory_allocated())
        yield memory


class ClientMetrics:
    """Watches a desk (``client.desk.Watch``), with a registry of its own."""

    def __init__(self, name: str, dials: Callable[[], int] = int, registry: CollectorRegistry | None = None) -> None:
        """``dials``: connections dialled until now; asked at each scrape, from another thread."""
        self.registry = own = registry or CollectorRegistry()
        self.labels: dict[str, tuple[str, ...]] = {"thinwire_client_gpu_memory_bytes": ("kind",)}

        def counter(name: str, text: str, *labels: str) -> Counter:
            self.labels[f"thinwire_client_{name}"] = labels
            return Counter(f"thinwire_client_{name}", text, labels, registry=own)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"thinwire_client_{name}", text, registry=own)

        self.labels["thinwire_client_info"] = ("client", "software")
        info = Info("thinwire_client", "Who this client is.", registry=own)
        info.info({"client": name, "software": thinwire.__version__})
        self.rounds = counter("rounds_total", "Questions that were computed and answered.")
        self.repeats = counter("repeats_total", "Questions that were answered with what had been computed before.")
        self.lacks = counter("lacks_total", "Questions that could not be answered, by what was lacking.", "reason")
        self.round = gauge("round", "The round of the last question.")
        self.seconds = counter("seconds_total", f"Where the time goes: {', '.join(PHASES)}.", "phase")
        self.bytes = counter("bytes_total", "Bytes of messages, without the carrier's framing.", "direction")
        self.error = gauge("compression_error", "Relative squared error of the last uplink.")
        self.loss = gauge("train_loss", "Of the last local training.")
        self.asked_at = gauge("last_question_timestamp_seconds", "When the server last asked, since 1970.")
        own.register(Session(dials))
        ProcessCollector(registry=own)
        for phase in PHASES:
            self.seconds.labels(phase)
        self._mark = time.perf_counter()  # until where time is accounted for
        self._accounted = 0.0  # of the message that is being answered

    def asked(self, kind: str, size_bytes: int) -> None:
        """Waiting is over."""
        now = time.perf_counter()
        self.seconds.labels("waiting").inc(now - self._mark)
        self._mark, self._accounted = now, 0.0
        self.bytes.labels("down").inc(size_bytes)
        if kind == ROUND:
            self.asked_at.set(time.time())

    def computed(self, answered: Answered) -> None:
        """What came of a question."""
        reply, spent = answered.reply, answered.spent
        self.round.set(reply.round)
        if reply.reason:
            self.lacks.labels(REASONS.get(reply.reason, "unknown")).inc()
        elif spent is None:
            self.repeats.inc()
        else:
            self.rounds.inc()
            self.seconds.labels("training").inc(spent.training_seconds)
            self.seconds.labels("compression").inc(spent.compression_seconds)
            self._accounted = spent.training_seconds + spent.compression_seconds
        metrics = dict(reply.metrics)
        if "compression_error" in metrics:
            self.error.set(metrics["compression_error"])
        if "train_loss" in metrics:
            self.loss.set(metrics["train_loss"])

    def replied(self, kind: str, size_bytes: int) -> None:
        """Waiting begins."""
        now = time.perf_counter()
        self.seconds.labels("other").inc(max(0.0, now - self._mark - self._accounted))
        self._mark = now
        self.bytes.labels("up").inc(size_bytes)
