"""The door: who is there (hello), who is let in (welcome)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
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

HANDSHAKE_SECONDS = 30.0  # for a node to answer; others wait that long
QUIET_SECONDS = 120.0  # a node that did not is left alone for so long, so that it holds nobody up again


@dataclass
class Admission:
    """Asks nodes who they are and lets the fitting ones into the run."""

    transport: Transport
    run: str
    codecs: frozenset[str]  # that every client must know
    configuration: str  # the run's, as JSON, for the clients
    layout_digest: bytes
    on_event: Callable[[str, Mapping[str, Any]], None]
    names: dict[int, str] = field(default_factory=dict)  # node -> client, of those that said hello
    refused: set[int] = field(default_factory=set)
    _quiet_until: dict[int, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # client -> why it was refused

    def greet(self) -> None:
        """Ask the nodes that have not said who they are."""
        new = [n for n in sorted(self.transport.nodes() - self.names.keys() - self.refused) if not self._quiet(n)]
        request = HelloRequest(protocol=PROTOCOL, software=thinwire.__version__, run=self.run).SerializeToString()
        for answer in self._ask([Ask(node, HELLO, {MESSAGE: request}) for node in new]):
            self._hear(self._hear_hello, answer)

    def gather(self, clients: int, timeout_seconds: float) -> list[str]:
        """Wait until so many different clients are there; their names.

        Raises ConfigError after the timeout, with the reason when a client was refused until then.
        """
        deadline = self.transport.now() + timeout_seconds
        while True:
            self.greet()
            present = sorted({self.names[node] for node in self.transport.nodes() if node in self.names})
            if len(present) >= clients:
                return present[:clients] if len(present) == clients else self._first(present, clients)
            if self.transport.now() > deadline:
                refused = next((f"; refused: {reason}" for reason in self.reasons.values()), "")
                raise ConfigError(
                    f"{len(present)} of {clients} clients came within {timeout_seconds:g} s; "
                    f"start more clients or lower `clients`{refused}"
                )
            self.transport.pause(min(1.0, timeout_seconds))

    def welcome(
        self, roster: Roster, records: Iterable[ClientRecord], incarnation: int = 0, meter: Meter | None = None
    ) -> None:
        """Let clients in; those that do not fit are refused with the reason. Sets what they hold."""
        due = {r.node: r for r in records if r.node is not None and not r.welcomed and not self._quiet(r.node)}
        asks = [
            Ask(node, WELCOME, {MESSAGE: self._invitation(roster, record, incarnation)}) for node, record in due.items()
        ]
        counted = meter or Meter()
        for ask in asks:
            counted.sent(due[ask.node], ask.size)
        for answer in self._ask(asks):
            record = due[answer.node]
            counted.received(record, answer.size)
            self._hear(partial(self._hear_welcome, record), answer)

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

    def _hear(self, listen: Callable[[Answer], str], answer: Answer) -> None:
        """Take an answer; a node that does not fit is refused, one that sent nonsense may try again."""
        if answer.error:
            self.on_event("client-error", {"node": answer.node, "detail": answer.error})
            return
        try:
            reason = listen(answer)
        except WireError as error:
            self.on_event("hostile", {"node": answer.node, "detail": str(error)})
            return
        if reason:
            self.refuse(answer.node, reason)

    def _hear_hello(self, answer: Answer) -> str:
        reply = read(HelloReply, answer.parts.get(MESSAGE, b""))
        if reply.protocol != PROTOCOL:
            return f"client speaks protocol {reply.protocol}, this server {PROTOCOL}; install the same version"
        missing = sorted(self.codecs - set(reply.codecs))
        if missing:
            return f"client {reply.client!r} lacks the codec {missing[0]!r}; install the same version"
        self.names[answer.node] = check_client_name(reply.client)
        self.on_event("hello", {"client": reply.client, "node": answer.node, "software": reply.software})
        return ""

    def _hear_welcome(self, record: ClientRecord, answer: Answer) -> str:
        reply = read(WelcomeReply, answer.parts.get(MESSAGE, b""))
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

    def _quiet(self, node: int) -> bool:
        """Whether a node is left alone for a while, because it did not answer."""
        return self._quiet_until.get(node, 0.0) > self.transport.now()

    def _ask(self, asks: list[Ask]) -> Iterable[Answer]:
        if not asks:
            return
        waiting = {ask.node for ask in asks}
        deadline = self.transport.now() + HANDSHAKE_SECONDS
        self.transport.send(asks, HANDSHAKE_SECONDS)
        while waiting and self.transport.now() < deadline and waiting & self.transport.nodes():
            for answer in self.transport.receive(1.0):
                if answer.node in waiting and answer.kind == asks[0].kind:
                    waiting.discard(answer.node)
                    yield answer
                if not waiting:
                    break
        self.transport.forget()
        for node in waiting & self.transport.nodes():
            self._quiet_until[node] = self.transport.now() + QUIET_SECONDS
