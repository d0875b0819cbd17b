"""Real processes on loopback: ``thinwire server`` and its clients, for benchmarks of the whole stack."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from server.run_store import read_rounds
from thinwire.config import to_toml

COMMAND = (sys.executable, "-c", "from thinwire.cli import main; main()")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # several processes share the cores
QUIET = {"where": "none"}


@dataclass(frozen=True)
class Server:
    """A server process."""

    process: "subprocess.Popen[str]"
    address: str
    run_dir: Path

    def memory_bytes(self, field: str) -> int | None:
        """A figure of /proc/PID/status: VmRSS (now) or VmHWM (peak); None when the process has ended."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return None
        found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else None

    def rounds(self) -> list[dict[str, Any]]:
        """The rounds that it has recorded."""
        return read_rounds(self.run_dir)


def digits_network(width: int) -> dict[str, Any]:
    """The digits task with two hidden layers of one width."""
    return {"name": "digits", "hidden": [width, width], "partition": "iid"}


def network_size(width: int) -> int:
    """Its number of parameters."""
    return 65 * width + (width + 1) * width + 10 * (width + 1)


@contextmanager
def serving(folder: Path, options: Mapping[str, Any]) -> Iterator[Server]:
    """A server that listens on a free port of loopback; ended at the end, if it has not by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    config, log = folder / "run.toml", folder / "server.log"
    config.write_text(to_toml({**options, "server": {"address": "127.0.0.1:0"}}), encoding="utf-8")
    with _process(
        [*COMMAND, "server", "--config", str(config), "--out", str(folder / "run"), "--json"], log
    ) as process:
        yield Server(process, _address(process, log), folder / "run")


@contextmanager
def clients(server: Server, count: int, folder: Path) -> "Iterator[list[subprocess.Popen[str]]]":
    """So many ``thinwire client`` processes, each with its log in the folder."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                _process(
                    [*COMMAND, "client", "--server", server.address, "--name", name, "--state", str(folder)],
                    folder / f"{name}.log",
                )
            )
            for name in (f"client-{index}" for index in range(count))
        ]


def wait_for_rounds(
    server: Server, rounds: int, seconds: float, processes: "Sequence[subprocess.Popen[str]]" = ()
) -> list[dict[str, Any]]:
    """The recorded rounds, once they are that many. Raises RuntimeError, with the logs, when they do not come."""
    deadline = time.monotonic() + seconds
    while len(found := server.rounds()) < rounds:
        ended = any(process.poll() is not None for process in (server.process, *processes))
        if time.monotonic() > deadline or (ended and len(server.rounds()) < rounds):
            logs = sorted(server.run_dir.parent.rglob("*.log"))
            told = "\n".join(f"--- {log.name}\n{log.read_text(encoding='utf-8')}" for log in logs)
            raise RuntimeError(f"{len(found)} of {rounds} rounds\n{told}")
        time.sleep(0.2)
    return found


@contextmanager
def _process(command: Sequence[str], log: Path) -> "Iterator[subprocess.Popen[str]]":
    log.parent.mkdir(parents=True, exist_ok=True)
    file: IO[str]
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **ONE_THREAD}, text=True)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def _address(process: "subprocess.Popen[str]", log: Path) -> str:
    """Where the server says that it listens."""
    while process.poll() is None:
        found = re.search(r"listening on (\S+),", log.read_text(encoding="utf-8"))
        if found:
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"the server has ended: {log.read_text(encoding='utf-8')}")
