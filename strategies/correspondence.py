"""The server's end of compressed exchanges for a strategy that knows nothing of them: what each client holds and owes.

The messages, chains and versions are those of a run of Thinwire (round.proto); who is asked, and what becomes of the
answers, is another's business. A client is met in the message that asks it: it says its name in its first answer.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

import thinwire
from compressors import ALONE, NonFinite, Payload, Place, find
from strategies.base import Round
from strategies.bundle import METHOD, Replica
from strategies.cut import AnyArray, NamedArrays
from strategies.replicated import Replicated, history_start
from strategies.roster import ClientRecord
from strategies.terms import Terms, index_of
from strategies.transport import BASE, EVALUATE, HELLO, MESSAGE, ROUND, UPLINK, WELCOME
from thinwire.errors import RoundError, WireError
from thinwire.random import Key
from thinwire.wire.exchange import (
    PROTOCOL,
    REASON_DECLINED,
    REASON_LOST_PRIVATE,
    REASON_UNSPECIFIED,
    REASON_UNWELCOME,
    REASONS,
    EvaluateReply,
    EvaluateRequest,
    HelloReply,
    RoundReply,
    RoundRequest,
    WelcomeRequest,
    chain_over,
    chain_start,
    check_client_name,
    digest,
    new_run,
    read,
)
from thinwire.wire.packet import pack, unpack

REST = "rest"
"""The part of a message with the arrays that travel as they are."""

REPEATS = 3  # times a client is asked again for what it lacks, within one question


@dataclass(frozen=True)
class Shown:
    """A model as the clients are sent it."""

    version: int
    x: Tensor  # the server's own, which the clients' may differ from by what compression drops
    others: Mapping[str, AnyArray]  # that travel as they are
    rest: bytes  # these, packed


@dataclass
class Question:
    """What one client is asked, until its answer is taken."""

    kind: str  # ROUND or EVALUATE
    node: int
    number: int
    shown: Shown
    record: ClientRecord
    place: Place = ALONE
    attempt: int = 0
    chain: bytes = b""
    parts: dict[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes as sent, without the carrier's framing."""
        return sum(len(part) for part in self.parts.values())


@dataclass(frozen=True)
class Heard:
    """What an answer came to: one of these."""

    arrays: Mapping[str, AnyArray] | None = None  # the client's model as far as its uplink tells; None: an evaluation
    again: Question | None = None  # it lacks something, and is asked this
    failure: str = ""  # it cannot answer, and why


