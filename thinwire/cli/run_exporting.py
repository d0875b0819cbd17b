"""A run's record as a table or as JSON, for other programs."""

import csv
import importlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from server.run_store import StoredRun
from thinwire.errors import ConfigError

What = Literal["rounds", "clients", "client-rounds", "events"]
Format = Literal["csv", "json", "jsonl", "parquet"]
FORMATS: tuple[str, ...] = get_args(Format)
WHATS: tuple[str, ...] = get_args(What)
FIRST = ("round", "time", "attempt", "seconds", "uplink_bytes", "downlink_bytes", "dense_bytes", "asked", "replied")
BY_CLIENT = ("client_bytes", "client_seconds")

Rows = Sequence[Mapping[str, Any]]


def chosen_format(named: str | None, out: Path | None) -> Format:
    """As named, or by the file's ending, or csv. Raises ConfigError for another, and for parquet without a file."""
    ending = out.suffix.lstrip(".") if out is not None else ""
    name = named or (ending if ending in FORMATS else "csv")
    if name not in FORMATS:
        raise ConfigError(f"--format {name} is unknown; choose one of {', '.join(FORMATS)}")
    if name == "parquet" and out is None:
        raise ConfigError("parquet is no text: name a file with --out")
    return name  # type: ignore[return-value]  # it is one of them


def what_of(name: str) -> What:
    """Raises ConfigError for another."""
    if name not in WHATS:
        raise ConfigError(f"--what {name} is unknown; choose one of {', '.join(WHATS)}")
    return name  # type: ignore[return-value]  # it is one of them


def records(run: StoredRun, what: What, style: Format) -> Rows:
    """The records; as they are for JSON, with plain columns for tables."""
    if what == "client-rounds":
        return client_rounds(run)
    if what == "clients":
        return run.clients()
    rows: Rows = run.rounds() if what == "rounds" else run.events()
    if style in ("json", "jsonl"):
        return rows
    return [round_columns(row) for row in rows] if what == "rounds" else [event_columns(event) for event in rows]


def client_rounds(run: StoredRun) -> list[dict[str, Any]]:
    """One record for each client that had to do with a round, in every round."""
    names = {client["index"]: client["name"] for client in run.clients()}
    found = []
    for row in run.rounds():
        sizes, seconds = row.get("client_bytes", {}), row.get("client_seconds", {})
        asked, replied = set(row.get("asked", ())), set(row.get("replied", ()))
        for client in sorted(asked | replied | {int(index) for index in (*sizes, *seconds)}):
            up, down = sizes.get(str(client), (None, None))
            found.append(
                {
                    "round": row["round"],
                    "client": client,
                    "name": names.get(client, ""),
                    "asked": client in asked,
                    "replied": client in replied,
                    "uplink_bytes": up,
                    "downlink_bytes": down,
                    "seconds": seconds.get(str(client)),
                }
            )
    return found


def round_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Of the clients their numbers; the metrics of training as train.NAME."""
    columns: dict[str, Any] = {name: row.get(name) for name in FIRST}
    columns |= {name: len(row.get(name) or ()) for name in ("asked", "replied")}
    plain = {name: value for name, value in row.items() if name not in (*FIRST, *BY_CLIENT, "train")}
    columns |= {name: _cell(value) for name, value in plain.items()}
    return columns | {f"train.{name}": _cell(value) for name, value in (row.get("train") or {}).items()}


def event_columns(event: Mapping[str, Any]) -> dict[str, Any]:
    """Sequence, time, event, client, round, and the rest as JSON."""
    first = ("sequence", "time", "event", "client", "round")
    rest = {name: value for name, value in event.items() if name not in first}
    return {name: _cell(event.get(name)) for name in first} | {"fields": json.dumps(rest)}


def text(rows: Rows, style: Format) -> str:
    """The records as csv, json or jsonl."""
    if style == "json":
        return json.dumps(rows, indent=1) + "\n"
    if style == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows)
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns_of(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def write_parquet(rows: Rows, out: Path) -> None:
    """Raises ConfigError without pyarrow."""
    try:
        pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError("parquet needs pyarrow: pip install pyarrow, or choose csv, json or jsonl") from None
    columns = {name: [row.get(name) for row in rows] for name in columns_of(rows)}
    parquet.write_table(pyarrow.table(columns), out)


def columns_of(rows: Rows) -> list[str]:
    """Every column that a record has, in the order in which they come up."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float)) else json.dumps(value)
