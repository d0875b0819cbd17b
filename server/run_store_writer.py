"""Writes run.sqlite: one transaction per record, from any thread; a kill leaves whole records only."""

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import thinwire
from server.run_store_rows import Statement, as_json, statements
from server.run_store_schema import NAME, insert_run, migrate
from thinwire.errors import ConfigError, RoundError

MOST_WAITING = 10_000  # records that wait in memory while the disk takes none
PRUNE_EVERY = 256  # records between two looks at how many events are kept
BUSY_SECONDS = 1.0  # for somebody who holds the database, as `sqlite3 run.sqlite` may

log = logging.getLogger(__name__)


class RunWriter:
    """The one writer of a run's record; its run directory's lock keeps others out.

    A record that the disk does not take waits in memory and is written, with the event "recording-failed", as soon as
    the disk takes one again. With ``strict``, RoundError is raised at once: for runs that leave nothing but the record.
    ``keep_events`` bounds the events in the record, the newest are kept; 0 keeps all.
    """

    def __init__(self, folder: Path, *, keep_events: int = 0, strict: bool = False) -> None:
        self.path = folder / NAME
        self._keep_events = keep_events
        self._strict = strict
        self._lock = threading.Lock()
        self._waiting: deque[list[Statement]] = deque(maxlen=MOST_WAITING)  # a record each
        self._trouble = ""  # what the disk said when it first took none
        self._failures = 0  # since then
        self._recorded = 0
        self._closed = False
        try:
            self._connection = _open(self.path)
            self._sequence = _last_sequence(self._connection)
        except sqlite3.Error as error:
            raise ConfigError(f"cannot write {self.path}: {error}; {_remedy(error)}") from None

    def begin(self, config: Mapping[str, Any]) -> None:
        """A server process works on the run from now on, with this configuration. Raises ConfigError."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                before = self._connection.execute("SELECT id, started, processes FROM run").fetchone()
                rounds = self._connection.execute("SELECT count(*) FROM rounds").fetchone()[0]
                goes_on = before is not None and (before[0] or rounds)
                insert_run(self._connection, dict(config), time.time(), thinwire.__version__)
                if goes_on:
                    again = (before[0], before[1], before[2] + 1)
                    self._connection.execute("UPDATE run SET id = ?, started = ?, processes = ?", again)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise ConfigError(f"cannot write {self.path}: {error}; {_remedy(error)}") from None

    def change(self, config: Mapping[str, Any]) -> None:
        """The process that works on the run goes on with this configuration. Raises ConfigError."""
        with self._lock:
            try:
                self._connection.execute("UPDATE run SET config = ?", (as_json(dict(config)),))
            except sqlite3.Error as error:
                raise ConfigError(f"cannot write {self.path}: {error}; {_remedy(error)}") from None

    def record(self, kind: str, fields: Mapping[str, Any]) -> tuple[int, float]:
        """Record a round's row (kind "round") or an event; its sequence number, and the time in seconds since 1970.

        Nothing is recorded after ``close``, as by a thread that has not heard of the end.
        """
        with self._lock:
            if self._closed:
                return self._sequence, round(time.time(), 3)
            sequence, now = self._sequence + 1, round(time.time(), 3)
            self._waiting.append(statements(sequence, now, kind, fields))
            self._sequence = sequence
            self._flush()
            return sequence, now

    def end(self, state: str, reason: str = "") -> None:
        """How it ended: "finished", "stopped" or "failed". Where the disk does not take that, it counts as killed."""
        with self._lock:
            if self._closed:
                return
            if self._waiting:
                self._flush()
            try:
                ending = state, reason, time.time()
                self._connection.execute("UPDATE run SET state = ?, reason = ?, ended = ?", ending)
            except sqlite3.Error as error:
                log.info("cannot record in %s that the run is %s: %s", self.path, state, error)

    def close(self) -> None:
        """Write what waits; leave a single file behind, unless somebody reads it just now."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._waiting:
                with contextlib.suppress(RoundError):
                    self._flush()
            if self._waiting:
                log.error("%d records of %s are lost: %s", len(self._waiting), self.path, self._trouble)
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA journal_mode = DELETE")
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()

    def _flush(self) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for record in self._waiting:
                self._write(record)
            if self._trouble:
                told = {"error": self._trouble, "failures": self._failures, "written_later": len(self._waiting)}
                self._write(statements(self._sequence + 1, round(time.time(), 3), "recording-failed", told))
            self._prune()
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            self._fail(error)
            return
        except BaseException:  # a bug of ours, or an interrupt: not to be met again at every record
            self._roll_back()
            self._waiting.pop()
            raise
        if self._trouble:
            self._sequence += 1
            log.warning("%s is written again; the records that waited are in it", self.path)
        self._waiting.clear()
        self._trouble, self._failures = "", 0

    def _write(self, record: list[Statement]) -> None:
        for sql, values in record:
            self._connection.executemany(sql, values)

    def _fail(self, error: sqlite3.Error) -> None:
        self._failures += 1
        if self._strict:
            self._waiting.clear()
            raise RoundError(f"cannot record in {self.path}: {error}; {_remedy(error)} and run it again") from None
        if not self._trouble:
            self._trouble = str(error)
            log.warning("cannot record in %s: %s; the run goes on, %s", self.path, error, _remedy(error))

    def _prune(self) -> None:
        self._recorded += 1
        if self._keep_events and self._recorded % PRUNE_EVERY == 0:
            last = "SELECT sequence FROM events ORDER BY sequence DESC LIMIT 1 OFFSET ?"
            self._connection.execute(f"DELETE FROM events WHERE sequence <= ({last})", (self._keep_events,))

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def forget_events(folder: Path, keep: int) -> int:
    """Leave the newest ``keep`` events in the record of a run that nobody holds; how many went. Raises ConfigError."""
    path = folder / NAME
    try:
        with closing(_open(path)) as connection:
            last = "SELECT sequence FROM events ORDER BY sequence DESC LIMIT 1 OFFSET ?"
            gone = connection.execute(f"DELETE FROM events WHERE sequence <= ({last})", (keep,)).rowcount
            if gone:
                connection.execute("VACUUM")
            connection.execute("PRAGMA journal_mode = DELETE")
            return gone
    except sqlite3.Error as error:
        raise ConfigError(f"cannot write {path}: {error}; {_remedy(error)}") from None


def _open(path: Path) -> sqlite3.Connection:
    """Synced at checkpoints of the log only: a kill loses nothing, a power cut perhaps the last records."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        migrate(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _last_sequence(connection: sqlite3.Connection) -> int:
    """Of events that are gone, too."""
    events = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    rounds = connection.execute("SELECT max(sequence) FROM rounds").fetchone()
    return max((events or (0,))[0] or 0, rounds[0] or 0)


def _remedy(error: sqlite3.Error) -> str:
    """What the operator can do about it."""
    text = str(error)
    if "full" in text:
        return "the disk is full: free some space"
    if "locked" in text:
        return "another program holds it: close that"
    if "readonly" in text or "unable to open" in text:
        return "make the run directory writable"
    if "malformed" in text or "not a database" in text:
        return "it is damaged: move it away, and the run goes on with a new record"
    return "look after the disk"
