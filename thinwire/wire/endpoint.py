"""Addresses and credentials of the two ends of a gRPC connection, checked before anything is dialled or bound."""

import re
from ipaddress import ip_address
from pathlib import Path

from thinwire.errors import ConfigError

MOST_IDENTITY_BYTES = 128
IDENTITY = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{MOST_IDENTITY_BYTES - 1}}}")  # of a client

# A fixed window: left to itself, gRPC buffers megabytes for every stream of a fast link, and the server's memory grows
# with the cohort. One MiB carries 160 Mbit/s over a round trip of 50 ms.
WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 20)]


def host_and_port(address: str) -> tuple[str, int]:
    """``"127.0.0.1:8500"`` or ``"[::1]:8500"`` as host and port. Raises ConfigError where it is neither."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"bad address {address!r}; expected host:port, like 127.0.0.1:8500")
    return host.strip("[]"), int(port)


def joined(host: str, port: int) -> str:
    """Host and port as an address, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_plain(address: str, insecure: bool, insecure_address: str, tls: bool) -> None:
    """Raises ConfigError for an address beyond this machine without TLS, unless it was said twice.

    ``insecure`` alone is for loopback. Another address must stand in ``insecure_address`` as well, so that a flag that
    was copied, or left over from a trial, opens nothing.
    """
    host, _ = host_and_port(address)
    if tls or is_loopback(host) or (insecure and insecure_address == address):
        return
    if insecure and insecure_address:
        raise ConfigError(f"{address} without TLS: insecure_address is {insecure_address!r}, another address")
    alone = "insecure = true alone is for this machine only; " if insecure else ""
    raise ConfigError(
        f"{address} without TLS: {alone}set certificates (thinwire certs), or, on a network where everyone is trusted, "
        f'both insecure = true and insecure_address = "{address}"'
    )


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def read(path: Path | None, what: str) -> bytes | None:
    """The content of a credential's file, None for no path. Raises ConfigError where it cannot be read."""
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {str(path)!r}: {error.strerror}") from None


def fault_of_identity(identity: str) -> str | None:
    """What is wrong with a client's name in a roster, a path or a log; None where nothing is."""
    if IDENTITY.fullmatch(identity):
        return None
    return f"bad client name {identity[:80]!r}: 1 to 128 of letters, digits and . _ @ -, a letter or digit first"
