"""The fleet's gRPC server: its credentials and its limits."""

import logging
from pathlib import Path
from typing import Any

import grpc

from server.grids.descriptors import raise_limit
from server.grids.door import Door
from server.grids.options import FleetOptions
from server.grpc_server import GrpcServer, Leave
from thinwire.credentials import check_authority, check_pair
from thinwire.errors import ConfigError
from thinwire.v1.fleet_pb2_grpc import add_FleetServiceServicer_to_server
from thinwire.wire.endpoint import WINDOW, read
from thinwire.wire.frames import FRAME_OVERHEAD_BYTES

STOP_SECONDS = 5.0
PING_MILLISECONDS = 1_000  # a client may ping once in this time, and PING_STRIKES times too often
PING_STRIKES = 10
OTHER_FILES = 256  # that this process opens besides connections

log = logging.getLogger(__name__)


def listen(door: Door, options: FleetOptions) -> GrpcServer:
    """The server that clients come to; it listens. Raises ConfigError where it cannot."""
    credentials = _server_credentials(options.key, options.certificate, options.client_ca)
    sockets = _sockets(options)
    allowed = raise_limit(sockets + OTHER_FILES)
    if allowed < sockets + OTHER_FILES:
        log.warning("this process may open %d files: too few for %d connections", allowed, options.connections)

    def add(server: Any) -> Leave:
        add_FleetServiceServicer_to_server(door, server)  # type: ignore[no-untyped-call]
        return door.leave

    try:
        return GrpcServer(options.address, credentials, _channel_options(options), add, STOP_SECONDS)
    except RuntimeError as error:
        reason = str(error)
    pair = "" if credentials is None else ", or certificate and key are no pair in PEM"
    raise ConfigError(
        f"cannot listen on {options.address}: the port is taken, the address is not ours{pair} ({reason})"
    )


def _channel_options(options: FleetOptions) -> list[tuple[str, int]]:
    frame_bytes = options.chunk_bytes + FRAME_OVERHEAD_BYTES
    return [
        ("grpc.so_reuseport", 0),
        *WINDOW,
        ("grpc.max_receive_message_length", frame_bytes),
        ("grpc.max_send_message_length", frame_bytes),
        ("grpc.keepalive_time_ms", _milliseconds(options.keepalive_seconds)),
        # Until a client's machine has confirmed what was sent, by TCP; and until its process has answered a ping, which
        # on a thin wire waits behind a whole chunk.
        ("grpc.keepalive_timeout_ms", _milliseconds(options.keepalive_seconds)),
        ("grpc.http2.ping_timeout_ms", _milliseconds(options.stall_seconds)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_MILLISECONDS),
        ("grpc.http2.max_ping_strikes", PING_STRIKES),
        ("grpc.server_handshake_timeout_ms", _milliseconds(options.hello_seconds)),
        ("grpc.max_connection_idle_ms", _milliseconds(options.idle_seconds)),
        ("grpc.max_concurrent_streams", options.streams_per_connection),
        ("grpc.max_allowed_incoming_connections", _sockets(options)),
    ]


def _milliseconds(seconds: float) -> int:
    """As gRPC's options take them: a 32-bit number, whose largest means never."""
    return min(max(1, round(seconds * 1_000)), (1 << 31) - 1)


def _sockets(options: FleetOptions) -> int:
    """Beyond the connections that the door counts, so that it can still tell the next ones why they are refused."""
    return options.connections + max(16, options.connections // 8)


def _server_credentials(key: Path | None, certificate: Path | None, client_ca: Path | None) -> Any:
    """gRPC's credentials, None without TLS. Raises ConfigError for files that cannot be read."""
    check_pair(certificate, key, "server")
    check_authority(client_ca, "client CA")
    private, chain = read(key, "server key"), read(certificate, "server certificate")
    if private is None or chain is None:
        return None
    authority = read(client_ca, "client CA")
    return grpc.ssl_server_credentials([(private, chain)], authority, require_client_auth=authority is not None)
