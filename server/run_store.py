"""The record of a run, for readers: its state, rounds, clients and events, from the run.sqlite of its run directory.

Reading is safe while the run writes, and leaves no trace: also on a read-only file system, and of run directories of
older versions of Thinwire.
"""

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server import run_lock
from server.run_store_rows import LARGEST, rows
from server.run_store_schema import NAME, OLD_EVENTS, OLD_METRICS, VERSION, migrate, version
from thinwire.errors import ConfigError

BUSY_SECONDS = 5.0
_CLIENTS = """
WITH sums AS (
    SELECT client, sum(asked) AS asked, sum(replied) AS replied, sum(asked > replied) AS failures,
        total(uplink_bytes) AS up, total(downlink_bytes) AS down, avg(seconds) AS mean,
        max(CASE WHEN uplink_bytes > 0 THEN round END) AS last
    FROM client_rounds GROUP BY client)
SELECT c.name, n.client, c.weight, c.examples, ifnull(asked, 0), ifnull(replied, 0), ifnull(failures, 0),
    ifnull(up, 0), ifnull(down, 0), mean, (SELECT time FROM rounds WHERE round = last)
FROM (SELECT client FROM clients UNION SELECT client FROM client_rounds) n
LEFT JOIN clients c ON c.client = n.client
LEFT JOIN sums s ON s.client = n.client
ORDER BY n.client"""
_TOTALS = """
SELECT ifnull(max(round), 0), total(seconds), total(uplink_bytes), total(downlink_bytes), total(dense_bytes),
    total(asked), total(replied),
    (SELECT loss FROM rounds WHERE loss IS NOT NULL ORDER BY round DESC LIMIT 1),
    (SELECT accuracy FROM rounds WHERE accuracy IS NOT NULL ORDER BY round DESC LIMIT 1),
    max(time)
FROM rounds"""
_SEEN = """
SELECT client, max(time) FROM events
WHERE client IS NOT NULL
    AND event IN ('fleet-opened', 'fleet-closed', 'hello', 'client-error', 'hostile', 'client-lacks')
GROUP BY client"""


@dataclass(frozen=True)
class RunInfo:
    """What a run is and how it stands."""

    run: str  # 32 hexadecimal digits; empty until the clients are there
    method: str
    uplink: str
    downlink: str
    task: str
    seed: int
    config: dict[str, Any] = field(repr=False)  # the whole configuration, as last used
    state: str  # running, finished, stopped, failed, or killed: it says that it runs, and nobody holds its lock
    reason: str  # why it stopped or failed, or empty
    started: float  # seconds since 1970
    ended: float | None  # likewise; None while it runs and after a kill
    processes: int  # server processes that have worked on it
    software: str  # version of Thinwire that wrote last
    schema_version: int


