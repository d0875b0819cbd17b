"""One client's gRPC stream, the server's end: requests go out, replies come in, each frame checked."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from server.grids.mailbox import Mailbox
from server.grids.nodes import Node
from server.grids.options import FleetOptions
from thinwire.errors import WireError
from thinwire.v1.fleet_pb2 import ConnectResponse, Frame, Opened, Refused
from thinwire.wire.arrivals import Assembler, Sequence
from thinwire.wire.frames import frames
from thinwire.wire.room import Room

Events = Callable[[str, str, str], None]
"""Called with kind, identity and detail, from the server's thread."""

FAREWELL_SECONDS = 2.0  # how long a stream that is told to end may take to say why


class Stream:
    """One client's stream: requests go out in order, replies come in, until either end hangs up."""

    def __init__(
        self, node: Node, mailbox: Mailbox, room: Room, rules: FleetOptions, context: Any, tell: Events
    ) -> None:
        self.why = "the client hung up"
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._node = node
        self._mailbox = mailbox
        self._room = room
        self._rules = rules
        self._context = context
        self._tell = tell
        self._sent: set[str] = set()
        self._late: set[str] = set()  # of those, the ones answered when nobody awaited them any more
        self._strays = 0
        self._news = asyncio.Event()
        self._ending = asyncio.Event()
        self._farewell: ConnectResponse | None = None
        self._assembler: Assembler | None = None
        self._skipping: Sequence | None = None

    def wake(self) -> None:
        """There may be something new to send."""
        self._news.set()

    def end(self, farewell: ConnectResponse | None) -> None:
        """End the stream between two frames, with a last message if there is one."""
        if self._ending.is_set():
            return
        self._farewell = farewell
        if farewell is not None:
            self.why = (farewell.refused if farewell.HasField("refused") else farewell.finished).reason
        self._ending.set()
        self._news.set()

    async def run(self, held: list[str]) -> None:
        """Serve the client until the stream ends. ``held``: requests that the client has already."""
        wanted = [message for message in held if self._mailbox.wants(self._node, message)]
        self._sent.update(wanted)
        opened = Opened(
            node=self._node.node,
            chunk_bytes=self._rules.chunk_bytes,
            message_bytes=self._rules.message_bytes,
            wanted=wanted,
        )
        writer = asyncio.create_task(self._write(ConnectResponse(opened=opened)))
        reader = asyncio.create_task(self._read())
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({writer, reader, ending}, return_when=asyncio.FIRST_COMPLETED)
            if self._ending.is_set():
                await asyncio.wait({writer}, timeout=FAREWELL_SECONDS)
        finally:
            for task in (writer, reader, ending):
                task.cancel()
            try:
                await asyncio.gather(writer, reader, ending, return_exceptions=True)
            finally:  # gRPC cancels us here when the client hangs up in this moment
                if self._assembler is not None:
                    self._assembler.discard()
                self.gone.set_result(None)

    async def _write(self, first: ConnectResponse) -> None:
        """Send what waits, then wait for more; the farewell comes last."""
        try:
            await self._context.write(first)
            while not self._ending.is_set():
                self._news.clear()
                waiting = self._mailbox.unsent(self._node, self._sent)
                if waiting is None:
                    await self._news.wait()
                    continue
                message_id, body = waiting
                self._sent.add(message_id)
                for frame in frames(message_id, body, self._rules.chunk_bytes):
                    async with asyncio.timeout(self._rules.stall_seconds):
                        await self._context.write(ConnectResponse(frame=frame))
                    self._node.bytes_out += len(frame.chunk)
                    if self._ending.is_set():
                        break
            if self._farewell is not None:
                await self._context.write(self._farewell)
        except TimeoutError:
            self.why = f"took nothing of a request for {self._rules.stall_seconds:g} seconds"
        except grpc.aio.BaseError:
            self.why = "the connection broke"

    async def _read(self) -> None:
        """Take replies until the client hangs up; a client that breaks the protocol is told so and cut off."""
        try:
            while (request := await self._next()) is not grpc.aio.EOF:
                if request.WhichOneof("content") != "frame":
                    raise WireError("only frames may follow Open")
                self._take(request.frame)
        except TimeoutError:
            self.end(
                refused(f"no frame for {self._rules.stall_seconds:g} seconds in the middle of a reply", retry=True)
            )
        except grpc.aio.BaseError:
            self.why = "the connection broke"
        except (WireError, DecodeError) as error:
            reason = f"broke the protocol: {error}"
            self._tell("nonsense", self._node.identity, reason)
            self._mailbox.fail(self._node, reason)
            self.end(refused(reason, retry=False))
        except OSError as error:
            self._tell("storage", self._node.identity, str(error))
            self.end(refused("the server has no room for replies", retry=True))

    async def _next(self) -> Any:
        """What the client says next; in the middle of a reply it may not be silent for ever."""
        under_way = self._assembler is not None or self._skipping is not None
        async with asyncio.timeout(self._rules.stall_seconds if under_way else None):
            return await self._context.read()

    def _take(self, frame: Frame) -> None:
        """One frame of a reply; those of a reply that nobody awaits are checked and dropped."""
        self._node.bytes_in += len(frame.chunk)
        if self._assembler is None and self._skipping is None:
            if self._mailbox.wants(self._node, frame.message):
                self._assembler = Assembler(self._rules.message_bytes, self._rules.chunk_bytes, self._room)
            else:
                self._count_stray(frame.message)
                self._skipping = Sequence(self._rules.message_bytes, self._rules.chunk_bytes)
                self._tell("dropped", self._node.identity, f"a reply to {frame.message[:64]!r}, which nobody awaits")
        if self._skipping is not None:
            if self._skipping.check(frame):
                self._skipping = None
        elif self._assembler is not None:
            arrived = self._assembler.add(frame)
            if arrived is not None:
                self._assembler = None
                if not self._mailbox.answer(self._node, frame.message, arrived):
                    self._tell("dropped", self._node.identity, f"a late reply to {frame.message!r}")

    def _count_stray(self, message_id: str) -> None:
        """One answer to every request may come too late; more than that is nobody's bad luck."""
        if message_id in self._sent and message_id not in self._late:
            self._late.add(message_id)
            return
        self._strays += 1
        if self._strays > self._rules.stray_replies:
            raise WireError(f"more than {self._rules.stray_replies} replies that nobody asked for")


def refused(reason: str, retry: bool) -> ConnectResponse:
    """The server's no."""
    return ConnectResponse(refused=Refused(reason=reason, retry=retry))
