"""A server that sends its clients home can always close, at whatever moment they hang up."""

import asyncio
import contextlib
from typing import Any

import thinwire.flower  # noqa: F401  first: it imports flwr quietly
from server.grids.mailbox import Mailbox
from server.grids.options import FleetOptions
from server.grids.streams import Stream
from thinwire.wire.room import Room

RULES = FleetOptions(chunk_bytes=1 << 16, message_bytes=1 << 20)


class Wire:
    """gRPC's context, whose reading takes its time to be cancelled."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    async def write(self, message: Any) -> None:
        """Into the void."""

    async def read(self) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)


def test_a_client_that_hangs_up_while_its_stream_ends_does_not_keep_the_server_from_closing() -> None:
    async def play() -> bool:
        mailbox = Mailbox(1, (), lambda node: None)
        wire = Wire()
        stream = Stream(mailbox.know("a"), mailbox, Room(1 << 20), RULES, wire, lambda *event: None)
        running = asyncio.create_task(stream.run([]))
        await asyncio.sleep(0)
        stream.end(None)
        await wire.cancelled.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return stream.gone.done()

    assert asyncio.run(asyncio.wait_for(play(), 10))
