"""Peak memory of the server process as the cohort grows, beside what it may need: ``thinwire server``, real clients.

    python -m benchmarks.server_memory [--cohorts 2 8 16] [--width 1960] [--rounds 4] [--json]

The allowance is that of an idle server (listening, next to no model), the method's declared server state with the
replica, and three times the model in float32. Uplinks that wait for the decision come on top, in memory up to 256 MB
and on disk beyond; compressed ones are next to nothing. All clients live in one other process, each with a model of
its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import thinwire.flower  # noqa: F401  first: keeps Flower quiet before anything imports it

# isort: split
from flwr.app import Context, Message

from benchmarks.deployment import QUIET, Server, digits_network, network_size, serving
from client.app import respond
from client.desk import Desk
from client.fleet import FleetSession, SessionOptions
from client.store import MemoryClientStore
from client.workshop import Workshops
from strategies.base import Federation
from strategies.builder import build_method
from strategies.bundle import Bundle
from thinwire import state
from thinwire.layout import Layout

CASES: dict[str, dict[str, Any]] = {
    "FedAvg, dense both ways": {"method": "fedavg", "uplink": "identity", "downlink": "identity"},
    "EF21, top-k 1 % both ways": {"method": "ef21", "uplink": "top-k", "downlink": "top-k"},
}
MEGABYTE = 1_000_000


def measure(name: str, cohort: int, rounds: int, width: int, folder: Path) -> dict[str, Any]:
    """The peak of one server until its last round is recorded."""
    options = {
        **{key: {"name": value} for key, value in CASES[name].items()},
        "clients": cohort,
        "rounds": rounds,
        "local": {"steps": 1, "batch": 1},
        "participation": {"fraction": 1.0},
        "evaluation": QUIET,
        "task": digits_network(width),
    }
    peak = 0
    with serving(folder, options) as server, client_process(server, cohort):
        while (now := server.memory_bytes("VmHWM")) is not None and len(server.rounds()) < rounds:
            peak = max(peak, now)
            time.sleep(0.02)
        if len(server.rounds()) < rounds:
            raise RuntimeError((folder / "server.log").read_text(encoding="utf-8"))
    return {"case": name, "cohort": cohort, "peak_bytes": peak, "uplink_bytes": server.rounds()[-1]["uplink_bytes"]}


def idle_bytes(folder: Path) -> int:
    """A server that listens, with next to no model."""
    with serving(folder, {"clients": 1, "task": digits_network(1), "evaluation": QUIET}) as server:
        time.sleep(1.0)
        return server.memory_bytes("VmRSS") or 0


def state_bytes(name: str, width: int, clients: int) -> int:
    """The tensors of the server's state and of the replica."""
    options = {key: {"name": value} for key, value in CASES[name].items()}
    layout = Layout.flat(network_size(width))
    method = build_method(options["method"], options["uplink"], options["downlink"], {"name": "sgd"}, "steps")
    start = Bundle.of(method, None).begin(torch.zeros(layout.numel), None, Federation(layout, clients, 0))
    tensors: dict[str, torch.Tensor] = {}
    state.describe(start, tensors)
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors.values()}.values())


@contextmanager
def client_process(server: Server, count: int) -> Iterator[None]:
    """All clients of a cohort in one process."""
    command = [sys.executable, "-m", "benchmarks.server_memory", "--be-clients", server.address, str(count)]
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def be_clients(address: str, count: int) -> None:
    """A session in a thread for every client; one computes at a time."""
    turn = threading.Lock()

    def live(name: str) -> None:
        store = MemoryClientStore()
        desk = Desk(name, "", Workshops({}, "cpu").open, lambda run: store)

        def app(message: Message, context: Context) -> Message:
            with turn:
                return respond(desk, message)

        FleetSession(SessionOptions(address, name), app).run_forever()

    threads = [threading.Thread(target=live, args=(f"client-{index}",)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server_memory", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cohorts", type=int, nargs="+", default=[2, 8, 16])
    parser.add_argument("--width", type=int, default=1960, help="of the two hidden layers")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--be-clients", nargs=2, metavar=("ADDRESS", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.be_clients:
        be_clients(options.be_clients[0], int(options.be_clients[1]))
        return []
    model = 4 * network_size(options.width)
    found = []
    with tempfile.TemporaryDirectory(prefix="thinwire-") as folder:
        idle = idle_bytes(Path(folder) / "idle")
        for name in CASES:
            for cohort in options.cohorts:
                row = measure(name, cohort, options.rounds, options.width, Path(folder) / f"{len(found)}")
                state_of = state_bytes(name, options.width, cohort)
                found.append(row | {"idle_bytes": idle, "state_bytes": state_of, "model_bytes": model})
    if options.json:
        print(json.dumps(found))
        return found
    print(f"idle server {idle / MEGABYTE:.0f} MB, model {model / MEGABYTE:.1f} MB\n")
    print("| | cohort | peak, MB | idle + state + 3 models, MB | uplinks of a round, MB |\n|---|---|---|---|---|")
    for row in found:
        allowed = row["idle_bytes"] + row["state_bytes"] + 3 * row["model_bytes"]
        sizes = f"{row['peak_bytes'] / MEGABYTE:.0f} | {allowed / MEGABYTE:.0f} | {row['uplink_bytes'] / MEGABYTE:.1f}"
        print(f"| {row['case']} | {row['cohort']} | {sizes} |")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
