"""A server and clients on machines of their own, in network namespaces, over links that are thin, long and lossy."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import thinwire.flower  # noqa: F401  first: it imports flwr quietly

# isort: split
from benchmarks.far import HOST, PORT, Far, Traffic
from benchmarks.namespaces import NETEM, USER_SPACE, Star, etc_of, why_not
from benchmarks.wires import Link
from thinwire.cli.simulation import simulate
from thinwire.run_config import RunConfig

pytestmark = pytest.mark.network
# Messages of 340 kB both ways: plain federated averaging of the bundled digits.
DENSE: dict[str, Any] = {
    "rounds": 3,
    "seed": 1,
    "method": {"name": "fedavg"},
    "uplink": {"name": "identity"},
    "downlink": {"name": "identity"},
    "participation": {"fraction": 1.0},
    "evaluation": {"where": "none"},
}
MESSAGE_BYTES = 340_000
Build = Callable[..., tuple[Star, Far]]


@pytest.fixture(params=[NETEM, USER_SPACE])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Build]:
    """Machines and links, and processes to start on them; each kind of link where it can be had."""
    reason = why_not(request.param)
    if reason is not None:
        pytest.skip(f"links by {request.param}: {reason}")
    closing: list[Star | Far] = []

    def make(*links: Link, keepalive_seconds: float = 30.0) -> tuple[Star, Far]:
        star = Star(links, request.param)
        closing.append(star)
        far = Far(star, tmp_path / "far", keepalive_seconds)
        closing.append(far)
        return star, far

    yield make
    for one in reversed(closing):
        one.__exit__(None, None, None)


def undisturbed(options: dict[str, Any], folder: Path) -> bytes:
    """The model of the same run in one process."""
    return (simulate(RunConfig.of(options), folder).run_dir / "model.safetensors").read_bytes()


def told_once(far: Far, clients: int, rounds: int) -> None:
    """Every client answered every round, once, at the first attempt."""
    rows = far.rounds()
    assert [(row["round"], row["attempt"]) for row in rows] == [(number + 1, 0) for number in range(rounds)]
    assert all(sorted(row["replied"]) == list(range(clients)) for row in rows)


def test_tcp_carries_what_the_meter_says_and_the_bits_are_those_of_one_process(build: Build, tmp_path: Path) -> None:
    """One client at the end of a long lossy link, the other of a short one."""
    star, far = build(Link(10, 0.1, 0.01), Link(100, 0.02))
    options = {**DENSE, "clients": 2}
    far.start_all(options)
    assert far.finish(200) == undisturbed(options, tmp_path / "simulated")
    told_once(far, 2, DENSE["rounds"])
    traffic = Traffic.of(far.rounds(), star.payloads(), [star.interface_bytes(index) for index in range(2)])
    assert traffic.packets_up > 2 * 3 * MESSAGE_BYTES
    assert 0 < traffic.over_up < 0.03
    assert 0 < traffic.over_down < 0.03
    assert traffic.interface_up > 1.01 * traffic.payload_up  # headers of TCP and IP, and what was sent again
    assert traffic.interface_down > 1.01 * traffic.payload_down


def test_a_link_cut_in_mid_upload_and_a_new_address_behind_it_cost_no_bit(build: Build, tmp_path: Path) -> None:
    """The connection is dead without a word: pings find that out, and the kept reply is sent again."""
    star, far = build(Link(4, 0.04), keepalive_seconds=1.0)
    options = {**DENSE, "clients": 1}
    far.start_all(options)
    far.wait_for(lambda: star.interface_bytes(0)[0] > MESSAGE_BYTES // 2, "upload under way", 150)
    star.cut(0)
    star.move(0, 3)
    star.cut(0, False)
    assert far.finish(200) == undisturbed(options, tmp_path / "simulated")
    told_once(far, 1, DENSE["rounds"])
    received = sorted(one.received_bytes for one in star.payloads())
    assert len(received) >= 2, "the connection outlived its address"
    assert sum(received) > 3 * MESSAGE_BYTES


def test_a_client_waits_for_a_name_that_resolves_late_to_an_ipv6_server(build: Build, tmp_path: Path) -> None:
    """Started before there is a server, or a name for it; over IPv6, with the name in the server's certificate."""
    star, far = build(Link(100, 0.01))
    etc = etc_of(star.clients[0])
    etc.mkdir(parents=True)
    try:
        (etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")  # nobody answers
        hosts = etc / "hosts"
        hosts.write_text("127.0.0.1 localhost\n")
        far.start_client(0, f"{HOST}:{PORT}")
        far.wait_for(lambda: "no connection to" in far.log("client-0"), "first attempt in vain", 150)
        far.start_server({**DENSE, "clients": 1, "rounds": 1}, f"[::]:{PORT}")
        far.wait_for(far.listens, "server that listens", 150)
        hosts.write_text(f"127.0.0.1 localhost\nfd77:0::1 {HOST}\n")
        far.finish(200)
    finally:
        for file in etc.iterdir():
            file.unlink()
        etc.rmdir()
    told_once(far, 1, 1)
