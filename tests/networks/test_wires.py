"""The wire that is carried in user space is as thin, as long and as lossy as it says; without any device or clock."""

import os
import random
from collections.abc import Iterator

import pytest

from benchmarks.wires import Direction, Link

PACKET = bytes(1_250)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    near, far = os.pipe()
    yield near, far
    os.close(near)
    os.close(far)


def arrivals(direction: Direction) -> list[float]:
    return [when for when, _ in direction.waiting]


def direction(link: Link, sink: int = -1) -> Direction:
    return Direction(link, -1, sink, random.Random(1))


def test_packets_follow_each_other_at_the_rate_of_the_link_after_half_a_round_trip() -> None:
    way = direction(Link(1, 0.1))
    for _ in range(5):
        way.take(PACKET, now=10.0)
    assert arrivals(way) == pytest.approx([10.06, 10.07, 10.08, 10.09, 10.1], abs=1e-9)  # rounding of sums


def test_an_idle_link_has_forgotten_what_it_carried() -> None:
    way = direction(Link(1))
    way.take(PACKET, now=1.0)
    way.take(PACKET, now=5.0)
    assert arrivals(way) == pytest.approx([1.01, 5.01], abs=1e-9)


def test_what_a_full_queue_has_no_room_for_is_dropped() -> None:
    way = direction(Link(1))
    for _ in range(200):
        way.take(PACKET, now=0.0)
    assert len(way.waiting) == 64_000 // len(PACKET)


def test_a_share_of_the_packets_is_lost() -> None:
    way = direction(Link(1_000, loss=0.01))
    for number in range(10_000):
        way.take(PACKET, now=float(number))
    assert 9_850 < len(way.waiting) < 9_950  # five standard deviations around 9,900


def test_a_cut_link_loses_what_comes_and_what_is_under_way(pipe: tuple[int, int]) -> None:
    near, far = pipe
    way = direction(Link(1), far)
    way.take(b"under way", now=0.0)
    way.cut = True
    way.take(b"lost", now=0.0)
    assert way.deliver(now=1.0) is None
    way.cut = False
    way.take(b"after", now=2.0)
    assert way.deliver(now=2.0) == pytest.approx(2.00004)
    assert way.deliver(now=3.0) is None
    assert os.read(near, 100) == b"after"
