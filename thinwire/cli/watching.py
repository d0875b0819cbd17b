"""``thinwire watch``: a run as it goes, on a terminal, in a pipe, or for a program."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from thinwire.cli.run_view import RunView, of_message, told
from thinwire.cli.standing import OVER, status_fields, stored_fields
from thinwire.cli.whereabouts import Whereabouts, at_a_run
from thinwire.errors import ConfigError

INTERRUPTED = 130
REFRESH_SECONDS = 0.5
LOOK_SHARE = 4  # times as long as a look took, which for thousands of clients is not nothing, none follows
RETRY_SECONDS = 1.0  # between two looks for a server that is gone
LAST_EVENTS = 10  # told first in a pipe
MOST_TOLD = 5_000  # records that a picture begins with

After = Annotated[
    int | None,
    typer.Option(help="Tell what was recorded after this sequence number; 0 for all. Default: the last few, or all."),
]
JsonLines = Annotated[bool, typer.Option("--json", help="One JSON object a line for each event and round.")]

Event = Mapping[str, Any]


@at_a_run()
def watch(where: Whereabouts, after: After = None, json_: JsonLines = False) -> None:
    """Watch a run: a picture on a terminal, a line for each event in a pipe; ends with the run.

    A server that is gone is waited for: watching goes on when the run is resumed. Ctrl-C leaves; the run goes on.
    """
    try:
        if json_ or not sys.stdout.isatty():
            _lines(where, after, as_json=json_)
        else:
            _picture(where)
    except KeyboardInterrupt:
        sys.stderr.write("left; the run goes on\n")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        sys.stderr.close()  # whoever read has gone; nothing is left to be said
        raise typer.Exit(0) from None


# -- in a pipe ---------------------------------------------------------------------------------------------------


def _lines(where: Whereabouts, after: int | None, *, as_json: bool) -> None:
    """All events, in order, each once."""
    from thinwire.cli.run_log import sentence
    from thinwire.cli.watch_page import clock

    for event in follow(where, after if after is not None else 0 if as_json else -LAST_EVENTS):
        if as_json:
            print(json.dumps(event), flush=True)
        else:
            print(f"{clock(event)} {sentence(str(event['event']), event)}", flush=True)


def follow(where: Whereabouts, after: int, say: Callable[[str], object] = sys.stderr.write) -> Iterator[Event]:
    """What is recorded of a run after a sequence number, then what is as it is; ends when the run is over.

    A negative ``after`` stands for the last so many. ``say`` is told when a server is gone and when it is back.
    Raises ConfigError where there is no run.
    """
    known = _recorded(where, after)
    yield from known
    last = max((int(event["sequence"]) for event in known), default=_first(where, after))
    gone = ""  # what was said when the server had gone
    while True:
        try:
            for event in _live(where, last):
                if gone:
                    say(f"the server of {where.name} is back\n")
                    gone = ""
                last = max(last, int(event["sequence"]))
                yield event
        except ConfigError as error:
            if where.folder is None and not gone and not last:
                raise
            missed = _recorded(where, last)
            yield from missed
            last = max((int(event["sequence"]) for event in missed), default=last)
            state = _state(where)
            if state in OVER:
                return
            if not gone or (where.folder is not None and str(error) != gone):  # that it does not answer; what helps
                say(f"{error}\n")
            gone = str(error)
        else:
            missed = _recorded(where, last)
            yield from missed
            last = max((int(event["sequence"]) for event in missed), default=last)
            if where.folder is None or _state(where) in OVER:
                return
        time.sleep(RETRY_SECONDS)


def _first(where: Whereabouts, after: int) -> int:
    """The sequence number to begin behind where no record can be read. Raises ConfigError where no server answers."""
    if after >= 0 or where.folder is not None:
        return max(after, 0)
    with where.operator() as operator:
        return max(0, int(operator.status().last_event) + after)


def _live(where: Whereabouts, last: int) -> Iterator[Event]:
    """Events from the server as they come; ends with its run. Raises ConfigError where it does not answer."""
    with where.operator() as operator:
        for message in operator.watch(last):
            yield of_message(message)


def _recorded(where: Whereabouts, after: int) -> Sequence[Event]:
    """What the record of a run directory has, rounds among the events."""
    from server.run_store import holds_record, open_run

    if where.folder is None:
        return []
    if not holds_record(where.folder):
        where.operator().close()  # which says why there is none
        return []
    return open_run(where.folder).events(max(after, 0), limit=after if after < 0 else None, rounds=True)


def _state(where: Whereabouts) -> str:
    """How the record says that the run stands."""
    from server.run_store import holds_record, open_run

    if where.folder is None or not holds_record(where.folder):
        return "unknown"
    return open_run(where.folder).info.state


# -- on a terminal -----------------------------------------------------------------------------------------------


def _picture(where: Whereabouts) -> None:
    """Drawn anew on a screen of its own; the last picture stays on the terminal."""
    from rich.console import Console
    from rich.live import Live

    from thinwire.cli.watch_page import Page

    watched = Watched(where)
    # The window's own size, as it is now: LINES and COLUMNS would be those of when somebody exported them.
    own = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
    page, console = Page(watched.look()), Console(_environ=own)
    try:
        if not watched.over:
            with Live(page, console=console, screen=True, refresh_per_second=4) as live:
                while not watched.over:
                    time.sleep(max(REFRESH_SECONDS, LOOK_SHARE * watched.look_seconds))
                    page.view = watched.look()
                    live.refresh()
    finally:
        watched.close()
        console.print(page)


class Watched:
    """A view of a run that is kept up to date: events come in a thread of their own, the rest is asked for."""

    def __init__(self, where: Whereabouts) -> None:
        """Raises ConfigError where there is no run."""
        self._where = where
        self._view: RunView | None = None
        self._lock = threading.Lock()
        self._fresh: list[Event] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._hear, name="thinwire-watch", daemon=True)
        self.over = False
        self.unheard = ""
        self.look_seconds = 0.0  # that the last one took

    def look(self) -> RunView:
        """The view as of now."""
        first, began = self._view is None, time.monotonic()
        try:
            status, clients = self._ask()
            trouble = ""
        except ConfigError as error:
            if self._view is None:
                raise
            status, clients, trouble = self._view.status, self._view.clients, str(error)
        view = self._view = self._view or RunView(status)
        view.status, view.clients, view.trouble, view.unheard = status, clients, trouble, self.unheard
        self.look_seconds = time.monotonic() - began
        self.over = not trouble and status["state"] in OVER
        if first:
            told(view, _recorded(self._where, -MOST_TOLD))
            if not self.over:
                self._thread.start()
        with self._lock:
            fresh, self._fresh = self._fresh, []
        told(view, fresh)
        return view

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def _ask(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Status and clients, from the server if there is one, else from the record."""
        from thinwire.cli.commanding import client_fields

        stored = self._where.stored()
        self.unheard = "" if stored is None else self._where.unheard()
        if stored is not None:
            return stored_fields(stored), stored.clients()
        with self._where.operator() as operator:
            return status_fields(operator.status()), [client_fields(client) for client in operator.clients()]

    def _hear(self) -> None:
        """In the thread: what happens from now on, also after a restart of the server."""
        view = self._view
        assert view is not None
        last = int(view.status["last_event"])
        try:
            for event in follow(self._where, last, lambda text: None):
                with self._lock:
                    self._fresh.append(event)
                if self._closed.is_set():
                    return
        except ConfigError:
            return  # the next look says why
