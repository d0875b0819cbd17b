"""Machines on one computer: a server's network namespace and one for each client, joined to it by a link of its own.

Needs root, ``ip`` and ``ss`` of iproute2, and ``tc netem`` of the kernel or, where it has none, ``/dev/net/tun``.
"""

import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from benchmarks.wires import TUN, Link, Wires

NAMES = itertools.count()
NETEM, USER_SPACE = "tc netem", "user space"
PAYLOAD = re.compile(r"^\S+ +\S+ +\S+ +(\S+):(\d+) +(\S+):(\d+) (.*)$")


def why_not(kind: str = "") -> str | None:
    """Why links of a kind (or of any) cannot be had here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "ss", "stdbuf", *(["tc"] if kind == NETEM else [])):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    name = f"thinwire-probe-{os.getpid()}"
    if not _does("ip", "netns", "add", name):
        return "this system lets nobody make network namespaces"
    try:
        in_it = ("ip", "netns", "exec", name)
        netem = shutil.which("tc") and _does(*in_it, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
    finally:
        _does("ip", "netns", "del", name)
    if kind == NETEM:
        return None if netem else "the kernel has no netem"
    if kind == USER_SPACE or not netem:
        return None if os.access(TUN, os.R_OK | os.W_OK) else f"{TUN} cannot be opened"
    return None


@dataclass(frozen=True)
class Payload:
    """One TCP connection as the server's kernel counted it, when it had ended; bytes of payload, each once."""

    port: int  # of the server
    received_bytes: int
    sent_bytes: int
    sent_again_bytes: int


class Star:
    """A server's namespace and, joined to it by a link each, the clients'. Everything is gone when it is closed."""

    def __init__(self, links: Sequence[Link], kind: str = "") -> None:
        """``kind``: NETEM or USER_SPACE; by default the first of them that can be had."""
        self.kind = kind or (NETEM if why_not(NETEM) is None else USER_SPACE)
        name = f"tw{os.getpid()}n{next(NAMES)}"
        self.links = list(links)
        self.server = f"{name}s"
        self.clients = [f"{name}c{index}" for index in range(len(links))]
        self._wires = Wires() if self.kind == USER_SPACE else None
        self._ways = []
        for namespace in (self.server, *self.clients):
            _run("ip", "netns", "add", namespace)
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
        for index, link in enumerate(links):
            near, far = self._ends(index)
            if self._wires is not None:
                self._ways.append(self._wires.join(near, far, link))
                _run("ip", "link", "set", near, "netns", self.server)
                _run("ip", "link", "set", far, "netns", self.clients[index])
            else:
                peer = ("peer", "name", far, "netns", self.clients[index])
                _run("ip", "link", "add", near, "netns", self.server, "type", "veth", *peer)
                self._shape(index, link)
            for namespace, end, host in ((self.server, near, 1), (self.clients[index], far, 2)):
                _run("ip", "-n", namespace, "addr", "add", f"10.77.{index}.{host}/24", "dev", end)
                _run("ip", "-n", namespace, "addr", "add", f"fd77:{index}::{host}/64", "dev", end, "nodad")
                _run("ip", "-n", namespace, "link", "set", end, "up")
        command = ("stdbuf", "-oL", "ss", "-N", self.server, "-tinOHE")
        self._ended = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def at_server(self, *command: str) -> list[str]:
        """A command that runs where the server is."""
        return ["ip", "netns", "exec", self.server, *command]

    def at_client(self, index: int, *command: str) -> list[str]:
        """A command that runs where a client is."""
        return ["ip", "netns", "exec", self.clients[index], *command]

    def server_host(self, index: int) -> str:
        """The server's address as a client sees it."""
        return f"10.77.{index}.1"

    def cut(self, index: int, cut: bool = True) -> None:
        """From now on a client's link loses every packet; or no longer does."""
        if self._wires is not None:
            for way in self._ways[index]:
                way.cut = cut
        else:
            link = self.links[index]
            self._shape(index, Link(link.mbit, link.round_trip_seconds, 1.0) if cut else link, "change")

    def move(self, index: int, host: int) -> None:
        """Give a client another address; connections from the one before are dead without a word."""
        _, far = self._ends(index)
        namespace = self.clients[index]
        _run("ip", "-n", namespace, "addr", "flush", "dev", far, "scope", "global")
        _run("ip", "-n", namespace, "addr", "add", f"10.77.{index}.{host}/24", "dev", far)
        _run("ip", "-n", namespace, "addr", "add", f"fd77:{index}::{host}/64", "dev", far, "nodad")

    def interface_bytes(self, index: int) -> tuple[int, int]:
        """Bytes that a client's end and the server's end of a link have sent: with headers, and what was sent again."""
        near, far = self._ends(index)
        ends = ((self.clients[index], far), (self.server, near))
        up, down = (json.loads(_run("ip", "-n", at, "-s", "-j", "link", "show", "dev", end)) for at, end in ends)
        return up[0]["stats64"]["tx"]["bytes"], down[0]["stats64"]["tx"]["bytes"]

    def payloads(self) -> list[Payload]:
        """The TCP connections of the server that have ended, all since the beginning; call once, last."""
        self._ended.terminate()
        out, _ = self._ended.communicate()
        return [found for line in out.splitlines() if (found := _payload(line)) is not None]

    def close(self) -> None:
        """Take everything down."""
        self._ended.kill()
        self._ended.wait()
        assert self._ended.stdout is not None
        self._ended.stdout.close()
        for namespace in (self.server, *self.clients):
            _does("ip", "netns", "del", namespace)
        if self._wires is not None:
            self._wires.close()

    def __enter__(self) -> "Star":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ends(self, index: int) -> tuple[str, str]:
        """The names of the devices at both ends of a link; at most 15 letters."""
        name = self.server.removeprefix("tw").removesuffix("s")
        return f"s{name}i{index}", f"c{name}i{index}"

    def _shape(self, index: int, link: Link, verb: str = "add") -> None:
        """Have netem delay, lose and pace both directions, with a queue of a fifth of a second behind the delay."""
        packets = int(link.mbit * 125_000 * (link.round_trip_seconds / 2 + 0.2) / 1_500) + 50
        delay, loss = f"{link.round_trip_seconds * 500:g}ms", f"{link.loss:%}"
        netem = ("netem", "limit", str(packets), "delay", delay, "loss", loss, "rate", f"{link.mbit:g}mbit")
        for namespace, end in zip((self.server, self.clients[index]), self._ends(index), strict=True):
            _run("tc", "-n", namespace, "qdisc", verb, "dev", end, "root", *netem)


def etc_of(namespace: str) -> Path:
    """The folder whose files stand in for those of /etc in a namespace; make it before a command runs there."""
    return Path("/etc/netns") / namespace


def _payload(line: str) -> Payload | None:
    """A line of ``ss``; None for a socket that only listened."""
    found = PAYLOAD.match(line)
    if found is None or found[4] == "*":
        return None
    figures = dict(part.split(":", 1) for part in found[5].split() if ":" in part)
    received, acked, again = (int(figures.get(f"bytes_{name}", 0)) for name in ("received", "acked", "retrans"))
    return Payload(int(found[2]), received, acked, again)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _does(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
