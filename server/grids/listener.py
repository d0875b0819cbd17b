"""The thread in which the fleet's gRPC server lives, with an event loop of its own."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc.aio

from server.grids.door import Door
from thinwire.errors import ConfigError
from thinwire.v1.fleet_pb2_grpc import add_FleetServiceServicer_to_server
from thinwire.wire.endpoint import WINDOW, host_and_port, read
from thinwire.wire.frames import FRAME_OVERHEAD_BYTES

STOP_SECONDS = 5.0


class Listener:
    """Binds, serves, and stops; ``call`` runs a function in the server's loop."""

    def __init__(
        self,
        door: Door,
        address: str,
        credentials: tuple[Path | None, Path | None, Path | None],
        chunk_bytes: int,
        keepalive_seconds: float,
    ) -> None:
        """Listens when it returns. ``credentials``: key, certificate, client CA. Raises ConfigError where it cannot."""
        self._door = door
        self._host, self._port = host_and_port(address)
        self._options = _channel_options(chunk_bytes, keepalive_seconds)
        self._credentials = _server_credentials(*credentials)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        bound: Future[int] = Future()
        self._thread = threading.Thread(target=self._serve, args=(bound,), name="thinwire-fleet", daemon=True)
        self._thread.start()
        try:
            self._port = bound.result()
        except BaseException:
            self._thread.join()
            raise

    @property
    def address(self) -> str:
        """host:port with the port that was bound."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run a function in the server's loop, soon; nothing after close."""
        if self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(function, *arguments)
            except RuntimeError:  # the loop was closed since
                return

    def close(self) -> None:
        """Stop the server and wait until its thread is gone."""
        self.call(self._stop.set)
        self._thread.join()

    def _serve(self, bound: "Future[int]") -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main(bound))

    async def _main(self, bound: "Future[int]") -> None:
        server = grpc.aio.server(options=self._options)
        try:
            add_FleetServiceServicer_to_server(self._door, server)  # type: ignore[no-untyped-call]
            port = self._bind(server)
            await server.start()
        except Exception as error:  # whatever it is, the thread that waits must hear of it
            await server.stop(None)
            bound.set_exception(error.with_traceback(None))  # whose frames would keep the server and its thread alive
            return
        bound.set_result(port)
        await self._stop.wait()
        await self._door.leave()
        await server.stop(STOP_SECONDS)

    def _bind(self, server: Any) -> int:
        """The port that was bound. Raises ConfigError where it is taken or the credentials are no good."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        address = f"{host}:{self._port}"
        try:
            if self._credentials is None:
                return int(server.add_insecure_port(address))
            return int(server.add_secure_port(address, self._credentials))
        except RuntimeError as error:
            reason = str(error)
        pair = "" if self._credentials is None else ", or certificate and key are no pair in PEM"
        raise ConfigError(f"cannot listen on {address}: the port is taken, the address is not ours{pair} ({reason})")


def _channel_options(chunk_bytes: int, keepalive_seconds: float) -> list[tuple[str, int]]:
    milliseconds = int(keepalive_seconds * 1_000)
    return [
        ("grpc.so_reuseport", 0),
        *WINDOW,
        ("grpc.max_receive_message_length", chunk_bytes + FRAME_OVERHEAD_BYTES),
        ("grpc.max_send_message_length", chunk_bytes + FRAME_OVERHEAD_BYTES),
        ("grpc.keepalive_time_ms", milliseconds),
        ("grpc.keepalive_timeout_ms", milliseconds),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.max_connection_idle_ms", 60_000),
        ("grpc.max_concurrent_streams", 8),
    ]


def _server_credentials(key: Path | None, certificate: Path | None, client_ca: Path | None) -> Any:
    """gRPC's credentials, None without TLS. Raises ConfigError for files that cannot be read."""
    private, chain = read(key, "server key"), read(certificate, "server certificate")
    if private is None or chain is None:
        return None
    authority = read(client_ca, "client CA")
    return grpc.ssl_server_credentials([(private, chain)], authority, require_client_auth=authority is not None)
