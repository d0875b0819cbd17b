"""The server's side of a run: rounds, decided exactly once, whatever the network and the clients do.

A client has at most one undecided uplink. The chain that a request carries (a hash over the client's applied uplinks)
*is* the decision on the last one: the client commits if its pending uplink leads there, and rolls back if not. Every
decision is journalled before any message of the next round leaves.
"""

import math
from dataclasses import dataclass, field

from strategies.admission import Admission
from strategies.collection import Collector, finite
from strategies.ledger import Ledger
from strategies.roster import ClientRecord, Meter
from strategies.steering import Steering, Unsteered
from strategies.transport import BASE, EVALUATE, MESSAGE, Answer, Ask, Transport
from thinwire.errors import RoundError, WireError
from thinwire.wire.exchange import (
    MOST_METRICS,
    REASON_UNSPECIFIED,
    REASON_UNWELCOME,
    REASONS,
    EvaluateReply,
    EvaluateRequest,
    read,
)


@dataclass
class Decided:
    """One finished round, in numbers."""

    round: int
    attempt: int
    asked: list[int]
    replied: list[int]
    uplink_bytes: int  # as received, all clients, handshakes and repeats included
    downlink_bytes: int  # as sent, likewise
    dense_bytes: int  # what float32 both ways would have been for the same participation
    seconds: float
    metrics: dict[str, float]  # of local training, weighted by the clients' weights p_i
    client_bytes: dict[int, tuple[int, int]] = field(default_factory=dict)  # index -> (up, down)
    client_seconds: dict[int, float] = field(default_factory=dict)  # index -> from question to accepted answer
    downlink_error: float | None = None  # relative squared error of the broadcast downlink; None: it held nothing
    simulated_seconds: float | None = None  # of the simulated clock, where there is one; ``seconds`` are always real


class Coordinator:
    """Runs rounds of a ledger over a transport. One instance is one server process's view of one run."""

    def __init__(
        self, ledger: Ledger, transport: Transport, admission: Admission, steering: Steering | None = None
    ) -> None:
        self.ledger = ledger
        self.transport = transport
        self.steering = steering or Unsteered()
        self.collector = Collector(ledger, transport, admission, self.steering)
        ledger.bundle.method.check(ledger.federation, ledger.config.participation.fraction)

    def round(self) -> Decided:
        """Ask, collect, decide. Raises RoundError when too few answer, however often the round is repeated.

        Whoever steers may end the run between two attempts: Stopped.
        """
        ledger, number = self.ledger, self.ledger.next_round
        started, attempt = self.transport.now(), 0
        while True:
            asked = ledger.cohort(attempt)
            self.steering.asked(number, attempt, asked)
            uplinks = self.collector.collect(attempt, asked)
            if len(uplinks) >= ledger.needed(asked):
                replied = list(uplinks.clients)
                ledger.decide(attempt, asked, uplinks)
                self.steering.decided()
                return self._sum_up(number, attempt, asked, replied, self.transport.now() - started)
            self.steering.decided()
            ledger.store.record("round-repeated", {"round": number, "attempt": attempt, "replies": len(uplinks)})
            if attempt >= ledger.config.round.retries:
                break
            self.steering.between()
            attempt += 1
        ledger.checkpoint()
        raise RoundError(
            f"round {number}: fewer than {ledger.needed(asked)} of {len(asked)} clients answered, "
            f"in {attempt + 1} attempts; a checkpoint is written: resume when the clients are back, "
            "or lower round.minimum_replies"
        )

    def evaluate(self) -> dict[str, float]:
        """The replica's metrics on the clients' own held-out examples, weighted by their numbers; all who are there."""
        askable = self.ledger.federation.askable
        self.collector.settle(askable)
        records = [r for r in self.ledger.roster.clients if r.index in askable and self.collector.reachable(r)]
        asks = [self._evaluation(record) for record in records]
        for record, ask in zip(records, asks, strict=True):
            self.collector.meter.sent(record, ask.size)
        deadline = self.transport.now() + self.ledger.config.round.deadline_seconds
        self.transport.send(asks, self.ledger.config.round.deadline_seconds)
        waiting = {record.node for record in records}
        replies: list[EvaluateReply] = []
        while waiting and self.transport.now() < deadline and waiting & self.transport.nodes():
            for answer in self.transport.receive(1.0):
                if answer.kind == EVALUATE and answer.node in waiting:
                    waiting.discard(answer.node)
                    replies += self._hear_evaluation(answer)
                else:
                    self.collector.admission.hear(answer, self.collector.meter)
                if not waiting:
                    break
        self.transport.forget()
        return _mean([(reply.examples, finite(reply.metrics)) for reply in replies])

    def _evaluation(self, record: ClientRecord) -> Ask:
        ledger = self.ledger
        request = EvaluateRequest(
            run=ledger.run,
            incarnation=ledger.incarnation,
            round=ledger.replicated.version,
            target_version=ledger.replicated.version,
        )
        assert record.node is not None
        parts = {MESSAGE: request.SerializeToString(), BASE: self.collector.base(record)}
        return Ask(record.node, EVALUATE, parts)

    def _hear_evaluation(self, answer: Answer) -> list[EvaluateReply]:
        ledger, record = self.ledger, self.ledger.roster.at(answer.node)
        if record is None or answer.error:
            return []
        self.collector.meter.received(record, answer.size)
        try:
            reply = read(EvaluateReply, answer.parts.get(MESSAGE, b""))
        except WireError as error:
            ledger.store.record("hostile", {"client": record.name, "detail": str(error)})
            return []
        if (reply.run, reply.round) != (ledger.run, ledger.replicated.version):
            return []  # the answer to another question
        if reply.reason != REASON_UNSPECIFIED:
            record.version, record.frozen_digest = None, b""
            record.welcomed = record.welcomed and reply.reason != REASON_UNWELCOME
            detail = f"{REASONS.get(reply.reason, reply.reason)}: {reply.detail}"
            ledger.store.record("client-lacks", {"client": record.name, "detail": detail})
            return []
        record.version, record.history = ledger.replicated.version, ledger.replicated.history
        return [reply]

    def _sum_up(self, number: int, attempt: int, asked: list[int], replied: list[int], seconds: float) -> Decided:
        meter, self.collector.meter = self.collector.meter, Meter()
        dense = 4 * self.ledger.federation.layout.numel
        weights = self.ledger.federation.weights
        touched = sorted(meter.up.keys() | meter.down.keys())
        return Decided(
            number,
            attempt,
            asked,
            replied,
            sum(meter.up.values()),
            sum(meter.down.values()),
            dense * (len(asked) + len(replied)),
            seconds,
            _mean([(weights[client], metrics) for client, metrics in sorted(self.collector.metrics.items())]),
            {client: (meter.up.get(client, 0), meter.down.get(client, 0)) for client in touched},
            dict(sorted(self.collector.seconds.items())),
            self.ledger.downlink_error,
        )


def _mean(weighted: list[tuple[float, dict[str, float]]]) -> dict[str, float]:
    """Weighted mean of each metric over those that have it; of the 64 names with most weight behind them."""
    totals: dict[str, tuple[float, float]] = {}
    for weight, metrics in weighted:
        for name, value in metrics.items():
            total, mass = totals.get(name, (0.0, 0.0))
            totals[name] = (total + weight * value, mass + weight)
    means = {name: total / mass for name, (total, mass) in totals.items() if mass > 0 and math.isfinite(total)}
    kept = sorted(means, key=lambda name: (-totals[name][1], name))[:MOST_METRICS]
    return {name: means[name] for name in sorted(kept)}


__all__ = ["Coordinator", "Decided"]
