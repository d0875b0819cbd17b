"""Methods that name clients, as MASHA does in a refresh: whoever is missing is asked again, and nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from world import Faults, World

from compressors.rand_k import RandK
from compressors.top_k import TopK
from strategies.anchored import OPERATOR, REFRESH
from strategies.masha1 import MASHA1
from strategies.masha2 import MASHA2
from strategies.saddle_problems import SaddleProblem, bilinear
from thinwire.errors import RoundError

PROBLEM: SaddleProblem = bilinear(devices=4, half=6, lam=0.3)
L = PROBLEM.constants.L
METHODS = {
    "masha1": MASHA1(RandK(0.5, "fp32", "global", shared=True), lipschitz=L, p=0.3),
    "masha2": MASHA2(TopK(0.5, "fp32", "global"), TopK(0.5, "fp32", "global"), lipschitz=L, p=0.3),
}


def phase(world: World) -> str:
    found: str = world.ledger.replicated.replica.method.phase
    return found


@pytest.mark.parametrize("name", METHODS)
def test_a_network_that_loses_doubles_delays_and_corrupts_leaves_masha_exact(name: str) -> None:
    faults = Faults(lost_asks=0.05, lost_answers=0.05, late_answers=0.05, doubled=0.1, corrupted=0.02)
    with World(METHODS[name], PROBLEM, faults=faults) as world:
        world.play(220)
        assert world.error() < 1e-9
        world.catch_everyone_up()
        assert len(set(world.replicas())) == 1


def in_the_middle_of_a_refresh(world: World) -> None:
    """Rounds until a refresh has begun that client 1 did not answer."""
    world.play(1)
    while phase(world) == OPERATOR:
        world.coordinator.round()
    world.network.mute.add(101)
    world.coordinator.round()
    world.network.mute.clear()


def test_a_refresh_waits_for_the_missing_client_and_asks_it_alone() -> None:
    with World(METHODS["masha1"], PROBLEM) as world:
        in_the_middle_of_a_refresh(world)
        assert (phase(world), world.ledger.server.missing) == (REFRESH, (1,))
        world.network.mute.add(101)
        with pytest.raises(RoundError, match="fewer than 1 of 1 clients answered"):
            world.coordinator.round()
        world.network.mute.clear()
        last = world.coordinator.round()
        assert (last.asked, last.replied) == ([1], [1])
        assert phase(world) == OPERATOR
        replica = world.ledger.replicated.replica.method
        assert float((replica.F - PROBLEM.operator(replica.w)).abs().max()) < 1e-14  # sums in two orders, float64


def test_a_server_that_restarts_in_a_refresh_still_has_what_has_come(tmp_path: Path) -> None:
    def run(folder: Path, kill: bool) -> bytes:
        with World(METHODS["masha2"], PROBLEM, folder=folder) as world:
            in_the_middle_of_a_refresh(world)
            if kill:
                world.kill_server()
                world.start_server()
            return world.play(12).digest()

    assert run(tmp_path / "whole", kill=False) == run(tmp_path / "killed", kill=True)


def test_a_client_that_lost_its_disk_computes_its_operator_at_the_anchor_anew() -> None:
    def run(lose: bool) -> Iterator[bytes]:
        with World(METHODS["masha1"], PROBLEM) as world:
            world.play(3)
            assert phase(world) == OPERATOR
            if lose:
                world.start_client(2, keep_disk=False)
            yield world.play(10).digest()

    assert list(run(lose=False)) == list(run(lose=True))


def test_absent_clients_cost_a_partial_cohort_nothing_but_time() -> None:
    with World(METHODS["masha1"], PROBLEM, participation=0.5) as world:
        for number in range(300):
            world.network.down = {100 + number % 4} if number % 3 == 0 else set()
            world.coordinator.round()
        assert world.error() < 1e-9
