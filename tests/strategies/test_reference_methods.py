"""MARINA and DASHA, which shifted compression is compared with: linear, sampled or lossy; who is asked for what."""

import pytest
import torch
from strategies_kit import full
from test_gradient_descent import WEIGHTS, descend
from test_shifted_compression import RAND_5, TARGET, keeps_its_promise, small_ridge

from compressors import Place
from compressors.identity import Identity
from compressors.perm_k import PermK
from compressors.rand_k import RandK
from strategies.base import Asks, Downlink, Federation, Local, Method, Round
from strategies.dasha import DASHA
from strategies.estimator import UPDATE
from strategies.loop import Faults, run
from strategies.marina import DENSE, MARINA
from strategies.optimiser import SGD
from strategies.problems import quadratic
from strategies.theory import Constants
from thinwire.errors import ConfigError, WireError
from thinwire.layout import Layout

METHODS: dict[str, Method] = {
    "marina": MARINA(RAND_5, work="full"),
    "marina-perm-k": MARINA(PermK(4, "fp32"), work="full"),
    "dasha": full(DASHA(RAND_5), 1.0),
}


@pytest.mark.parametrize("name", METHODS)
def test_it_reaches_the_minimiser_at_the_step_of_theory(name):
    keeps_its_promise(METHODS[name], small_ridge(), 700)


def test_marina_reaches_it_with_a_sample_of_the_clients():
    keeps_its_promise(METHODS["marina"], small_ridge(), 700, participation=0.5)


@pytest.mark.parametrize("name", ["marina", "dasha"])
def test_lost_uplinks_do_it_no_harm(name):
    rate = 0.2 / small_ridge().L
    faults = Faults(loss=0.05)
    assert run(METHODS[name].at(rate), small_ridge(), 600, until=TARGET, faults=faults).errors[-1] <= TARGET


@pytest.mark.parametrize("recovery", ["reset", "restore"])
def test_a_restarted_client_does_dasha_no_harm_when_both_ends_know(recovery):
    faults = Faults(restart_round=60, restart_client=1, recovery=recovery)
    method = METHODS["dasha"].at(0.2 / small_ridge().L)
    assert run(method, small_ridge(), 400, until=TARGET, faults=faults).errors[-1] <= TARGET


@pytest.mark.parametrize("weights", [(0.1,) * 10, WEIGHTS])
@pytest.mark.parametrize("method", [MARINA(probability=0.3, work="full"), full(DASHA(), 1.0)])
def test_uncompressed_it_is_gradient_descent(method, weights):
    problem = quadratic()
    x = run(method.at(0.5), problem, 30, weights=weights).model
    wanted = descend(problem, 0.5, 30, weights)
    assert torch.max(torch.abs(x - wanted)) <= 1e-12 * torch.max(torch.abs(wanted))  # sums of differences


# -- DASHA -----------------------------------------------------------------------------------------------------------


def test_dasha_refuses_a_sample_of_the_clients():
    federation = Federation.uniform(quadratic().layout, 10)
    with pytest.raises(ConfigError, match=r"all clients in every round.*participation\.fraction"):
        full(DASHA(RAND_5), 1.0).check(federation, 0.5)


# -- MARINA ----------------------------------------------------------------------------------------------------------


class Slope:
    """f(x) = a x^2/2, which tells its full gradient from that of a minibatch."""

    def __init__(self, a: float) -> None:
        self.a = a

    def full(self, x):
        return self.a * x

    def sample(self, x, key):
        return self.a * x + (1000.0 if key.round % 2 else 2000.0)

    def local(self, x, key, correction=None):
        return Local(0.1 * self.sample(x, key), 1, 0.1)


class Bench:
    """Three clients with slopes 1, 2, 3; whoever is named answers."""

    def __init__(self, method: MARINA, weights: tuple[float, ...] = (0.5, 0.25, 0.25)) -> None:
        self.method = method
        self.federation = Federation(Layout.flat(8), len(weights), 0, torch.float64, weights)
        self.replica, self.server = method.begin(torch.ones(8, dtype=torch.float64), self.federation)
        self.number = 0

    def uplink(self, client: int):
        blind = Federation(self.federation.layout, 3, 0, torch.float64)
        here = Round(self.number + 1, blind, client, Place(0, 1))
        packet = self.method.respond(self.replica, None, Slope(client + 1.0), here)[1]
        self.method.validate(packet, here)
        return client, packet

    def play(self, *clients: int) -> Downlink:
        uplinks = [self.uplink(client) for client in clients]
        self.number += 1
        here = Round(self.number, self.federation, asked=clients)
        self.server, downlink = self.method.step(self.replica, self.server, uplinks, here)
        self.replica = self.method.apply(self.replica, downlink.broadcast, here)
        return downlink

    @property
    def asks(self):
        return self.method.asks(self.replica, self.server, self.number + 1)

    @property
    def x(self) -> float:
        return float(self.method.model(self.replica, self.server)[0])


