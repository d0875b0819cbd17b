"""Rounds and events as a server records them, run directories, and processes that record until they are killed."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.run_directory import RunDirectory
from server.run_store import open_run

ROOT = Path(__file__).resolve().parents[2]
CONFIG: dict[str, Any] = {
    "rounds": 8,
    "clients": 3,
    "seed": 4,
    "method": {"name": "ef21"},
    "uplink": {"name": "top-k", "fraction": 0.1},
    "downlink": {"name": "natural"},
    "task": {"name": "digits"},
}
ROSTER = {"run": "ab" * 16, "clients": [{"name": f"hospital-{i}", "weight": 1 / 3, "examples": 10} for i in range(3)]}


def row(number: int, clients: Sequence[int] = (0, 2), absent: Sequence[int] = ()) -> dict[str, Any]:
    """What ``record("round", ...)`` is told after a round; accuracy climbs, every other round is evaluated."""
    replied = [client for client in clients if client not in absent]
    metrics = {"loss": 2.0 / number, "accuracy": 1 - 1 / (number + 1)} if number % 2 == 0 else {}
    return {
        **metrics,
        "round": number,
        "attempt": 0,
        "seconds": 0.25,
        "uplink_bytes": 100 * len(replied),
        "downlink_bytes": 70 * len(clients),
        "dense_bytes": 4000 * len(clients),
        "asked": list(clients),
        "replied": replied,
        "client_bytes": {str(client): [100 if client in replied else 0, 70] for client in clients},
        "client_seconds": {str(client): 0.125 + client for client in replied},
        "train": {"loss": 2.5 / number},
    }


def python(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A process with this package and this folder on its path."""
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def plain(rows: list[dict]) -> list[dict]:
    assert all(found["time"] > 0 for found in rows)
    return [{key: value for key, value in found.items() if key != "time"} for found in rows]


def recorded(path: Path, rounds: int = 8, end: str = "finished") -> Path:
    """A run directory with a run."""
    with RunDirectory(path, durable=False) as folder:
        folder.write_config(CONFIG)
        folder.record("roster", ROSTER)
        for number in range(1, rounds + 1):
            folder.record("round", row(number, absent=[2] if number == 3 else []))
        folder.record("refused", {"client": "eve", "detail": "not in the roster"})
        folder.end(end)
    return path


def old_directory(path: Path, done: bool = True) -> Path:
    """As a Thinwire without run.sqlite left it, killed in the middle of a line."""
    path.mkdir()
    lines = [{"time": 1000.0 + number, **row(number)} for number in (1, 2, 3, 2, 3, 4)]
    lines[3]["time"] = 1003.5
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"time": 1005.0, "round": 5, "upl'
    (path / "metrics.jsonl").write_text(text)
    events = [{"time": 1000.5, "event": "roster", "clients": ROSTER["clients"]}]
    events += [{"time": 1002.5, "event": "hostile", "client": "hospital-1", "detail": "nonsense"}]
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (path / "run.toml").write_text('seed = 7\nmethod = {name = "ef14"}\nuplink = {name = "sign"}\n')
    if done:
        (path / "model.safetensors").write_bytes(b"")
    return path


def check_imported(path: Path) -> None:
    run = open_run(path)
    assert plain(run.rounds()) == [row(number) for number in (1, 2, 3, 4)]
    assert [found["time"] for found in run.rounds()] == [1001.0, 1003.5, 1003.0, 1004.0]
    assert [(e["time"], e["event"]) for e in run.events()] == [(1000.5, "roster"), (1002.5, "hostile")]
    assert [client["name"] for client in run.clients()] == ["hospital-0", "hospital-1", "hospital-2"]
    info = run.info
    assert (info.method, info.uplink, info.seed, info.started) == ("ef14", "sign", 7, 1000.5)


RECORD_FOR_EVER = """
import itertools, sys, threading
from pathlib import Path
from server import run_lock
from server.run_store import read_rounds
from server.run_store_writer import RunWriter
from store_kit import CONFIG, row

path = Path(sys.argv[1])
path.mkdir(exist_ok=True)
lock = run_lock.take(path)
folder = RunWriter(path)
folder.begin(CONFIG)
first = max((found["round"] for found in read_rounds(path)), default=0) + 1
turn = threading.Semaphore(2)
def gossip():
    for number in itertools.count():
        turn.acquire()
        folder.record("fleet-opened", {"client": f"hospital-{number % 3}", "detail": "x" * (number % 900)})
threading.Thread(target=gossip, daemon=True).start()
for number in itertools.count(first):
    folder.record("round", row(number, clients=range(number % 60)))
    print(number, flush=True)
    turn.release(2)
"""
