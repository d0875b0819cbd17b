"""One attempt at a round: ask the cohort, give clients what they lack, take their uplinks until the deadline."""

import math
from collections.abc import Mapping, Sequence

from compressors import Payload
from strategies.admission import Admission
from strategies.checked import Checked
from strategies.ledger import Ledger, Uplinks
from strategies.roster import ClientRecord, Meter
from strategies.steering import Steering, Unsteered
from strategies.transport import BASE, HELLO, MESSAGE, ROUND, UPLINK, WELCOME, Answer, Ask, Transport
from thinwire.errors import WireError
from thinwire.wire.exchange import (
    REASON_DECLINED,
    REASON_LOST_PRIVATE,
    REASON_UNWELCOME,
    REASONS,
    RoundReply,
    RoundRequest,
    digest,
    read,
)
from thinwire.wire.packet import unpack

REPEATS = 3  # times a client is asked again within one attempt, for a snapshot or its mirror


class Collector:
    """Talks to the clients. Late, double and hostile answers change nothing but the record."""

    def __init__(
        self, ledger: Ledger, transport: Transport, admission: Admission, steering: Steering | None = None
    ) -> None:
        self.ledger = ledger
        self.steering = steering or Unsteered()
        self.transport = transport
        self.admission = admission
        self.meter = Meter()
        self.metrics: dict[int, dict[str, float]] = {}
        self.seconds: dict[int, float] = {}  # from a client's question to its accepted answer
        self._sent: dict[int, float] = {}
        self._spool = ledger.store.spool()
        self._digests: dict[int, bytes] = {}  # of what the spool holds
        self._checked = Checked()  # likewise
        self._seen: tuple[set[int], int] = set(), 0
        self._attempt = 0
        self._asked: list[int] = []
        self._sampled = True
        self._waiting: dict[int, int] = {}  # clients still to answer -> questions left
        self._unsent: set[int] = set()
        self._mirrors: dict[int, bytes] = {}

    def collect(self, attempt: int, asked: list[int]) -> Uplinks:
        """The uplinks of one attempt at the next round, checked to the last byte."""
        self._forget_uplinks()
        self.metrics.clear()
        self.seconds.clear()
        self._attempt, self._asked, self._sampled = attempt, asked, self.ledger.sampled
        self._waiting, self._unsent = dict.fromkeys(asked, REPEATS), set(asked)
        deadline = self.transport.now() + self.ledger.config.round.deadline_seconds
        while self._waiting and (left := deadline - self.transport.now()) > 0:
            self.connect(asked)
            unwanted = self.steering.unwanted()
            self.turn_away(unwanted)
            self._send(left)
            for index in self._given_up(unwanted):
                del self._waiting[index]
            if self._waiting:
                self._listen(min(1.0, left))
        self.transport.forget()
        unwanted = self.steering.unwanted()
        clients = [index for index in self._spool.clients() if self.ledger.roster.clients[index].name not in unwanted]
        return Uplinks(clients, self._spool.get, dict(self._digests), self._checked)

    def connect(self, due: Sequence[int]) -> None:
        """Learn which nodes are there, and let returning clients in."""
        roster, nodes = self.ledger.roster, self.transport.nodes()
        if nodes - self.admission.names.keys() - self.admission.refused:
            self.admission.greet()  # the answer is heard among those of the round
        seen = nodes, len(self.admission.names)
        if seen != self._seen:
            self.admission.part(nodes)
            self._seat(nodes)
            self._seen = seen
        strangers = [roster.clients[i] for i in due if not roster.clients[i].welcomed]
        self.admission.welcome(
            roster, [r for r in strangers if r.absent_since is None], self.ledger.incarnation, self.meter
        )

    def settle(self, due: Sequence[int]) -> None:
        """Connect, and wait for those at the door, unless they let us wait too long; while no round is open."""
        self.connect(due)
        while self.admission.busy():
            for answer in self.transport.receive(1.0):
                self.admission.hear(answer, self.meter)
                self.connect(due)

    def attend(self, seconds: float) -> None:
        """Let clients come and go for at most so long; while no round is open."""
        due = self.ledger.federation.members
        self.connect(due)
        for answer in self.transport.receive(seconds):
            self.admission.hear(answer, self.meter)
            self.connect(due)

    def welcome_anew(self, configuration: str) -> None:
        """Tell every client about a changed configuration, before it is asked again."""
        self.admission.configuration = configuration
        for record in self.ledger.roster.clients:
            record.welcomed = False

    def turn_away(self, unwanted: Mapping[str, str]) -> None:
        """Clients that must go: whoever is there is told why, now."""
        for name, reason in unwanted.items():
            record = self.ledger.roster.named(name)
            if record is not None and record.node is not None and record.node not in self.admission.refused:
                self.admission.refuse(record.node, reason)

    def _seat(self, nodes: set[int]) -> None:
        """Another set of nodes than before: who came, who went."""
        roster = self.ledger.roster
        for node, name in list(self.admission.names.items()):
            record = roster.named(name)
            if record is None:
                self.admission.refuse(node, f"client {name!r} is not in this run's roster")
            elif record.ban is not None:
                self.admission.refuse(node, banned(name, record.ban))
            elif node in nodes and record.node != node and record.node not in nodes:
                roster.seat(record, node)
        now = self.transport.now()
        for record in roster.clients:
            if record.node in nodes:
                record.absent_since = None
            elif record.absent_since is None:
                record.absent_since = now

    def base(self, record: ClientRecord) -> bytes:
        """How the client gets to the present version."""
        shared = self.ledger.replicated
        with_frozen = bool(shared.frozen) and record.frozen_digest != shared.frozen_digest
        return shared.base(record.version, record.history, with_frozen)

    def reachable(self, record: ClientRecord) -> bool:
        """Whether a question would arrive."""
        present = record.node is not None and record.absent_since is None
        return present and record.welcomed and record.ban is None

    def _listen(self, seconds: float) -> None:
        for answer in self.transport.receive(seconds):
            if answer.kind in (HELLO, WELCOME):
                self.admission.hear(answer, self.meter)
                return
            self._hear(answer)
            if self._unsent or not self._waiting:
                return

    def _given_up(self, unwanted: Mapping[str, str]) -> list[int]:
        """Clients that were refused are not waited for, nor those of a sample that have been away for too long.

        Without one that the method names itself the run cannot go on: it has until the deadline to come back.
        """
        patience, now = self.ledger.config.round.patience_seconds, self.transport.now()
        patience = patience if self._sampled else math.inf
        clients = [self.ledger.roster.clients[i] for i in self._waiting]
        away = [c.index for c in clients if c.absent_since is not None and now - c.absent_since > patience]
        gone = [c.index for c in clients if c.node in self.admission.refused or c.name in unwanted]
        return away + [index for index in gone if index not in away]

    def _send(self, left_seconds: float) -> None:
        """Questions to the clients that have not been sent theirs, each with the base it needs."""
        records = [self.ledger.roster.clients[i] for i in sorted(self._unsent & self._waiting.keys())]
        ready = [record for record in records if self.reachable(record)]
        asks = [self._question(record) for record in ready]
        for record, ask in zip(ready, asks, strict=True):
            self.meter.sent(record, ask.size)
            self._unsent.discard(record.index)
            self._sent[record.index] = self.transport.now()
        if asks:
            self.transport.send(asks, left_seconds)

    def _question(self, record: ClientRecord) -> Ask:
        ledger = self.ledger
        prove = ledger.next_round % ledger.config.checkpoint.digest_every == 0
        request = RoundRequest(
            run=ledger.run,
            incarnation=ledger.incarnation,
            round=ledger.next_round,
            attempt=self._attempt,
            place=self._asked.index(record.index),
            cohort=len(self._asked),
            target_version=ledger.replicated.version,
            chain=record.chain,
            fresh=record.fresh,
            mirror=self._mirrors.pop(record.index, b""),
            replica_digest=ledger.replicated.digest() if prove else b"",
            personal=ledger.personal.get(record.index, b""),
        )
        assert record.node is not None
        return Ask(record.node, ROUND, {MESSAGE: request.SerializeToString(), BASE: self.base(record)})

    def _hear(self, answer: Answer) -> None:
        record = self.ledger.roster.at(answer.node)
        if record is None or record.index not in self._waiting or answer.kind != ROUND:
            return
        self.meter.received(record, answer.size)
        if answer.error:
            self._note("client-error", record, answer.error)
            del self._waiting[record.index]
            return
        try:
            reply = self._read(answer, record)
            if reply is None:
                return
            if reply.reason:
                self._oblige(reply, record)
                return
            self._accept(answer.parts.get(UPLINK, b""), reply, record)
        except WireError as error:
            self._note("hostile", record, str(error))
            record.version = None  # what it says of itself is not trusted either
        self._waiting.pop(record.index, None)

    def _read(self, answer: Answer, record: ClientRecord) -> RoundReply | None:
        """The reply, if it belongs to the open question; None for a late one."""
        reply = read(RoundReply, answer.parts.get(MESSAGE, b""))
        ledger = self.ledger
        open_now = (ledger.run, ledger.incarnation, ledger.next_round, self._attempt, record.chain)
        if (reply.run, reply.incarnation, reply.round, reply.attempt, reply.chain) != open_now:
            return None
        if reply.client != record.index and reply.reason != REASON_UNWELCOME:
            raise WireError(f"client {record.name!r} answers for index {reply.client}; its own is {record.index}")
        return reply

    def _accept(self, uplink: bytes, reply: RoundReply, record: ClientRecord) -> None:
        """Check an uplink to the last byte and keep it for the decision."""
        if digest(uplink) != reply.uplink_digest:
            raise WireError("the uplink's digest does not match its bytes")
        ledger = self.ledger
        packet = unpack(uplink, Payload, ledger.bundle.most_bytes(ledger.replicated.replica, ledger.federation))
        here = ledger.round_of(ledger.next_round, record.index, decoder=self._checked.check)
        ledger.bundle.validate(packet, here)
        self._checked.keep(record.index, packet)
        self._spool.put(record.index, uplink)
        self._digests[record.index] = reply.uplink_digest
        record.version, record.history = ledger.replicated.version, ledger.replicated.history
        record.frozen_digest = ledger.replicated.frozen_digest
        self.metrics[record.index] = finite(reply.metrics)
        self.seconds[record.index] = self.transport.now() - self._sent[record.index]
        self.steering.replied(record.index)

    def _oblige(self, reply: RoundReply, record: ClientRecord) -> None:
        """Give a client what it says it lacks and ask again; a client that declines is absent."""
        self._note("client-lacks", record, f"{REASONS.get(reply.reason, reply.reason)}: {reply.detail}")
        self._waiting[record.index] -= 1
        if reply.reason == REASON_DECLINED or self._waiting[record.index] <= 0:
            del self._waiting[record.index]
            return
        record.version = None  # a client that lacks anything gets a snapshot: simple, and rare
        record.frozen_digest = b""  # with the frozen parameters
        if reply.reason == REASON_UNWELCOME:
            record.welcomed = False
        elif reply.reason == REASON_LOST_PRIVATE:
            if record.fresh:
                raise WireError("it says that it lost its private state, and was asked as a newcomer")
            self._recover(record)
        self._unsent.add(record.index)

    def _recover(self, record: ClientRecord) -> None:
        mirror, reset = self.ledger.recover(record)
        if mirror:
            self._mirrors[record.index] = mirror
            return
        self._note("reset", record, f"private state lost; newcomers again: {len(reset)} clients")
        answered = set(self._spool.clients())
        if answered & set(reset):
            # answers of this attempt continue chains that are gone: all who have answered are asked again
            self._forget_uplinks()
            self._waiting |= dict.fromkeys(answered, REPEATS)
            self._unsent |= answered
        self._unsent |= set(reset) & self._waiting.keys()

    def _forget_uplinks(self) -> None:
        self._spool.clear()
        self._digests.clear()
        self._checked.forget()

    def _note(self, kind: str, record: ClientRecord, detail: str) -> None:
        self.ledger.store.record(kind, {"client": record.name, "round": self.ledger.next_round, "detail": detail})


def banned(name: str, reason: str) -> str:
    """What a banned client is told."""
    return f"client {name!r} was banned from this run" + (f": {reason}" if reason else "")


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """A peer's numbers that can be averaged, written down and shown on a terminal."""
    return {n: value for n, value in metrics.items() if math.isfinite(value) and len(n) <= 64 and n.isprintable()}
