"""The authority in a folder: what it signs, what it refuses, and who may read it."""

import datetime
import json
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

from thinwire import certificates
from thinwire.certificates import Authority, Shown, check_signed, revoked_serials
from thinwire.cli.certs import app
from thinwire.errors import ConfigError


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "certs")
    made.create()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_for_their_owner_alone(authority):
    pair = authority.issue("client", "ann")
    assert mode(authority.folder) == 0o700
    assert mode(authority.folder / "ca.key") == mode(pair.key) == 0o600
    assert mode(pair.certificate) == mode(authority.certificate) == 0o644


def test_a_server_certificate_holds_the_names_it_is_dialled_under(authority):
    pair = authority.issue("server", "server", ["fleet.example.org", "192.0.2.7", "[2001:db8::1]"])
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fleet.example.org"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "2001:db8::1"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.parametrize("role", ["client", "operator"])
def test_a_certificate_says_whose_and_what_for_it_is(authority, role):
    pair = authority.issue(role, "ann")
    shown = check_signed(pair.certificate, authority.certificate)
    assert (shown.name, shown.role) == ("ann", role)
    assert shown.serial == authority.issued()[0].serial
    assert shown == Shown.of(pair.certificate.read_bytes())


def test_nothing_is_overwritten_unless_forced_and_then_the_old_one_is_revoked(authority):
    first = authority.issue("client", "ann")
    before = first.certificate.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        authority.issue("client", "ann")
    with pytest.raises(ConfigError, match="holds an authority already"):
        authority.create()
    assert first.certificate.read_bytes() == before
    authority.issue("client", "ann", force=True)
    old, new = authority.issued()
    assert old.revoked
    assert not new.revoked
    assert revoked_serials(authority.revoked) == {old.serial}


def test_a_revoked_certificate_is_listed_once_and_named_when_asked_for_wrongly(authority):
    authority.issue("client", "ann")
    revoked = authority.revoke("ann")
    assert revoked_serials(authority.revoked) == {revoked.serial}
    authority.issue("client", "bob")
    with pytest.raises(ConfigError, match="bob"):
        authority.revoke("bib")
    with pytest.raises(ConfigError, match="no valid certificate"):
        authority.revoke("ann")


@pytest.mark.parametrize("name", ["", "../ann", "a/b", "-ann", "a" * 65, "ann\n", "ca", ".hidden"])
def test_names_that_are_no_file_or_identity_are_refused(authority, name):
    with pytest.raises(ConfigError):
        authority.issue("client", name)
    assert authority.issued() == []


def test_bad_hosts_and_days_are_refused(authority):
    with pytest.raises(ConfigError, match="without a port"):
        authority.issue("server", "server", ["example.org:8500"])
    with pytest.raises(ConfigError, match="days = 0"):
        authority.issue("client", "ann", days=0)


def test_what_is_refused_revokes_nothing_and_signs_nothing(authority):
    server = authority.issue("server", "server", ["example.org"])
    before = {path.name: path.read_bytes() for path in authority.folder.iterdir()}
    with pytest.raises(ConfigError, match="without a port"):
        authority.issue("server", "server", ["example.org:8500"], force=True)
    done = CliRunner().invoke(app, ["client", "ann", "server", "--dir", str(authority.folder)])
    assert isinstance(done.exception, ConfigError)
    assert f"{server.certificate} exists already" in str(done.exception)
    assert {path.name: path.read_bytes() for path in authority.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"days": 0}, "days = 0; allowed: 1 to 36500"),
        ({"days": -7}, "days = -7"),
        ({"days": 10**9}, "days = 1000000000"),
        ({"name": ""}, "name ''; allowed: 1 to 64"),
        ({"name": "x" * 65}, "allowed: 1 to 64"),
        ({"name": "two\nlines"}, "printable"),
    ],
)
def test_an_authority_of_impossible_days_or_name_is_not_made(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        Authority(tmp_path / "certs").create(**options)
    assert not (tmp_path / "certs").exists()


def test_an_authority_whose_time_is_over_signs_nothing(authority, monkeypatch):
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=certificates.AUTHORITY_DAYS + 1)
    monkeypatch.setattr(certificates, "_now", lambda: later)
    with pytest.raises(ConfigError, match=r"the authority in .* expired on .*; make another"):
        authority.issue("client", "ann")


def test_a_certificate_of_another_authority_or_past_its_time_is_refused(authority, tmp_path, monkeypatch):
    stranger = Authority(tmp_path / "other")
    stranger.create()
    pair = authority.issue("client", "ann", days=2)
    with pytest.raises(ConfigError, match="not signed by"):
        check_signed(pair.certificate, stranger.certificate)
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    monkeypatch.setattr(certificates, "_now", lambda: later)
    with pytest.raises(ConfigError, match="expired on"):
        check_signed(pair.certificate, authority.certificate)
    assert authority.issued()[0].expired


def test_no_certificate_outlives_the_authority(tmp_path):
    short = Authority(tmp_path)
    short.create(days=5)
    issued = Shown.of(short.issue("client", "ann").certificate.read_bytes())
    assert issued.expires == Shown.of(short.certificate.read_bytes()).expires


def test_a_damaged_authority_is_a_clear_error(authority):
    (authority.folder / "ca.key").write_text("nonsense")
    with pytest.raises(ConfigError, match="cannot read the authority"):
        authority.issue("client", "ann")
    (authority.folder / "issued.json").write_text("[{]")
    with pytest.raises(ConfigError, match=r"issued\.json"):
        authority.issued()
    with pytest.raises(ConfigError, match="thinwire certs init"):
        Authority(authority.folder / "nowhere").issue("client", "ann")


def test_the_commands_do_all_of_it(tmp_path):
    def run(*words: str) -> object:
        done = CliRunner().invoke(app, [*words, "--dir", str(tmp_path / "certs"), "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    run("init")
    run("server", "localhost", "127.0.0.1")
    made = run("client", "ann", "bob")
    assert all(Path(pair["key"]).exists() for pair in made)
    run("operator", "olga")
    run("revoke", "ann")
    rows = [(row["name"], row["role"], row["revoked"]) for row in run("list")]
    assert rows == [
        ("server", "server", False),
        ("ann", "client", True),
        ("bob", "client", False),
        ("olga", "operator", False),
    ]
    nowhere = CliRunner().invoke(app, ["list", "--dir", str(tmp_path / "crets")])
    assert "crets holds no authority; make one with thinwire certs init, or name its folder" in str(nowhere.exception)
    shown = CliRunner().invoke(app, ["list", "--dir", str(tmp_path / "certs")])
    assert "revoked" in shown.stdout
    assert "olga" in shown.stdout
