"""``thinwire server`` and ``thinwire client`` over mutual TLS on machines that links of a ``Star`` join, end to end."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.deployment import COMMAND, ONE_THREAD
from benchmarks.namespaces import Payload, Star
from server.run_store import read_rounds
from thinwire.certificates import Authority
from thinwire.config import to_toml

PORT = 8_500
HOST = "server.example"  # a name that the server's certificate has as well


@dataclass
class Far:
    """The processes of one run. Ended when it is closed, if they have not by themselves."""

    star: Star
    folder: Path
    keepalive_seconds: float = 30.0
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run_dir = self.folder / "run"
        self.authority = Authority(self.folder / "certs")
        self.authority.create()
        hosts = [HOST, *(self.star.server_host(index) for index in range(len(self.star.links)))]
        self.authority.issue("server", "server", [*hosts, *(f"fd77:{i}::1" for i in range(len(self.star.links)))])
        for index in range(len(self.star.links)):
            self.authority.issue("client", f"client-{index}")

    def start_server(self, options: Mapping[str, Any], address: str = f"0.0.0.0:{PORT}") -> None:
        """Listen, and train when all clients are there."""
        certs = self.authority.folder
        server = {"certificate": str(certs / "server.pem"), "key": str(certs / "server.key")}
        server |= {"client_ca": str(certs / "ca.pem"), "revoked": str(certs / "revoked.txt"), "address": address}
        config = self.folder / "run.toml"
        keepalive = {"keepalive_seconds": self.keepalive_seconds, "control": "off"}
        config.write_text(to_toml({**options, "server": {**server, **keepalive}}), encoding="utf-8")
        command = (*COMMAND, "server", "--config", str(config), "--out", str(self.run_dir), "--json")
        self._start("server", self.star.at_server(*command))

    def start_client(self, index: int, address: str = "") -> None:
        """A client at the end of its link."""
        name, certs = f"client-{index}", self.authority.folder
        told = {"server": address or f"{self.star.server_host(index)}:{PORT}", "name": name, "ca": certs / "ca.pem"}
        told |= {"certificate": certs / f"{name}.pem", "key": certs / f"{name}.key", "state": self.folder / name}
        flags = [part for key, value in told.items() for part in (f"--{key}", str(value))]
        keepalive = ("--set", f"keepalive_seconds={self.keepalive_seconds}")
        self._start(name, self.star.at_client(index, *COMMAND, "client", *flags, *keepalive, "--device", "cpu"))

    def start_all(self, options: Mapping[str, Any]) -> None:
        """The server, and a client at each link."""
        self.start_server(options)
        self.wait_for(self.listens, "server that listens", 120)
        for index in range(len(self.star.links)):
            self.start_client(index)

    def finish(self, seconds: float) -> bytes:
        """The model, when all processes have ended well. Raises RuntimeError as soon as one has not."""
        deadline = time.monotonic() + seconds
        while any(codes := [process.poll() for process in self.processes.values()]) or None in codes:
            if any(codes) or time.monotonic() > deadline:
                raise RuntimeError(f"ended with {dict(zip(self.processes, codes, strict=True))}\n{self.logs()}")
            time.sleep(0.02)
        return (self.run_dir / "model.safetensors").read_bytes()

    def listens(self) -> bool:
        """Whether the server takes connections."""
        return "listening on" in self.log("server")

    def rounds(self) -> list[dict[str, Any]]:
        """The rounds that were recorded."""
        return read_rounds(self.run_dir) if self.run_dir.exists() else []

    def log(self, name: str) -> str:
        """What a process has said."""
        path = self.folder / f"{name}.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def logs(self) -> str:
        """What all have said."""
        return "\n".join(f"--- {name}\n{self.log(name)}" for name in self.processes)

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
        """Look at files and counters, which tell nobody when they change. Raises RuntimeError after a while."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"no {what} within {seconds:.0f} s\n{self.logs()}")
            time.sleep(0.02)

    def _start(self, name: str, command: Sequence[str]) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **ONE_THREAD})

    def __enter__(self) -> "Far":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait(30)


@dataclass(frozen=True)
class Traffic:
    """What a run sent up and down, as three places count it. Bytes."""

    packets_up: int  # the meter: the messages of the rounds, as the run directory says
    packets_down: int
    payload_up: int  # TCP's payload, each byte once: with TLS, HTTP/2, hellos and welcomes
    payload_down: int
    interface_up: int  # with the headers of TCP and IP, acknowledgements and what was sent again
    interface_down: int

    @staticmethod
    def of(
        rounds: Sequence[Mapping[str, Any]], payloads: Sequence[Payload], interfaces: Sequence[tuple[int, int]]
    ) -> "Traffic":
        """From the rounds, the connections that have ended and the interfaces' counters of every link."""
        return Traffic(
            sum(row["uplink_bytes"] for row in rounds),
            sum(row["downlink_bytes"] for row in rounds),
            sum(one.received_bytes for one in payloads),
            sum(one.sent_bytes for one in payloads),
            sum(up for up, _ in interfaces),
            sum(down for _, down in interfaces),
        )

    @property
    def over_up(self) -> float:
        """What TCP carried above the meter, as a share of the meter."""
        return self.payload_up / self.packets_up - 1

    @property
    def over_down(self) -> float:
        """The same of the way down."""
        return self.payload_down / self.packets_down - 1
