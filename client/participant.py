"""The client's side of a run: one participant, its data warm, its private state exactly in step with the server.

Transport-agnostic: messages of round.proto in, messages out. The same object answers our gRPC fleet, Flower's SuperNode
and a call in one process.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

import thinwire
from client.store import ClientStore, Committed, Frozen, Held, Pending, read_committed
from client.workplace import Workplace
from compressors import Expectation, NonFinite, Payload, Place, decode, registry
from strategies.base import Packet, Round
from strategies.bundle import METHOD, Bundle, Replica
from strategies.compression_error import CompressionError
from thinwire import state
from thinwire.errors import ThinwireError, WireError
from thinwire.random import Key
from thinwire.wire.exchange import (
    PROTOCOL,
    REASON_DECLINED,
    REASON_DIVERGED_REPLICA,
    REASON_LOST_PRIVATE,
    REASON_MISSING_REPLICA,
    REASON_UNWELCOME,
    Base,
    DownlinkStep,
    EvaluateReply,
    EvaluateRequest,
    HelloReply,
    HelloRequest,
    Reason,
    RoundReply,
    RoundRequest,
    WelcomeReply,
    WelcomeRequest,
    chain_next,
    chain_over,
    digest,
    question,
)
from thinwire.wire.packet import pack, parse, unpack

REPLICA_EVERY = 10  # versions between writes of the replica; older ones are caught up by missed downlinks


class Lack(Exception):  # noqa: N818  a reply, not an error
    """This client cannot answer yet; the reply says what it lacks."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail[:1000]


@dataclass
class Shelf:
    """Where the replica lies. The virtual clients of one process share it, for it is the same for all of them."""

    held: Held | None = None
    frozen: Frozen | None = None  # likewise the frozen parameters


@dataclass(frozen=True)
class Spent:
    """Where the time of an answer went."""

    training_seconds: float
    compression_seconds: float  # on a GPU, with what was still to be computed when it began


@dataclass(frozen=True)
class Answered:
    """A reply and the uplink beside it."""

    reply: RoundReply
    uplink: bytes = b""
    spent: Spent | None = None  # None: nothing was computed


