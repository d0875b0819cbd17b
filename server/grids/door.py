"""The door of the fleet: says who may come in, and keeps the newest stream of each identity."""

import asyncio
import hmac
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

import thinwire
from server.grids.mailbox import Mailbox
from server.grids.options import FleetOptions
from server.grids.streams import Events, Stream, refused
from server.grids.turnstile import Damper, Turnstile, address_of
from thinwire.certificates import Shown, revoked_serials
from thinwire.errors import ConfigError
from thinwire.v1.fleet_pb2 import ConnectRequest, ConnectResponse, Finished, Heard, Open
from thinwire.wire.endpoint import MOST_IDENTITY_BYTES, fault_of_identity
from thinwire.wire.frames import PROTOCOL
from thinwire.wire.room import Room

MOST_HELD = 16
UNCHECKED = "the server cannot check certificates now; ask its operator"
REFUSALS_TOLD_PER_MINUTE = 30.0  # of one address; of one that comes too often, once

log = logging.getLogger(__name__)


class Door:
    """The servicer of FleetService: admits a client, then runs its stream. Lives in one event loop."""

    def __init__(self, rules: FleetOptions, mailbox: Mailbox, room: Room, events: Events | None) -> None:
        self._rules = rules
        self._mailbox = mailbox
        self._room = room
        self._events = events
        self._streams: dict[int, Stream] = {}
        self._finished: str | None = None
        self._roster = None if rules.roster is None else frozenset(rules.roster)
        self._open = 0  # calls that have not ended, whoever makes them
        self._addresses = Turnstile(rules.address_connects_per_minute)
        self._identities = Turnstile(rules.connects_per_minute)
        self._refusals = Damper(REFUSALS_TOLD_PER_MINUTE)
        self._crowds = Damper(1.0)

    async def Connect(self, _requests: Any, context: Any) -> None:  # noqa: N802  # the name of the rpc
        """The one stream of a client."""
        self._open += 1
        try:
            await self._serve(context)
        finally:
            self._open -= 1

    async def _serve(self, context: Any) -> None:
        """One call, from its first word to its end."""
        opening = await self._admit(context)
        if isinstance(opening, ConnectResponse):
            await context.write(opening)
            return
        node = self._mailbox.know(opening.identity)
        stream = Stream(node, self._mailbox, self._room, self._rules, context, self.tell)
        older = self._streams.get(node.node)
        self._streams[node.node] = stream
        if older is not None:
            self.tell("replaced", node.identity, "a newer stream of this identity")
            older.end(refused("another client connected with this identity", retry=False))
        self._mailbox.connect(node, True)
        self.tell("opened", node.identity, f"{opening.software} from {context.peer()}"[:200])
        try:
            await stream.run(list(opening.held)[:MOST_HELD])
        finally:
            if self._streams.get(node.node) is stream:
                del self._streams[node.node]
                self._mailbox.connect(node, False)
            self.tell("closed", node.identity, stream.why)

    def wake(self, node: int) -> None:
        """There is something new to send to a node."""
        if node in self._streams:
            self._streams[node].wake()

    def reject(self, node: int, reason: str) -> None:
        """End a node's stream with a reason."""
        if node in self._streams:
            self._streams[node].end(refused(reason, retry=False))

    def finish(self, reason: str) -> None:
        """Send everyone home, now and at the door."""
        self._finished = reason
        for stream in self._streams.values():
            stream.end(ConnectResponse(finished=Finished(reason=reason)))

    async def leave(self) -> None:
        """End all streams without a word; clients will try again."""
        for stream in list(self._streams.values()):
            stream.end(None)
        while self._streams:
            await asyncio.wait({stream.gone for stream in self._streams.values()})
            await asyncio.sleep(0)

    def tell(self, kind: str, identity: str, detail: str) -> None:
        """Report an event."""
        log.info("%s %s: %s", kind, identity, detail)
        if self._events is None:
            return
        try:
            self._events(kind, identity, detail)
        except Exception:
            log.exception("the events callback failed on %r", kind)

    async def _admit(self, context: Any) -> Open | ConnectResponse:
        """The client's first word, or what it is answered with instead of a stream."""
        address = address_of(context.peer())
        if self._open > self._rules.connections:
            return self._turn_away("", f"{self._rules.connections} connections are open already, the most there may be")
        if not self._addresses.admit(address):
            most = f"{self._rules.address_connects_per_minute:g} a minute"
            return self._turn_away("", f"{address} connects too often: more than {most}", address)
        try:
            request = await asyncio.wait_for(context.read(), self._rules.hello_seconds)
        except TimeoutError:
            return self._refuse(address, "", f"no Open within {self._rules.hello_seconds:g} seconds", retry=True)
        except (DecodeError, grpc.aio.BaseError) as error:
            return self._refuse(address, "", f"the first message cannot be read: {type(error).__name__}")
        if not isinstance(request, ConnectRequest) or request.WhichOneof("content") != "open":
            return self._refuse(address, "", "the first message must be Open")
        opening = request.open
        reason = self._fault(opening, context)
        if reason is not None:
            return self._refuse(address, opening.identity, reason, retry=reason == UNCHECKED)
        if not self._identities.admit(opening.identity):  # only now: nobody uses up what is another's
            most = f"{self._rules.connects_per_minute:g} a minute"
            reason = f"{opening.identity!r} connects too often: more than {most}"
            return self._turn_away(opening.identity, reason, f"identity {opening.identity}")
        if self._finished is not None:
            return ConnectResponse(finished=Finished(reason=self._finished))
        if opening.knock:
            return ConnectResponse(heard=Heard(software=f"thinwire {thinwire.__version__}", time=time.time()))
        return opening

    def _fault(self, opening: Open, context: Any) -> str | None:
        """Why a client may not come in; None where it may. The secret is looked at before anything else is said."""
        if opening.protocol != PROTOCOL:
            return f"protocol {opening.protocol}; this server speaks {PROTOCOL}: install its version of thinwire"
        if not hmac.compare_digest(opening.token.encode(), self._rules.token.encode()):
            return "wrong token"
        fault = fault_of_identity(opening.identity)
        if fault is not None:
            return fault
        if self._rules.client_ca is not None:
            fault = _fault_of_certificate(context.auth_context(), opening.identity, self._rules.revoked)
            if fault is not None:
                return fault
        if self._roster is not None and opening.identity not in self._roster:
            return f"unknown identity {opening.identity!r}"
        return self._mailbox.know(opening.identity).rejected

    def _refuse(self, address: str, identity: str, reason: str, retry: bool = False) -> ConnectResponse:
        """No, for a reason that is told, unless this address gave many of late."""
        untold = self._refusals.admit(address)
        if untold is not None:
            more = f" ({untold} refusals of {address} were not told)" if untold else ""
            self.tell("refused", identity[:MOST_IDENTITY_BYTES], reason + more)
        return refused(reason, retry)

    def _turn_away(self, identity: str, reason: str, whom: str = "") -> ConnectResponse:
        """No for now, to those who come too often or are too many; told once a minute."""
        untold = self._crowds.admit(whom)
        if untold is not None:
            more = f" ({untold} times more since this was told last)" if untold else ""
            self.tell("refused", identity[:MOST_IDENTITY_BYTES], reason + more)
        return refused(f"{reason}; try again later", retry=True)


def _fault_of_certificate(shown: Mapping[str, Sequence[bytes]], identity: str, revoked: Path | None) -> str | None:
    """Why a client's certificate does not let it in under this identity; None where it does."""
    names = [name.decode(errors="replace") for name in shown.get("x509_common_name", [])]
    if names != [identity]:
        return f"identity {identity!r} is not the certificate's common name {', '.join(names)!r}"
    try:
        certificate = Shown.of(shown["x509_pem_cert"][0])
        refused_serials = revoked_serials(revoked)
    except ConfigError as error:
        log.error("%s: nobody is let in", error)
        return UNCHECKED
    if certificate.serial in refused_serials:
        return f"the certificate of {identity!r} was revoked"
    if certificate.role not in ("", "client"):
        return f"the certificate of {identity!r} says {certificate.role!r}; a client is needed"
    return None
