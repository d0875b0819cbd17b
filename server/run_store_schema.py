"""The tables of run.sqlite, its versions, and the way from each version to the next."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.run_store_rows import as_json, statements
from thinwire.config import read_toml
from thinwire.errors import ConfigError

NAME = "run.sqlite"
APPLICATION = 0x54574952  # "TWIR", so that `file run.sqlite` and we can tell it from other databases
OLD_METRICS, OLD_EVENTS = "metrics.jsonl", "events.jsonl"  # of version 0, which had no database
STATES = ("running", "finished", "stopped", "failed")

TABLES = f"""
CREATE TABLE run (
    only INTEGER PRIMARY KEY CHECK (only = 1), -- a run directory holds one run
    id TEXT NOT NULL,                          -- 32 hexadecimal digits; '' until the clients are there
    method TEXT NOT NULL,
    uplink TEXT NOT NULL,                      -- compressor from client to server
    downlink TEXT NOT NULL,                    -- compressor from server to client
    task TEXT NOT NULL,
    seed INTEGER NOT NULL,
    config TEXT NOT NULL,                      -- JSON: the whole configuration, as last used
    state TEXT NOT NULL CHECK (state IN {STATES}),
    reason TEXT NOT NULL,                      -- why it stopped or failed, or ''
    started REAL NOT NULL,                     -- seconds since 1970
    ended REAL,                                -- seconds since 1970; NULL while it runs
    processes INTEGER NOT NULL,                -- server processes that have worked on it: 1 + resumptions
    software TEXT NOT NULL                     -- version of Thinwire that wrote last
);
CREATE TABLE rounds (
    round INTEGER PRIMARY KEY,                 -- from 1
    sequence INTEGER NOT NULL,                 -- place in the run's record, counted together with the events
    time REAL NOT NULL,                        -- seconds since 1970, when it was decided and evaluated
    attempt INTEGER,                           -- repetitions with other cohorts before this one
    seconds REAL,                              -- from the first question to the decision
    uplink_bytes INTEGER,                      -- as received from all clients
    downlink_bytes INTEGER,                    -- as sent to all clients
    dense_bytes INTEGER,                       -- what float32 both ways would have been
    asked INTEGER,                             -- number of clients
    replied INTEGER,                           -- number of clients whose replies count
    loss REAL,                                 -- of the evaluation after this round, if there was one
    accuracy REAL,                             -- likewise, in [0, 1]
    metrics TEXT NOT NULL,                     -- JSON: all metrics of the evaluation, loss and accuracy among them
    train TEXT                                 -- JSON: metrics of local training, weighted by the clients' weights
);
CREATE TABLE client_rounds (
    round INTEGER NOT NULL,
    client INTEGER NOT NULL,                   -- index in the roster, from 0
    asked INTEGER NOT NULL,                    -- 1: in the cohort
    replied INTEGER NOT NULL,                  -- 1: its reply counts
    uplink_bytes INTEGER,                      -- as received from it; NULL: nothing went either way
    downlink_bytes INTEGER,                    -- as sent to it
    seconds REAL,                              -- from question to accepted answer
    PRIMARY KEY (round, client)
) WITHOUT ROWID;
CREATE TABLE clients (
    client INTEGER PRIMARY KEY,                -- index in the roster, from 0
    name TEXT NOT NULL,
    weight REAL,                               -- p_i
    examples INTEGER
);
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, -- place in the run's record, counted together with the rounds
    time REAL NOT NULL,                        -- seconds since 1970
    event TEXT NOT NULL,                       -- what happened: roster, resumed, refused, hostile, fleet-opened, ...
    client TEXT,                               -- name of the client that it is about
    round INTEGER,                             -- that it belongs to
    fields TEXT NOT NULL                       -- JSON: everything about it
);
"""


def create_and_import(connection: sqlite3.Connection, folder: Path) -> None:
    """From 0 to 1: the tables, and what metrics.jsonl and events.jsonl of an older Thinwire hold; the files stay."""
    for statement in TABLES.split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    records = [("round", line) for line in _lines(folder / OLD_METRICS) if isinstance(line.get("round"), int)]
    records += [(str(line["event"]), line) for line in _lines(folder / OLD_EVENTS) if "event" in line]
    if not records:
        return
    records.sort(key=lambda record: float(record[1].get("time") or 0.0))
    times = [float(fields.get("time") or 0.0) for _, fields in records]
    config = read_toml(folder / "run.toml") if (folder / "run.toml").exists() else {}
    done = (folder / "model.safetensors").exists()
    insert_run(connection, config, times[0], "")
    state = ("finished" if done else "stopped", "" if done else "imported from a run of an older Thinwire", times[-1])
    connection.execute("UPDATE run SET state = ?, reason = ?, ended = ?", state)
    for sequence, (kind, fields) in enumerate(records, 1):
        shown = {key: value for key, value in fields.items() if key not in ("time", "event")}
        for sql, values in statements(sequence, times[sequence - 1], kind, shown):
            connection.executemany(sql, values)


MIGRATIONS: tuple[Callable[[sqlite3.Connection, Path], None], ...] = (create_and_import,)
VERSION = len(MIGRATIONS)


def version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of an open database. Raises ConfigError for a newer one than we know, and for other databases."""
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if found and application != APPLICATION:
        raise ConfigError(f"{path} is another program's database, not the record of a run")
    if found > VERSION:
        raise ConfigError(
            f"{path} has schema version {found} and this Thinwire knows versions up to {VERSION}; "
            "use the newer Thinwire that wrote it"
        )
    return found


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a database to the present version, in one transaction. Raises ConfigError as ``version`` does."""
    if version(connection, path) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in MIGRATIONS[version(connection, path) :]:
            step(connection, path.parent)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def insert_run(connection: sqlite3.Connection, config: dict[str, Any], started: float, software: str) -> None:
    """The run's one row, anew."""
    names = [_name(config, section) for section in ("method", "uplink", "downlink", "task")]
    values = ("", *names, int(config.get("seed", 0)), as_json(config), "running", "", started, None, 1, software)
    connection.execute(f"INSERT OR REPLACE INTO run VALUES (1, {', '.join('?' * len(values))})", values)


def _name(config: dict[str, Any], section: str) -> str:
    found = config.get(section, "")
    return str(found.get("name", "")) if isinstance(found, dict) else str(found)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file; one cut off by a kill is left out."""
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
