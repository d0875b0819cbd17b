"""A Flower mod: somebody else's ClientApp with compression both ways, exactly once.

    app = ClientApp(mods=[compressed])

The app's own functions see and return whole models; everything besides the model passes through. So do messages without
payloads of Thinwire, and the same app serves a server with ``strategies.Compressed`` and one without. It comes first:
mods after it (clipping, differential privacy) see whole models.
"""

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import thinwire.flower  # noqa: F401  keeps Flower quiet before it is imported
from client.app_workplace import AppWorkplace
from client.desk import MOST_REQUEST_BYTES, Invitation
from client.node import name_of, states_of
from client.participant import Participant, Shelf
from client.store import ClientStore, DiskClientStore, read_committed
from strategies.correspondence import REST, hello_of
from strategies.cut import NamedArrays
from strategies.grid_transport import KINDS, RECORD, from_parts, holds_parts, to_parts
from strategies.terms import Terms, index_of
from strategies.transport import BASE, HELLO, MESSAGE, ROUND, UPLINK, WELCOME
from thinwire.errors import ConfigError, WireError
from thinwire.wire.exchange import (
    PROTOCOL,
    REASON_DECLINED,
    REASON_LOST_PRIVATE,
    REASON_UNWELCOME,
    EvaluateReply,
    EvaluateRequest,
    Reason,
    RoundReply,
    RoundRequest,
    WelcomeRequest,
    read,
)

from flwr.app import Array, ArrayRecord, Context, Message, RecordDict  # isort: skip
from flwr.clientapp.typing import ClientAppCallable  # isort: skip

MOST_INVITATION_BYTES = 1 << 21
APPS = "apps"
"""The folder of apps with this mod: their runs are not resumed, so what is old can go."""


class _Passed(Exception):  # noqa: N818  no error of ours
    """The app answered with an Error, which is handed on."""

    def __init__(self, reply: Message) -> None:
        super().__init__()
        self.reply = reply


@dataclass(frozen=True)
class Compression:
    """A Flower ``Mod``. Its state is on disk, for ``Context.state`` dies with the SuperNode.

    It lies below ``state``, or the folder that the node's configuration names so, or ``$FLWR_HOME/thinwire-clients``,
    in ``apps/RUN/CLIENT`` (``client.node``): about three times the model for each. What a client left in a run that it
    has not heard of for ``keep_days`` is deleted when it joins another. Raises ConfigError where the app's model is not
    the server's, or a path cannot be written, and WireError on a server's nonsense; Flower makes Error replies of both.
    """

    state: str = ""
    keep_days: float = 7.0

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Decode the model, let the app answer, compress its model."""
        name = _carrier(message.content)
        if name is None:
            return call_next(message, context)
        client = name_of(context.node_config, context.node_id)
        root = (Path(self.state) if self.state else states_of(context.node_config)) / APPS
        parts = from_parts(message.content.array_records[name])
        if WELCOME in parts:
            forget_runs(root, client, 86_400 * self.keep_days)
        try:
            return _Visit(message, context, call_next, name, parts, client, root).answer()
        except _Passed as passed:
            return passed.reply


compressed = Compression()
"""The mod with its state where the node's configuration says."""


