"""Rounds and events as a server records them, and processes that record until they are killed."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
