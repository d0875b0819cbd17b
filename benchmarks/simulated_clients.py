"""Memory and rounds per second of ``thinwire simulate`` as the federation grows, 100 clients asked per round.

    python -m benchmarks.simulated_clients [--quick] [--json] [--clients 100 1000 10000] [--rounds 30] [--workers 1 2]

Trivial clients (one step on 8 examples, drawn from a pool that they share), so that what is measured is the simulation:
the messages, the protocol, the codecs, the states. Every row is a process of its own. Peak memory is that of the
server's process and of its workers together; rounds per second are without the enrolment, which every client passes
once. "EF21, large" has a state of 340 kB per client, of which the process keeps 64 MB; the others are mapped from disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import thinwire.flower  # noqa: F401  first: keeps Flower quiet before anything imports it

# isort: split
from server.evaluation import ServerModel
from server.run_directory import RunDirectory
from strategies.coordinator import Decided
from strategies.flower import MethodStrategy
from thinwire.cli.engines import InProcess
from thinwire.run_config import RunConfig
from thinwire.wire.exchange import new_run

COHORT = 100
WARM_UP = 2  # rounds that are not counted
MEGABYTE = 1_000_000
DIRECT = {"name": "blockwise-8bit", "channel": "direct"}
CASES: dict[str, dict[str, Any]] = {
    "FedAvg, dense": {"method": "fedavg", "uplink": "identity", "downlink": "identity", "hidden": [32]},
    "EF21, top-k up": {"method": "ef21", "uplink": "top-k", "downlink": DIRECT, "hidden": [32]},
    "EF21, large": {"method": "ef21", "uplink": "top-k", "downlink": DIRECT, "hidden": [256, 256]},
}


def measure(case: str, clients: int, rounds: int, workers: int) -> dict[str, Any]:
    """One simulation in this process."""
    options = {key: value for key, value in CASES[case].items() if key != "hidden"}
    config = RunConfig.of(
        {
            **options,
            "clients": clients,
            "rounds": rounds + WARM_UP,
            "local": {"steps": 1, "batch": 8},
            "participation": {"fraction": min(COHORT, clients) / clients},
            "evaluation": {"where": "none"},
            "task": {"name": "digits", "hidden": CASES[case]["hidden"], "partition": "drawn"},
        }
    )
    model = ServerModel.of(config, "cpu")
    ends: list[float] = []
    peaks: dict[int, int] = {}
    disk_bytes = 0

    with tempfile.TemporaryDirectory(prefix="thinwire-") as name:
        states, folder = Path(name) / "clients", RunDirectory(Path(name) / "run", durable=False)

        def on_round(decided: Decided, metrics: Mapping[str, float]) -> None:
            ends.append(time.perf_counter())
            for process in (0, *_children()):
                peaks[process] = max(peaks.get(process, 0), _peak_bytes(process))

        strategy = MethodStrategy(config, layout=model.layout, buffers=model.buffers)
        strategy.of_run(new_run(), folder, on_round)
        started = time.perf_counter()
        InProcess(workers).play(
            config, "cpu", states, lambda grid: strategy.start(grid, model.initial_arrays(), config.rounds)
        )
        folder.close()
        disk_bytes = sum(path.stat().st_size for path in states.rglob("*.state"))
    took = sorted(after - before for before, after in zip(ends[WARM_UP - 1 :], ends[WARM_UP:], strict=False))
    return {
        "case": case,
        "clients": clients,
        "workers": workers,
        "rounds_per_second": 1 / took[len(took) // 2],
        "first_round_seconds": ends[0] - started,
        "peak_bytes": sum(peaks.values()),
        "disk_bytes": disk_bytes,
    }


def _children() -> list[int]:
    """The workers of this process."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _peak_bytes(process: int) -> int:
    """The most resident memory that a process had; 0 is this one."""
    try:
        status = Path(f"/proc/{process or 'self'}/status").read_text()
    except OSError:
        return 0  # it has ended
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def in_own_process(case: str, clients: int, rounds: int, workers: int) -> dict[str, Any]:
    """As ``measure``: the peak of a process never falls."""
    command = [sys.executable, "-m", "benchmarks.simulated_clients", "--one", case, str(clients), str(rounds)]
    done = subprocess.run([*command, str(workers)], check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulated_clients", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="100 and 1,000 clients, 5 rounds, one worker")
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--one", nargs=4, metavar=("CASE", "CLIENTS", "ROUNDS", "WORKERS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        case, *numbers = options.one
        print(json.dumps(measure(case, *map(int, numbers))))
        return []
    if options.quick:
        options.clients, options.rounds, options.workers = [100, 1000], 5, [1]
    found = [
        in_own_process(case, clients, options.rounds, workers)
        for case in options.cases
        for workers in options.workers
        for clients in options.clients
    ]
    if options.json:
        print(json.dumps(found))
        return found
    print(f"{COHORT} clients asked per round, median of {options.rounds} rounds\n")
    print("| | clients | workers | rounds/s | enrolment and first round, s | peak memory, MB | states on disk, MB |")
    print("|---|---|---|---|---|---|---|")
    for row in found:
        numbers = f"{row['rounds_per_second']:.1f} | {row['first_round_seconds']:.1f}"
        sizes = f"{row['peak_bytes'] / MEGABYTE:.0f} | {row['disk_bytes'] / MEGABYTE:.0f}"
        print(f"| {row['case']} | {row['clients']:,} | {row['workers']} | {numbers} | {sizes} |")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
