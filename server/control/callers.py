"""Who calls the control service: an operator's certificate, or without TLS whoever can read the run directory."""

import hmac
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from thinwire.certificates import Shown, revoked_serials
from thinwire.errors import ConfigError
from thinwire.wire.endpoint import host_and_port, is_loopback
from thinwire.wire.operator import TOKEN_KEY

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
    """Why a caller may not command; one line, and the gRPC status that goes with it."""

    def __init__(
        self, text: str, status: Literal["PERMISSION_DENIED", "UNAUTHENTICATED"] = "PERMISSION_DENIED"
    ) -> None:
        super().__init__(text)
        self.status = status


def caller(
    options: ControlOptions,
    token: str,
    shown: Mapping[str, Sequence[bytes]],
    metadata: Iterable[tuple[str, str | bytes]],
) -> str:
    """The operator's name by the certificate that gRPC has verified, or LOCAL for who has the token.

    Raises NotAnOperator. Without TLS anybody on this machine can call; who has the token can read ``control.json``.
    """
    if not options.tls:
        _check_token(token, metadata)
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


def _check_token(token: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Raises NotAnOperator, in a time that says nothing about the token."""
    found = [value for key, value in metadata if key == TOKEN_KEY]
    shown = found[0] if found else ""
    if not token or not hmac.compare_digest(shown if isinstance(shown, bytes) else shown.encode(), token.encode()):
        what = "a wrong token" if found else "no token"
        raise NotAnOperator(
            f"{what}: name the run directory, whose control.json holds the token, or set THINWIRE_OPERATOR_TOKEN to it",
            "UNAUTHENTICATED",
        )
