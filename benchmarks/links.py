"""A server and clients over thin, long and lossy links: bytes by three counters, a cut link, time to an accuracy.

    python -m benchmarks.links [--quick] [--only bytes|cut|accuracy] [--json]

Real processes, mutual TLS, a network namespace for each machine (needs root), links by ``tc netem`` or, where the
kernel has none, carried in user space. A minute with ``--quick``, a quarter of an hour without.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import thinwire.flower  # noqa: F401  first: keeps Flower quiet before anything imports it

# isort: split
from benchmarks.deployment import QUIET, digits_network, network_size
from benchmarks.far import Far, Traffic
from benchmarks.namespaces import Star, why_not
from benchmarks.wires import Link
from thinwire.cli.simulation import simulate
from thinwire.run_config import RunConfig

LINKS = (
    Link(1, 0.02),
    Link(1, 0.2, 0.01),
    Link(10, 0.05),
    Link(10, 0.2, 0.01),
    Link(100, 0.02),
    Link(100, 0.2, 0.01),
)
QUICK_LINKS = (Link(10, 0.1, 0.01),)
DENSE: dict[str, Any] = {
    "method": {"name": "fedavg"},
    "uplink": {"name": "identity"},
    "downlink": {"name": "identity"},
    "participation": {"fraction": 1.0},
    "seed": 1,
}
MESSAGE_BYTES = 340_000  # of DENSE on the digits' usual network
CUT_SECONDS = 20.0
WIDTH = 964  # two hidden layers of it are a million parameters
TARGET = 0.96  # accuracy on the server's held-out digits
ACCURACY_LINK = Link(10, 0.02)
THIN: dict[str, Any] = {
    "method": {"name": "ef14"},
    "uplink": {"name": "top-k", "fraction": 0.01},
    "downlink": {"name": "top-k", "fraction": 0.02},
    "optimiser": {"name": "sgd", "momentum": 0.5},
    "participation": {"fraction": 1.0},
    "seed": 1,
}


def bytes_row(link: Link, clients: int = 2, rounds: int = 3) -> dict[str, Any]:
    """Dense rounds over links of one kind: what the meter, TCP and the interfaces counted."""
    options = {**DENSE, "clients": clients, "rounds": rounds, "evaluation": QUIET}
    with tempfile.TemporaryDirectory() as tmp, Star([link] * clients) as star, Far(star, Path(tmp)) as far:
        far.start_all(options)
        same = far.finish(600) == _undisturbed(options, Path(tmp))
        rows = far.rounds()
        traffic = Traffic.of(rows, star.payloads(), [star.interface_bytes(index) for index in range(clients)])
        kind = star.kind
    seconds = [row["seconds"] for row in rows]
    over = {"over_up": traffic.over_up, "over_down": traffic.over_down, "round_seconds": min(seconds)}
    return {"link": str(link), "kind": kind, "same_model": same, **asdict(traffic), **over}


def cut_row(cut_seconds: float, keepalive_seconds: float) -> dict[str, Any]:
    """A link that is cut in the middle of an upload; the model, and the connections that it took."""
    link = Link(1, 0.04)
    options = {**DENSE, "clients": 1, "rounds": 3, "evaluation": QUIET}
    with tempfile.TemporaryDirectory() as tmp, Star([link]) as star, Far(star, Path(tmp), keepalive_seconds) as far:
        far.start_all(options)
        far.wait_for(lambda: star.interface_bytes(0)[0] > MESSAGE_BYTES // 2, "upload under way", 120)
        star.cut(0)
        time.sleep(cut_seconds)
        star.cut(0, False)
        same = far.finish(600) == _undisturbed(options, Path(tmp))
        rows = far.rounds()
        payloads = star.payloads()
    return {
        "link": str(link),
        "cut_seconds": cut_seconds,
        "keepalive_seconds": keepalive_seconds,
        "same_model": same,
        "rounds": [row["round"] for row in rows],
        "attempts": [row["attempt"] for row in rows],
        "seconds": [row["seconds"] for row in rows],
        "meter_up": sum(row["uplink_bytes"] for row in rows),
        "payload_up": sum(one.received_bytes for one in payloads),
        "connections": len([one for one in payloads if one.received_bytes > MESSAGE_BYTES // 10]),
    }


def accuracy_row(name: str, options: dict[str, Any], rounds: int, clients: int = 2) -> dict[str, Any]:
    """Seconds from the first question until the server's model has the accuracy."""
    local = {"steps": 5, "rate": 0.1}
    options = {**options, "clients": clients, "rounds": rounds, "local": local, "task": digits_network(WIDTH)}
    links = [ACCURACY_LINK] * clients
    with tempfile.TemporaryDirectory() as tmp, Star(links) as star, Far(star, Path(tmp)) as far:
        far.start_all(options)
        far.wait_for(lambda: _reached(far) or len(far.rounds()) >= rounds, "end of the run", 1_200)
        rows = far.rounds()
    began = rows[0]["time"] - rows[0]["seconds"]
    reached = next((row for row in rows if row["accuracy"] >= TARGET), None)
    took = sorted(after["time"] - before["time"] for before, after in pairwise(rows))
    return {
        "run": name,
        "link": str(ACCURACY_LINK),
        "parameters": network_size(WIDTH),
        "accuracy": TARGET,
        "rounds": reached["round"] if reached else None,
        "seconds": reached["time"] - began if reached else None,
        "first_round_seconds": rows[0]["seconds"],
        "round_seconds": took[len(took) // 2],
        "uplink_bytes": rows[-1]["uplink_bytes"] / clients,
        "downlink_bytes": rows[-1]["downlink_bytes"] / clients,
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Measure and print, as tables or as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.links", description="Thin, long and lossy links.")
    parser.add_argument("--quick", action="store_true", help="one link, a short cut, no accuracy")
    parser.add_argument("--only", choices=["bytes", "cut", "accuracy"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    reason = why_not()
    if reason is not None:
        print(f"no links to measure on: {reason}", file=sys.stderr)
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    if options.only in (None, "bytes"):
        found["bytes"] = [bytes_row(link) for link in (QUICK_LINKS if options.quick else LINKS)]
    if options.only in (None, "cut"):
        cuts = ((2.0, 1.0),) if options.quick else ((CUT_SECONDS, 30.0), (CUT_SECONDS, 5.0))
        found["cut"] = [cut_row(*cut) for cut in cuts]
    if options.only == "accuracy" or (options.only is None and not options.quick):
        rounds = 8 if options.quick else 60
        found["accuracy"] = [accuracy_row("dense FedAvg", DENSE, rounds), accuracy_row("EF14, top-k", THIN, 2 * rounds)]
    print(json.dumps(found, indent=2) if options.json else _tables(found))
    return found


def _undisturbed(options: dict[str, Any], folder: Path) -> bytes:
    """The model of the same run in one process."""
    return (simulate(RunConfig.of(options), folder / "simulated").run_dir / "model.safetensors").read_bytes()


def _reached(far: Far) -> bool:
    return any(row.get("accuracy", 0.0) >= TARGET for row in far.rounds())


def _tables(found: dict[str, list[dict[str, Any]]]) -> str:
    lines: list[str] = []
    for row in found.get("bytes", []):
        up, down = (f"{row[f'packets_{way}']:,} B, TCP +{row[f'over_{way}']:.2%}" for way in ("up", "down"))
        sent = f"interfaces {row['interface_up']:,} / {row['interface_down']:,} B"
        same = "same model" if row["same_model"] else "ANOTHER MODEL"
        lines.append(f"{row['link']:28} {row['round_seconds']:7.2f} s/round  up {up}; down {down}; {sent}; {same}")
    for row in found.get("cut", []):
        same = "same model" if row["same_model"] else "ANOTHER MODEL"
        kept = f"cut for {row['cut_seconds']:g} s, keepalive {row['keepalive_seconds']:g} s"
        seconds = ", ".join(f"{one:.1f}" for one in row["seconds"])
        lines.append(f"{row['link']}, {kept}: rounds of {seconds} s, {row['connections']} connection(s), {same}")
    rows = found.get("accuracy", [])
    for row in rows:
        reached = "never" if row["seconds"] is None else f"{row['seconds']:.1f} s, {row['rounds']} rounds"
        each = (
            f"{row['round_seconds']:.2f} s a round, {row['uplink_bytes']:,.0f} B up, {row['downlink_bytes']:,.0f} down"
        )
        lines.append(f"{row['run']:14} {row['accuracy']:.0%} after {reached} ({each})")
    if rows and all(row["seconds"] for row in rows):
        lines.append(f"{rows[0]['seconds'] / rows[1]['seconds']:.1f} times faster")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
