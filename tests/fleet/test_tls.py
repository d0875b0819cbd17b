"""TLS and mutual TLS, with an authority made on the spot."""

from pathlib import Path

import pytest
from dated import Authority
from fleet_support import Events, ask, clients, data_of, fleet

from client.fleet import SessionOptions
from client.identities import REFUSED
from thinwire.certificates import Authority as OurAuthority
from thinwire.cli.taking_part import take_part
from thinwire.errors import ConfigError


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


def test_while_the_list_of_revoked_certificates_is_being_replaced_clients_try_again(tmp_path: Path) -> None:
    """Who came in the moment when the file was away is told to come back, and not sent away for good."""
    ours = OurAuthority(tmp_path / "certs")
    ours.create()
    server, ann = ours.issue("server", "server", ["127.0.0.1"]), ours.issue("client", "ann")
    mutual = {"certificate": server.certificate, "key": server.key, "client_ca": ours.certificate}
    events, away = Events(), tmp_path / "away.txt"
    with fleet(events, revoked=ours.revoked, **mutual) as grid:
        ours.revoked.rename(away)
        with clients(grid.address, "ann", ca=ours.certificate, certificate=ann.certificate, key=ann.key):
            assert "cannot check certificates now" in events.wait("refused", "ann")
            assert grid.get_node_ids() == []
            away.rename(ours.revoked)
            grid.wait_for_nodes(1, 10)


def test_an_identity_out_of_a_folder_that_the_server_refuses_is_tried_last(tmp_path: Path) -> None:
    """What started this client starts it again, and it comes under another."""
    ours = OurAuthority(tmp_path / "certs")
    ours.create()
    server = ours.issue("server", "server", ["127.0.0.1"])
    for name in ("client-1", "client-2"):
        pair = ours.issue("client", name)
        for path in (pair.certificate, pair.key):
            path.rename(tmp_path / path.name)
    mutual = {"certificate": server.certificate, "key": server.key, "client_ca": ours.certificate}
    with fleet(roster=("client-2",), **mutual) as grid:
        grid.finish("over")
        own = {"server": grid.address, "ca": str(ours.certificate), "identities": str(tmp_path)}
        options = {**own, "state": str(tmp_path / "state")}
        with pytest.raises(ConfigError, match="unknown identity 'client-1'"):
            take_part(options)
        assert (tmp_path / "state" / "identities" / "client-1").read_bytes() == REFUSED
        take_part(options)
    assert (tmp_path / "state" / "identities" / "client-2").read_bytes() not in (REFUSED, b"")


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
