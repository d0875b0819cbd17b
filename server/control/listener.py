"""The thread in which the control service lives, with an event loop of its own."""

import asyncio
import contextlib
import json
import os
import threading
from concurrent.futures import Future
from typing import Any

import grpc.aio

from server.control.callers import ControlOptions
from server.control.control import Control
from server.control.service import OperatorService
from thinwire.errors import ConfigError
from thinwire.v1.operator_pb2_grpc import add_OperatorServiceServicer_to_server
from thinwire.wire.endpoint import host_and_port, read
from thinwire.wire.operator import CONTROL

MOST_REQUEST_BYTES = 64 << 10
"""Of one message from a caller."""

MOST_CALLS = 64
"""Calls at once, watchers included."""

MOST_STREAMS = 16
"""Calls at once on one connection."""

STOP_SECONDS = 2.0  # for watchers to take the last events


class ControlListener:
    """Binds, serves, and stops; while it listens, ``control.json`` in the run directory says where."""

    def __init__(self, control: Control, options: ControlOptions) -> None:
        """Listens when it returns. Raises ConfigError where it cannot."""
        self._control = control
        self._options = options
        self._host, self._port = host_and_port(options.address)
        self._credentials = _credentials(options)
        self._path = control.facts.folder / CONTROL
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        bound: Future[int] = Future()
        self._thread = threading.Thread(target=self._serve, args=(bound,), name="thinwire-control", daemon=True)
        self._thread.start()
        try:
            self._port = bound.result()
        except BaseException:
            self._thread.join()
            raise
        try:
            self._write()
        except OSError as error:
            self.close()
            raise ConfigError(f"cannot write {self._path}: {error.strerror}; free some space") from None

    @property
    def address(self) -> str:
        """host:port with the port that was bound."""
        return f"{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    def close(self) -> None:
        """Give watchers the last events, and stop. May be called again."""
        with contextlib.suppress(OSError):  # what is left behind names a process that is gone
            self._path.unlink(missing_ok=True)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _write(self) -> None:
        """The file for programs on this machine; only its owner may read it."""
        text = json.dumps(
            {
                "address": self.address,
                "pid": os.getpid(),
                "tls": self._options.tls,
                "run": self._control.facts.run,
            }
        )
        aside = self._path.with_name(f".{CONTROL}.{os.getpid()}")
        aside.unlink(missing_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
        aside.replace(self._path)

    def _serve(self, bound: "Future[int]") -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main(bound))

    async def _main(self, bound: "Future[int]") -> None:
        server = grpc.aio.server(options=_channel_options(), maximum_concurrent_rpcs=MOST_CALLS)
        service = OperatorService(self._control, self._options)
        try:
            add_OperatorServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
            port = self._bind(server)
            await server.start()
        except Exception as error:  # whatever it is, the thread that waits must hear of it
            service.end()
            await server.stop(None)
            bound.set_exception(error.with_traceback(None))  # whose frames would keep the server and its thread alive
            return
        bound.set_result(port)
        await self._stop.wait()
        service.end()
        await server.stop(STOP_SECONDS)

    def _bind(self, server: Any) -> int:
        address = f"{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"
        try:
            if self._credentials is None:
                return int(server.add_insecure_port(address))
            return int(server.add_secure_port(address, self._credentials))
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on server.control = {address!r}: the port is taken, or the address is not this "
                f"machine's; choose another, or port 0 for a free one ({error})"
            ) from None


def _channel_options() -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", MOST_REQUEST_BYTES),
        ("grpc.max_concurrent_streams", MOST_STREAMS),
        ("grpc.max_connection_idle_ms", 600_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 30_000),
    ]


def _credentials(options: ControlOptions) -> Any:
    """gRPC's credentials, None without TLS. Raises ConfigError for files that cannot be read."""
    if not options.tls:
        return None
    private, chain = read(options.key, "server key"), read(options.certificate, "server certificate")
    authority = read(options.client_ca, "client CA")
    return grpc.ssl_server_credentials([(private, chain)], authority, require_client_auth=True)


__all__ = ["ControlListener"]
