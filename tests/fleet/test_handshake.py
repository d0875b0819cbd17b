"""A connection that does not come about says why: which certificate, since when, whose authority, which end."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from dated import Authority, Pair
from fleet_support import clients, fleet

from client.fleet import SessionOptions
from thinwire.cli import connections
from thinwire.credentials import check_authority, check_pair, expires_soon
from thinwire.errors import ConfigError
from thinwire.handshake import look


class House(NamedTuple):
    ours: Authority
    theirs: Authority
    server: Pair
    ann: Pair


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    ours = Authority(tmp_path_factory.mktemp("ours"), "ours")
    theirs = Authority(tmp_path_factory.mktemp("theirs"), "theirs")
    return House(ours, theirs, ours.sign("server"), ours.sign("ann"))


@contextmanager
def listening(house: House, pair: Pair | None = None) -> Iterator[str]:
    """A fleet with mutual TLS, or with another certificate and TLS on its side only.

    A certificate that is out of time is not served by a fleet of ours, so that a plain TLS server shows it.
    """
    if pair is None:
        mutual = {"certificate": house.server.certificate, "key": house.server.key, "client_ca": house.ours.path}
        with fleet(**mutual) as grid:
            yield grid.address
        return
    with showing(pair) as address:
        yield address


@contextmanager
def showing(pair: Pair) -> Iterator[str]:
    """A TLS server that does nothing but show a certificate, to whoever comes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.set_alpn_protocols(["h2"])
    door = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = door.accept()
            except OSError:
                return
            try:
                with plain, context.wrap_socket(plain, server_side=True) as wrapped:
                    wrapped.recv(1)
            except OSError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{door.getsockname()[1]}"
    finally:
        door.shutdown(socket.SHUT_RDWR)
        door.close()
        thread.join(10)


def reason(address: str, *files: Path | None) -> str:
    trouble = look(address, *files)
    assert trouble is not None
    assert trouble.lasting
    assert "\n" not in trouble.reason
    return trouble.reason


def test_a_good_pair_is_taken(house: House) -> None:
    with listening(house) as address:
        assert look(address, house.ours.path, *house.ann) is None
    with fleet() as grid:
        assert look(grid.address) is None


def test_a_missing_certificate_and_one_of_another_authority_are_told_apart(house: House) -> None:
    stranger = house.theirs.sign("ann")
    with listening(house) as address:
        assert "wants a client's certificate" in reason(address, house.ours.path)
        told = reason(address, house.ours.path, *stranger)
    assert f"refuses our certificate '{stranger.certificate}'" in told
    assert "it was signed by 'theirs'" in told


def test_the_server_of_another_authority_is_named_with_both_authorities(house: House) -> None:
    with listening(house) as address:
        told = reason(address, house.theirs.path, *house.ann)
    assert f"the server's certificate 'server' ({address}) was signed by 'ours'" in told
    assert f"not by the authority in '{house.theirs.path}' ('theirs')" in told


@pytest.mark.parametrize(
    ("days", "phrase"), [((-9, -3), "expired on "), ((3, 9), "is valid from ")], ids=["expired", "not yet valid"]
)
def test_a_server_out_of_its_time_is_told_with_the_time_and_our_clock(
    house: House, days: tuple[float, float], phrase: str
) -> None:
    with listening(house, house.ours.sign("late", days)) as address:
        told = reason(address, house.ours.path)
    assert f"the server's certificate 'late' ({address}) {phrase}" in told
    assert "this machine's clock says" in told


def test_a_server_of_another_host_is_told_with_its_hosts(house: House) -> None:
    with listening(house, house.ours.sign("elsewhere", host="192.0.2.7")) as address:
        assert "is for 192.0.2.7, not for '127.0.0.1'" in reason(address, house.ours.path)


def test_tls_on_one_end_only_is_told(house: House) -> None:
    with listening(house) as address:
        assert "wants TLS (its certificate: 'server', signed by 'ours'): set ca" in reason(address)
    with fleet() as grid:
        assert "does not speak TLS: remove ca" in reason(grid.address, house.ours.path)


def test_a_closed_port_and_an_unknown_host_may_be_mended_by_waiting() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        trouble = look(f"127.0.0.1:{closed.getsockname()[1]}")
    assert trouble is not None
    assert (trouble.stage, trouble.lasting) == ("tcp", False)
    assert "nobody listens on" in trouble.reason


