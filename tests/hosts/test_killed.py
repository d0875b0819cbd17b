"""``kill -9`` of a client in the middle of a round, of the server, of both: the run ends with the undisturbed bits.

Real processes on loopback: ``thinwire server`` and three ``thinwire client``.
"""

import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts_support import events_of, in_process, in_step, model_of, wait_for

from server.run_store import open_run, read_rounds

HERE = Path(__file__).parent
CLIENTS = 3
TASK = "gated_task:Gated"
RUN_TOML = f"""
clients = {CLIENTS}
rounds = 10
seed = 5
participation.fraction = 0.67
method.name = "ef21"
uplink = {{ name = "top-k", fraction = 0.2 }}
downlink = {{ name = "top-k", fraction = 0.3 }}
local.steps = 3
task.name = "{TASK}"
evaluation = {{ where = "both", every = 5 }}
checkpoint.every = 4
"""
HELD_CALL = "8"  # the second of three local steps, in the third round in which a client takes part


class Deployment:
    """The processes of one run, by name; ``kill`` is ``kill -9``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.states = folder / "states"
        self.gate = folder / "gate"
        self.gate.mkdir()
        self.address = f"127.0.0.1:{free_port()}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_server(self, *arguments: str) -> None:
        self._start("server", "server", "--address", self.address, *arguments)

    def start_client(self, name: str) -> None:
        arguments = ("--server", self.address, "--name", name, "--state", str(self.states), "--device", "cpu")
        task = ("--task", TASK, "--set", f"task.folder={self.gate}")
        self._start(name, "client", *arguments, *task)

    def start_all(self) -> None:
        config = self.folder / "run.toml"
        config.write_text(RUN_TOML)
        self.start_server("--config", str(config), "--out", str(self.run))
        for index in range(CLIENTS):
            self.start_client(f"client-{index}")

    def hold(self) -> None:
        """From now on, clients stop in the middle of a later round."""
        (self.gate / "hold").write_text(HELD_CALL)

    def held(self) -> str:
        """A client that stands in the middle of its local training."""

        def waiting() -> list[str]:
            marks = {path.name for path in self.gate.glob("waiting-*")}
            return [name for name, process in self.processes.items() if f"waiting-{process.pid}" in marks]

        return str(wait_for(waiting, f"client in mid-round; {self.logs()}")[0])

    def release(self) -> None:
        (self.gate / "hold").unlink()

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL

    def resume(self) -> None:
        self.start_server("--resume", str(self.run))

    def finish(self) -> bytes:
        """The model of the finished run; all processes have ended well."""
        for name in ("server", *(f"client-{index}" for index in range(CLIENTS))):
            assert self.processes[name].wait(60) == 0, self.logs()
        in_step(self.run, self.states)
        assert [row["round"] for row in read_rounds(self.run)] == list(range(1, 11))
        assert open_run(self.run).info.state == "finished"
        return model_of(self.run)

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log")))

    def _start(self, name: str, *arguments: str) -> None:
        assert name not in self.processes
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-c", "from thinwire.cli import main; main()", *arguments],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])},
            )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def deployment(folder: Path) -> Iterator[Deployment]:
    deployed = Deployment(folder)
    try:
        yield deployed
    finally:
        for process in deployed.processes.values():
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return in_process(tomllib.loads(RUN_TOML), tmp_path_factory.mktemp("undisturbed") / "run")


def test_three_processes_end_with_the_bits_of_one(tmp_path: Path, undisturbed: bytes) -> None:
    with deployment(tmp_path) as run:
        run.start_all()
        assert run.finish() == undisturbed


def test_a_client_killed_in_mid_round_comes_back_and_changes_no_bit(tmp_path: Path, undisturbed: bytes) -> None:
    with deployment(tmp_path) as run:
        run.hold()
        run.start_all()
        name = run.held()
        run.kill(name)
        run.release()
        run.start_client(name)
        assert run.finish() == undisturbed
        assert len([e for e in events_of(run.run, "fleet-opened") if e["client"] == name]) == 2


def test_a_server_killed_in_mid_round_resumes_and_changes_no_bit(tmp_path: Path, undisturbed: bytes) -> None:
    with deployment(tmp_path) as run:
        run.hold()
        run.start_all()
        run.held()
        run.kill("server")
        run.resume()
        run.release()
        assert run.finish() == undisturbed
        assert len(events_of(run.run, "resumed")) == 1


def test_client_and_server_killed_in_mid_round_change_no_bit(tmp_path: Path, undisturbed: bytes) -> None:
    with deployment(tmp_path) as run:
        run.hold()
        run.start_all()
        name = run.held()
        run.kill("server")
        run.kill(name)
        run.resume()
        run.start_client(name)
        run.release()
        assert run.finish() == undisturbed
        assert len(events_of(run.run, "resumed")) == 1
