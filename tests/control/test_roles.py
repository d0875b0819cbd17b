"""Who may command: an operator's certificate over mutual TLS, or where there is none the run's own user."""

import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from server.control.callers import ControlOptions
from server.control.control import Control, RunFacts
from server.control.listener import ControlListener, expected, from_here
from thinwire.certificates import Authority, Pair
from thinwire.cli.controlling import control_options
from thinwire.cli.serving import ServerConfig
from thinwire.errors import ConfigError
from thinwire.run_config import RunConfig
from thinwire.v1 import operator_pb2 as messages
from thinwire.wire.operator import ControlFile, Operator

RUN = "0123456789abcdef" * 2


@contextmanager
def listening(folder: Path, options: ControlOptions) -> Iterator[tuple[ControlListener, list[tuple[str, Any]]]]:
    """A control service of a run that has no rounds yet, and what it records."""
    recorded: list[tuple[str, Any]] = []
    control = Control(
        RunFacts(RUN, folder),
        RunConfig(),
        lambda kind, fields: recorded.append((kind, dict(fields))),
        lambda config: None,
    )
    listener = ControlListener(control, options)
    try:
        yield listener, recorded
    finally:
        listener.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    found = Authority(tmp_path_factory.mktemp("ours"))
    found.create()
    found.issue("server", "server", ["127.0.0.1"])
    for role, name in (("operator", "olga"), ("operator", "former"), ("client", "carl")):
        found.issue(role, name)  # type: ignore[arg-type]
    found.revoke("former")
    return found


@pytest.fixture(scope="module")
def mutual(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = authority.folder
    options = ControlOptions(
        "127.0.0.1:0", folder / "server.pem", folder / "server.key", authority.certificate, authority.revoked
    )
    with listening(tmp_path_factory.mktemp("run"), options) as found:
        yield found


def operator(listener: ControlListener, authority: Authority, name: str) -> Operator:
    pair = Pair(authority.folder / f"{name}.pem", authority.folder / f"{name}.key")
    return Operator(listener.address, authority.certificate, pair.certificate, pair.key)


def test_an_operator_is_let_in_and_recorded_by_name(mutual: Any, authority: Authority) -> None:
    listener, recorded = mutual
    with operator(listener, authority, "olga") as olga:
        assert olga.status().state == messages.RUN_STATE_GATHERING
        assert "when its clients are there" in olga.pause().message
        assert "was not held yet" in olga.resume().message
        assert recorded == []
    with operator(listener, authority, "olga") as olga:
        olga.stop()
    assert recorded == [("stopping", {"by": "olga", "round": 0})]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("carl", "the certificate of 'carl' says 'client'; an operator's is needed"), ("former", "'former' was revoked")],
)
def test_another_certificate_is_refused_whatever_it_asks(
    mutual: Any, authority: Authority, name: str, reason: str
) -> None:
    listener, _ = mutual
    with operator(listener, authority, name) as caller:
        calls = (caller.status, caller.clients, caller.pause, caller.resume, caller.stop, caller.checkpoint)
        more = (lambda: caller.drain("a"), lambda: caller.ban("a"), lambda: caller.change({"rounds": "9"}))
        for call in (*calls, *more, lambda: next(caller.watch())):
            with pytest.raises(ConfigError, match=reason):
                call()


def test_a_client_certificate_is_permission_denied_on_the_wire(mutual: Any, authority: Authority) -> None:
    listener, _ = mutual
    with operator(listener, authority, "carl") as carl, pytest.raises(grpc.RpcError) as caught:
        carl._stub.GetStatus(messages.GetStatusRequest(), timeout=10)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_whoever_shows_no_certificate_or_anothers_gets_no_connection(
    mutual: Any, authority: Authority, tmp_path: Path
) -> None:
    listener, _ = mutual
    stranger = Authority(tmp_path)
    stranger.create()
    pair = stranger.issue("operator", "olga")
    for one, why in (
        (Operator(listener.address, authority.certificate), "wants a client's certificate"),
        (Operator(listener.address, authority.certificate, pair.certificate, pair.key), "refuses our certificate"),
        (Operator(listener.address, stranger.certificate, pair.certificate, pair.key), "not by the authority in"),
        (Operator(listener.address), "wants TLS"),
    ):
        with one, pytest.raises(ConfigError, match=f"no answer from the control service at .*{why}"):
            one.status()


def test_where_the_server_asks_for_no_certificates_it_listens_on_this_machine_only(tmp_path: Path) -> None:
    with (
        listening(tmp_path, ControlOptions("127.0.0.1:0")) as (listener, recorded),
        Operator.of_run(tmp_path) as local,
    ):
        assert listener.address.startswith("127.0.0.1:")
        local.stop()
        assert recorded == [("stopping", {"by": "local", "round": 0})]
    with pytest.raises(ConfigError, match=r"server.control = '0.0.0.0:0' is beyond this machine"):
        ControlOptions("0.0.0.0:0")
    with pytest.raises(ConfigError, match=r"192.0.2.1:9000 is beyond this machine"):
        Operator("192.0.2.1:9000")


