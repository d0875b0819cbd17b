"""Where a server can be and how a client gets there: IPv6, names in certificates, proxies of the environment."""

import socket
import threading
from pathlib import Path

import pytest
from fleet_support import Events, ask, clients, data_of, fleet, proxy

from server.grids.fleet import FleetGrid
from thinwire.certificates import Authority
from thinwire.errors import ConfigError
from thinwire.handshake import look


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "certs")
    made.create()
    return made


def echoes(grid: FleetGrid) -> None:
    """The one client answers."""
    (node,) = grid.wait_for_nodes(1, 10)
    (reply,) = grid.send_and_receive([ask(node, b"there and back")], timeout=10)
    assert data_of(reply) == b"there and back"


def test_a_fleet_on_ipv6_loopback() -> None:
    events = Events()
    with fleet(events, address="[::1]:0") as grid:
        assert grid.address.startswith("[::1]:")
        with clients(grid.address, "ann"):
            echoes(grid)
        assert "from ipv6:%5B::1%5D:" in events.wait("opened", "ann")


def test_mutual_tls_over_ipv6_with_the_address_in_the_certificate(authority: Authority) -> None:
    server, ann = authority.issue("server", "server", ["::1"]), authority.issue("client", "ann")
    mutual = {"certificate": server.certificate, "key": server.key, "client_ca": authority.certificate}
    own = {"ca": authority.certificate, "certificate": ann.certificate, "key": ann.key}
    with fleet(address="[::1]:0", **mutual) as grid, clients(grid.address, "ann", **own):
        echoes(grid)


def test_a_server_behind_another_address_is_known_by_its_name(authority: Authority) -> None:
    """A forwarded port, a tunnel: the certificate has the name, and the client is told to expect that."""
    server = authority.issue("server", "server", ["server.example"])
    with fleet(certificate=server.certificate, key=server.key) as grid:
        with clients(grid.address, "ann", ca=authority.certificate, patience_seconds=0.3) as (lost,):
            assert isinstance(lost.join(), ConfigError)
        with clients(grid.address, "ann", ca=authority.certificate, server_name="server.example"):
            echoes(grid)


def test_a_client_goes_through_the_environments_http_proxy_and_the_proxy_looks_up_the_name(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS is between the two ends; the proxy sees a name, a port and bytes."""
    server = authority.issue("server", "server", ["server.example"])
    with fleet(certificate=server.certificate, key=server.key) as grid, proxy(grid.address, http=True) as through:
        monkeypatch.setenv("http_proxy", f"http://{through.address}")
        with clients("server.example:8500", "ann", ca=authority.certificate):
            echoes(grid)
        assert through.asked == ["CONNECT server.example:8500 HTTP/1.1"]


def test_what_accepts_and_hangs_up_is_tried_again(authority: Authority) -> None:
    """As a balancer, a tunnel or a container's published port does while the server behind it is not there yet."""
    with socket.create_server(("127.0.0.1", 0)) as front:
        hanging_up = threading.Thread(target=lambda: front.accept()[0].close())
        hanging_up.start()
        trouble = look(f"127.0.0.1:{front.getsockname()[1]}", authority.certificate)
        hanging_up.join()
    assert trouble is not None
    assert not trouble.lasting, trouble.reason
    assert "check that the server runs" in trouble.reason or "it hung up" in trouble.reason


def test_hosts_of_no_proxy_are_dialled_directly(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    with fleet() as grid, proxy(grid.address, http=True) as through:
        monkeypatch.setenv("http_proxy", f"http://{through.address}")
        monkeypatch.setenv("no_proxy", "server.example")
        with clients("server.example:8500", "ann", ca=authority.certificate, patience_seconds=0.3) as (
            lost,
        ):  # nobody knows the name here
            assert isinstance(lost.join(), ConfigError)
        assert through.asked == []


def test_no_proxy_leads_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with fleet() as grid, proxy(grid.address, http=True) as through:
        monkeypatch.setenv("http_proxy", f"http://{through.address}")
        with clients(grid.address, "ann"):
            echoes(grid)
        assert through.asked == []


def test_a_server_on_every_address_of_ipv6_hears_ipv4_too_when_told_twice_to_go_without_tls() -> None:
    everywhere = "[::]:0"
    with fleet(address=everywhere, insecure=True, insecure_address=everywhere) as grid:
        port = grid.address.rpartition(":")[2]
        with clients(f"127.0.0.1:{port}", "ann"), clients(f"[::1]:{port}", "bob"):
            nodes = grid.wait_for_nodes(2, 10)
            replies = grid.send_and_receive([ask(node, b"both") for node in nodes], timeout=10)
            assert [data_of(reply) for reply in replies] == [b"both"] * 2
