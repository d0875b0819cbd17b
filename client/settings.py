"""What a client's own file says: local things only. Everything about the run comes from the server."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thinwire.config import build


@dataclass(frozen=True)
class ClientSettings:
    """The keys of client.toml."""

    server: str = "127.0.0.1:8500"  # host:port
    name: str = field(default_factory=socket.gethostname)  # stable across restarts, unique in the run
    task: dict[str, Any] = field(default_factory=dict)  # a task's import path, data paths; over what the server says
    state: str = ""  # folder for private state; default: ~/.thinwire/clients
    device: str = "auto"  # auto, cpu, cuda, cuda:N
    token: str = ""  # shared secret, when the server asks for one
    ca: str = ""  # certificate that signed the server's
    certificate: str = ""  # this client's, for mutual TLS
    key: str = ""  # its private key
    identities: str = ""  # folder of many NAME.pem and NAME.key: take one that no other process here uses
    server_name: str = ""  # expect this name in the server's certificate instead of the host that is dialled
    insecure: bool = False  # without TLS; to another machine only together with insecure_address
    insecure_address: str = ""  # the server's address once more: dial it without TLS although it is not loopback
    keepalive_seconds: float = 30.0  # between pings; a server whose machine confirms none in it is taken for gone
    patience_seconds: float = 300.0  # give up when the server is away for longer; 0: never
    metrics: str = ""  # host:port, or a port of this machine, where Prometheus may scrape; empty: nowhere


def settings_of(options: Mapping[str, Any]) -> ClientSettings:
    """Checked settings from nested options. Raises ConfigError naming the nearest key."""
    return build(ClientSettings, options, "")