RARELY = MARINA(Identity(), probability=1e-9, optimiser=SGD(0.1), work="full")  # dense in round 1 only


def test_the_first_round_waits_for_everyone_and_asks_only_the_missing_again():
    bench = Bench(RARELY)
    assert bench.asks == (0, 1, 2)
    assert not bench.play(0, 2).broadcast
    assert (bench.asks, bench.x) == ((1,), 1.0)
    assert not bench.play().broadcast
    assert not bench.play(0).broadcast  # it has answered: it does not count twice
    assert bench.asks == (1,)
    assert bench.play(1).broadcast
    assert bench.asks is Asks.SAMPLE
    assert bench.x == pytest.approx(1 - 0.1 * (0.5 + 0.5 + 0.75))


def test_a_compressed_round_takes_who_is_there_for_all_and_stays_where_nobody_is():
    bench = Bench(RARELY)
    bench.play(0, 1, 2)
    x, g = bench.x, 0.5 + 0.5 + 0.75
    assert not bench.play().broadcast
    assert bench.x == x
    bench.play(2)  # p = 1/4, pi = 1/3: its change counts 3/4
    g += 0.75 * 3 * (x - 1)
    assert bench.x == pytest.approx(x - 0.1 * g)


def test_an_answer_to_the_other_question_counts_for_nothing():
    bench = Bench(RARELY)
    dense = bench.uplink(1)
    bench.play(0, 1, 2)
    assert set(dense[1]) == {DENSE}
    here = Round(2, bench.federation, asked=(1,))
    server, downlink = RARELY.step(bench.replica, bench.server, [dense], here)
    assert server is bench.server
    assert not downlink.broadcast
    both = {**dense[1], UPDATE: dense[1][DENSE]}
    for packet in ({}, both):
        with pytest.raises(WireError, match="payloads in an uplink; marina sends one of update, dense"):
            RARELY.validate(packet, here)


def test_the_difference_is_that_of_one_minibatch_and_a_dense_round_takes_all_examples():
    bench = Bench(MARINA(Identity(), probability=1e-9, optimiser=SGD(0.1), work="minibatch"))
    bench.play(0, 1, 2)
    x = bench.x
    assert x == pytest.approx(1 - 0.1 * 1.75)  # the full gradient
    bench.play(0, 1, 2)
    assert bench.x == pytest.approx(x - 0.1 * 1.75 * x)  # the noise is the same at both points


def test_dense_rounds_come_as_often_as_their_probability_says():
    bench, dense = Bench(MARINA(Identity(), probability=0.25, optimiser=SGD(0.1), work="full")), 0
    for _ in range(400):
        bench.play(0, 1, 2)
        dense += bench.replica.dense
        assert bench.replica.dense == (bench.asks != Asks.SAMPLE)
    assert abs(dense - 100) < 4 * (400 * 0.25 * 0.75) ** 0.5  # four sigma


def test_the_step_of_marina_is_that_of_its_papers():
    federation, plain = Federation.uniform(quadratic().layout, 10), Constants(L=10.0, L_max=30.0, L_mean=20.0)
    tenth = RandK(0.1, "fp32", "global")  # omega = 9, p = 1/10
    found = MARINA(tenth).theory(plain, federation)
    assert found.rate == pytest.approx(1 / (10 + 20 * (0.9 * 9 / (0.1 * 10)) ** 0.5))
    convex = Constants(L=10.0, L_max=30.0, L_mean=20.0, mu=0.5)
    assert MARINA(tenth).theory(convex, federation).rate == pytest.approx(1 / (10 + 20 * (2 * 8.1) ** 0.5))
    sampled = MARINA(tenth).theory(plain, federation, 0.2).rate
    assert sampled == pytest.approx(1 / (10 + 20 * (0.9 / 0.1 * (10 / 2 - 1 / 10)) ** 0.5), rel=0.01)


def test_the_step_of_dasha_is_that_of_its_paper():
    federation, plain = Federation.uniform(quadratic().layout, 10), Constants(L=10.0, L_max=30.0, L_mean=20.0)
    found = full(DASHA(RandK(0.1, "fp32", "global")), 1.0).theory(plain, federation)
    assert found.rate == pytest.approx(1 / (10 + 20 * (16 * 9 * 19 / 10) ** 0.5))
    assert found.proven