CALLS: list[Callable[[Operator], Any]] = [
    Operator.status,
    Operator.clients,
    Operator.pause,
    Operator.resume,
    Operator.stop,
    Operator.checkpoint,
    lambda one: next(one.watch()),
    lambda one: one.drain("ann"),
    lambda one: one.ban("ann"),
    lambda one: one.change({"rounds": "3"}),
]


def test_without_tls_nobody_is_heard_but_who_has_the_token(tmp_path: Path) -> None:
    with listening(tmp_path, ControlOptions()) as (listener, recorded):
        found = ControlFile.find(tmp_path)
        assert found is not None
        for token, fault in (("", "no token"), ("x" * 43, "a wrong token"), (found.token[:-1], "a wrong token")):
            for call in CALLS:
                with Operator(listener.address, token=token) as other, pytest.raises(ConfigError) as caught:
                    call(other)
                assert str(caught.value).startswith(f"{fault}: name the run directory, whose control.json")
        assert recorded == []
        with Operator(listener.address) as nobody, pytest.raises(grpc.RpcError) as refused:
            nobody._stub.GetStatus(messages.GetStatusRequest(), timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with Operator(listener.address, token=found.token) as local:
            assert local.status().run == RUN


def test_every_process_has_a_token_of_its_own_and_one_with_certificates_none(
    tmp_path: Path, mutual: Any, authority: Authority
) -> None:
    tokens = []
    for _ in range(2):
        with listening(tmp_path, ControlOptions()):
            found = ControlFile.find(tmp_path)
            assert found is not None
            tokens.append(found.token)
    assert len(set(tokens)) == 2
    listener, _ = mutual
    certified = ControlFile.find(listener._path.parent)
    assert certified is not None
    assert (certified.tls, certified.token) == (True, "")


def test_a_token_that_cannot_be_one_is_named() -> None:
    with pytest.raises(ConfigError, match="THINWIRE_OPERATOR_TOKEN is no token"):
        Operator("127.0.0.1:1", token="line\nbreak")


def test_on_the_servers_own_machine_its_certificate_need_not_be_for_loopback(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    authority.create()
    pair, own = authority.issue("server", "server", ["fleet.example", "192.0.2.7"]), authority.issue("operator", "olga")
    options = ControlOptions("0.0.0.0:0", pair.certificate, pair.key, authority.certificate)
    olga = (authority.certificate, own.certificate, own.key)
    with listening(tmp_path, options) as (listener, _):
        found = ControlFile.find(tmp_path)
        assert found is not None
        assert (found.address, found.name) == (f"127.0.0.1:{listener.address.rpartition(':')[2]}", "fleet.example")
        with Operator.of_run(tmp_path, *olga) as local:
            assert local.status().run == RUN
        other = r"is for fleet\.example, 192\.0\.2\.7, not for '127\.0\.0\.1': dial that"
        with Operator(found.address, *olga) as by_address, pytest.raises(ConfigError, match=other):
            by_address.status()
    assert [from_here(one) for one in ("[::]:7", "[::1]:7", "10.0.0.5:7")] == ["[::1]:7", "[::1]:7", "10.0.0.5:7"]
    assert [expected(hosts) for hosts in ((), ("*.fleet.example", "a"))] == ["", "server.fleet.example"]


def test_the_control_file_says_where_while_the_service_is_there_and_is_its_owners_only(tmp_path: Path) -> None:
    with listening(tmp_path, ControlOptions()) as (listener, _):
        path = tmp_path / "control.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        found = ControlFile.find(tmp_path)
        assert found is not None
        assert (found.address, found.tls, found.run) == (listener.address, False, RUN)
        assert len(found.token) == 43  # 32 bytes in base64
        assert found.token not in repr(found)
        with Operator.of_run(tmp_path) as local:
            assert local.status().run == RUN
    assert not path.exists()
    with pytest.raises(ConfigError, match="no server runs on"):
        Operator.of_run(tmp_path)
    path.write_text(json.dumps({"address": 3}))
    with pytest.raises(ConfigError, match="is no control file"):
        Operator.of_run(tmp_path)


def test_a_taken_port_is_one_clear_line_and_leaves_no_file(tmp_path: Path) -> None:
    with (
        listening(tmp_path, ControlOptions()) as (listener, _),
        pytest.raises(ConfigError, match=r"cannot listen on server.control = .*the port is taken"),
        listening(tmp_path / "other", ControlOptions(listener.address)),
    ):
        pass
    assert not (tmp_path / "other" / "control.json").exists()


def test_a_run_directory_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"cannot write .*control\.json: No such file"),
        listening(tmp_path / "gone", ControlOptions()),
    ):
        pass


def test_the_service_can_be_turned_off_and_takes_the_servers_own_certificate() -> None:
    assert control_options("off", ServerConfig()) is None
    assert control_options("", ServerConfig()) is None
    plain = control_options("127.0.0.1:7", ServerConfig())
    assert plain is not None
    assert not plain.tls
