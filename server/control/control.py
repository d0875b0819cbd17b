"""The operator's hand on a run: what it does is seen from any thread, what is asked of it is done by the run's own."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import thinwire
from server.control.commands import Commands, Refusal
from server.control.events import EventLog
from server.control.progress import Progress
from server.control.tally import FAILURES
from strategies.helm import Helm
from strategies.steering import Stopped
from thinwire.config import to_options
from thinwire.run_config import RunConfig
from thinwire.v1 import operator_pb2 as messages

HELD_SECONDS = 0.2  # between two looks, while the run is held, at what is asked of it


@dataclass(frozen=True)
class RunFacts:
    """What does not change while a server process runs."""

    run: str
    folder: Path


class Control:
    """``strategies.steering.Steering`` and ``server.observers.Observer``, and what the control service calls.

    The run's thread steers by it, the fleet's and the run's tell it what happens, the service's threads look and ask.
    """

    def __init__(
        self,
        facts: RunFacts,
        config: RunConfig,
        record: Callable[[str, Mapping[str, Any]], None],
        keep: Callable[[RunConfig], None],
        rows: Iterable[Mapping[str, Any]] = (),
        past: Iterable[tuple[str, Mapping[str, Any]]] = (),
    ) -> None:
        """``record`` writes an event into the run's record, ``keep`` a changed configuration into its directory.

        ``rows``: the rounds of earlier processes; ``past``: their last records, each kind with its fields.
        """
        self.facts = facts
        self.keep = keep
        self.events = EventLog()
        self.progress = Progress(rows)
        for kind, fields in past:
            self.events.append(kind, fields)
            if kind in FAILURES:
                self.progress.fail(fields)
        self._config = config
        self._record = record
        self._commands = Commands()
        self._lock = threading.RLock()
        self._end: messages.RunState | None = None
        self._paused_by: str | None = None
        self._stopping_by: str | None = None
        self._held = False
        self.stopped = False  # whether the run has heard of it
        self._unwanted: dict[str, str] = {}  # name -> what it is told

    # -- as whoever steers: on the run's thread ------------------------------------------------------------------

    def open(self, helm: Helm) -> None:
        """The run is there; its earlier rounds count."""
        self.progress.open(helm)

    def gathering(self) -> None:
        """A run that is stopped before it has begun is given up."""
        if self._stopping_by is not None:
            self.stopped = True
            raise Stopped

    def between(self) -> None:
        """Carry out what is due; hold while paused."""
        helm = self.progress.helm
        assert helm is not None, "a run is opened before its rounds are"
        self._commands.carry_out(helm)
        while self._hold(helm):
            while self._held and self._stopping_by is None:
                helm.wait(HELD_SECONDS)
                self._commands.carry_out(helm)
        self.gathering()

    def _hold(self, helm: Helm) -> bool:
        """Whether the run is to be held, from now on."""
        with self._lock:
            by = self._paused_by if self._stopping_by is None else None
            self._held = by is not None
        if by is not None:
            self.note("paused", {"by": by, "round": helm.version})
        return by is not None

    def asked(self, round: int, attempt: int, clients: Sequence[int]) -> None:
        """An attempt is open."""
        self.progress.asked(attempt, clients)

    def replied(self, client: int) -> None:
        """An answer was accepted."""
        self.progress.replied(client)

    def decided(self) -> None:
        """The attempt is over."""
        self.progress.decided()

    def unwanted(self) -> Mapping[str, str]:
        """Those whose ban is on its way."""
        with self._lock:
            return dict(self._unwanted)

    # -- for the commands that are carried out between rounds ----------------------------------------------------

    def helm(self) -> Helm:
        """For those that look, from any thread. Raises Refusal while there is no run, and after its end."""
        with self._lock:
            self._check_going_on()
            helm = self.progress.helm
        if helm is None:
            raise Refusal("FAILED_PRECONDITION", "the run waits for its clients; ask again once it has begun")
        return helm

    def submit(self, carry_out: Callable[[Helm], str]) -> "Future[str]":
        """Have the run's thread do something while no round is open. Raises Refusal."""
        self.helm()
        return self._commands.submit(carry_out)

    def note(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Into the run's record."""
        self._record(kind, fields)

    def turn_away(self, name: str, reason: str | None) -> None:
        """A client is to go at once, open round or not; None: it has gone, or may stay."""
        with self._lock:
            self._unwanted.pop(name, None)
            if reason is not None:
                self._unwanted[name] = reason

    # -- as an observer: from any thread -------------------------------------------------------------------------

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Keep what happens, for those who watch."""
        self.events.append(kind, fields)
        self.progress.record(kind, fields)

    def close(self) -> None:
        """The record is closed; nothing more is asked of the run."""
        self._commands.close("the run is over")

    # -- what the operator sees: from any thread -----------------------------------------------------------------

    def state(self) -> messages.RunState:
        """What the run is doing."""
        if self._end is not None:
            return self._end
        if self._stopping_by is not None:
            return messages.RUN_STATE_STOPPING
        if self._held:
            return messages.RUN_STATE_PAUSED
        if self._paused_by is not None:
            return messages.RUN_STATE_PAUSING
        return messages.RUN_STATE_GATHERING if self.progress.helm is None else messages.RUN_STATE_RUNNING

    def status(self) -> messages.Status:
        """Where the run stands."""
        found = self.progress.status()
        helm = self.progress.helm
        config = self._config if helm is None else helm.config
        found.run, found.software = self.facts.run, thinwire.__version__
        found.state, found.rounds = self.state(), config.rounds
        found.configuration = json.dumps(to_options(config), sort_keys=True)
        found.run_directory = str(self.facts.folder.absolute())
        found.last_event = self.events.last
        return found

    # -- what the operator asks: from any thread -----------------------------------------------------------------

    def pause(self, by: str) -> str:
        """Hold the run after the open round. Raises Refusal, as all of these do."""
        with self._lock:
            self._check_going_on()
            if self._held:
                return "the run is held already"
            self._paused_by = self._paused_by or by
            return f"the run is held {self.when()}; its clients stay connected"

    def resume(self, by: str) -> str:
        """Go on."""
        with self._lock:
            self._check_going_on()
            if self._paused_by is None:
                raise Refusal("FAILED_PRECONDITION", "the run is not held")
            held, self._paused_by, self._held = self._held, None, False
        if not held:
            return "the run goes on; it was not held yet"
        self.note("unpaused", {"by": by, "round": self.progress.round})
        return f"the run goes on with round {self.progress.round + 1}"

    def stop(self, by: str) -> str:
        """End the run after the open round, with a checkpoint. May be called by a signal's handler."""
        with self._lock:
            if self._end is not None:
                raise Refusal("FAILED_PRECONDITION", "the run is over")
            repeated, self._stopping_by = self._stopping_by is not None, self._stopping_by or by
        if not repeated:
            self.note("stopping", {"by": by, "round": self.progress.round})
        if self.progress.helm is None:
            return "the run ends before its first round; there is nothing to resume"
        return f"the run ends {self.when()}, with a checkpoint; thinwire server --resume {self.facts.folder} goes on"

    def when(self) -> str:
        """When a command will be carried out, for people."""
        if self.progress.helm is None:
            return "when its clients are there"
        return f"after round {self.progress.round + 1}, which is open" if self.progress.is_open else "at once"

    def finish(self, state: messages.RunState, detail: str = "") -> None:
        """The run has ended so; the last that watchers hear of it."""
        kind = "failed" if state == messages.RUN_STATE_FAILED else "finished"
        self.note(kind, {"round": self.progress.round, **({"detail": detail[:1000]} if detail else {})})
        with self._lock:
            self._end = state
        self._over()

    def leave(self) -> None:
        """The run stops here, to be resumed; the last that watchers hear of it."""
        self.note("stopped", {"by": self._stopping_by or "interruption", "round": self.progress.round})
        self._over()

    def _over(self) -> None:
        self.progress.decided()
        self._commands.close("the run is over")

    @property
    def stopping_by(self) -> str | None:
        """Who ends the run."""
        return self._stopping_by

    def _check_going_on(self) -> None:
        if self._end is not None or self._stopping_by is not None:
            raise Refusal("FAILED_PRECONDITION", "the run is over" if self._end is not None else "the run ends already")
