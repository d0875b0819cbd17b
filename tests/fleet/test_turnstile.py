"""Token buckets by name: who passes, and when again."""

import pytest

from server.grids import turnstile
from server.grids.options import FleetOptions
from server.grids.turnstile import Damper, Turnstile, address_of


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_name_passes_as_often_at_once_as_in_a_minute_and_then_at_that_rate() -> None:
    clock = Clock()
    gate = Turnstile(6, clock)
    assert [gate.admit("ann") for _ in range(7)] == [True] * 6 + [False]
    assert gate.admit("bob")
    clock.now += 9.9
    assert not gate.admit("ann")
    clock.now += 0.2
    assert [gate.admit("ann"), gate.admit("ann")] == [True, False]
    clock.now += 3_600
    assert [gate.admit("ann") for _ in range(7)] == [True] * 6 + [False]


def test_less_than_once_a_minute_is_once_at_first() -> None:
    clock = Clock()
    gate = Turnstile(0.5, clock)
    assert [gate.admit("ann"), gate.admit("ann")] == [True, False]
    clock.now += 121
    assert gate.admit("ann")


def test_a_thousand_clients_behind_one_address_all_pass_at_once_by_default() -> None:
    clock = Clock()
    options = FleetOptions()
    addresses, identities = Turnstile(options.address_connects_per_minute, clock), Turnstile(60, clock)
    for _ in range(3):  # the server restarts again and again, a breath apart
        assert all(addresses.admit("203.0.113.7") and identities.admit(str(client)) for client in range(1_000))
        clock.now += 1
    assert options.connections >= 1_000


def test_as_many_names_as_there_are_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnstile, "MOST_NAMES", 100)
    gate, damper = Turnstile(1, Clock()), Damper(1, Clock())
    for number in range(1_000):
        gate.admit(str(number))
        damper.admit(str(number))
        damper.admit(str(number))
    assert len(gate._left) == len(damper._untold) == 100
    assert not gate.admit("999")
    assert gate.admit("0")


def test_what_was_not_told_is_counted_for_the_next_time() -> None:
    clock = Clock()
    damper = Damper(1, clock)
    assert [damper.admit("ann") for _ in range(4)] == [0, None, None, None]
    assert damper.admit("bob") == 0
    clock.now += 61
    assert [damper.admit("ann"), damper.admit("ann")] == [3, None]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:1234", "127.0.0.1"),
        ("ipv6:%5B::1%5D:1234", "::/64"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:80", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:ffff::1%5D:81", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:10.0.0.5%5D:81", "10.0.0.5"),
        ("ipv6:%5Bfe80::1%25eth0%5D:81", "fe80::/64"),
        ("unix:/run/socket", "unix:/run/socket"),
    ],
)
def test_connections_are_counted_by_host_and_by_what_one_ipv6_host_may_choose_from(peer: str, address: str) -> None:
    assert address_of(peer) == address
