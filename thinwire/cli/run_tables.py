"""Tables of runs, for people."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thinwire.cli.fitting import print_fitting
from thinwire.cli.run_comparing import Comparison
from thinwire.cli.run_folders import Listed
from thinwire.cli.run_labels import flat
from thinwire.cli.words import amount, duration, shown, times

SPARE_OF_LIST = ("started", "on disk", "down", "up", "task", "bytes", "loss")  # on a narrow terminal, in this order
SPARE_OF_CLIENTS = ("weight", "mean time", "examples", "failed", "last seen")


def list_table(found: Sequence[Listed], without: frozenset[str] = frozenset()) -> Table:
    """A line for each run; some columns may be left out."""
    words = ("run", "state", "method", "up", "down", "task")
    names = (*words, "rounds", "accuracy", "loss", "bytes", "started", "on disk")
    table = Table(box=None, pad_edge=False)
    for name in names:
        if name not in without:
            table.add_column(name, justify="left" if name in words else "right", no_wrap=name not in words[1:])
    for run in found:
        cells = dict.fromkeys(names, "") | {"run": escape(run.name), "state": run.state}
        if run.info is not None:
            info, totals = run.info, run.totals
            planned = info.config.get("rounds")
            cells |= {"method": info.method, "up": info.uplink, "down": info.downlink, "task": info.task}
            cells["rounds"] = f"{totals['rounds']}/{planned}" if planned else str(totals["rounds"])
            cells |= {"accuracy": _percent(totals["accuracy"]), "loss": _plain(totals["loss"])}
            cells["bytes"] = amount(totals["uplink_bytes"] + totals["downlink_bytes"])
            cells["started"] = _moment(info.started)[:16]
        cells["on disk"] = amount(run.size_bytes)
        table.add_row(*[cells[name] for name in names if name not in without])
    return table


def print_run(found: dict[str, Any], clients: int) -> None:
    """What ``thinwire runs show`` says, one table after the other; of the clients the first so many."""
    console = Console()
    console.print(_facts(found), highlight=False)
    if found["clients"] and clients:
        console.print()
        print_fitting(lambda without: _clients(found["clients"][:clients], without), SPARE_OF_CLIENTS)
        if len(found["clients"]) > clients:
            console.print(f"... and {len(found['clients']) - clients} more: --clients N, or thinwire clients list")
    for table in (_configuration(found["config"]), _events(found["events"])):
        if table.row_count:
            console.print()
            console.print(table, highlight=False)


def _facts(found: dict[str, Any]) -> Table:
    table = _plain_table("")
    totals, planned = found["totals"], found["config"].get("rounds")
    ways = f"{found['uplink'] or '-'} up, {found['downlink'] or '-'} down"
    for name, value in {
        "run": found["run_dir"],
        "id": found["run"] or "-",
        "state": found["state"] + (f": {found['reason']}" if found["reason"] else ""),
        "method": f"{found['method'] or '-'}: {ways}",
        "task": f"{found['task'] or '-'}, seed {found['seed']}",
        "rounds": f"{totals['rounds']}" + (f" of {planned}" if planned else ""),
        "accuracy": _percent(totals["accuracy"]),
        "loss": _plain(totals["loss"]),
        "up": amount(totals["uplink_bytes"]),
        "down": amount(totals["downlink_bytes"]),
        "than dense": f"{times(totals['dense_bytes'], totals['uplink_bytes'] + totals['downlink_bytes'])} fewer",
        "in rounds": duration(totals["seconds"]),
        "started": _moment(found["started"]),
        "ended": _moment(found["ended"]),
        "processes": str(found["processes"]),
        "software": f"{found['software'] or 'unknown'}, schema version {found['schema_version']}",
        "on disk": amount(found["size_bytes"]),
    }.items():
        table.add_row(f"[bold]{name}", escape(value))
    return table


def _clients(clients: Sequence[Mapping[str, Any]], without: frozenset[str]) -> Table:
    names = ("examples", "weight", "asked", "replied", "failed", "up", "down", "mean time", "last seen")
    table = Table(box=None, pad_edge=False, title="clients", title_justify="left")
    table.add_column("client", overflow="fold")
    for name in names:
        if name not in without:
            table.add_column(name, justify="right", no_wrap=True)
    for client in clients:
        cells = {
            "examples": "-" if client["examples"] is None else str(client["examples"]),
            "weight": "-" if client["weight"] is None else f"{client['weight']:.4f}",
            "asked": str(client["asked"]),
            "replied": str(client["replied"]),
            "failed": str(client["failures"]),
            "up": amount(client["uplink_bytes"]),
            "down": amount(client["downlink_bytes"]),
            "mean time": duration(client["mean_seconds"]),
            "last seen": _moment(client["last_seen"]),
        }
        shown = [cells[name] for name in names if name not in without]
        table.add_row(escape(client["name"]) or f"#{client['index']}", *shown)
    return table


def _configuration(config: Mapping[str, Any]) -> Table:
    table = _plain_table("configuration")
    for key, value in flat(config).items():
        table.add_row(escape(key), escape(json.dumps(value)))
    return table


def _events(events: Sequence[Mapping[str, Any]]) -> Table:
    table = _plain_table("last events", columns=3)
    for event in events:
        known = {key: value for key, value in event.items() if key not in ("sequence", "time", "event")}
        told = [f"{key} {len(value) if isinstance(value, list) else value}" for key, value in known.items()]
        table.add_row(_moment(event["time"]), escape(event["event"]), escape(shown(", ".join(told))))
    return table


def _plain_table(title: str, columns: int = 2) -> Table:
    """Without lines and heads; only the last column may take more than one line."""
    table = Table(box=None, show_header=False, pad_edge=False, title=title or None, title_justify="left")
    for _ in range(columns - 1):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def comparison_table(comparison: Comparison) -> Table:
    """A column for each run."""
    summaries = comparison.summaries
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for summary in summaries:
        table.add_column(escape(summary.label), justify="right", overflow="fold")

    def row(title: str, cells: Sequence[str]) -> None:
        if any(cell != "-" for cell in cells):
            table.add_row(title, *cells)

    row("run", [escape(path.name) for path in comparison.paths])
    row("state", list(comparison.states))
    row("rounds", [str(summary.rounds) for summary in summaries])
    row("accuracy", [_percent(summary.accuracy) for summary in summaries])
    row("best accuracy", [_percent(summary.best_accuracy) for summary in summaries])
    row("loss", [_plain(summary.loss) for summary in summaries])
    row("time in rounds", [duration(summary.seconds) for summary in summaries])
    row("time on the simulated links", [duration(summary.simulated_seconds) for summary in summaries])
    row("up", [amount(summary.uplink_bytes) for summary in summaries])
    row("down", [amount(summary.downlink_bytes) for summary in summaries])
    sent = [summary.uplink_bytes + summary.downlink_bytes for summary in summaries]
    row("fewer than dense", [times(dense, own) for dense, own in zip(comparison.dense_bytes, sent, strict=True)])
    for metric, goal in comparison.goals.items():
        table.add_section()
        shown = _percent(goal) if metric == "accuracy" else _plain(goal)
        costs = [found[metric] for found in comparison.costs]
        table.add_row(f"[bold]to {metric} {shown}", *["" if cost else "not reached" for cost in costs])
        row("  rounds", [f"{cost['round']:.0f}" if cost else "-" for cost in costs])
        row("  time in rounds", [duration(cost["seconds"]) if cost else "-" for cost in costs])
        row("  simulated time", [duration(cost.get("simulated_seconds")) if cost else "-" for cost in costs])
        row("  up", [amount(cost["uplink_bytes"]) if cost else "-" for cost in costs])
        row("  up and down", [amount(cost["total_bytes"]) if cost else "-" for cost in costs])
    if comparison.differing:
        table.add_section()
        table.add_row("[bold]configured differently")
    for key in comparison.differing:
        found = [options.get(key) for options in comparison.configurations]
        table.add_row(escape(f"  {key}"), *["-" if value is None else escape(str(value)) for value in found])
    return table


def _moment(time: float | None) -> str:
    return "-" if time is None else f"{datetime.fromtimestamp(time):%Y-%m-%d %H:%M:%S}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
