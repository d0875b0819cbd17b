"""What the fleet's server is told: where it listens, whom it lets in, and how much it takes from them."""

from dataclasses import dataclass
from pathlib import Path

from thinwire.certificates import revoked_serials
from thinwire.errors import ConfigError
from thinwire.wire.endpoint import check_plain
from thinwire.wire.frames import CHUNK_BYTES, MESSAGE_BYTES


@dataclass(frozen=True)
class FleetOptions:
    """Where the server listens, whom it lets in, and how much it takes from them; all are keys of section ``server``.

    The limits are for peers that are broken or mean harm. Each ends or delays what its own peer does, never what
    others do; a client of this software meets none of them, be its wire ever so thin.
    """

    address: str = "127.0.0.1:8500"  # host:port, or [::1]:8500; port 0 takes a free one
    certificate: Path | None = None  # PEM chain of the server; with key: TLS
    key: Path | None = None  # PEM; the private key of the certificate
    client_ca: Path | None = None  # PEM; clients must show a certificate of it whose common name is their identity
    revoked: Path | None = None  # serial numbers of client certificates that are refused; thinwire certs revoke
    insecure: bool = False  # without TLS; beyond this machine only together with insecure_address
    insecure_address: str = ""  # the address once more: listen on it without TLS although it is not loopback
    token: str = ""  # secret that clients must know
    roster: tuple[str, ...] | None = None  # the identities that may come; None: any
    chunk_bytes: int = CHUNK_BYTES  # most of one frame; a larger one ends its sender's stream
    message_bytes: int = MESSAGE_BYTES  # most of one message, either way; a run takes less where its model needs less
    spill_bytes: int = 256 << 20  # replies that wait in memory, together; what is above goes to disk
    connections: int = 4_096  # streams at once, all together; who comes then is told to try again later
    streams_per_connection: int = 8  # a client needs one; more wait in their sender's own gRPC
    connects_per_minute: float = 60.0  # of one identity, and as many at once; above: refused, to try again later
    address_connects_per_minute: float = 6_000.0  # of one address (IPv6: a /64): a fleet behind one NAT, all at once
    stray_replies: int = 64  # to nothing that was asked, in one stream; above: cut off
    hello_seconds: float = 20.0  # for the TLS handshake of a new connection, then for the client to say who it is
    idle_seconds: float = 60.0  # for a connection on which no client talks
    stall_seconds: float = 600.0  # for the next frame of a message under way, or a ping's answer: 256 KiB at 3.5 kbit/s
    keepalive_seconds: float = 30.0  # between pings; a client whose machine confirms none in it is taken for gone

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("certificate and key belong together: set both or neither")
        if self.client_ca is not None and self.certificate is None:
            raise ConfigError("client_ca needs TLS: set certificate and key too")
        if self.revoked is not None and self.client_ca is None:
            raise ConfigError("revoked is about client certificates: set client_ca too")
        revoked_serials(self.revoked)
        if not 1 << 10 <= self.chunk_bytes <= 16 << 20:
            raise ConfigError(f"chunk_bytes = {self.chunk_bytes}; between 1,024 and 16,777,216 are allowed")
        above_0 = ("message_bytes", "connections", "streams_per_connection", "connects_per_minute")
        seconds = ("hello_seconds", "idle_seconds", "stall_seconds", "keepalive_seconds")
        for name in (*above_0, "address_connects_per_minute", *seconds):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}; must be above 0")
        for name in ("spill_bytes", "stray_replies"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}; must not be negative")
        check_plain(self.address, self.insecure, self.insecure_address, self.certificate is not None)
