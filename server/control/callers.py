"""Who calls the control service: an operator's certificate, or anybody on this machine."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinwire.certificates import Shown, revoked_serials
from thinwire.errors import ConfigError
from thinwire.wire.endpoint import host_and_port, is_loopback

LOCAL = "local"
"""The name of who asks without TLS, on this machine."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ControlOptions:
    """Where the operator is listened to, and what he must show."""

    address: str = "127.0.0.1:0"  # host:port; port 0 takes a free one
    certificate: Path | None = None  # PEM chain of the server; with key and client_ca: mutual TLS
    key: Path | None = None
    client_ca: Path | None = None  # PEM; signs operators' certificates
    revoked: Path | None = None  # serial numbers that are refused

    def __post_init__(self) -> None:
        host, _ = host_and_port(self.address)
        if not self.tls and not is_loopback(host):
            raise ConfigError(
                f"server.control = {self.address!r} is beyond this machine: set server.certificate, key and client_ca, "
                "so that operators show a certificate (thinwire certs operator NAME); or listen on 127.0.0.1"
            )

    @property
    def tls(self) -> bool:
        """Whether callers must show a certificate.

        A server that asks its clients for none asks its operator for none, and then listens on this machine only.
        """
        return self.certificate is not None and self.key is not None and self.client_ca is not None


class NotAnOperator(Exception):  # noqa: N818  an answer, not an error
    """Why a caller may not command; one line."""


def caller(options: ControlOptions, shown: Mapping[str, Sequence[bytes]]) -> str:
    """The operator's name by the certificate that gRPC has verified. Raises NotAnOperator."""
    if not options.tls:
        return LOCAL
    pems = shown.get("x509_pem_cert", [])
    try:
        certificate = Shown.of(pems[0] if pems else b"")
        refused = revoked_serials(options.revoked)
    except ConfigError as error:
        log.error("%s: no operator is let in", error)
        raise NotAnOperator("the server cannot check certificates now; look into its log") from None
    if certificate.serial in refused:
        raise NotAnOperator(f"the certificate of {certificate.name!r} was revoked")
    if certificate.role != "operator":
        says = repr(certificate.role) if certificate.role else "nothing"
        raise NotAnOperator(
            f"the certificate of {certificate.name!r} says {says}; an operator's is needed "
            "(thinwire certs operator NAME)"
        )
    return certificate.name
