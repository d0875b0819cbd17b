"""The door: who is there (hello), who is let in (welcome)."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import thinwire
from strategies.roster import ClientRecord, Meter, Roster
from strategies.transport import HELLO, MESSAGE, WELCOME, Answer, Ask, Transport
from thinwire.errors import ConfigError, WireError
from thinwire.wire.exchange import (
    PROTOCOL,
    HelloReply,
    HelloRequest,
    WelcomeReply,
    WelcomeRequest,
    check_client_name,
    read,
)

ANSWER_SECONDS = {HELLO: 30.0, WELCOME: 300.0}  # for a node to answer; then it may be asked again
QUIET_SECONDS = 10.0  # a node that answered with an error or with nonsense is left alone for so long
WORTH_SECONDS = {HELLO: 1.0, WELCOME: 30.0}  # for which those wait who want everybody to be in


@dataclass(frozen=True)
class Handshake:
    """A question at the door that is not answered yet."""

    kind: str  # HELLO or WELCOME
    asked_at: float  # host clock
    record: ClientRecord | None = None  # whom a welcome is for


@dataclass
class Admission:
    """Asks nodes who they are and lets the fitting ones into the run.

    ``greet`` and ``welcome`` only ask; ``hear`` takes the answers, whenever they come, between those of a round. So a
    node that is slow or silent at the door holds nobody up.
    """

    transport: Transport
    run: str
    codecs: frozenset[str]  # that every client must know
    configuration: str  # the run's, as JSON, for the clients
    layout_digest: bytes
    on_event: Callable[[str, Mapping[str, Any]], None]
    names: dict[int, str] = field(default_factory=dict)  # node -> client, of those that said hello
    refused: set[int] = field(default_factory=set)
    _open: dict[int, Handshake] = field(default_factory=dict)  # by node
    _quiet_until: dict[int, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # client -> why it was refused

    def greet(self) -> None:
        """Ask the nodes that have not said who they are."""
        new = [node for node in sorted(self.transport.nodes() - self.names.keys()) if self._may_be_asked(node)]
        request = HelloRequest(protocol=PROTOCOL, software=thinwire.__version__, run=self.run).SerializeToString()
        self._ask([Ask(node, HELLO, {MESSAGE: request}) for node in new], {})

    def gather(self, clients: int, timeout_seconds: float, waiting: Callable[[], None] = lambda: None) -> list[str]:
        """Wait until so many different clients are there; their names. ``waiting`` is called while they are not.

        Raises ConfigError after the timeout, with the reason when a client was refused until then.
        """
        deadline = self.transport.now() + timeout_seconds
        while True:
            waiting()
            self.greet()
            self.listen(min(1.0, timeout_seconds))
            present = sorted({self.names[node] for node in self.transport.nodes() if node in self.names})
            if len(present) >= clients:
                return present[:clients] if len(present) == clients else self._first(present, clients)
            if self.transport.now() > deadline:
                refused = next((f"; refused: {reason}" for reason in self.reasons.values()), "")
                raise ConfigError(
                    f"{len(present)} of {clients} clients came within {timeout_seconds:g} s; "
                    f"start more clients or lower `clients`{refused}"
                )
            if not self._open:
                self.transport.pause(min(1.0, timeout_seconds))

    def welcome(
        self, roster: Roster, records: Iterable[ClientRecord], incarnation: int = 0, meter: Meter | None = None
    ) -> None:
        """Tell clients about the run; the answer lets them in, and says what they hold, or why they do not fit."""
        due = {r.node: r for r in records if r.node is not None and not r.welcomed and self._may_be_asked(r.node)}
        asks = [
            Ask(node, WELCOME, {MESSAGE: self._invitation(roster, record, incarnation)}) for node, record in due.items()
        ]
        counted = meter or Meter()
        for ask in asks:
            counted.sent(due[ask.node], ask.size)
        self._ask(asks, due)

    def hear(self, answer: Answer, meter: Meter | None = None) -> None:
        """Take an answer to a hello or a welcome, if one is awaited.

        A node that does not fit is refused; one that sent an error or nonsense may try again a little later.
        """
        handshake = self._open.get(answer.node)
        if handshake is None or handshake.kind != answer.kind:
            return
        del self._open[answer.node]
        if handshake.record is not None and meter is not None:
            meter.received(handshake.record, answer.size)
        if answer.error:
            self._leave_alone(answer.node, "client-error", answer.error)
            return
        try:
            record = handshake.record
            reason = self._hear_hello(answer) if record is None else self._hear_welcome(record, answer)
        except WireError as error:
            self._leave_alone(answer.node, "hostile", str(error))
            return
        if reason:
            self.refuse(answer.node, reason)

    def listen(self, seconds: float) -> None:
        """Hear what comes until nothing is awaited, at most so long; while no question but ours is open."""
        if self._open:
            for answer in self.transport.receive(seconds):
                self.hear(answer)
                if not self._open:
                    return

    def part(self, nodes: set[int]) -> None:
        """Only these nodes are there: what the others were asked is asked anew when they are back."""
        self._open = {node: handshake for node, handshake in self._open.items() if node in nodes}

    def busy(self) -> bool:
        """Whether a connected node is expected to answer soon."""
        nodes, now = self.transport.nodes(), self.transport.now()
        return any(node in nodes and now - h.asked_at < WORTH_SECONDS[h.kind] for node, h in self._open.items())

    def _invitation(self, roster: Roster, record: ClientRecord, incarnation: int) -> bytes:
        return WelcomeRequest(
            protocol=PROTOCOL,
            run=self.run,
            incarnation=incarnation,
            index=record.index,
            clients=len(roster.clients),
            configuration=self.configuration,
            layout_digest=self.layout_digest,
        ).SerializeToString()

    def _hear_hello(self, answer: Answer) -> str:
        reply = read(HelloReply, answer.parts.get(MESSAGE, b""))
        if reply.protocol != PROTOCOL:
            return f"client speaks protocol {reply.protocol}, this server {PROTOCOL}; install the same version"
        missing = sorted(self.codecs - set(reply.codecs))
        if missing:
            return f"client {reply.client!r} lacks the codec {missing[0]!r}; install the same version"
        name = check_client_name(reply.client)
        if not self.transport.is_named(answer.node, name):
            return f"this client says that it is {name!r}; it is connected under another name"
        self.names[answer.node] = name
        self.on_event("hello", {"client": reply.client, "node": answer.node, "software": reply.software})
        return ""

    def _hear_welcome(self, record: ClientRecord, answer: Answer) -> str:
        reply = read(WelcomeReply, answer.parts.get(MESSAGE, b""))
        if record.node != answer.node:
            return ""  # it speaks through another node by now
        if reply.refusal:
            return f"client {record.name!r} cannot take part: {reply.refusal}"
        if reply.layout_digest != self.layout_digest:
            return (
                f"client {record.name!r} has another model than the server (their layouts differ); "
                "give both the same task and task options"
            )
        record.welcomed = True
        record.examples = record.examples or reply.examples
        record.frozen_digest = reply.frozen_digest
        record.version = reply.replica_version if reply.has_replica else None
        record.history = reply.history
        return ""

    def refuse(self, node: int, reason: str) -> None:
        """End a node's part in the run, with one line that says why."""
        self.refused.add(node)
        self.reasons[self.names.pop(node, str(node))] = reason
        self.on_event("refused", {"node": node, "detail": reason})
        self.transport.reject(node, reason)

    def _first(self, present: list[str], clients: int) -> list[str]:
        """The roster is full: those beyond it are refused."""
        for node, name in list(self.names.items()):
            if name in present[clients:]:
                self.refuse(node, f"the run has its {clients} clients already")
        return present[:clients]

    def _may_be_asked(self, node: int) -> bool:
        """Whether a node is neither refused, nor left alone for a while, nor asked already."""
        now, handshake = self.transport.now(), self._open.get(node)
        if node in self.refused or self._quiet_until.get(node, -math.inf) > now:
            return False
        return handshake is None or now - handshake.asked_at > ANSWER_SECONDS[handshake.kind]

    def _leave_alone(self, node: int, kind: str, detail: str) -> None:
        self._quiet_until[node] = self.transport.now() + QUIET_SECONDS
        self.on_event(kind, {"node": node, "detail": detail})

    def _ask(self, asks: list[Ask], records: Mapping[int, ClientRecord]) -> None:
        for ask in asks:
            self._open[ask.node] = Handshake(ask.kind, self.transport.now(), records.get(ask.node))
        if asks:
            self.transport.send(asks, ANSWER_SECONDS[asks[0].kind])
