"""Seconds per round of the whole stack on loopback: ``thinwire server`` and two ``thinwire client`` processes.

    python -m benchmarks.round_time [--rounds 60] [--width 964] [--json]

About a million parameters and trivial local work (one step on one example), so that the round is the server's and the
wire's: encoding, gRPC, checks, the journal on disk, the step. Time from the record of one round to that of the next.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import thinwire.flower  # noqa: F401  first: keeps Flower quiet before anything imports it

# isort: split
from benchmarks.deployment import QUIET, clients, digits_network, network_size, serving, wait_for_rounds

CLIENTS = 2
WARM_UP = 5  # rounds that are not counted
CASES: dict[str, dict[str, Any]] = {
    "FedAvg, dense both ways": {"method": "fedavg", "uplink": "identity", "downlink": "identity"},
    "EF21, top-k 1 % up, natural down": {"method": "ef21", "uplink": "top-k", "downlink": "natural"},
    "EF21, top-k 1 % both ways": {"method": "ef21", "uplink": "top-k", "downlink": "top-k"},
}


def measure(name: str, rounds: int, width: int, folder: Path) -> dict[str, Any]:
    """One case: median, best and 90th percentile."""
    options = {
        **{key: {"name": value} for key, value in CASES[name].items()},
        "clients": CLIENTS,
        "rounds": rounds + WARM_UP,
        "local": {"steps": 1, "batch": 1},
        "participation": {"fraction": 1.0},
        "evaluation": QUIET,
        "task": digits_network(width),
    }
    with serving(folder, options) as server, clients(server, CLIENTS, folder / "clients") as processes:
        rows = wait_for_rounds(server, rounds + WARM_UP, 300, processes)
    times = [row["time"] for row in rows]
    took = sorted(after - before for before, after in zip(times[WARM_UP - 1 :], times[WARM_UP:], strict=False))
    return {
        "case": name,
        "parameters": network_size(width),
        "clients": CLIENTS,
        "rounds": rounds,
        "median_seconds": statistics.median(took),
        "best_seconds": took[0],
        "slow_seconds": took[int(0.9 * len(took))],
        "uplink_bytes": rows[-1]["uplink_bytes"] / CLIENTS,
        "downlink_bytes": rows[-1]["downlink_bytes"] / CLIENTS,
    }


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.round_time", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--width", type=int, default=964, help="of the two hidden layers")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="thinwire-") as folder:
        found = [
            measure(name, options.rounds, options.width, Path(folder) / str(number))
            for number, name in enumerate(CASES)
        ]
    if options.json:
        print(json.dumps(found))
        return found
    print(f"{CLIENTS} clients, {network_size(options.width):,} parameters, {options.rounds} rounds\n")
    print("| | median s | best s | 90 % s | times the first | up, kB | down, kB |\n|---|---|---|---|---|---|---|")
    for row in found:
        seconds = " | ".join(f"{row[f'{key}_seconds']:.3f}" for key in ("median", "best", "slow"))
        ratio = row["median_seconds"] / found[0]["median_seconds"]
        sent = f"{row['uplink_bytes'] / 1000:.1f} | {row['downlink_bytes'] / 1000:.1f}"
        print(f"| {row['case']} | {seconds} | {ratio:.2f} | {sent} |")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
