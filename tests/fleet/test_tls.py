"""TLS and mutual TLS, with an authority made on the spot."""

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fleet_support import Events, ask, clients, data_of, fleet

from client.fleet import SessionOptions
from thinwire.certificates import Authority as OurAuthority
from thinwire.errors import ConfigError


class Pair(NamedTuple):
    certificate: Path
    key: Path


class Authority:
    """Signs certificates into a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        self.path = folder / f"{name}.pem"
        certificate = builder.sign(self._key, hashes.SHA256())
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def sign(self, name: str) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = self._builder(subject, key).add_extension(x509.SubjectAlternativeName(names), False)
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        certificate = builder.sign(self._key, hashes.SHA256())
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "theirs")


def test_a_round_runs_over_tls(authority: Authority) -> None:
    server = authority.sign("server")
    with (
        fleet(certificate=server.certificate, key=server.key) as grid,
        clients(grid.address, "ann", ca=authority.path),
    ):
        (node,) = grid.wait_for_nodes(1, 10)
        (reply,) = grid.send_and_receive([ask(node, bytes(3_000_000))], timeout=10)
        assert data_of(reply) == bytes(3_000_000)


def test_a_round_runs_over_mutual_tls(authority: Authority) -> None:
    server, ann = authority.sign("server"), authority.sign("ann")
    with (
        fleet(certificate=server.certificate, key=server.key, client_ca=authority.path) as grid,
        clients(grid.address, "ann", ca=authority.path, certificate=ann.certificate, key=ann.key),
    ):
        (node,) = grid.wait_for_nodes(1, 10)
        (reply,) = grid.send_and_receive([ask(node, b"mutual")], timeout=10)
        assert data_of(reply) == b"mutual"


def test_an_identity_that_is_not_the_certificates_is_refused(authority: Authority) -> None:
    server, ann = authority.sign("server"), authority.sign("ann")
    events = Events()
    with (
        fleet(events, certificate=server.certificate, key=server.key, client_ca=authority.path) as grid,
        clients(grid.address, "bob", ca=authority.path, certificate=ann.certificate, key=ann.key) as (bob,),
    ):
        outcome = bob.join()
        assert isinstance(outcome, ConfigError)
        assert "not the certificate's common name 'ann'" in str(outcome)
        assert grid.get_node_ids() == []


def test_a_revoked_certificate_is_refused_at_the_next_hello_and_a_new_one_is_taken(tmp_path: Path) -> None:
    ours = OurAuthority(tmp_path / "certs")
    ours.create()
    server, ann = ours.issue("server", "server", ["127.0.0.1"]), ours.issue("client", "ann")
    mutual = {"certificate": server.certificate, "key": server.key, "client_ca": ours.certificate}
    with fleet(revoked=ours.revoked, **mutual) as grid:
        options = {"ca": ours.certificate, "certificate": ann.certificate, "key": ann.key}
        with clients(grid.address, "ann", **options):
            grid.wait_for_nodes(1, 10)
        ours.revoke("ann")
        with clients(grid.address, "ann", **options) as (session,):
            outcome = session.join()
            assert isinstance(outcome, ConfigError)
            assert "was revoked" in str(outcome)
        fresh = ours.issue("client", "ann", force=True)
        with clients(grid.address, "ann", ca=ours.certificate, certificate=fresh.certificate, key=fresh.key):
            grid.wait_for_nodes(1, 10)


def test_an_operator_is_no_client(tmp_path: Path) -> None:
    ours = OurAuthority(tmp_path / "certs")
    ours.create()
    server, olga = ours.issue("server", "server", ["127.0.0.1"]), ours.issue("operator", "olga")
    with (
        fleet(certificate=server.certificate, key=server.key, client_ca=ours.certificate) as grid,
        clients(grid.address, "olga", ca=ours.certificate, certificate=olga.certificate, key=olga.key) as (session,),
    ):
        outcome = session.join()
        assert isinstance(outcome, ConfigError)
        assert "says 'operator'; a client is needed" in str(outcome)


@pytest.mark.parametrize("case", ["no certificate", "a stranger's certificate", "no TLS", "a stranger's server"])
def test_who_cannot_prove_itself_never_gets_in(authority: Authority, stranger: Authority, case: str) -> None:
    server, ann, other = authority.sign("server"), authority.sign("ann"), stranger.sign("ann")
    with_own = {"ca": authority.path, "certificate": ann.certificate, "key": ann.key}
    options = {
        "no certificate": {"ca": authority.path},
        "a stranger's certificate": {"ca": authority.path, "certificate": other.certificate, "key": other.key},
        "no TLS": {},
        "a stranger's server": {**with_own, "ca": stranger.path},
    }[case]
    events = Events()
    with (
        fleet(events, certificate=server.certificate, key=server.key, client_ca=authority.path) as grid,
        clients(grid.address, "ann", patience_seconds=0.3, **options) as (session,),
    ):
        outcome = session.join()
        assert isinstance(outcome, ConfigError)
        assert "no connection" in str(outcome)
        assert all(kind != "opened" for kind, _, _ in events.seen)


def test_credentials_that_make_no_sense_are_config_errors(authority: Authority, tmp_path: Path) -> None:
    pair = authority.sign("ann")
    with pytest.raises(ConfigError, match="belong together"):
        SessionOptions("127.0.0.1:1", "ann", ca=authority.path, certificate=pair.certificate)
    with pytest.raises(ConfigError, match="set ca too"):
        SessionOptions("127.0.0.1:1", "ann", certificate=pair.certificate, key=pair.key)
    with pytest.raises(ConfigError, match="without TLS"):
        SessionOptions("example.org:8500", "ann")
    with clients("127.0.0.1:1", "ann", ca=tmp_path / "missing.pem") as (session,):
        assert "cannot read the CA certificate" in str(session.join())
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate")
    with pytest.raises(ConfigError, match="certificate"), fleet(certificate=garbage, key=garbage):
        pytest.fail("it listens")