def test_a_client_gives_up_at_once_on_what_only_a_person_can_mend(house: House) -> None:
    options = {"ca": house.theirs.path, "certificate": house.ann.certificate, "key": house.ann.key}
    with listening(house) as address, clients(address, "ann", patience_seconds=60.0, **options) as (session,):
        outcome = session.join()  # long before its patience is over
    assert isinstance(outcome, ConfigError)
    assert "was signed by 'ours', not by the authority in" in str(outcome)


def test_a_client_out_of_its_time_does_not_even_dial(house: House) -> None:
    for days, phrase in (((-9.0, -3.0), "expired on"), ((3.0, 9.0), "is valid from")):
        late = house.ours.sign("late", days)
        options = {"ca": house.ours.path, "certificate": late.certificate, "key": late.key}
        with clients("127.0.0.1:1", "late", **options) as (session,):
            outcome = session.join()
        assert isinstance(outcome, ConfigError)
        assert f"the client certificate '{late.certificate}' {phrase}" in str(outcome)


def test_a_server_out_of_its_time_does_not_listen(house: House) -> None:
    late = house.ours.sign("late", (-9, -3))
    with pytest.raises(ConfigError, match=r"the server certificate '.*late\.pem' expired on"), fleet(**late._asdict()):
        pytest.fail("it listens")


def test_files_are_checked_before_they_are_used(house: House, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not the key of the client certificate"):
        check_pair(house.ann.certificate, house.server.key, "client")
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="is no certificate in PEM"):
        check_authority(tmp_path / "bad.pem", "client CA")
    with pytest.raises(ConfigError, match="is no private key in PEM, or has a password"):
        check_pair(house.ann.certificate, tmp_path / "bad.pem", "client")
    old = Authority(tmp_path / "old", "old", (-9, -3))
    with pytest.raises(ConfigError, match=r"the client CA '.*ca\.pem' expired on"):
        check_authority(old.path, "client CA")
    assert expires_soon(house.ann.certificate, "certificate") is None
    assert "expires in 2 days" in str(expires_soon(house.ours.sign("short", (-1, 2.5)).certificate, "certificate"))


# -- what thinwire doctor makes of it ----------------------------------------------------------------------------


def states(found: Iterator[connections.Finding]) -> dict[str, str]:
    return {finding.name: f"{finding.state}: {finding.detail}" for finding in found}


def test_the_doctor_reaches_a_server_and_says_what_it_runs(house: House) -> None:
    with listening(house) as address:
        found = states(connections.server(SessionOptions(address, "ann", "", house.ours.path, *house.ann)))
    assert [line.partition(":")[0] for line in found.values()] == ["ok", "ok", "ok", "ok"]
    assert "'ann' is welcome; the server runs thinwire" in found["hello"]
    assert "off ours, give or take" in found["clock"]


def test_the_doctor_says_why_a_hello_is_refused(house: House) -> None:
    with listening(house) as address:
        found = list(connections.server(SessionOptions(address, "bob", "", house.ours.path, *house.ann)))
    assert (found[-1].name, found[-1].state) == ("hello", "fail")
    assert "identity 'bob' is not the certificate's common name 'ann'" in found[-1].detail
    assert found[-1].advice.startswith("name the client as its certificate does")


def test_the_doctor_judges_files(house: House) -> None:
    good = states(connections.certificate(*house.ann, house.ours.path, "client"))
    assert good["client certificate"].startswith("ok: 'ann' for 127.0.0.1, until ")
    open_key = house.ours.sign("open")
    open_key.key.chmod(0o644)
    assert (
        "can be read by others (mode 644)" in states(connections.certificate(*open_key, None, "client"))["client key"]
    )
    other = list(connections.certificate(*house.theirs.sign("ann"), house.ours.path, "client"))
    assert other[-1].state == "warn"
    assert "was signed by 'theirs'" in other[-1].detail
    late = next(connections.certificate(*house.ours.sign("late", (-9, -3)), None, "client"))
    assert late.state == "fail"
    soon = next(connections.certificate(*house.ours.sign("soon", (-9, 3)), None, "client"))
    assert (soon.state, soon.advice) == ("warn", "issue it anew (thinwire certs ... --force) in time")


@pytest.mark.parametrize(("skew", "state"), [(0.5, "ok"), (-30.0, "warn"), (4000.0, "fail")])
def test_the_doctor_compares_clocks(skew: float, state: str) -> None:
    answer = connections.Answer(True, skew_seconds=skew, trip_seconds=0.2)
    finding = connections.clock(answer)
    assert finding.state == state
    assert f"{skew:+.2f} s off ours" in finding.detail
