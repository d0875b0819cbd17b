"""Rounds and events as rows of the tables of run.sqlite, and back."""

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

Statement = tuple[str, list[tuple[Any, ...]]]

COUNTED = ("attempt", "seconds", "uplink_bytes", "downlink_bytes", "dense_bytes")  # columns of their own
BY_CLIENT = ("asked", "replied", "client_bytes", "client_seconds")  # in the table client_rounds
LARGEST = (1 << 63) - 1  # integer in a column
MOST_CHARACTERS = 4000  # of one text in an event; a peer may have had a say in it

ROUND = f"INSERT OR REPLACE INTO rounds VALUES ({', '.join('?' * 14)})"
CLIENT_ROUND = f"INSERT INTO client_rounds VALUES ({', '.join('?' * 7)})"
CLIENT = """INSERT INTO clients (client, name, weight, examples) VALUES (?, ?, ?, ?)
ON CONFLICT (client) DO UPDATE SET name = excluded.name, weight = excluded.weight, examples = excluded.examples"""
EVENT = "INSERT INTO events (sequence, time, event, client, round, fields) VALUES (?, ?, ?, ?, ?, ?)"


def statements(sequence: int, time: float, kind: str, fields: Mapping[str, Any]) -> list[Statement]:
    """What to execute, in one transaction, to record this; ``kind`` is "round" for a row and the event's name else."""
    if kind == "round":
        return _round(sequence, time, fields)
    shown = {key: _short(value) for key, value in fields.items()}
    client, number = fields.get("client"), fields.get("round")
    event = (
        sequence,
        time,
        kind,
        client if isinstance(client, str) else None,
        number if isinstance(number, int) else None,
        as_json(shown),
    )
    found: list[Statement] = [(EVENT, [event])]
    if kind == "roster":
        found.append((CLIENT, [_client(place, client) for place, client in enumerate(fields.get("clients", ()))]))
        if fields.get("run"):
            found.append(("UPDATE run SET id = ?", [(str(fields["run"]),)]))
    if kind == "resumed":  # what had been recorded beyond it is undone: the journal's tail or a checkpoint was lost
        beyond = [(int(fields["round"]),)]
        found += [(f"DELETE FROM {table} WHERE round > ?", beyond) for table in ("rounds", "client_rounds")]
    return found


def rows(connection: sqlite3.Connection, after: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The sequence number and the row of each round beyond a round, ascending."""
    parts = connection.execute(
        "SELECT round, client, asked, replied, uplink_bytes, downlink_bytes, seconds FROM client_rounds "
        "WHERE round > ? ORDER BY round, client",
        (after,),
    )
    part = parts.fetchone()
    query = (
        f"SELECT round, sequence, time, {', '.join(COUNTED)}, asked, metrics, train FROM rounds "
        "WHERE round > ? ORDER BY round"
    )
    for number, sequence, time, *counted, asked, metrics, train in connection.execute(query, (after,)):
        row = {**json.loads(metrics), "time": time, "round": number}
        row |= {name: value for name, value in zip(COUNTED, counted, strict=True) if value is not None}
        if asked is not None:
            row |= {"asked": [], "replied": [], "client_bytes": {}, "client_seconds": {}}
        while part is not None and part[0] <= number:
            if part[0] == number and asked is not None:
                _add(row, *part[1:])
            part = parts.fetchone()
        if train is not None:
            row["train"] = json.loads(train)
        yield sequence, row


def _add(row: dict[str, Any], client: int, asked: int, replied: int, up: int, down: int, seconds: float) -> None:
    if asked:
        row["asked"].append(client)
    if replied:
        row["replied"].append(client)
    if up is not None:
        row["client_bytes"][str(client)] = [up, down]
    if seconds is not None:
        row["client_seconds"][str(client)] = seconds


def as_json(value: Any) -> str:
    """JSON; what is not finite is null, and what JSON does not know is text."""
    return json.dumps(_plain(value), default=str)


def _round(sequence: int, time: float, row: Mapping[str, Any]) -> list[Statement]:
    number = int(row["round"])
    known = {"round", "time", "train", *COUNTED, *BY_CLIENT}
    metrics = {key: value for key, value in row.items() if key not in known}
    asked, replied = row.get("asked"), row.get("replied")
    sizes, seconds = row.get("client_bytes", {}), row.get("client_seconds", {})
    line = (
        number,
        sequence,
        time,
        *(row.get(name) for name in COUNTED),
        None if asked is None else len(asked),
        None if replied is None else len(replied),
        _number(row.get("loss")),
        _number(row.get("accuracy")),
        as_json(metrics),
        as_json(row["train"]) if "train" in row else None,
    )
    was_asked, has_replied = set(asked or ()), set(replied or ())
    clients = was_asked | has_replied | {int(client) for client in (*sizes, *seconds)}
    parts = [
        (
            number,
            client,
            client in was_asked,
            client in has_replied,
            *(sizes.get(str(client)) or (None, None)),
            seconds.get(str(client)),
        )
        for client in sorted(clients)
    ]
    return [
        (ROUND, [line]),
        ("DELETE FROM client_rounds WHERE round = ?", [(number,)]),
        (CLIENT_ROUND, parts),
    ]


def _client(place: int, client: Mapping[str, Any]) -> tuple[Any, ...]:
    examples = client.get("examples")  # what it says it has, up to 2^64 - 1
    return client.get("index", place), client["name"], client.get("weight"), examples and min(examples, LARGEST)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MOST_CHARACTERS:
        return value[:MOST_CHARACTERS] + "..."
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
