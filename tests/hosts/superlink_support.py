"""Flower's own deployment on loopback for tests: SuperLink, SuperNodes, and what runs their apps."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hosts_support import wait_for

from thinwire.certificates import Authority

BIN = Path(sys.executable).parent
RUN_SECONDS = 800.0  # each message starts a process that imports torch: minutes, where others compute


@dataclass(frozen=True)
class Deployment:
    """A SuperLink that runs apps, and how to ask it to."""

    home: Path  # FLWR_HOME
    environment: Mapping[str, str]

    def flwr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of Flower's CLI."""
        return subprocess.run(
            [str(BIN / "flwr"), *arguments],
            env=dict(self.environment),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )

    def run(self, app: Path, keys: Mapping[str, object]) -> str:
        """Run an app to its end; what it said. ``flwr run`` ends with 0 whatever happened."""
        done = self.flwr("run", str(app), "here", "--stream", "-c", quoted(keys))
        return done.stdout + done.stderr

    def nodes(self) -> list[dict[str, Any]]:
        """The SuperNodes that the SuperLink knows."""
        done = self.flwr("supernode", "ls", "here", "--format", "json")
        return list(json.loads(done.stdout).get("nodes", [])) if done.returncode == 0 else []


@contextmanager
def deployment(tmp: Path, nodes: Sequence[Mapping[str, object]], hardened: bool = False) -> Iterator[Deployment]:
    """A SuperLink with a SuperNode for each configuration.

    ``hardened``: apps in processes that somebody else starts (SuperExec), TLS on every port, and SuperNodes that prove
    who they are with keys that were registered.
    """
    home = tmp / "flower"
    home.mkdir()
    port, *node_ports = free_ports(1 + len(nodes))
    environment = {**os.environ, "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    environment |= {"FLWR_DISABLE_UPDATE_CHECK": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    authority = make_authority(tmp / "certs") if hardened else None
    write_connection(home, port, authority)
    with ExitStack() as stack:

        def start(name: str, *command: str) -> None:
            stack.enter_context(process(tmp / f"{name}.log", environment, *command))

        trust = ["--insecure"] if authority is None else ["--root-certificates", str(authority / "ca.pem")]
        serve = ["--insecure"] if authority is None else served_with(authority)
        isolation = ["--isolation", "process" if hardened else "subprocess"]
        proof = ["--enable-supernode-auth"] if hardened else []
        here = ["--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"]
        start("superlink", "flower-superlink", *serve, *here, *isolation, *proof)
        wait_for(lambda: listens(port), "SuperLink")
        deployed = Deployment(home, environment)
        if hardened:
            start("superexec", "flower-superexec", *trust, "--runtime-api-address", f"127.0.0.1:{port}")
        for index, (config, node_port) in enumerate(zip(nodes, node_ports, strict=True)):
            command = ["flower-supernode", *trust, "--superlink", f"127.0.0.1:{port}", "--port", str(node_port)]
            command += [*isolation, "--node-config", quoted(config)]
            if hardened:
                command += ["--auth-supernode-private-key", str(register(deployed, tmp / f"node-{index}")), *serve]
            start(f"supernode-{index}", *command)
            if hardened:
                wait_for(lambda at=node_port: listens(at), "SuperNode")
                start(
                    f"superexec-{index}", "flower-superexec", *trust, "--runtime-api-address", f"127.0.0.1:{node_port}"
                )
        yield deployed


def make_authority(folder: Path) -> Path:
    """A folder with ca.pem, server.pem and server.key for this machine."""
    authority = Authority(folder)
    authority.create()
    authority.issue("server", "server", ["localhost", "127.0.0.1"])
    return folder


def served_with(authority: Path) -> list[str]:
    """The flags of a server with TLS."""
    names = {"--ssl-ca-certfile": "ca.pem", "--ssl-certfile": "server.pem", "--ssl-keyfile": "server.key"}
    return [part for flag, name in names.items() for part in (flag, str(authority / name))]


def write_connection(home: Path, port: int, authority: Path | None) -> None:
    """How ``flwr`` reaches the SuperLink: the connection ``here``."""
    trust = "insecure = true" if authority is None else f'root-certificates = "{authority / "ca.pem"}"'
    text = f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\n{trust}\n'
    (home / "config.toml").write_text(text)


def register(deployed: Deployment, path: Path) -> Path:
    """A new key of a SuperNode, as ``ssh-keygen -t ecdsa -b 384`` makes it, known to the SuperLink; the private one."""
    key = ec.generate_private_key(ec.SECP384R1())
    encodings = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(*encodings))
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.with_suffix(".pub").write_bytes(public + b"\n")
    done = deployed.flwr("supernode", "register", str(path.with_suffix(".pub")), "here")
    assert done.returncode == 0, done.stdout + done.stderr
    return path


@contextmanager
def process(log: Path, environment: Mapping[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the end of the block, its output in a file."""
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
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def quoted(keys: Mapping[str, object]) -> str:
    """Keys and values as Flower's command line takes them."""
    return " ".join(f"{key}={value!r}" for key, value in keys.items())
