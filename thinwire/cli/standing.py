"""Where a run stands: as its server says, or as its record does; and ``thinwire status``."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from thinwire.cli.whereabouts import Json, Whereabouts, at_a_run

if TYPE_CHECKING:
    from rich.table import Table

    from server.run_store import StoredRun
    from thinwire.v1.operator_pb2 import Status

STATES = ("unknown", "gathering", "running", "paused", "stopping", "finished", "failed", "pausing")  # by RunState
OVER = frozenset({"finished", "failed", "stopped"})
METRICS = ("accuracy", "loss")  # shown first
WAYS = (("up", "uplink_bytes"), ("down", "downlink_bytes"))


@at_a_run()
def status(where: Whereabouts, json_: Json = False) -> None:
    """Where a run stands: of one that runs its server is asked, of one that is over its record."""
    found = standing(where)
    if json_:
        print(json.dumps(found))
        return
    from rich.console import Console

    Console().print(table(found))


def standing(where: Whereabouts) -> dict[str, Any]:
    """The fields of a status. Raises ConfigError where there is no run."""
    stored = where.record_told()
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
        "dense_uplink_bytes": status.dense_uplink_bytes,
        "metrics": dict(status.metrics),
        **_named(configuration),
        "configuration": configuration,
        "run_directory": status.run_directory,
        "last_event": status.last_event,
    }


def stored_fields(stored: "StoredRun") -> dict[str, Any]:
    """What a record says, with the same keys."""
    info, totals = stored.info, stored.totals()
    messages = max(1, totals["asked"] + totals["replied"])
    return {
        "source": "record",
        "run": info.run,
        "software": info.software,
        "state": info.state,
        "reason": info.reason,
        "round": totals["rounds"],
        "rounds": int(info.config.get("rounds", 0)),
        "attempt": 0,
        "asked": [],
        "replied": [],
        "round_seconds": 0.0,
        "seconds": totals["seconds"],
        "clients": int(info.config.get("clients", 0)),
        "connected": 0,
        **{f"{way}_bytes": totals[f"{way}_bytes"] for way in ("uplink", "downlink", "dense")},
        "dense_uplink_bytes": round(totals["dense_bytes"] * totals["replied"] / messages),
        "metrics": {name: totals[name] for name in METRICS if totals[name] is not None},
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
    folder, reason = found["run_directory"], found.get("reason") or "see its events"
    hints = {
        "paused": "thinwire resume goes on",
        "stopped": f"thinwire server --resume {folder} goes on",
        "killed": f"its server is gone; thinwire server --resume {folder} goes on, nothing is lost",
        "failed": reason if "--resume" in reason else f"{reason}; mend it, then thinwire server --resume {folder}",
        "gathering": "it is opened again" if found["round"] else "it begins when all its clients are there",
    }
    return hints.get(str(found["state"]), "")


def bytes_words(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Up and down, against what dense would have been."""
    from thinwire.cli.words import amount, times

    return [
        (way, f"{amount(found[key])}, {times(dense, found[key])} fewer than dense")
        for (way, key), dense in zip(WAYS, dense_of(found), strict=True)
    ]


def dense_of(found: Mapping[str, Any]) -> tuple[float, float]:
    """What dense would have been up and down, in bytes: a message for each answer that came, and for each question."""
    return found["dense_uplink_bytes"], found["dense_bytes"] - found["dense_uplink_bytes"]


def table(found: Mapping[str, Any]) -> "Table":
    """For people."""
    from rich.markup import escape
    from rich.table import Table

    shown = Table(box=None, show_header=False, pad_edge=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, words in _lines(found):
        shown.add_row(escape(name), escape(words))
    return shown


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What each line is about, and what it says."""
    from thinwire.cli.words import duration

    hint = onward(found)
    yield "run", f"{title(found)} ({found['run'][:12] or 'not begun'})"
    yield "state", f"{found['state']}{f' ({hint})' if hint else ''}"
    yield "round", f"{found['round']} of {found['rounds']}, {duration(found['seconds'])}"
    if found["asked"]:
        waiting = awaited(found)
        attempt = f", attempt {found['attempt'] + 1}" if found["attempt"] else ""
        open_round = f"open for {duration(found['round_seconds'])}{attempt}: {len(found['replied'])} of"
        missing = f", waiting for {', '.join(waiting[:8])}{' ...' if len(waiting) > 8 else ''}" if waiting else ""
        yield "", f"{open_round} {len(found['asked'])} answered{missing}"
    if found["source"] == "server":
        yield "clients", f"{found['connected']} of {found['clients']} connected"
    for name, value in ordered(found["metrics"]):
        yield name, f"{value:.4f}"
    yield from bytes_words(found)
    yield "directory", found["run_directory"]


def awaited(found: Mapping[str, Any]) -> list[str]:
    """Who has been asked in the open round and has not answered."""
    replied = set(found["replied"])
    return [name for name in found["asked"] if name not in replied]


def ordered(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """Accuracy and loss first."""
    first = [(name, metrics[name]) for name in METRICS if name in metrics]
    return first + sorted((name, value) for name, value in metrics.items() if name not in METRICS)


__all__ = ["OVER", "standing", "status", "status_fields", "stored_fields", "table"]
