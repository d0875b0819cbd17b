"""A small certificate authority in a folder: who may serve, take part, and operate.

The folder holds ``ca.pem`` and ``ca.key``, one PEM pair per certificate, ``issued.json`` with what was signed, and
``revoked.txt`` with the serial numbers that a server refuses. Keys have mode 0600. A client's identity is its
certificate's common name; what a certificate is for stands in its organisational unit and its extended key usage.
"""

import datetime
import ipaddress
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from thinwire.config import nearest
from thinwire.errors import ConfigError
from thinwire.wire.endpoint import fault_of_identity

Role = Literal["server", "client", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 825
CLOCK_SKEW = datetime.timedelta(hours=1)
"""How far a certificate's start lies in the past, so that a clock that is late still takes it."""

MOST_AUTHORITY_DAYS = 36_500
MOST_NAME = 64  # characters of a common name
NAME = re.compile(rf"[ -~]{{1,{MOST_NAME}}}")
FILE_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MOST_NAME - 1}}}")


@dataclass(frozen=True)
class Issued:
    """One certificate that the authority signed."""

    name: str  # common name; a client's identity
    role: Role
    serial: str  # hexadecimal
    expires: str  # ISO 8601, UTC
    revoked: bool = False

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return datetime.datetime.fromisoformat(self.expires) < _now()


