"""Why a connection does not come about, found by a TLS handshake of our own: gRPC says UNAVAILABLE and little more."""

import contextlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from thinwire.credentials import Certificate
from thinwire.wire.endpoint import host_and_port

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # HTTP/2's preface, empty settings
SETTINGS = b"\x04"  # the type of the first frame, its fourth byte
EXPIRED, NOT_YET, OTHER_HOST, OTHER_ADDRESS = 10, 9, 62, 64  # of OpenSSL's X509_V_ERR_*
SECONDS = 5.0


@dataclass(frozen=True)
class Trouble:
    """What keeps us from talking to a server."""

    stage: str  # "address", "tcp" or "tls"
    reason: str  # one line: what is wrong, and what helps
    lasting: bool  # no later attempt will fare better until somebody mends it


def look(
    address: str,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    server_name: str = "",
    seconds: float = SECONDS,
) -> Trouble | None:
    """Connect as a client with these files would; None where the server answers. Takes few times ``seconds`` at most.

    Raises ConfigError for an address that is none.
    """
    host, port = host_and_port(address)
    try:
        with socket.create_connection((host, port), seconds) as plain:
            if ca is None:
                return _plainly(plain, address)
            return _encrypted(plain, address, ca, certificate, key, server_name or host)
    except socket.gaierror as error:
        return Trouble("address", f"no address is known for host {host!r} ({error.strerror}): check its name", False)
    except ConnectionRefusedError:
        return Trouble("tcp", f"nobody listens on {address}: check that the server runs, and the port", False)
    except TimeoutError:
        return Trouble("tcp", f"no answer from {address} in {seconds:g} s: check the address and the firewall", False)
    except OSError as error:
        return Trouble("tcp", f"no connection to {address}: {error.strerror or error}", False)


def _plainly(plain: socket.socket, address: str) -> Trouble | None:
    """Without TLS: a server of HTTP/2 sends its settings."""
    plain.sendall(HELLO)
    if _receive(plain)[3:4] == SETTINGS:
        return None
    with contextlib.suppress(OSError):
        shown = _shown(address, "")
        reason = f"{address} wants TLS (its certificate: {shown.name!r}, signed by {shown.issuer!r}): set ca"
        return Trouble("tls", reason, True)
    return Trouble("tls", f"{address} does not answer like a server of Thinwire: check address and port", False)


def _encrypted(
    plain: socket.socket, address: str, ca: Path, certificate: Path | None, key: Path | None, name: str
) -> Trouble | None:
    """Over TLS: the server's certificate is checked first, then ours."""
    context = ssl.create_default_context(cafile=str(ca))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as gRPC checks
    context.set_alpn_protocols(["h2"])
    if certificate is not None and key is not None:
        context.load_cert_chain(certificate, key)
    try:
        with context.wrap_socket(plain, server_hostname=name) as wrapped:
            wrapped.sendall(HELLO)
            if not _receive(wrapped):
                return Trouble("tls", _unwanted(address, certificate, "it hung up"), True)
            return None
    except ssl.SSLCertVerificationError as error:
        return Trouble("tls", _fault_of_server(error, address, ca, name), True)
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):  # what forwards to a server that starts only now does so too
        reason = f"{address} hung up in the middle of the TLS handshake: check that the server runs"
        return Trouble("tls", reason, False)
    except ssl.SSLError as error:
        reason = error.reason or ""
        if "ALERT" in reason:
            return Trouble("tls", _unwanted(address, certificate, reason.lower().replace("_", " ")), True)
        return Trouble("tls", f"{address} does not speak TLS: remove ca, or check address and port", True)
    except ConnectionError:
        return Trouble("tls", _unwanted(address, certificate, "it hung up"), False)


def _fault_of_server(error: ssl.SSLCertVerificationError, address: str, ca: Path, name: str) -> str:
    """What is wrong with the certificate that a server showed."""
    try:
        shown = _shown(address, name)
    except (OSError, ValueError):
        return f"the certificate of {address} is not accepted: {error.verify_message}"
    what = f"the server's certificate {shown.name!r} ({address})"
    if error.verify_code in (EXPIRED, NOT_YET):
        return shown.fault_of_time(what) or f"the authority of {what}, {str(ca)!r}: {error.verify_message}"
    if error.verify_code in (OTHER_HOST, OTHER_ADDRESS):
        return f"{what} is for {', '.join(shown.hosts) or 'no host'}, not for {name!r}: dial that, or set server_name"
    return (
        f"{what} was signed by {shown.issuer!r}, not by the authority in {str(ca)!r} "
        f"({Certificate.read(ca, 'ca').name!r}): get the ca.pem of the server's authority"
    )


def _unwanted(address: str, certificate: Path | None, alert: str) -> str:
    """The server's end of TLS does not take us."""
    if certificate is None:
        return f"{address} wants a client's certificate ({alert}): set certificate and key"
    shown = Certificate.read(certificate)
    return (
        f"{address} refuses our certificate {str(certificate)!r} ({alert}): it was signed by {shown.issuer!r}, until "
        f"{shown.ends:%Y-%m-%d %H:%M} UTC; ask the server's operator which authority and which time it goes by"
    )


def _shown(address: str, name: str) -> Certificate:
    """The certificate that a server shows, whatever it is. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(host_and_port(address), SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=name or None) as wrapped,
    ):
        return Certificate(x509.load_der_x509_certificate(wrapped.getpeercert(binary_form=True) or b""))


def _receive(connection: socket.socket) -> bytes:
    """What the server says first; empty where it hangs up. Raises TimeoutError where it says nothing."""
    try:
        return connection.recv(64)
    except ConnectionResetError:
        return b""