@dataclass(frozen=True)
class StoredRun:
    """A run directory's record, read anew at each call; nothing is held open between them."""

    path: Path

    @property
    def info(self) -> RunInfo:
        """What the run is and how it stands. Raises ConfigError when nothing has been recorded yet."""
        with _reading(self.path) as connection:
            columns = "id, method, uplink, downlink, task, seed, config, state, reason, started, ended"
            row = connection.execute(f"SELECT {columns}, processes, software FROM run").fetchone()
        if row is None:
            raise ConfigError(f"{self.path}: nothing is recorded of a run yet")
        run, method, uplink, downlink, task, seed, config, state, reason, started, ended, processes, software = row
        if state == "running" and not run_lock.held(self.path):
            state = "killed"
        names = run, method, uplink, downlink, task
        ends = state, reason, started, ended, processes, software
        return RunInfo(*names, seed, json.loads(config), *ends, VERSION)

    def rounds(self, after: int = 0) -> list[dict[str, Any]]:
        """The rows of the rounds beyond one, ascending, each with its "time"; of one recorded twice, the last."""
        with _reading(self.path) as connection:
            return [row for _, row in rows(connection, after)]

    def totals(self) -> dict[str, Any]:
        """Sums over the rounds, without reading each of them: for lists of many runs.

        rounds (the last one's number), seconds, uplink_bytes, downlink_bytes, dense_bytes, asked and replied (clients
        times rounds), loss and accuracy (of the last evaluation, or None), time (of the last round, or None).
        """
        with _reading(self.path) as connection:
            row = connection.execute(_TOTALS).fetchone()
        names = ("rounds", "seconds", "uplink_bytes", "downlink_bytes", "dense_bytes", "asked", "replied")
        found = {name: value if name == "seconds" else int(value) for name, value in zip(names, row, strict=False)}
        return {**found, "loss": row[7], "accuracy": row[8], "time": row[9]}

    def events(
        self, after: int = 0, kinds: Sequence[str] | None = None, limit: int | None = None, *, rounds: bool = False
    ) -> list[dict[str, Any]]:
        """The events beyond a sequence number, ascending: their fields, "sequence", "time" and "event".

        ``kinds``: these only. ``rounds``, or "round" among the kinds: the rows of the rounds in their places, too.
        ``limit``: the first so many, or the last so many where it is negative.
        """
        last = -limit if limit is not None and limit < 0 else -1  # of each sort; none for SQL where it is negative
        with _reading(self.path) as connection:
            found = connection.execute(
                "SELECT sequence, time, event, fields FROM events WHERE sequence > ?1 AND (?2 IS NULL OR event IN "
                "(SELECT value FROM json_each(?2))) ORDER BY sequence DESC LIMIT ?3",
                (after, None if kinds is None else json.dumps(list(kinds)), last),
            )
            events = [
                {**json.loads(fields), "sequence": sequence, "time": time, "event": event}
                for sequence, time, event, fields in found
            ]
            if rounds or (kinds is not None and "round" in kinds):
                told = rows(connection, _before(connection, after, last))
                events += [{**row, "sequence": number, "event": "round"} for number, row in told if number > after]
        events.sort(key=lambda event: int(event["sequence"]))
        if limit is None:
            return events
        return events[:limit] if limit >= 0 else events[limit:]

    def clients(self) -> list[dict[str, Any]]:
        """One record per client, in roster order.

        name, index, weight, examples, asked, replied and failures (in rounds), uplink_bytes, downlink_bytes,
        last_seen (seconds since 1970, or None) and mean_seconds (between question and answer, or None).
        """
        with _reading(self.path) as connection:
            found = connection.execute(_CLIENTS).fetchall()
            seen: dict[str, float] = dict(connection.execute(_SEEN).fetchall())
        return [
            {
                "name": name or "",
                "index": index,
                "weight": weight,
                "examples": examples,
                "asked": asked,
                "replied": replied,
                "failures": failures,
                "uplink_bytes": int(up),
                "downlink_bytes": int(down),
                "last_seen": max((time for time in (last, seen.get(name)) if time is not None), default=None),
                "mean_seconds": mean,
            }
            for name, index, weight, examples, asked, replied, failures, up, down, mean, last in found
        ]


def open_run(path: Path) -> StoredRun:
    """The record of a run directory. Raises ConfigError: no run is there, or one that only a newer Thinwire reads."""
    if not holds_record(path):
        raise ConfigError(f"{path} holds no run; give a run directory, as thinwire runs list shows them")
    with _reading(path):
        return StoredRun(path)


def holds_record(path: Path) -> bool:
    """Whether a folder holds the record of a run, of this version or an older one."""
    return any((path / name).is_file() for name in (NAME, OLD_METRICS, OLD_EVENTS))


def read_rounds(path: Path) -> list[dict[str, Any]]:
    """The rounds that a run directory's record holds, in order, each once; none where there is no record."""
    return open_run(path).rounds() if holds_record(path) else []


def _before(connection: sqlite3.Connection, after: int, last: int) -> int:
    """The round before those beyond a sequence number, or before the ``last`` of them where that is not negative."""
    query = "SELECT min(round) FROM (SELECT round FROM rounds WHERE sequence > ? ORDER BY round DESC LIMIT ?)"
    lowest = connection.execute(query, (after, last)).fetchone()[0]
    return LARGEST if lowest is None else int(lowest) - 1


@contextmanager
def _reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """A connection in one read transaction, at the present version of the schema."""
    path = folder / NAME
    try:
        with _opened(path) as connection:
            if version(connection, path) == VERSION:
                connection.execute("BEGIN")
                yield connection
                return
            with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:  # an older one is left as it is
                connection.backup(copy)
                migrate(copy, path)
                yield copy
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Read only. Where SQLite cannot share its log with a writer, there is none: the file and its log are copied."""
    if not path.exists():
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as empty:
            yield empty
        return
    try:
        connection = _connect(path, "mode=ro")
    except sqlite3.OperationalError as error:
        if "unable to open" not in str(error) and "readonly" not in str(error):
            raise
    else:
        with closing(connection):
            yield connection
        return
    with tempfile.TemporaryDirectory(prefix="thinwire-") as aside:
        copy = Path(aside) / NAME
        for suffix in ("", "-wal"):
            if (source := path.with_name(NAME + suffix)).exists():
                shutil.copyfile(source, copy.with_name(NAME + suffix))
        with closing(_connect(copy, "mode=rw")) as connection:
            yield connection


def _connect(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")  # the file is opened, and its log read, only now
    except BaseException:
        connection.close()
        raise
    return connection


__all__ = ["RunInfo", "StoredRun", "holds_record", "open_run", "read_rounds"]