class Correspondence:
    """One run of exchanges under the same terms. Raises ConfigError when the terms do not fit each other."""

    def __init__(self, terms: Terms, arrays: NamedArrays) -> None:
        self.terms = terms
        self.run = new_run()
        terms.descent.check(terms.federation, 1.0)
        invitation = WelcomeRequest(
            protocol=PROTOCOL,
            run=self.run,
            clients=1,
            configuration=terms.pack(),
            layout_digest=terms.cut.layout.digest,
        )
        self._invitation = invitation.SerializeToString()
        start = Replica(terms.cut.vector(arrays))
        self._replicated = Replicated(terms.bundle, start, history_start(self.run))
        self._shown: Shown | None = None
        self._at: dict[int, ClientRecord] = {}  # by node
        self._named: dict[str, ClientRecord] = {}
        self._mirrors: dict[str, Tensor] = {}  # by name
        self._newest: dict[int, Question] = {}  # the question by node whose uplink would count

    # -- asking --------------------------------------------------------------------------------------------------

    def show(self, arrays: NamedArrays) -> Shown:
        """Make this the present model. Raises RoundError when it is not finite."""
        cut, last = self.terms.cut, self._shown
        x, rest = cut.vector(arrays), cut.rest(arrays)
        others = {piece.name: arrays[piece.name] for piece in cut.spared}
        if last is None or not torch.equal(x, last.x):
            if last is not None or self.terms.channel.memoryless:  # a replica with memory begins with the first model
                self._send(x)
            last = Shown(self._replicated.version, x, others, rest)
        self._shown = replace(last, others=others, rest=rest)
        return self._shown

    def ask(self, kind: str, node: int, number: int, shown: Shown, place: Place = ALONE) -> Question:
        """A question to a node. A newer one for an uplink makes an older one void."""
        record = self._at.get(node)
        if record is None:
            record = self._at[node] = ClientRecord("", 0, chain=chain_start(self.run, 0, 0), node=node)
        return self._pack(Question(kind, node, number, self._present(shown), record, place), b"")

    def _present(self, shown: Shown) -> Shown:
        """The same model at the present version: sent anew where another has been shown since."""
        if shown.version != self._replicated.version:
            self._send(shown.x)
            shown = self._shown = replace(shown, version=self._replicated.version)
        return shown

    def _send(self, x: Tensor) -> None:
        number = self._replicated.version + 1
        round = Round(number, self.terms.federation)
        try:
            sent = self.terms.channel.send(x, self._replicated.replica.method, round)
        except NonFinite as error:
            raise RoundError(f"the model diverged: {error}; lower the learning rates") from None
        packed = pack({f"{METHOD}.{name}": payload for name, payload in sent.items()})
        self._replicated.apply(packed, digest(packed), round)

    def _pack(self, question: Question, mirror: bytes) -> Question:
        """The question's parts, as things are now."""
        record, version = question.record, question.shown.version
        request: RoundRequest | EvaluateRequest
        if question.kind == ROUND:
            question.chain = record.chain
            self._newest[question.node] = question
            request = RoundRequest(
                run=self.run,
                round=question.number,
                attempt=question.attempt,
                place=question.place.index,
                cohort=question.place.count,
                target_version=version,
                chain=record.chain,
                fresh=record.fresh,
                mirror=mirror,
            )
        else:
            request = EvaluateRequest(run=self.run, round=question.number, target_version=version)
        known = 0 if record.version is None and self.terms.channel.memoryless else record.version
        base = self._replicated.base(known, record.history, False)
        question.parts = {MESSAGE: request.SerializeToString(), BASE: base}
        if question.shown.rest:
            question.parts[REST] = question.shown.rest
        if not record.welcomed:
            question.parts[WELCOME] = self._invitation
        return question

    # -- hearing -------------------------------------------------------------------------------------------------

    def hear(self, question: Question, parts: Mapping[str, bytes], online: Collection[int]) -> Heard:
        """Take an answer; ``online`` are the nodes that are there. Raises WireError for one that is nonsense.

        Of an answer that is refused nothing counts: the client is told by the chain in its next question.
        """
        try:
            heard = self._hear(question, parts, online)
        except WireError:
            question.record.version = None  # what it says of itself is not trusted either
            self.close(question)
            raise
        if heard.again is None:
            self.close(question)
        return heard

    def close(self, question: Question) -> None:
        """No answer to this question counts any more."""
        if self._newest.get(question.node) is question:
            del self._newest[question.node]

    def _hear(self, question: Question, parts: Mapping[str, bytes], online: Collection[int]) -> Heard:
        if question.kind == EVALUATE and MESSAGE not in parts:
            reply = EvaluateReply(run=self.run, round=question.number)  # it lacked nothing and had nothing to say
        elif question.kind == EVALUATE:
            reply = read(EvaluateReply, parts[MESSAGE])
        else:
            return self._hear_uplink(question, parts, online)
        if (reply.run, reply.round) != (self.run, question.number):
            raise WireError("it answers another question")
        self._introduce(question, parts, online, newcomer=False)
        if reply.reason:
            return self._oblige(question, reply.reason, reply.detail)
        self._up_to_date(question)
        return Heard()

    def _hear_uplink(self, question: Question, parts: Mapping[str, bytes], online: Collection[int]) -> Heard:
        if self._newest.get(question.node) is not question:
            raise WireError("it comes too late: the question is closed")
        reply = read(RoundReply, parts.get(MESSAGE, b""))
        asked = self.run, 0, question.number, question.attempt, question.chain
        if (reply.run, reply.incarnation, reply.round, reply.attempt, reply.chain) != asked:
            raise WireError("it answers another question")
        self._introduce(question, parts, online, newcomer=reply.reason == REASON_UNSPECIFIED)
        if reply.reason:
            return self._oblige(question, reply.reason, reply.detail)
        if not question.record.name:
            raise WireError("it does not say its name")
        arrays = self._accept(question, parts, reply)
        self._up_to_date(question)
        return Heard(arrays)

    def _introduce(
        self, question: Question, parts: Mapping[str, bytes], online: Collection[int], newcomer: bool
    ) -> None:
        """Learn a node's name. A client that is known from another node, which is gone, goes on from there."""
        if HELLO not in parts:
            return
        record, node = question.record, question.node
        name = check_client_name(read(HelloReply, parts[HELLO]).client)
        known = self._named.get(name)
        if record.name and record.name != name:
            raise WireError(f"client {record.name!r} calls itself {name!r} now")
        if known is not None and known is not record and known.node in online:
            raise WireError(f"two nodes call themselves {name!r}: give every SuperNode a client-id of its own")
        if known is None or newcomer:  # it answered as one that has nothing, so it has nothing
            record.name, record.index = name, index_of(name)
            if known is not record:
                self._mirrors.pop(name, None)
            self._named[name] = record
        elif known is not record:
            known.node, known.version = node, None
            self._at[node] = question.record = known
            self._newest[node] = question

    def _oblige(self, question: Question, reason: int, detail: str) -> Heard:
        """Ask again, with what the client lacks; or take its word that it cannot answer."""
        record = question.record
        what = f"{REASONS.get(reason, str(reason))}: {detail}"
        if reason == REASON_DECLINED or question.attempt >= REPEATS:
            return Heard(failure=what)
        mirror = b""
        record.welcomed = reason != REASON_UNWELCOME
        if reason == REASON_LOST_PRIVATE and WELCOME not in question.parts:
            mirror = self._recover(record)
        elif reason not in (REASON_LOST_PRIVATE, REASON_UNWELCOME):
            record.version = None  # whatever it holds instead: simple, and rare
        again = replace(question, attempt=question.attempt + 1, shown=self._present(question.shown))
        return Heard(again=self._pack(again, mirror))

    def _recover(self, record: ClientRecord) -> bytes:
        """The packed mirror of a client that lost its private state; without one, both ends begin anew."""
        if record.fresh:
            raise WireError("it says that it lost its private state, and was asked as a newcomer")
        mirror = self._mirrors.get(record.name)
        if mirror is not None:
            return pack({"mirror": find("identity")().encode(mirror, self.terms.cut.layout, Key(0)).payload})
        record.epoch += 1
        record.chain, record.fresh = chain_start(self.run, 0, record.epoch), True
        return b""

    def _accept(self, question: Question, parts: Mapping[str, bytes], reply: RoundReply) -> dict[str, AnyArray]:
        """Check an uplink to the last byte, decode it, and only then let it count."""
        record, terms, shown = question.record, self.terms, question.shown
        uplink = parts.get(UPLINK, b"")
        if reply.client != record.index or digest(uplink) != reply.uplink_digest:
            raise WireError("the uplink's digest or its sender's number does not match")
        round = Round(question.number, terms.federation, record.index, question.place)
        packet = unpack(uplink, Payload, terms.bundle.most_bytes(self._replicated.replica, terms.federation))
        terms.bundle.validate(packet, terms.alone.own(round))
        plain = {name.removeprefix(f"{METHOD}."): payload for name, payload in packet.items()}
        before = self._mirror(record)
        _, direction = terms.alone.aggregate(self._server(before), [(record.index, plain)], round)
        y = shown.x - direction.to(shown.x.dtype)
        if not bool(torch.isfinite(y).all()):
            raise WireError("the uplink leads to a model that is not finite")
        arrays = terms.cut.join(y, terms.cut.read_rest(parts.get(REST, b""), shown.others))
        if before is not None:
            self._mirrors[record.name] = terms.alone.advance(before, plain, round)
        record.chain, record.fresh = chain_over(record.chain, reply.uplink_digest), before is None
        return arrays

    def _mirror(self, record: ClientRecord) -> Tensor | None:
        """The server's copy of a client's mirrored state; None where the estimator has none."""
        alone = self.terms.alone
        if not alone.mirrored:
            return None
        start = torch.zeros(self.terms.cut.layout.numel, dtype=self.terms.cut.dtype)
        return alone.mirror(alone.join(start)) if record.fresh else self._mirrors[record.name]

    def _server(self, mirror: Tensor | None) -> Any:
        """The estimator's server part for one client."""
        if mirror is None:
            return None
        federation = self.terms.federation
        return self.terms.alone.rebuild(self.terms.alone.begin(mirror, federation), [mirror], federation)

    def _up_to_date(self, question: Question) -> None:
        """The client has what the question was about."""
        record = question.record
        record.welcomed = True
        if question.shown.version == self._replicated.version:
            record.version, record.history = self._replicated.version, self._replicated.history


def hello_of(client: str) -> bytes:
    """How a client says its name."""
    return HelloReply(protocol=PROTOCOL, software=thinwire.__version__, client=client).SerializeToString()
