"""Ctrl-C and SIGTERM while a run goes on: once ends it well, twice ends it now; either way nothing is lost."""

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

import typer

from strategies.steering import Stopped, Unsteered
from thinwire.cli.logs import say
from thinwire.errors import ThinwireError

T = TypeVar("T")

INTERRUPTED = 130  # exit code
SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Interruption:
    """Hears both signals. ``ends`` says what the first one does; a second one, or one outside, is KeyboardInterrupt.

    In a thread, which gets no signals, this is nothing.
    """

    def __init__(self) -> None:
        self.by: str | None = None  # the first signal's name
        self.afterwards = ""  # for people: how to go on
        self._end: Callable[[str], object] | None = None
        self._at_once: Callable[[], object] | None = None
        self._then = ""
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def ends(
        self, end: Callable[[str], object], then: str, at_once: Callable[[], object] | None = None
    ) -> Iterator[None]:
        """Inside, the first signal calls ``end`` with its name, in a thread of its own, and says what happens ``then``.

        ``end`` may take locks that the interrupted code holds, so it does not run in the handler. The second one calls
        ``at_once`` likewise, where it is given, and is a KeyboardInterrupt else.
        """
        self._end, self._then, self._at_once = end, then, at_once
        try:
            yield
        finally:
            self._end = self._at_once = None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        first, self.by = self.by is None, self.by or SIGNALS[signal.Signals(number)]
        if not first and self._at_once is not None:
            threading.Thread(target=self._at_once, name="thinwire-interruption", daemon=True).start()
            return
        if not first or self._end is None:
            raise KeyboardInterrupt
        threading.Thread(target=self._first, args=(self._end,), name="thinwire-interruption", daemon=True).start()

    def _first(self, end: Callable[[str], object]) -> None:
        say(f"{self.by}: {self._then}; once more ends it now", "interrupted")
        with contextlib.suppress(ThinwireError):  # it is over already
            end(str(self.by))


def interruptible(command: Callable[..., T]) -> Callable[..., T]:
    """A command that is given an ``interruption`` by keyword; interrupted, it ends with 130 and says how to go on."""

    @functools.wraps(command)
    def heard(*arguments: Any, **options: Any) -> T:
        with Interruption() as interruption:
            try:
                outcome = command(*arguments, interruption=interruption, **options)
            except (KeyboardInterrupt, Stopped):
                if interruption.afterwards:
                    say(interruption.afterwards, "stopped")
                raise KeyboardInterrupt from None
        if interruption.by is None:
            return outcome
        if interruption.afterwards:
            say(interruption.afterwards, "stopped")
        raise typer.Exit(INTERRUPTED)

    return heard


class EndsAfterRound(Unsteered):
    """Steers a run to its end after the open round, once ``end`` was called."""

    def __init__(self) -> None:
        self._ends = False

    def end(self, by: str) -> None:
        """From any thread."""
        self._ends = True

    def gathering(self) -> None:
        """There is nothing yet to lose."""
        self.between()

    def between(self) -> None:
        """End here, if it is to end."""
        if self._ends:
            raise Stopped