@dataclass
class _Visit:
    """One message answered."""

    message: Message
    context: Context
    call_next: ClientAppCallable
    record: str  # that the model's payloads came in
    parts: dict[str, bytes]
    client: str
    root: Path
    reply: Message | None = None  # the app's

    def answer(self) -> Message:
        """The app's reply with payloads in the place of its model; or what this client lacks."""
        if KINDS.get(self.message.metadata.message_type.partition(".")[0]) == ROUND:
            return self._train(read(RoundRequest, self.parts.get(MESSAGE, b""), MOST_REQUEST_BYTES))
        return self._evaluate(read(EvaluateRequest, self.parts.get(MESSAGE, b"")))

    def _train(self, request: RoundRequest) -> Message:
        store = DiskClientStore(self.root, request.run, self.client)
        reply = RoundReply(run=request.run, round=request.round, attempt=request.attempt, chain=request.chain)
        invitation = self._invitation(store)
        if invitation is None:
            return self._lacks(reply, REASON_UNWELCOME, "this client does not know this run")
        if WELCOME in self.parts and not _begins(store, request):
            return self._lacks(reply, REASON_LOST_PRIVATE, "this client has been in this run under another node")
        place = self._workplace(invitation)
        answered = Participant(self.client, invitation, place, store, Shelf(), 1).answer(request, self._base)
        if answered.reply.reason:
            return self._lacks(answered.reply, answered.reply.reason, answered.reply.detail)
        if self.reply is None:
            return self._lacks(answered.reply, REASON_DECLINED, "this question was answered before")
        answered.reply.metrics.clear()  # the app has its own
        parts = {MESSAGE: answered.reply.SerializeToString(), UPLINK: answered.uplink, **self._hello()}
        if place.rest:
            parts[REST] = place.rest
        return self._with(self.reply, _model_in(self.reply.content, place.terms), parts)

    def _evaluate(self, request: EvaluateRequest) -> Message:
        store = DiskClientStore(self.root, request.run, self.client)
        reply = EvaluateReply(run=request.run, round=request.round)
        invitation = self._invitation(store)
        if invitation is None:
            return self._lacks(reply, REASON_UNWELCOME, "this client does not know this run")
        place = self._workplace(invitation)
        reply = Participant(self.client, invitation, place, store, Shelf(), 1).evaluate(request, self._base)
        if reply.reason or self.reply is None:
            return self._lacks(reply, reply.reason, reply.detail)
        hello = self._hello()
        return self._with(self.reply, RECORD, {MESSAGE: reply.SerializeToString(), **hello}) if hello else self.reply

    @property
    def _base(self) -> bytes:
        return self.parts.get(BASE, b"")

    def _hello(self) -> dict[str, bytes]:
        """This client's name, for a server that introduces itself."""
        return {HELLO: hello_of(self.client)} if WELCOME in self.parts else {}

    def _invitation(self, store: ClientStore) -> WelcomeRequest | None:
        """The server's introduction, which is kept; or the kept one."""
        if WELCOME not in self.parts:
            kept = store.read("welcome")
            return WelcomeRequest.FromString(kept.packed) if isinstance(kept, Invitation) else None
        invitation = read(WelcomeRequest, self.parts[WELCOME], MOST_INVITATION_BYTES)
        if invitation.protocol != PROTOCOL:
            raise WireError(f"the server speaks protocol {invitation.protocol}, this client {PROTOCOL}")
        invitation.index = index_of(self.client)
        store.write("welcome", Invitation(invitation.SerializeToString()))
        return invitation

    def _workplace(self, invitation: WelcomeRequest) -> AppWorkplace:
        terms = Terms.read(invitation.configuration)
        if terms.cut.layout.digest != invitation.layout_digest:
            raise WireError("the server's terms are not of the model that it names")
        return AppWorkplace(terms, terms.cut.read_rest(self.parts.get(REST, b"")), lambda x: self._run(x, terms))

    def _run(self, arrays: NamedArrays, terms: Terms) -> NamedArrays:
        """The app's answer to a whole model: its model where it trained, or nothing."""
        model = ArrayRecord({name: Array(array) for name, array in arrays.items()})
        records = {n: model if n == self.record else record for n, record in self.message.content.items()}
        self.message.content = RecordDict(records)
        self.reply = self.call_next(self.message, self.context)
        if self.reply.has_error():
            raise _Passed(self.reply)
        if KINDS.get(self.message.metadata.message_type.partition(".")[0]) != ROUND:
            return {}
        trained = self.reply.content.array_records[_model_in(self.reply.content, terms)]
        return {name: array.numpy() for name, array in trained.items()}

    def _lacks(self, reply: RoundReply | EvaluateReply, reason: Reason, detail: str) -> Message:
        """A reply without the app's."""
        reply.reason, reply.detail = reason, detail
        parts = {MESSAGE: reply.SerializeToString(), **self._hello()}
        return Message(content=RecordDict({RECORD: to_parts(parts)}), reply_to=self.message)

    def _with(self, reply: Message, name: str, parts: dict[str, bytes]) -> Message:
        """The app's reply with the parts in the record of that name."""
        records = dict(reply.content.items())
        records[name] = to_parts(parts)
        reply.content = RecordDict(records)
        return reply


def _carrier(content: RecordDict) -> str | None:
    """The name of the record with payloads of Thinwire."""
    return next((name for name, record in content.array_records.items() if holds_parts(record)), None)


def _begins(store: ClientStore, request: RoundRequest) -> bool:
    """Whether this client can begin with a server that does not know it: nothing that it holds would be lost."""
    kept = [state for state in (read_committed(store), store.read("pending")) if state is not None]
    return not kept or any(state.chain == request.chain for state in kept)


def _model_in(content: RecordDict, terms: Terms) -> str:
    """The name of the record with the model in the app's reply. Raises ConfigError when none is the server's model."""
    for name, record in content.array_records.items():
        if terms.cut.fits({key: array.numpy() for key, array in record.items()}):
            return name
    held = ", ".join(f"{n!r}, {_differs(record, terms)}" for n, record in content.array_records.items()) or "none"
    raise ConfigError(f"the app's reply holds no record with the arrays of the server's model; it holds {held}")


def _differs(record: ArrayRecord, terms: Terms) -> str:
    """Why a record is not the model: the first array of another name or shape."""
    shapes = {name: tuple(array.shape) for name, array in record.items()}
    for piece in terms.cut.pieces:
        if shapes.pop(piece.name, None) != piece.shape:
            return f"where array {piece.name!r} of {piece.shape} is missing or of another shape"
    return f"with array {next(iter(shapes))!r} beside the model's"


def forget_runs(root: Path, client: str, seconds: float) -> None:
    """Delete what a client left in runs where it has written nothing for so long; a run's folder when it is empty."""
    for folder in root.glob(f"*/{client}"):
        with suppress(OSError):  # another process of this client was faster, or the disk is another's
            if time.time() - max(file.stat().st_mtime for file in (folder, *folder.iterdir())) > seconds:
                shutil.rmtree(folder)
                folder.parent.rmdir()


__all__ = ["APPS", "Compression", "compressed", "forget_runs"]
