"""Where a run stands: as its server says, or as its record does; and ``thinwire status``."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from thinwire.cli.whereabouts import Address, Ca, Certificate, Json, Key, RunDir, Whereabouts

if TYPE_CHECKING:
    from rich.table import Table

    from server.run_store import StoredRun
    from thinwire.v1.operator_pb2 import Status

STATES = ("unknown", "gathering", "running", "paused", "stopping", "finished", "failed", "pausing")  # by RunState
OVER = frozenset({"finished", "failed", "stopped"})
METRICS = ("accuracy", "loss")  # shown first


def status(
    run: RunDir = None,
    address: Address = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Where a run stands: of one that runs its server is asked, of one that is over its record."""
    found = standing(Whereabouts.of(run, address, ca, certificate, key))
    if json_:
        print(json.dumps(found))
        return
    from rich.console import Console

    Console().print(table(found))


def standing(where: Whereabouts) -> dict[str, Any]:
    """The fields of a status. Raises ConfigError where there is no run."""
    stored = where.stored()
    if stored is not None:
        return stored_fields(stored)
    with where.operator() as operator:
        return status_fields(operator.status())


def status_fields(status: "Status") -> dict[str, Any]:
    """What a server says, for scripts."""
    configuration = json.loads(status.configuration or "{}")
    return {
        "source": "server",
        "run": status.run,
        "software": status.software,
        "state": STATES[status.state] if status.state < len(STATES) else "unknown",
        "round": status.round,
        "rounds": status.rounds,
        "attempt": status.attempt,
        "asked": list(status.asked),
        "replied": list(status.replied),
        "round_seconds": status.round_seconds,
        "seconds": status.seconds,
        "clients": status.clients,
        "connected": status.connected,
        "uplink_bytes": status.uplink_bytes,
        "downlink_bytes": status.downlink_bytes,
        "dense_bytes": status.dense_bytes,
        "metrics": dict(status.metrics),
        **_named(configuration),
        "configuration": configuration,
        "run_directory": status.run_directory,
        "last_event": status.last_event,
    }


def stored_fields(stored: "StoredRun", rows: Iterable[Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """What a record says, with the same keys."""
    info = stored.info
    rows = list(stored.rounds() if rows is None else rows)
    last = rows[-1] if rows else {}
    metrics: dict[str, float] = {}
    for row in rows:
        metrics |= {name: row[name] for name in METRICS if row.get(name) is not None}
    seconds = sum(float(row.get("seconds") or 0) for row in rows)
    return {
        "source": "record",
        "run": info.run,
        "software": info.software,
        "state": info.state,
        "reason": info.reason,
        "round": int(last.get("round", 0)),
        "rounds": int(info.config.get("rounds", 0)),
        "attempt": 0,
        "asked": [],
        "replied": [],
        "round_seconds": 0.0,
        "seconds": seconds,
        "clients": int(info.config.get("clients", 0)),
        "connected": 0,
        **{f"{way}_bytes": sum(int(row[f"{way}_bytes"]) for row in rows) for way in ("uplink", "downlink", "dense")},
        "metrics": metrics,
        **_named(info.config),
        "configuration": info.config,
        "run_directory": str(stored.path.absolute()),
        "last_event": 0,
    }


def _named(configuration: Mapping[str, Any]) -> dict[str, str]:
    """The names of the parts."""

    def name(part: str) -> str:
        section = configuration.get(part, {})
        return str(section.get("name", "") if isinstance(section, Mapping) else section)

    return {part: name(part) for part in ("method", "uplink", "downlink", "task")}


def title(found: Mapping[str, Any]) -> str:
    """The run in a few words."""
    ways = f"{found['uplink'] or 'identity'} up, {found['downlink'] or 'identity'} down"
    return f"{found['method']} on {found['task']}, {ways}"


def onward(found: Mapping[str, Any]) -> str:
    """What the operator can do about the state; empty where nothing is to be done."""
    folder = found["run_directory"]
    hints = {
        "paused": "thinwire resume goes on",
        "stopped": f"thinwire server --resume {folder} goes on",
        "killed": f"its server is gone; thinwire server --resume {folder} goes on, nothing is lost",
        "failed": f"{found.get('reason') or 'see its events'}; mend it, then thinwire server --resume {folder}",
        "gathering": "it begins when all its clients are there",
    }
    return hints.get(str(found["state"]), "")


def bytes_words(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Up and down, against what dense would have been."""
    from thinwire.cli.words import amount, times

    dense = found["dense_bytes"] / 2
    return [
        (way, f"{amount(found[key])}, {times(dense, found[key])} fewer than dense")
        for way, key in (("up", "uplink_bytes"), ("down", "downlink_bytes"))
    ]


def table(found: Mapping[str, Any]) -> "Table":
    """For people."""
    from rich.table import Table

    from thinwire.cli.words import duration

    shown = Table(box=None, show_header=False, pad_edge=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    hint = onward(found)
    shown.add_row("run", f"{title(found)} ({found['run'][:12] or 'not begun'})")
    shown.add_row("state", f"{found['state']}{f' ({hint})' if hint else ''}")
    shown.add_row("round", f"{found['round']} of {found['rounds']}, {duration(found['seconds'])}")
    if found["asked"]:
        waiting = [name for name in found["asked"] if name not in found["replied"]]
        attempt = f", attempt {found['attempt'] + 1}" if found["attempt"] else ""
        open_round = f"open for {duration(found['round_seconds'])}{attempt}: {len(found['replied'])} of"
        missing = f", waiting for {', '.join(waiting[:8])}{' ...' if len(waiting) > 8 else ''}" if waiting else ""
        shown.add_row("", f"{open_round} {len(found['asked'])} answered{missing}")
    if found["source"] == "server":
        shown.add_row("clients", f"{found['connected']} of {found['clients']} connected")
    for name, value in ordered(found["metrics"]):
        shown.add_row(name, f"{value:.4f}")
    for way, words in bytes_words(found):
        shown.add_row(way, words)
    shown.add_row("directory", found["run_directory"])
    return shown


def ordered(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """Accuracy and loss first."""
    first = [(name, metrics[name]) for name in METRICS if name in metrics]
    return first + sorted((name, value) for name, value in metrics.items() if name not in METRICS)


__all__ = ["OVER", "standing", "status", "status_fields", "stored_fields", "table"]
