"""A client at its desk: hello, welcome, rounds and evaluations, as bytes in and bytes out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from client.participant import REPLICA_EVERY, Answered, Participant, Shelf, hello, refuse
from client.store import ClientStore
from client.workplace import Places
from strategies.transport import BASE, EVALUATE, HELLO, MESSAGE, ROUND, UPLINK, WELCOME
from thinwire.errors import ThinwireError, WireError
from thinwire.wire.exchange import (
    PROTOCOL,
    REASON_UNWELCOME,
    EvaluateReply,
    EvaluateRequest,
    HelloRequest,
    RoundReply,
    RoundRequest,
    WelcomeReply,
    WelcomeRequest,
    read,
)

OpenWorkshop = Callable[[str, int], Places]
OpenStore = Callable[[str], ClientStore]
MOST_REQUEST_BYTES = 1 << 34  # mirrors travel inside requests


@dataclass(frozen=True)
class Invitation:
    """The welcome that a client keeps, so that it goes on by itself after a restart."""

    packed: bytes


class Watch(Protocol):
    """Measures what a client does; called by the thread that computes."""

    def asked(self, kind: str, size_bytes: int) -> None:
        """A message has come."""
        ...

    def computed(self, answered: Answered) -> None:
        """A question of a round has its answer."""
        ...

    def replied(self, kind: str, size_bytes: int) -> None:
        """The reply to the message is ready."""
        ...


@dataclass
class Desk:
    """One client. ``workshop(configuration, clients)`` and ``store(run)`` open what it needs; both may be shared.

    With ``warm`` false only the workshop is kept between messages: for hosts that move clients between processes.
    """

    name: str
    task: str
    workshop: OpenWorkshop
    store: OpenStore
    shelf: Callable[[], Shelf] = Shelf
    warm: bool = True
    watch: Watch | None = None
    _seated: dict[str, Participant] = field(default_factory=dict)

    def answer(self, kind: str, parts: Mapping[str, bytes]) -> dict[str, bytes]:
        """The reply to one message. Raises WireError when the server sent nonsense."""
        if self.watch is None:
            return self._answer(kind, parts)
        self.watch.asked(kind, sum(map(len, parts.values())))
        reply = self._answer(kind, parts)
        self.watch.replied(kind, sum(map(len, reply.values())))
        return reply

    def rest(self) -> None:
        """Let go of private states, which the store has; the client keeps its seat and its examples."""
        for participant in self._seated.values():
            participant.rest()

    def _answer(self, kind: str, parts: Mapping[str, bytes]) -> dict[str, bytes]:
        message = parts.get(MESSAGE, b"")
        if kind == HELLO:
            return {MESSAGE: hello(read(HelloRequest, message), self.name, self.task).SerializeToString()}
        if kind == WELCOME:
            return {MESSAGE: self._welcome(read(WelcomeRequest, message, 1 << 21)).SerializeToString()}
        if kind == ROUND:
            return self._round(read(RoundRequest, message, MOST_REQUEST_BYTES), parts.get(BASE, b""))
        if kind == EVALUATE:
            return self._evaluate(read(EvaluateRequest, message), parts.get(BASE, b""))
        raise WireError(f"unknown kind of message {kind!r}")

    def _welcome(self, invitation: WelcomeRequest) -> WelcomeReply:
        if invitation.protocol != PROTOCOL:
            return WelcomeReply(refusal=f"the server speaks protocol {invitation.protocol}, this client {PROTOCOL}")
        if invitation.index >= invitation.clients:
            raise WireError(f"place {invitation.index} in a roster of {invitation.clients}")
        before = self._seated.get(invitation.run)
        self._seated.clear()
        try:
            participant = self._seat(invitation, before)
            self.store(invitation.run).write("welcome", Invitation(invitation.SerializeToString()))
        except ThinwireError as error:
            return refuse(error)
        return participant.welcome()

    def _round(self, request: RoundRequest, base: bytes) -> dict[str, bytes]:
        participant = self._find(request.run)
        if participant is None:
            reply = RoundReply(
                run=request.run,
                incarnation=request.incarnation,
                round=request.round,
                attempt=request.attempt,
                chain=request.chain,
                reason=REASON_UNWELCOME,
            )
            return {MESSAGE: reply.SerializeToString(), UPLINK: b""}
        answered = participant.answer(request, base)
        if self.watch is not None:
            self.watch.computed(answered)
        return {MESSAGE: answered.reply.SerializeToString(), UPLINK: answered.uplink}

    def _evaluate(self, request: EvaluateRequest, base: bytes) -> dict[str, bytes]:
        participant = self._find(request.run)
        if participant is None:
            unwelcome = REASON_UNWELCOME
            return {MESSAGE: EvaluateReply(run=request.run, round=request.round, reason=unwelcome).SerializeToString()}
        return {MESSAGE: participant.evaluate(request, base).SerializeToString()}

    def _find(self, run: str) -> Participant | None:
        """The participant of a run; after a restart, from the welcome on its disk."""
        if run in self._seated:
            return self._seated[run]
        kept = self.store(run).read("welcome")
        if not isinstance(kept, Invitation):
            return None
        try:
            return self._seat(WelcomeRequest.FromString(kept.packed))
        except ThinwireError:
            return None  # what fitted once does not any more; a new welcome will say why

    def _seat(self, invitation: WelcomeRequest, before: Participant | None = None) -> Participant:
        """Whoever took part ``before``, until a welcome with another configuration, goes on with the replica it has."""
        workshop = self.workshop(invitation.configuration, invitation.clients)
        place = workshop.workplace(invitation.index)
        every = REPLICA_EVERY if self.warm else 1  # a host that keeps nothing finds the newest on disk
        shelf = self.shelf() if before is None else before.shelf
        participant = Participant(self.name, invitation, place, self.store(invitation.run), shelf, every)
        if self.warm:
            self._seated[invitation.run] = participant
        return participant
