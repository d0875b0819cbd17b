"""The servicer of OperatorService: checks what callers send, and hands it to the run's Control."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import grpc.aio

from server.control import asking
from server.control.callers import ControlOptions, NotAnOperator, caller
from server.control.commands import Refusal
from server.control.control import Control
from thinwire.errors import ConfigError, RoundError
from thinwire.v1 import operator_pb2 as messages
from thinwire.v1.operator_pb2_grpc import OperatorServiceServicer

MOST_WATCHERS = 16
"""Streams of events at once."""

PATIENCE_SECONDS = 1.0  # for a command to be carried out, before the answer says when it will be

SOON_SECONDS = 0.05
ROSTER_REST = 10  # times as long as it took, a roster that took longer than that is told again as it was

log = logging.getLogger(__name__)
T = TypeVar("T")


class OperatorService(OperatorServiceServicer):
    """Lives in one event loop; everything that it calls returns soon."""

    def __init__(self, control: Control, options: ControlOptions, token: str) -> None:
        """``token``: what callers without TLS must show."""
        self._control = control
        self._options = options
        self._token = token
        self._loop = asyncio.get_running_loop()
        self._news: set[asyncio.Event] = set()
        self._over = False
        self._listed: messages.ListClientsResponse | None = None
        self._listed_until = 0.0  # by the loop's clock
        self._unlisten = control.events.listen(self._wake)

    # -- looking -------------------------------------------------------------------------------------------------

    async def GetStatus(self, request: messages.GetStatusRequest, context: Any) -> messages.Status:  # noqa: N802
        """Where the run stands."""
        await self._operator(context)
        return self._control.status()

    async def ListClients(  # noqa: N802
        self, request: messages.ListClientsRequest, context: Any
    ) -> messages.ListClientsResponse:
        """The roster."""
        await self._operator(context)
        return self._roster()

    async def Watch(self, request: messages.WatchRequest, context: Any) -> AsyncIterator[messages.Event]:  # noqa: N802
        """Events, until the run is over or the watcher leaves; gRPC holds back what a slow one does not take."""
        await self._operator(context)
        if len(self._news) >= MOST_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_WATCHERS} watch this run already")
        news, arrival = asyncio.Event(), 0
        self._news.add(news)
        try:
            while True:
                news.clear()
                before, over = arrival, self._over
                arrival, found = self._control.events.since(arrival, request.after)
                for event in found:
                    yield event
                if arrival == before and over:
                    return
                if arrival == before:
                    await news.wait()
        finally:
            self._news.discard(news)

    # -- asking --------------------------------------------------------------------------------------------------

    async def Pause(self, request: messages.PauseRequest, context: Any) -> messages.Done:  # noqa: N802
        """Hold the run."""
        return await self._done(context, self._control.pause)

    async def Resume(self, request: messages.ResumeRequest, context: Any) -> messages.Done:  # noqa: N802
        """Go on."""
        return await self._done(context, self._control.resume)

    async def Stop(self, request: messages.StopRequest, context: Any) -> messages.Done:  # noqa: N802
        """End the run, to be resumed."""
        return await self._done(context, self._control.stop)

    async def Checkpoint(self, request: messages.CheckpointRequest, context: Any) -> messages.Done:  # noqa: N802
        """Write a checkpoint."""
        return await self._done(context, partial(asking.checkpoint, self._control), "a checkpoint will be written")

    async def Drain(self, request: messages.DrainRequest, context: Any) -> messages.Done:  # noqa: N802
        """Ask a client no more, or again."""
        what = f"client {request.client!r} will be asked {'again' if request.undo else 'no more'}"
        ask = partial(asking.drain, self._control, name=request.client, undo=request.undo)
        return await self._done(context, ask, what)

    async def Ban(self, request: messages.BanRequest, context: Any) -> messages.Done:  # noqa: N802
        """Put a client out of the run."""
        ask = partial(asking.ban, self._control, name=request.client, reason=request.reason)
        return await self._done(
            context, ask, f"client {request.client!r} is turned away; its weight will be the others'"
        )

    async def Change(self, request: messages.ChangeRequest, context: Any) -> messages.Done:  # noqa: N802
        """Change keys of the configuration."""
        ask = partial(asking.change, self._control, keys=dict(request.keys))
        return await self._done(context, ask, f"{', '.join(sorted(request.keys))} will be changed")

    # -- inside --------------------------------------------------------------------------------------------------

    def _roster(self) -> messages.ListClientsResponse:
        """The roster; one of thousands takes its time, so that many watchers are told what the first of them was."""
        now = self._loop.time()
        if self._listed is None or now >= self._listed_until:
            self._listed = messages.ListClientsResponse(clients=self._control.progress.clients())
            took = self._loop.time() - now
            self._listed_until = now + took * ROSTER_REST if took > SOON_SECONDS else now
        return self._listed

    async def end(self) -> None:
        """The run is over: watchers get what is left."""
        self._over = True
        self._unlisten()
        for news in self._news:
            news.set()

    def _wake(self) -> None:
        """From any thread; the loop may be closed already."""
        try:
            self._loop.call_soon_threadsafe(self._tell_watchers)
        except RuntimeError:
            return

    def _tell_watchers(self) -> None:
        for news in self._news:
            news.set()

    async def _operator(self, context: Any) -> str:
        """The caller's name; ends the call for anybody else."""
        try:
            return caller(self._options, self._token, context.auth_context(), context.invocation_metadata() or ())
        except NotAnOperator as refusal:
            log.warning("%s: %s", context.peer(), refusal)
            await context.abort(getattr(grpc.StatusCode, refusal.status), str(refusal))
            raise

    async def _done(self, context: Any, ask: Callable[[str], "str | Future[str]"], what: str = "") -> messages.Done:
        """Ask as the caller; an answer that takes the run's thread is waited for a moment."""
        by = await self._operator(context)
        asked = await self._refusable(context, lambda: ask(by))
        text = asked if isinstance(asked, str) else await self._outcome(context, asked, what)
        self._listed = None  # what was asked for is to be seen
        log.info("%s: %s", by, text)
        return messages.Done(message=text, status=self._control.status())

    async def _outcome(self, context: Any, outcome: "Future[str]", what: str) -> str:
        waiting = asyncio.wrap_future(outcome)
        finished, _ = await asyncio.wait({waiting}, timeout=PATIENCE_SECONDS)
        if not finished:
            waiting.add_done_callback(_look_at)
            return f"{what} {self._control.when()}"
        return await self._refusable(context, waiting.result)

    async def _refusable(self, context: Any, act: Callable[[], T]) -> T:
        """What ``act`` returns; its error as the call's."""
        try:
            return act()
        except Refusal as refusal:
            await context.abort(getattr(grpc.StatusCode, refusal.status), str(refusal))
            raise
        except ConfigError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        except RoundError as error:
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
            raise


def _look_at(waiting: "asyncio.Future[str]") -> None:
    """Nobody waits for it any more: what went wrong is told to the log."""
    if not waiting.cancelled() and waiting.exception() is not None:
        log.warning("a command was not carried out: %s", waiting.exception())


__all__ = ["OperatorService"]
