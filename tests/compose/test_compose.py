"""The compose file brought up for real: mutual TLS, a killed client, a killed server, a stranger at the door."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from thinwire.certificates import Authority

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]
ROOT = Path(__file__).parent.parent.parent
COMMAND_SECONDS = 1500.0  # a first build takes minutes
ROUNDS = 1000


def _compose() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    return []


COMPOSE = _compose()


def engine_is_up() -> bool:
    return bool(COMPOSE) and subprocess.run(["docker", "info"], capture_output=True).returncode == 0


class Project:
    """One compose project of its own name, with everything it made removed at the end."""

    def __init__(self) -> None:
        self.name = f"thinwire{uuid.uuid4().hex[:8]}"
        settings = {"ROUNDS": str(ROUNDS), "PORT": "0", "IDENTITIES": "5", "CLIENTS": "3", "THINWIRE_IMAGE": "thinwire"}
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}  # not this venv's
        self.environment = {**plain, **settings, "COMPOSE_PROJECT_NAME": self.name}

    def __call__(self, *words: str, check: bool = True) -> str:
        command = [*COMPOSE, *words]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def containers(self, service: str) -> list[str]:
        return self("ps", "-q", service).split()

    def logs(self, service: str) -> str:
        return self("logs", "--no-color", service)

    def wait_for(self, service: str, pattern: str, seconds: float = 240) -> str:
        """The logs of a service once they match."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, logs := self.logs(service)):
            assert time.monotonic() < deadline, f"no {pattern!r} within {seconds:g} s:\n{logs[-4000:]}"
            time.sleep(0.5)  # polling a foreign process
        return logs

    def kill(self, container: str) -> None:
        """SIGKILL from outside, so that the engine takes it for a crash and not for an operator's stop."""
        shown = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True).stdout
        os.kill(int(json.loads(shown)[0]["State"]["Pid"]), signal.SIGKILL)

    def operate(self, *words: str) -> str:
        """One of the operator's commands."""
        return self("run", "--rm", "-T", "--no-deps", "operator", *words)

    def in_volume(self, volume: str, *words: str) -> str:
        mount = f"{self.name}_{volume}:/there"
        command = ["docker", "run", "--rm", "-v", mount, "--entrypoint", words[0], "thinwire", *words[1:]]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    if not engine_is_up():
        pytest.skip("no Docker engine with Compose is running")
    made = Project()
    try:
        made("build", "certs")
        made("up", "-d", "--no-build")
        yield made
    finally:
        made("down", "--volumes", "--timeout", "5", check=False)


def test_the_file_parses_and_every_profile_with_it():
    if not COMPOSE:
        pytest.skip("no Compose is installed")
    project = Project()
    assert set(project("config", "--services").split()) >= {"certs", "server", "client"}
    profiles = [word for name in ("gpu", "dev", "monitoring", "operator") for word in ("--profile", name)]
    beside = {"client-gpu", "client-dev", "prometheus", "grafana", "operator"}
    assert set(project(*profiles, "config", "--services").split()) >= beside
    elsewhere = {**project.environment, "SERVER": "fleet.example.org:8500", "CERTS": "/tmp"}
    done = subprocess.run([*COMPOSE, "-f", "docker/clients.yml", "config", "-q"], cwd=ROOT, env=elsewhere)
    assert done.returncode == 0


def test_three_clients_train_over_mutual_tls_through_every_crash(project):
    project.wait_for("server", r"round 100/")
    clients = project.containers("client")
    assert len(clients) == 3
    project.kill(clients[0])
    project.wait_for("server", r"round 300/")
    restarts = subprocess.run(
        ["docker", "inspect", "--format", "{{.RestartCount}}", clients[0]], capture_output=True, text=True, check=True
    )
    assert int(restarts.stdout) >= 1
    assert re.search(r"state +running", project.operate("status"))
    assert "held" in project.operate("pause")
    project(
        "up", "-d", "--no-build", "--no-deps", "--force-recreate", "client"
    )  # new containers, the run's old clients
    assert "goes on" in project.operate("resume")
    project.wait_for("server", r"round 500/")
    project.kill(project.containers("server")[0])
    logs = project.wait_for("server", rf"round {ROUNDS}/{ROUNDS} .*(\n.*)*run directory")
    assert logs.count("listening on") == 2, "the server was not restarted once"
    assert "resumed" in logs
    rows = json.loads(project.in_volume("runs", "thinwire", "runs", "export", "/there/run", "--json"))
    assert [row["round"] for row in rows] == list(range(1, ROUNDS + 1))
    assert rows[-1]["accuracy"] > 0.9
    assert "model.safetensors" in project.in_volume("runs", "ls", "/there/run")
    assert project.in_volume("client-state", "ls", "/there/identities").split() == ["client-1", "client-2", "client-3"]


def test_other_names_of_the_server_are_another_certificate_and_what_is_revoked_reaches_the_server(project):
    authority = ["run", "--rm", "-T", "--no-deps", "--entrypoint", "thinwire", "certs", "certs"]
    serial = json.loads(project(*authority, "revoke", "client-5", "--dir", "/certs/authority", "--json"))["serial"]
    before = project.in_volume("server-certs", "cat", "/there/server.pem")
    project.environment["HOSTS"] = "fleet.example.org 203.0.113.7"
    assert "server localhost 127.0.0.1 fleet.example.org 203.0.113.7" in project("run", "--rm", "-T", "certs")
    after = project.in_volume("server-certs", "cat", "/there/server.pem")
    assert after != before
    names = x509.load_pem_x509_certificate(after.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "fleet.example.org" in names.value.get_values_for_type(x509.DNSName)
    assert serial in project.in_volume("server-certs", "cat", "/there/revoked.txt").split()
    project("run", "--rm", "-T", "certs")
    assert project.in_volume("server-certs", "cat", "/there/server.pem") == after


def test_a_stranger_with_a_certificate_of_another_authority_is_kept_out(project, tmp_path):
    stranger = Authority(tmp_path)
    stranger.create()
    stranger.issue("client", "client-1")
    theirs = project.in_volume("client-certs", "cat", "/there/ca.pem")  # it knows the server and is unknown itself
    (tmp_path / "ca.pem").write_text(theirs)
    (tmp_path / "ca.key").unlink()  # or the authority would be taken for one of the identities
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    project.environment["RUN"] = "another"
    project("up", "-d", "--no-build", "--no-deps", "--force-recreate", "server")
    project.wait_for("server", r"listening on")
    network = f"{project.name}_default"
    words = ["client", "--server=server:8500", "--ca=/theirs/ca.pem", "--identities=/theirs", "--state=/tmp/state"]
    command = ["docker", "run", "--rm", "--network", network, "-v", f"{tmp_path}:/theirs:ro", "thinwire", *words]
    done = subprocess.run([*command, "--set", "patience_seconds=3"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "no connection to server:8500" in done.stderr
    events = project.in_volume("runs", "thinwire", "runs", "export", "/there/another", "--what", "events")
    assert "opened" not in events
