"""Flower's SuperLink with two SuperNodes on loopback, and ``flwr run``: again the same bits."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hosts_support import events_of, in_process, in_step, model_of, options_of, run_config, wait_for

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
NODES = 2


@contextmanager
def process(log: Path, environment: Mapping[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "wb") as out:
        started = subprocess.Popen(command, stdout=out, stderr=out, cwd=log.parent, env=dict(environment))
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait(10)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def quoted(keys: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value!r}" for key, value in keys.items())


@pytest.mark.slow
def test_a_superlink_ends_with_the_bits_of_one_process(tmp_path: Path) -> None:
    home, states = tmp_path / "flower", tmp_path / "states"
    home.mkdir()
    port, *node_ports = free_ports(1 + NODES)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    environment = {**os.environ, "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0"}
    environment |= {"FLWR_DISABLE_UPDATE_CHECK": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    options = options_of("ef21 top-k, natural down", tmp_path, clients=NODES, rounds=4, participation={"fraction": 1.0})

    with ExitStack() as stack:
        superlink = ("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port))
        install = "--disable-runtime-dependency-installation"
        stack.enter_context(process(tmp_path / "superlink.log", environment, *superlink, install))
        wait_for(lambda: listens(port), "SuperLink")
        for index, node_port in enumerate(node_ports):
            node = ("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--port", str(node_port))
            config = quoted({"partition-id": index, "num-partitions": NODES, "state": str(states)})
            log = tmp_path / f"supernode-{index}.log"
            stack.enter_context(process(log, environment, *node, "--node-config", config))
        keys = quoted(run_config(options, tmp_path / "run"))
        ran = subprocess.run(
            ["flwr", "run", str(ROOT), "here", "--stream", "-c", keys],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert (tmp_path / "run" / "model.safetensors").exists(), ran.stdout + ran.stderr
    assert model_of(tmp_path / "run") == in_process(options, tmp_path / "simulated")
    in_step(tmp_path / "run", states)
    assert not events_of(tmp_path / "run", "client-lacks")