@dataclass(frozen=True)
class Pair:
    """The files of one certificate."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority kept in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self.revoked = folder / "revoked.txt"
        self._key = folder / "ca.key"
        self._issued = folder / "issued.json"

    @property
    def exists(self) -> bool:
        """Whether the folder holds an authority."""
        return self.certificate.exists() and self._key.exists()

    def create(self, name: str = "thinwire", days: int = AUTHORITY_DAYS, force: bool = False) -> None:
        """A new authority. Raises ConfigError where one is there, unless ``force``: that voids all it signed."""
        if not NAME.fullmatch(name):
            raise ConfigError(f"name {name!r}; allowed: 1 to {MOST_NAME} printable ASCII characters")
        _check_days(days, MOST_AUTHORITY_DAYS)
        if (self.certificate.exists() or self._key.exists()) and not force:
            raise ConfigError(f"{self.folder} holds an authority already; --force replaces it and voids what it signed")
        _make(self.folder)
        key, subject = ec.generate_private_key(ec.SECP256R1()), _subject(name, None)
        builder = _builder(subject, subject, key, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(authority=True), critical=True)
        _write(self._key, _pem_of(key), 0o600)
        _write(self.certificate, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), 0o644)
        _write(self.revoked, b"", 0o644)
        self._record([])

    def issue(
        self, role: Role, name: str, hosts: Sequence[str] = (), days: int = CERTIFICATE_DAYS, force: bool = False
    ) -> Pair:
        """Sign a certificate; for a server, ``hosts`` are the names and addresses it is reached under.

        Raises ConfigError on a name that cannot be a file and an identity, where the pair exists (unless ``force``,
        which revokes the one before), and where the folder holds no authority, or one whose time is over. What is
        refused changes no file.
        """
        self.check_free(name, force)
        _check_days(days, AUTHORITY_DAYS)
        pair = self._pair(name)
        authority, signer = self._load()
        if authority.not_valid_after_utc <= _now():
            ended = f"expired on {authority.not_valid_after_utc:%Y-%m-%d}"
            raise ConfigError(f"the authority in {self.folder} {ended}; make another with thinwire certs init --force")
        expiry = min(_now() + datetime.timedelta(days=days), authority.not_valid_after_utc)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_subject(name, role), authority.subject, key, days, expiry)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(authority=False), critical=True)
        signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = builder.add_extension(signed_by, critical=False)
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if role == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_alternative(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        issued = self.issued()
        if any(one.name == name and not one.revoked for one in issued):
            issued = self._revoke(issued, name)
        _write(pair.key, _pem_of(key), 0o600)
        _write(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        self._record([*issued, Issued(name, role, f"{certificate.serial_number:x}", expiry.isoformat())])
        return pair

    def check_free(self, name: str, force: bool = False) -> None:
        """Raises ConfigError for a name that cannot be issued, or is already, unless ``force``."""
        if fault_of_identity(name) or not FILE_NAME.fullmatch(name):
            raise ConfigError(
                f"name {name!r}; allowed: 1 to {MOST_NAME} letters, digits, dots, dashes, underscores, the first a "
                "letter or digit"
            )
        if name == "ca":
            raise ConfigError("'ca' is the authority's own name; choose another")
        pair = self._pair(name)
        if (pair.certificate.exists() or pair.key.exists()) and not force:
            raise ConfigError(f"{pair.certificate} exists already; --force revokes it and writes a new one")

    def _pair(self, name: str) -> Pair:
        return Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")

    def issued(self) -> list[Issued]:
        """All that was signed, oldest first. Raises ConfigError where the record cannot be read."""
        if not self._issued.exists():
            return []
        try:
            return [Issued(**one) for one in json.loads(self._issued.read_text())]
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"cannot read {self._issued}: {error}") from None

    def revoke(self, name: str) -> Issued:
        """Refuse a certificate from now on: running servers look at ``revoked.txt`` at every hello.

        Raises ConfigError for a name that has no valid certificate.
        """
        issued = self.issued()
        valid = {one.name: one for one in issued if not one.revoked}
        if name not in valid:
            raise ConfigError(f"no valid certificate is called {name!r}{nearest(name, valid)}")
        self._record(self._revoke(issued, name))
        return valid[name]

    def _revoke(self, issued: list[Issued], name: str) -> list[Issued]:
        serials = [one.serial for one in issued if one.name == name and not one.revoked]
        known = self.revoked.read_text().split() if self.revoked.exists() else []
        _write(self.revoked, "".join(f"{serial}\n" for serial in [*known, *serials]).encode(), 0o644)
        return [Issued(**{**asdict(one), "revoked": one.revoked or one.name == name}) for one in issued]

    def _record(self, issued: Sequence[Issued]) -> None:
        _write(self._issued, (json.dumps([asdict(one) for one in issued], indent=1) + "\n").encode(), 0o600)

    def _load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if not self.exists:
            raise ConfigError(f"{self.folder} holds no authority; make one with thinwire certs init")
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            key = serialization.load_pem_private_key(self._key.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"cannot read the authority in {self.folder}: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigError(
                f"ca.key and ca.pem in {self.folder} are no pair; restore them, or start anew with --force"
            )
        return certificate, key


@dataclass(frozen=True)
class Shown:
    """What a certificate that a peer showed says of itself."""

    name: str
    role: str  # one of ROLES; empty where another authority's certificate says nothing
    serial: str
    expires: datetime.datetime

    @staticmethod
    def of(pem: bytes) -> "Shown":
        """Read a PEM certificate. Raises ConfigError where it is none."""
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        except ValueError as error:
            raise ConfigError(f"not a certificate in PEM: {error}") from None
        name = str(names[0].value) if len(names) == 1 else ""
        role = str(units[0].value) if len(units) == 1 else ""
        return Shown(name, role, f"{certificate.serial_number:x}", certificate.not_valid_after_utc)


def revoked_serials(path: Path | None) -> frozenset[str]:
    """The serial numbers in a file of ``Authority.revoke``, read anew. Raises ConfigError where it cannot be read."""
    if path is None:
        return frozenset()
    try:
        return frozenset(path.read_text().split())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the list of revoked certificates {str(path)!r}: {error}") from None


def check_signed(certificate: Path, authority: Path) -> Shown:
    """A certificate's own words, if ``authority`` signed it and its time is not over. Raises ConfigError."""
    try:
        signed = x509.load_pem_x509_certificate(certificate.read_bytes())
        signer = x509.load_pem_x509_certificate(authority.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {certificate} and {authority}: {error}") from None
    try:
        signed.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature):
        raise ConfigError(f"{certificate} was not signed by {authority}") from None
    shown = Shown.of(certificate.read_bytes())
    if shown.expires < _now():
        raise ConfigError(f"{certificate} expired on {shown.expires:%Y-%m-%d %H:%M} UTC; issue it anew with --force")
    if signed.not_valid_before_utc > _now():
        raise ConfigError(f"{certificate} is valid from {signed.not_valid_before_utc} UTC only; check the clock")
    return shown


def _check_days(days: int, most: int) -> None:
    if not 0 < days <= most:
        raise ConfigError(f"days = {days}; allowed: 1 to {most}")


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: int,
    expiry: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - CLOCK_SKEW)
        .not_valid_after(expiry or _now() + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(name: str, role: Role | None) -> x509.Name:
    unit = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role)] if role else []
    return x509.Name([*unit, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    if not host.isascii() or not re.fullmatch(r"[A-Za-z0-9*_.-]{1,253}", host):
        raise ConfigError(f"host {host!r}; allowed: a DNS name or an IP address, without a port")
    return x509.DNSName(host)


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {str(folder)!r}: {error.strerror}") from None


def _write(path: Path, content: bytes, mode: int) -> None:
    """All or nothing, and never readable by others for a moment when it must not be."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {str(path)!r}: {error.strerror}") from None


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
