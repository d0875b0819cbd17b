"""A client's session with the fleet's server: dial, open, answer requests, dial again when the wire breaks."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from client.lookout import Lookout
from client.stream import MOST_CHUNK_BYTES, Stream, Verdict
from client.worker import Worker
from thinwire.credentials import check_authority, check_pair
from thinwire.errors import ConfigError
from thinwire.flower import App, Scalar
from thinwire.v1.fleet_pb2_grpc import FleetServiceStub
from thinwire.wire.endpoint import WINDOW, check_plain, fault_of_identity, host_and_port, is_loopback, read
from thinwire.wire.frames import FRAME_OVERHEAD_BYTES, MESSAGE_BYTES

LONGEST_WAIT_SECONDS = 30.0
STOP_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionOptions:
    """Whom to call, as whom, and for how long to try."""

    address: str  # of the server, host:port
    identity: str  # unique and stable; at most 128 bytes; with mutual TLS the certificate's common name
    token: str = ""  # the server's secret, where it asks for one
    ca: Path | None = None  # PEM of the authority that signed the server's certificate: TLS
    certificate: Path | None = None  # PEM chain of this client; with key: mutual TLS
    key: Path | None = None
    insecure: bool = False  # without TLS; beyond this machine only together with insecure_address
    insecure_address: str = ""  # the address once more: dial it without TLS although it is not loopback
    server_name: str = ""  # expect this name in the server's certificate instead of the host dialled
    message_bytes: int = MESSAGE_BYTES  # largest message accepted from the server
    patience_seconds: float = 300.0  # without any connection before the session gives up; inf: never
    first_wait_seconds: float = 0.2  # before the second attempt; doubles, up to 30 s
    keepalive_seconds: float = 30.0  # between pings; a server whose machine does not confirm one is taken for gone
    stall_seconds: float = 600.0  # for the answer to a ping: on a thin wire it waits behind what was sent before it
    node_config: Mapping[str, Scalar] = field(default_factory=dict)  # what the ClientApp finds in its Context
    run_config: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fault = fault_of_identity(self.identity)
        if fault is not None:
            raise ConfigError(fault)
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("certificate and key belong together: set both or neither")
        if self.certificate is not None and self.ca is None:
            raise ConfigError("a client certificate needs TLS: set ca too")
        for name in ("message_bytes", "patience_seconds", "first_wait_seconds", "keepalive_seconds", "stall_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}; must be above 0")
        check_plain(self.address, self.insecure, self.insecure_address, self.ca is not None)


class FleetSession:
    """Answers the server's requests with a ClientApp, which runs in one worker thread while the stream stays alive.

    The last reply is kept: a request that is asked again is answered without computing twice.
    """

    def __init__(self, options: SessionOptions, app: App) -> None:
        self._options = options
        self._worker = Worker(app, options.node_config, options.run_config)
        self._stopping = threading.Event()
        self._stream: Stream | None = None
        self._lock = threading.Lock()
        self.dials = 0  # connections dialled
        self.refused = False  # the server turned this client away for good

    def run_forever(self, stop_event: threading.Event | None = None, leave_event: threading.Event | None = None) -> str:
        """Serve until the run is finished (the server's reason is returned) or until stopped (an empty string).

        ``stop_event`` hangs up at once; ``leave_event`` as soon as nothing that was asked waits for its answer.
        Raises ConfigError when the server refuses this client for good or cannot be reached for ``patience_seconds``,
        and WireError when the server sends what the protocol does not allow. A session runs once.
        """
        events = (stop_event, leave_event or threading.Event())
        watcher = threading.Thread(target=self._watch, args=events, name="thinwire-stop", daemon=True)
        if stop_event is not None:
            watcher.start()
        self._worker.start()
        try:
            return self._dial_until_done()
        finally:
            self._stopping.set()
            self._worker.stop(STOP_SECONDS)
            if stop_event is not None:
                watcher.join()

    def stop(self) -> None:
        """Hang up and return from ``run_forever``; from any thread. A computation in progress has 5 s to end."""
        with self._lock:
            self._stopping.set()
            if self._stream is not None:
                self._stream.hang_up()

    def _leave(self) -> bool:
        """Hang up if nothing is open; whether that was so. A server that does not end the stream has 5 s for it."""
        with self._lock:
            if self._stream is not None and not self._stream.leave():
                return False
            self._stopping.set()
        late = threading.Timer(STOP_SECONDS, self.stop)
        late.daemon = True
        late.start()
        return True

    def _dial_until_done(self) -> str:
        """Dial again and again, with longer and longer waits while nobody answers."""
        reached = time.monotonic()
        wait_seconds = self._options.first_wait_seconds
        credentials = credentials_of(self._options)
        lookout = _lookout(self._options)
        while not self._stopping.is_set():
            verdict = self._connect_once(credentials)
            if verdict.finished is not None:
                return verdict.finished
            if verdict.refused is not None:
                self.refused = True
                raise ConfigError(f"{self._options.address} refused {self._options.identity!r}: {verdict.refused}")
            if verdict.opened:
                reached, wait_seconds = time.monotonic(), self._options.first_wait_seconds
            if self._stopping.is_set():
                break
            verdict = lookout.explained(verdict)
            away_seconds = time.monotonic() - reached
            if away_seconds > self._options.patience_seconds:
                raise ConfigError(self._unreachable(verdict, away_seconds))
            left_seconds = self._options.patience_seconds - away_seconds
            pause_seconds = min(wait_seconds * _jitter(), left_seconds + 0.01)
            told = self._options.address, verdict.trouble, pause_seconds
            log.warning("no connection to %s (%s); trying again in %.1f s", *told)
            self._stopping.wait(pause_seconds)
            wait_seconds = min(2 * wait_seconds, LONGEST_WAIT_SECONDS)
        return ""

    def _connect_once(self, credentials: Any) -> Verdict:
        """One connection, from dialling to its end."""
        options = self._options
        self.dials += 1
        with channel_to(options, credentials) as channel:
            stub = FleetServiceStub(channel)  # type: ignore[no-untyped-call]
            stream = Stream(stub.Connect, self._worker, options.identity, options.token, options.message_bytes)
            with self._lock:
                self._stream = stream
                if self._stopping.is_set():
                    stream.hang_up()
            try:
                return stream.run()
            finally:
                with self._lock:
                    self._stream = None

    def _unreachable(self, verdict: Verdict, seconds: float) -> str:
        options = self._options
        tls = "the server's certificate and ca" if options.ca else "that the server runs without TLS as well"
        return (
            f"no connection to {options.address} for {seconds:.0f} s ({verdict.trouble}); "
            f"check the address, that the server runs, the firewall, and {tls}"
        )

    def _watch(self, stop_event: threading.Event, leave_event: threading.Event) -> None:
        """Stop or leave when the caller's events are set; ends with the session."""
        while not self._stopping.is_set():
            if stop_event.wait(0.1):
                self.stop()
            elif leave_event.is_set() and self._leave():
                return


def _jitter() -> float:
    """A factor in [0.5, 1), so that a fleet does not come back in one instant."""
    return 0.5 + os.urandom(1)[0] / 512


def _channel_options(options: SessionOptions) -> list[tuple[str, Any]]:
    milliseconds = int(options.keepalive_seconds * 1_000)
    found: list[tuple[str, Any]] = [
        ("grpc.use_local_subchannel_pool", 1),
        *WINDOW,
        ("grpc.max_receive_message_length", MOST_CHUNK_BYTES + FRAME_OVERHEAD_BYTES),
        ("grpc.max_send_message_length", MOST_CHUNK_BYTES + FRAME_OVERHEAD_BYTES),
        ("grpc.keepalive_time_ms", milliseconds),
        ("grpc.keepalive_timeout_ms", milliseconds),  # TCP's own: until the other machine has confirmed what was sent
        ("grpc.http2.ping_timeout_ms", int(options.stall_seconds * 1_000)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", 0),
    ]
    if is_loopback(host_and_port(options.address)[0]):
        found.append(("grpc.enable_http_proxy", 0))  # no proxy of the environment leads to this machine
    if options.server_name:
        found.append(("grpc.ssl_target_name_override", options.server_name))
    return found


def channel_to(options: SessionOptions, credentials: Any) -> Any:
    """A channel to the server, closed with its context; ``credentials`` are those of ``credentials_of``."""
    channel_options = _channel_options(options)
    if credentials is None:
        return grpc.insecure_channel(options.address, channel_options)
    return grpc.secure_channel(options.address, credentials, channel_options)


def _lookout(options: SessionOptions) -> Lookout:
    return Lookout(options.address, options.ca, options.certificate, options.key, options.server_name)


def credentials_of(options: SessionOptions) -> Any:
    """gRPC's credentials, None without TLS. Raises ConfigError for files that cannot be read or are out of time."""
    check_pair(options.certificate, options.key, "client")
    check_authority(options.ca, "CA certificate")
    ca = read(options.ca, "CA certificate")
    key, chain = read(options.key, "client key"), read(options.certificate, "client certificate")
    return None if ca is None else grpc.ssl_channel_credentials(ca, key, chain)
