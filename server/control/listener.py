"""The control service's gRPC server: its credentials, its limits, and the file that says where it is."""

import contextlib
import json
import os
import secrets
from collections.abc import Sequence
from typing import Any

import grpc

from server.control.callers import ControlOptions
from server.control.control import Control
from server.control.service import OperatorService
from server.grpc_server import GrpcServer, Leave
from thinwire.credentials import Certificate
from thinwire.errors import ConfigError
from thinwire.v1.operator_pb2_grpc import add_OperatorServiceServicer_to_server
from thinwire.wire.endpoint import host_and_port, joined, read
from thinwire.wire.operator import CONTROL

MOST_REQUEST_BYTES = 64 << 10
"""Of one message from a caller."""

TOKEN_BYTES = 32  # of randomness

MOST_CALLS = 64
"""Calls at once, watchers included."""

MOST_STREAMS = 16
"""Calls at once on one connection."""

STOP_SECONDS = 2.0  # for watchers to take the last events

CHANNEL_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MOST_REQUEST_BYTES),
    ("grpc.max_concurrent_streams", MOST_STREAMS),
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 30_000),
)


class ControlListener:
    """The control service; while it listens, ``control.json`` in the run directory says where."""

    def __init__(self, control: Control, options: ControlOptions) -> None:
        """Listens when it returns. Raises ConfigError where it cannot."""
        self._path = control.facts.folder / CONTROL
        token = "" if options.tls else secrets.token_urlsafe(TOKEN_BYTES)
        self._server = _listen(control, options, token)
        try:
            self._write(options, control.facts.run, token)
        except OSError as error:
            self.close()
            raise ConfigError(f"cannot write {self._path}: {error.strerror}; free some space") from None

    @property
    def address(self) -> str:
        """host:port with the port that was bound."""
        return self._server.address

    def close(self) -> None:
        """Give watchers the last events, and stop. May be called again."""
        with contextlib.suppress(OSError):  # what is left behind names a process that is gone
            self._path.unlink(missing_ok=True)
        self._server.close()

    def _write(self, options: ControlOptions, run: str, token: str) -> None:
        """The file for programs on this machine; only its owner may read it, and the token in it."""
        found = {"address": from_here(self.address), "pid": os.getpid(), "tls": options.tls, "run": run, "token": token}
        if options.tls and options.certificate is not None:
            found["name"] = expected(Certificate.read(options.certificate, "server certificate").hosts)
        aside = self._path.with_name(f".{CONTROL}.{os.getpid()}")
        aside.unlink(missing_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(json.dumps(found) + "\n")
        aside.replace(self._path)


def from_here(address: str) -> str:
    """What to dial on this machine for a service that listens there; on all addresses, that is loopback."""
    host, port = host_and_port(address)
    return joined({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)


def expected(hosts: Sequence[str]) -> str:
    """A name that a certificate for these hosts is good for: who dials loopback expects it in the place of that."""
    return hosts[0].replace("*", "server", 1) if hosts else ""


def _listen(control: Control, options: ControlOptions, token: str) -> GrpcServer:
    def add(server: Any) -> Leave:
        service = OperatorService(control, options, token)
        add_OperatorServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
        return service.end

    credentials = _credentials(options)
    try:
        return GrpcServer(options.address, credentials, CHANNEL_OPTIONS, add, STOP_SECONDS, MOST_CALLS)
    except RuntimeError as error:
        reason = str(error)
    raise ConfigError(
        f"cannot listen on server.control = {options.address!r}: the port is taken, or the address is not this "
        f"machine's; choose another, or port 0 for a free one ({reason})"
    )


def _credentials(options: ControlOptions) -> Any:
    """gRPC's credentials, None without TLS. Raises ConfigError for files that cannot be read."""
    if not options.tls:
        return None
    private, chain = read(options.key, "server key"), read(options.certificate, "server certificate")
    authority = read(options.client_ca, "client CA")
    return grpc.ssl_server_credentials([(private, chain)], authority, require_client_auth=True)


__all__ = ["ControlListener", "expected", "from_here"]
