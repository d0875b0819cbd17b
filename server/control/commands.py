"""What an operator asks of a run: carried out by the run's own thread, while no round is open."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

from strategies.helm import Helm
from thinwire.errors import ConfigError

Status = Literal["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "INTERNAL"]
MOST_WAITING = 64


class Refusal(ConfigError):  # noqa: N818  an answer, not an error
    """A command that is not carried out; one line, and the gRPC status that goes with it."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status: Status = status


@dataclass
class Command:
    """One command and what came of it: a line for people, or the error."""

    carry_out: Callable[[Helm], str]
    outcome: "Future[str]" = field(default_factory=Future)


class Commands:
    """Commands on their way from the operator's threads to the run's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Command] = deque()
        self._closed = ""

    def submit(self, carry_out: Callable[[Helm], str]) -> "Future[str]":
        """Queue a command. Raises Refusal after the run's end, and where too many wait."""
        command = Command(carry_out)
        with self._lock:
            if self._closed:
                raise Refusal("FAILED_PRECONDITION", self._closed)
            if len(self._waiting) >= MOST_WAITING:
                raise Refusal("RESOURCE_EXHAUSTED", f"{MOST_WAITING} commands wait for the open round to end already")
            self._waiting.append(command)
        return command.outcome

    def carry_out(self, helm: Helm) -> None:
        """All that wait, in their order. A ConfigError is its command's own; after any other the run cannot go on."""
        while (command := self._next()) is not None:
            try:
                command.outcome.set_result(command.carry_out(helm))
            except ConfigError as error:
                command.outcome.set_exception(error)
            except BaseException as error:
                command.outcome.set_exception(error)
                raise

    def close(self, reason: str) -> None:
        """The run is over: what waits, and what comes, is refused."""
        with self._lock:
            self._closed = self._closed or reason
        while (command := self._next()) is not None:
            command.outcome.set_exception(Refusal("FAILED_PRECONDITION", reason))

    def _next(self) -> Command | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None
