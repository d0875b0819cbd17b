"""A gRPC server at an address of its own, in the one event loop that all gRPC servers of this process share.

One, because ``grpc.aio`` has one queue of events in a process, which every loop that uses it empties for all: an
event for a server whose loop is closed already ends as a traceback on standard error, from whichever loop is left.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc.aio

from thinwire.wire.endpoint import host_and_port, joined

LAST_SECONDS = 2.0
"""For calls that a stopped server cut off to end: gRPC prints a traceback for each that the loop has to cancel."""

Leave = Callable[[], Awaitable[None]]


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="thinwire-grpc", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        await self._over.wait()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            await asyncio.wait(left, timeout=LAST_SECONDS)


class _Shared:
    """The thread that all servers use, while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._thread: _LoopThread | None = None

    def enter(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._thread is None:
                self._thread = _LoopThread()
            self._users += 1
            return self._thread.loop

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._thread is not None and not self._users:
                self._thread.close()
                self._thread = None


_LOOP = _Shared()


class GrpcServer:
    """Binds, serves, and stops; ``call`` runs a function in the event loop."""

    def __init__(
        self,
        address: str,
        credentials: Any,
        options: Sequence[tuple[str, int]],
        add: Callable[[Any], Leave],
        stop_seconds: float,
        most_calls: int | None = None,
    ) -> None:
        """Listens when it returns. Raises RuntimeError where the address cannot be had, or ``add``'s error.

        ``credentials`` are gRPC's, None without TLS. ``add`` puts a service into the server, in the event loop, and
        returns what ends it; its calls then have ``stop_seconds`` to finish.
        """
        self._host, self._port = host_and_port(address)
        self._credentials = credentials
        self._stop_seconds = stop_seconds
        self._server: Any = None
        self._leave: Leave | None = None
        self._closed = False
        self._loop = _LOOP.enter()
        try:
            self._wait(self._start(list(options), add, most_calls))
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """host:port with the port that was bound."""
        return joined(self._host, self._port)

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run a function in the event loop, soon; nothing after close."""
        if not self._closed:
            with contextlib.suppress(RuntimeError):  # the loop was closed since
                self._loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        """Stop the server and wait until it has. May be called again."""
        if self._closed:
            return
        self._closed = True
        try:
            self._wait(self._stop())
        finally:
            _LOOP.leave()

    def _wait(self, doing: Any) -> None:
        asyncio.run_coroutine_threadsafe(doing, self._loop).result()

    async def _start(self, options: list[tuple[str, int]], add: Callable[[Any], Leave], most: int | None) -> None:
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=most)
        self._leave = add(self._server)
        if self._credentials is None:
            self._port = int(self._server.add_insecure_port(self.address))
        else:
            self._port = int(self._server.add_secure_port(self.address, self._credentials))
        await self._server.start()

    async def _stop(self) -> None:
        if self._leave is not None:
            await self._leave()
        if self._server is not None:
            await self._server.stop(self._stop_seconds)
        self._server = self._leave = None
