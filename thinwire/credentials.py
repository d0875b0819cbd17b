"""The PEM files of one end of a connection, looked at before they are used: gRPC says little of a bad one."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from thinwire.errors import ConfigError

Clock = Callable[[], datetime.datetime]
SOON = datetime.timedelta(days=30)
ANEW = "issue it anew (thinwire certs ... --force)"


def now() -> datetime.datetime:
    """This machine's clock, UTC."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Certificate:
    """One certificate, and what people want to know of it."""

    x509: x509.Certificate

    @staticmethod
    def read(path: Path, what: str = "certificate") -> "Certificate":
        """The first certificate of a PEM file. Raises ConfigError where there is none."""
        try:
            return Certificate(x509.load_pem_x509_certificate(Path(path).read_bytes()))
        except OSError as error:
            raise ConfigError(f"cannot read the {what} {str(path)!r}: {error.strerror}") from None
        except ValueError:
            raise ConfigError(f"the {what} {str(path)!r} is no certificate in PEM") from None

    @property
    def name(self) -> str:
        """Its common name."""
        return _common_name(self.x509.subject)

    @property
    def issuer(self) -> str:
        """The common name of who signed it."""
        return _common_name(self.x509.issuer)

    @property
    def starts(self) -> datetime.datetime:
        """Valid from, UTC."""
        return self.x509.not_valid_before_utc

    @property
    def ends(self) -> datetime.datetime:
        """Valid until, UTC."""
        return self.x509.not_valid_after_utc

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names and addresses that it is for."""
        try:
            found = self.x509.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return ()
        names = found.get_values_for_type(x509.DNSName)
        return (*names, *(str(address) for address in found.get_values_for_type(x509.IPAddress)))

    def signed_by(self, authority: "Certificate") -> bool:
        """Whether ``authority`` signed it."""
        try:
            self.x509.verify_directly_issued_by(authority.x509)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def fault_of_time(self, what: str, clock: Clock = now) -> str | None:
        """Why it is not valid now, by this machine's clock; None where it is."""
        time = clock()
        if self.ends < time:
            return f"{what} expired on {_minute(self.ends)}; {ANEW}{_by_clock(time)}"
        if self.starts > time:
            return f"{what} is valid from {_minute(self.starts)} only; check the clock{_by_clock(time)}"
        return None


def check_pair(certificate: Path | None, key: Path | None, what: str, clock: Clock = now) -> None:
    """Certificate and key of our own, if there are: readable, in their time, and a pair. Raises ConfigError.

    ``what`` says whose they are: "server", "client".
    """
    if certificate is None or key is None:
        return
    found = Certificate.read(certificate, f"{what} certificate")
    fault = found.fault_of_time(f"the {what} certificate {str(certificate)!r}", clock)
    if fault is not None:
        raise ConfigError(fault)
    if not fits(found, key, f"{what} key"):
        raise ConfigError(f"{str(key)!r} is not the key of the {what} certificate {str(certificate)!r}")


def check_authority(authority: Path | None, what: str, clock: Clock = now) -> None:
    """An authority's certificate, if there is one: readable and in its time. Raises ConfigError."""
    if authority is None:
        return
    fault = Certificate.read(authority, what).fault_of_time(f"the {what} {str(authority)!r}", clock)
    if fault is not None:
        raise ConfigError(fault)


def expires_soon(certificate: Path | None, what: str, clock: Clock = now) -> str | None:
    """A warning of a certificate that ends within a month; None where there is nothing to say."""
    if certificate is None:
        return None
    left = Certificate.read(certificate, what).ends - clock()
    return f"the {what} {str(certificate)!r} expires in {left.days} days; {ANEW} in time" if left < SOON else None


def fits(certificate: Certificate, key: Path, what: str) -> bool:
    """Whether a private key belongs to a certificate. Raises ConfigError for what is no key, or has a password."""
    try:
        private = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {str(key)!r}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise ConfigError(f"the {what} {str(key)!r} is no private key in PEM, or has a password") from None
    public = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return private.public_key().public_bytes(*public) == certificate.x509.public_key().public_bytes(*public)


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _minute(time: datetime.datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _by_clock(time: datetime.datetime) -> str:
    return f" (this machine's clock says {_minute(time)})"
