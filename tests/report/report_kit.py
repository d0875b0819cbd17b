"""Runs to draw and to report on: written as a server writes them, or, if long, made in memory."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from server.run_directory import RunDirectory
from server.run_store import RunInfo
from thinwire.cli.recorded_run import RecordedRun
from thinwire.config import to_options
from thinwire.run_config import RunConfig

HOSTILE = "<img src=x onerror=alert(1)>"
ENDS_SCRIPT = "</script><script>alert(2)</script><!--"


def options(**changed: Any) -> dict[str, Any]:
    return to_options(RunConfig.of({"rounds": 40, "clients": 6, **changed}))


def row(number: int, clients: int, cohort: int, *, every: int = 1, rate: float = 0.05) -> dict[str, Any]:
    """A round as a server records it; client 2 never answers, and client 1 fails every fifth round."""
    asked = sorted({(7 * number + 3 * place) % clients for place in range(cohort)})
    replied = [client for client in asked if client != 2 and not (client == 1 and number % 5 == 0)]
    found: dict[str, Any] = {
        "round": number,
        "attempt": 0,
        "seconds": 0.1 + 0.02 * math.sin(number),
        "uplink_bytes": 2_000 * len(replied),
        "downlink_bytes": 7_000 * len(asked),
        "dense_bytes": 340_000 * (len(asked) + len(replied)),
        "asked": asked,
        "replied": replied,
        "client_bytes": {str(client): [2_000 * (client in replied), 7_000] for client in asked},
        "client_seconds": {str(client): 0.01 * (client % 9 + 1) for client in replied},
        "train": {"train_loss": 2.3 / number, "compression_error": 0.9 - 0.3 / number},
        "downlink_error": 0.5 + 0.2 / number,
    }
    if number % every == 0:
        found |= {"loss": 0.1 + 2.2 * math.exp(-rate * number), "accuracy": 1 - 0.9 * math.exp(-rate * number)}
    return found


def events(rounds: int, clients: int, names: Mapping[int, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    named = [names.get(client, f"client-{client}") for client in range(clients)]
    roster = [{"name": name, "weight": 1 / clients, "examples": 100 + client} for client, name in enumerate(named)]
    yield "roster", {"clients": roster}
    for number in range(5, rounds + 1, 5):
        yield "client-error", {"client": named[1], "round": number, "detail": f"round {number}: out of memory"}


def record_run(
    path: Path,
    *,
    rounds: int = 40,
    names: Mapping[int, str] | None = None,
    rate: float = 0.05,
    every: int = 1,
    more: Mapping[str, Mapping[str, Any]] | None = None,
    over: bool = True,
    **changed: Any,
) -> Path:
    """A run directory with that many rounds; ``more``: further events."""
    used = options(**changed)
    clients = used["clients"]
    folder = RunDirectory(path, durable=False)
    folder.write_config(used)
    for kind, fields in (*events(rounds, clients, names or {}), *(more or {}).items()):
        folder.record(kind, fields)
    for number in range(1, rounds + 1):
        folder.record("round", row(number, clients, max(1, clients // 2), every=every, rate=rate))
    if over:
        path.joinpath("model.safetensors").write_bytes(b"a model")
    folder.close()
    return path


def made_up(rounds: int, clients: int, cohort: int) -> RecordedRun:
    """A long run, in memory."""
    used = options(rounds=rounds, clients=clients)
    info = RunInfo(
        run="0" * 32,
        method="ef21",
        uplink="top-k",
        downlink="top-k",
        task="digits",
        seed=0,
        config=used,
        state="finished",
        reason="",
        started=1.0,
        ended=2.0,
        processes=1,
        software="0",
        schema_version=1,
    )
    told = [{"event": kind, "time": 1.5, **fields} for kind, fields in events(rounds, clients, {})]
    return RecordedRun(Path("long"), info, [row(n, clients, cohort, rate=0.001) for n in range(1, rounds + 1)], told)