class Participant:
    """One client in one run, after its welcome."""

    def __init__(
        self,
        name: str,
        invitation: WelcomeRequest,
        workplace: Workplace,
        store: ClientStore,
        shelf: Shelf,
        replica_every: int = REPLICA_EVERY,
    ) -> None:
        self.name = name
        self.run = invitation.run
        self.incarnation = invitation.incarnation
        self.index = invitation.index
        self.workplace = workplace
        self.bundle: Bundle = workplace.bundle
        self.store = store
        self._shelf = shelf
        self._replica_every = replica_every
        self._committed: Committed | None = read_committed(store)
        self._pending: Pending | None = store.read("pending")
        self._rests = False  # whether what it has is in its store only
        if shelf.held is None:
            shelf.held = store.read("replica")
        if shelf.held is not None and shelf.held.incarnation != self.incarnation:
            shelf.held = None
        self._replica_every = replica_every
        self._lacks_frozen = not self._restore_frozen()

    @property
    def shelf(self) -> Shelf:
        """Where its replica lies."""
        return self._shelf

    def rest(self) -> None:
        """Let go of the private state, until the next question: for hosts of many clients, when the store has it."""
        self._committed = self._pending = None
        self._rests = True

    def welcome(self) -> WelcomeReply:
        """What the server learns of this client."""
        held = self._shelf.held
        own = self.workplace.frozen_digest()
        if own != digest(b"") and (self._shelf.frozen is None or self._shelf.frozen.digest != own):
            self._keep_frozen(Frozen(own))
        self._lacks_frozen = False
        return WelcomeReply(
            layout_digest=self.workplace.federation.layout.digest,
            examples=self.workplace.examples,
            replica_version=held.version if held else 0,
            has_replica=held is not None,
            history=held.history if held else b"",
            frozen_digest=own,
        )

    def answer(self, request: RoundRequest, base: bytes) -> Answered:
        """Catch up, settle the last uplink, compute (or find) the answer. Raises WireError on a server's nonsense."""
        started = time.perf_counter()
        reply = RoundReply(
            run=request.run,
            incarnation=request.incarnation,
            round=request.round,
            attempt=request.attempt,
            client=self.index,
            chain=request.chain,
        )
        try:
            self._check_run(request)
            held = self._catch_up(base, request.target_version, request.replica_digest)
            committed = self._settle(request, held)
            pending, spent = self._pending, None
            if pending is None or pending.question != question(request, held.history):
                pending, spent = self._compute(request, held, committed)
        except Lack as lack:
            reply.reason, reply.detail = lack.reason, lack.detail
            return Answered(reply)
        reply.uplink_digest = pending.uplink_digest
        reply.replica_version = held.version
        reply.metrics.update(dict(pending.metrics))
        reply.metrics["seconds"] = time.perf_counter() - started
        return Answered(reply, pending.uplink, spent)

    def evaluate(self, request: EvaluateRequest, base: bytes) -> EvaluateReply:
        """The replica's metrics on this client's own held-out examples."""
        reply = EvaluateReply(run=request.run, round=request.round, client=self.index)
        try:
            self._check_run(request)
            held = self._catch_up(base, request.target_version, b"")
        except Lack as lack:
            reply.reason, reply.detail = lack.reason, lack.detail
            return reply
        reply.examples, metrics = self.workplace.evaluate(*self.bundle.model(held.replica))
        reply.metrics.update(metrics)
        return reply

    # -- in step with the server ---------------------------------------------------------------------------------

    def _check_run(self, request: RoundRequest | EvaluateRequest) -> None:
        if request.run != self.run or request.incarnation != self.incarnation:
            raise Lack(REASON_UNWELCOME, f"this client is in run {self.run}, incarnation {self.incarnation}")

    def _catch_up(self, packed: bytes, target: int, replica_digest: bytes) -> Held:
        """The replica at the target version, by a snapshot or by the missed downlinks."""
        base = parse(Base, packed)
        before = self._shelf.held
        if self._lacks_frozen and not base.snapshot.frozen:
            raise Lack(REASON_MISSING_REPLICA, "the frozen parameters are not those that the server knows")
        held = self._take_snapshot(base) if base.HasField("snapshot") else self._apply_missed(base)
        self._shelf.held = held
        if held.version != target or held.history != base.target_history:
            self._shelf.held = None
            raise Lack(REASON_MISSING_REPLICA, f"at version {held.version}, asked for {target}")
        if replica_digest and state.digest(held.replica) != replica_digest:
            self._shelf.held = None
            raise Lack(REASON_DIVERGED_REPLICA, f"digest differs at version {target}")
        every = self._replica_every
        if held is not before and (before is None or held.version // every != before.version // every):
            self.store.write("replica", held)
        return held

    def _take_snapshot(self, base: Base) -> Held:
        snapshot = base.snapshot
        held = self._shelf.held
        if snapshot.frozen:
            self._take_frozen(snapshot.frozen)
        if held is not None and held.history == base.target_history:
            return held  # a neighbour in this process has it already
        replica = state.load(snapshot.state, like=self.workplace.template)
        return Held(snapshot.version, base.target_history, self.incarnation, replica)

    def _apply_missed(self, base: Base) -> Held:
        held = self._shelf.held
        if held is not None and held.history == base.target_history:
            return held
        memoryless = self.bundle.method.memoryless_downlink
        if not base.downlinks or (held is None and not memoryless):
            raise Lack(REASON_MISSING_REPLICA, "this client holds no replica of that history")
        if memoryless:
            return self._apply(held, base.downlinks[-1:], base.target_history)
        assert held is not None
        history, due = base.base_history, list(base.downlinks)
        while due and due[0].version <= held.version:  # it knows more than the server knows of it
            history = chain_next(history, due.pop(0).packet)
        if history != held.history or not due or due[0].version != held.version + 1:
            raise Lack(REASON_MISSING_REPLICA, "the missed downlinks apply to another version")
        for downlink in due:
            history = chain_next(history, downlink.packet)
        return self._apply(held, due, history)

    def _apply(self, held: Held | None, downlinks: Sequence[DownlinkStep], history: bytes) -> Held:
        self._shelf.held = None  # apply may reuse its memory: an error halfway must not leave it looking whole
        replica: Replica = held.replica if held is not None else self.workplace.template
        for downlink in downlinks:
            packet = unpack(downlink.packet, Payload, len(downlink.packet))
            replica = self.bundle.apply(replica, packet, Round(downlink.version, self.workplace.federation))
        return Held(downlinks[-1].version, history, self.incarnation, replica)

    def _take_frozen(self, packed: bytes) -> None:
        """Frozen parameters from the server, kept for the next process of this client."""
        known = self._shelf.frozen
        taken = known if known is not None and known.packed == packed else Frozen(digest(packed), packed)
        self.workplace.load_frozen(packed)
        self._keep_frozen(taken)
        self._lacks_frozen = False

    def _keep_frozen(self, frozen: Frozen) -> None:
        self._shelf.frozen = frozen
        self.store.write("frozen", frozen)

    def _restore_frozen(self) -> bool:
        """Whether the model has the frozen parameters that the server knows of; loads them where they are kept."""
        kept: Frozen | None = self._shelf.frozen or self.store.read("frozen")
        self._shelf.frozen = kept
        if kept is None or kept.digest == self.workplace.frozen_digest():
            return True
        if kept.packed:
            self.workplace.load_frozen(kept.packed)
        return kept.digest == self.workplace.frozen_digest()

    def _wake(self) -> None:
        """Have the private state at hand, as the store has it."""
        if self._rests:
            self._committed, self._pending = read_committed(self.store), self.store.read("pending")
            self._rests = False

    def _settle(self, request: RoundRequest, held: Held) -> Committed:
        """The server's chain decides the pending uplink; a lost private state is restored, or begun anew."""
        self._wake()
        pending, committed = self._pending, self._committed
        if pending is not None and request.chain == pending.chain:
            self.store.rename("pending", "committed")
            self._pending, self._committed = None, pending.as_committed()
            return self._committed
        if committed is not None and request.chain == committed.chain:
            return committed
        if request.mirror:
            private = self.bundle.join(held.replica, self._decode_mirror(request.mirror))
        elif request.fresh:
            private = self.bundle.join(held.replica)
        else:
            raise Lack(REASON_LOST_PRIVATE, "this client's private state is not the one that the server knows")
        restored = Committed(request.chain, private)
        self.store.remove("pending")
        self._pending = None
        self.store.write("committed", restored)
        self._committed = restored
        return restored

    def _decode_mirror(self, packed: bytes) -> Tensor:
        federation = self.workplace.federation
        packet: Mapping[str, Payload] = unpack(packed, Payload, len(packed))
        if "mirror" not in packet:
            raise WireError("the server's mirror packet holds no mirror")
        expectation = Expectation(federation.layout, federation.dtype, frozenset({"identity"}))
        return decode(packet["mirror"], expectation, Key(0))

    def _compute(self, request: RoundRequest, held: Held, committed: Committed) -> tuple[Pending, Spent]:
        """The answer to a new question; the pending one, if any, was never applied and is dropped."""
        compression = CompressionError(request.round + self.index)
        round_ = Round(
            request.round,
            self.workplace.federation,
            self.index,
            Place(request.place, max(1, request.cohort)),
            incarnation=request.incarnation,
            personal=self._personal(request.personal),
            watch=compression,
        )
        self.workplace.enter(self.bundle.model(held.replica)[1])
        started = time.perf_counter()
        try:
            device = self.workplace.device
            replica, before = state.to(held.replica, device), state.to(committed.private, device)
            private, packet = self.bundle.respond(replica, before, self.workplace.oracle, round_)
        except NonFinite as error:
            raise Lack(REASON_DECLINED, str(error)) from None
        training_seconds = time.perf_counter() - started - compression.seconds
        uplink = pack(packet)
        metrics = dict(self.workplace.metrics())
        dropped = compression.of(name.removeprefix(f"{METHOD}.") for name in packet)
        if dropped is not None:
            metrics["compression_error"] = dropped
        uplink_digest = digest(uplink)
        chain = chain_over(committed.chain, uplink_digest)
        numbers = tuple(sorted(metrics.items()))
        pending = Pending(chain, private, question(request, held.history), uplink, uplink_digest, numbers)
        # Without a private state the same question has the same answer, so its bytes need not be kept on disk.
        kept = pending if private is not None else replace(pending, question=b"", uplink=b"")
        self.store.write("pending", kept)  # first: what is not kept must not be sent
        self._pending = pending
        return pending, Spent(training_seconds, compression.seconds)

    def _personal(self, packed: bytes) -> Packet:
        packet: dict[str, Payload] = unpack(packed, Payload, len(packed)) if packed else {}
        return {name.removeprefix("method."): payload for name, payload in packet.items()}


def hello(request: HelloRequest, name: str, task: str) -> HelloReply:
    """Who this client is; needs no run, no task and no state."""
    return HelloReply(
        protocol=PROTOCOL, software=thinwire.__version__, client=name, task=task, codecs=sorted(registry())
    )


def refuse(error: ThinwireError) -> WelcomeReply:
    """A welcome that this client cannot follow, and why."""
    return WelcomeReply(refusal=str(error)[:1000])


__all__ = ["Answered", "Participant", "hello", "refuse"]
