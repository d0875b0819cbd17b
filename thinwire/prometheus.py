"""A Prometheus endpoint of this process: one registry behind one address, and nothing global."""

from threading import Thread
from types import TracebackType

from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server

from thinwire.errors import ConfigError
from thinwire.wire.endpoint import host_and_port, joined

LOOPBACK = "127.0.0.1"


class Endpoint:
    """Answers ``GET /metrics`` with what the registry holds, over HTTP without TLS, in threads of its own.

    Whoever reaches the address may read it: bind it to loopback or to a network of one's own.
    """

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        """``address``: host:port, or a port alone on this machine; port 0 takes a free one. Raises ConfigError."""
        host, port = metrics_address(address)
        # Without a second series beside every counter, for which this format has no word:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(f"cannot serve metrics on {address}: {error.strerror}; choose another address") from None
        self.address = joined(host, self._server.server_port)

    def close(self) -> None:
        """Hang up. May be called again."""
        thread: Thread = self._thread
        if thread.is_alive():
            self._server.shutdown()
            thread.join()
        self._server.server_close()

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def metrics_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``, or of a port alone, which is on this machine. Raises ConfigError."""
    return host_and_port(address if ":" in address.strip(":") else f"{LOOPBACK}:{address.removeprefix(':')}")
