"""Shifted compression over a network that loses, doubles, delays and corrupts; MARINA's dense rounds on the hosts."""

import pytest
from test_exactly_once import assert_mirrors_match
from world import Faults, World

from compressors.rand_k import RandK
from strategies.base import Method
from strategies.descent import Descent
from strategies.diana import DIANA
from strategies.marina import MARINA
from strategies.optimiser import SGD
from strategies.problems import ridge
from strategies.rand_diana import RandDIANA
from strategies.vr_gdci import VRGDCI
from thinwire.errors import RoundError

PROBLEM = ridge(0, 4, 40, 20, 10.0)
RAND_5 = RandK(0.25, "fp32", "global")
RATE = 0.3 / PROBLEM.L
METHODS: dict[str, Method] = {
    "diana": Descent(DIANA(RAND_5), SGD(RATE), work="full"),
    "rand-diana": Descent(RandDIANA(RAND_5), SGD(RATE), work="full"),
    "vr-gdci": VRGDCI(RAND_5, rate=RATE, work="full"),
    "marina": MARINA(RAND_5, optimiser=SGD(RATE), work="full"),
}
BAD = Faults(lost_asks=0.05, lost_answers=0.05, late_answers=0.05, doubled=0.1, corrupted=0.02)


@pytest.mark.parametrize("name", METHODS)
def test_a_bad_network_leaves_shifts_exact(name: str) -> None:
    with World(METHODS[name], PROBLEM, faults=BAD) as world:
        world.play(180)
        assert world.error() < 1e-9
        world.catch_everyone_up()
        assert len(set(world.replicas())) == 1
        if METHODS[name].mirrored:
            assert_mirrors_match(world)


@pytest.mark.parametrize("name", ["diana", "rand-diana", "vr-gdci"])
def test_a_client_that_lost_its_shift_gets_it_back(name: str) -> None:
    with World(METHODS[name], PROBLEM) as world:
        world.play(60)
        world.start_client(1, keep_disk=False)
        world.play(100)
        assert world.error() < 1e-9
        assert_mirrors_match(world)


def test_a_dense_round_of_marina_waits_for_the_missing_client_and_asks_it_alone() -> None:
    with World(METHODS["marina"], PROBLEM) as world:
        world.network.mute.add(101)
        world.coordinator.round()
        assert world.ledger.server.missing == (1,)
        assert world.error() == 1.0
        with pytest.raises(RoundError, match="fewer than 1 of 1 clients answered"):
            world.coordinator.round()
        world.network.mute.clear()
        last = world.coordinator.round()
        assert (last.asked, last.replied) == ([1], [1])
        assert world.error() < 1.0
