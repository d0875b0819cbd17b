"""Section C4 of the acceptance list: error feedback makes biased compressors converge, and saves bytes."""

from dataclasses import dataclass, replace

import pytest
import torch
from strategies_kit import TOP_1, TOP_8, full, the_ridge
from torch import Tensor

from compressors.natural import Natural
from strategies.ef14 import EF14
from strategies.ef21 import EF21
from strategies.estimator import UPDATE
from strategies.fedavg import FedAvg
from strategies.loop import run
from strategies.problems import top1_example
from strategies.tracking import TrackingServer
from strategies.tuning import tune


def test_top_1_without_feedback_diverges_on_three_clients():
    problem = top1_example()
    trace = run(full(FedAvg(TOP_1), 0.6 / problem.L), problem, 800, check=False)
    assert trace.diverged


@pytest.mark.parametrize("estimator", [EF14(TOP_1), EF21(TOP_1)])
def test_feedback_converges_where_top_1_alone_diverges(estimator):
    problem = top1_example()
    trace = run(full(estimator, 0.6 / problem.L), problem, 800, until=1e-12)
    assert trace.errors[-1] <= 1e-12


def test_ef21_reaches_the_minimiser_with_top_k_where_top_k_alone_stalls():
    problem = the_ridge()
    ef21 = run(full(EF21(TOP_8), 1.2 / problem.L), problem, 500, until=1e-22)
    naive = run(full(FedAvg(TOP_8), 1.2 / problem.L), problem, 100, check=False)
    assert ef21.errors[-1] <= 1e-22
    assert naive.errors[-1] > 1e-2


@dataclass(frozen=True)
class EF21Servers(TrackingServer):
    own: tuple[Tensor, ...] = ()  # every g_i


@dataclass(frozen=True)
class AverageOfParticipants(EF21):
    """EF21-PP as it is often written, and wrong: G is the mean of g_i over those who answered."""

    def begin(self, x0, federation):
        return EF21Servers(torch.zeros(0), (torch.zeros_like(x0),) * federation.clients)

    def aggregate(self, server, uplinks, round):
        own, answered = list(server.own), []
        for client, packet in uplinks:
            key = round.key(UPDATE, "up", client)
            own[client] = own[client] + round.decode(packet, UPDATE, self.contraction, key)
            answered.append(own[client])
        return replace(server, own=tuple(own)), torch.stack(answered).mean(0)


def test_ef21_pp_must_average_over_all_clients_and_not_over_the_participants():
    problem = the_ridge()
    rate = 1.2 / problem.L
    right = run(full(EF21(TOP_8), rate), problem, 800, participation=0.5, until=1e-14)
    assert right.errors[-1] <= 1e-14
    for shrink in (1, 4):  # no rate helps
        wrong = full(AverageOfParticipants(TOP_8), rate / shrink)
        errors = run(wrong, problem, 400, participation=0.5).errors
        assert min(errors[-50:]) > 1e-5


def gain(seed: int) -> tuple[float, float]:
    """How many times fewer uplink bytes EF21 Top-8 takes than gradient descent to 1e-10, both tuned by one search.

    First as sent in a float64 run; then against the bare content of gradient descent at 4 bytes per value, which no
    message can do without.
    """
    problem = the_ridge(seed)
    search = {"problem": problem, "target": 1e-10, "rounds": 400, "factor": 1.1}
    plain = tune(lambda rate: full(FedAvg(), rate), start=1.8 / problem.L, **search)
    ef21 = tune(lambda rate: full(EF21(TOP_8), rate), start=1.6 / problem.L, **search)
    bare = plain.trace.rounds_to(1e-10) * 4 * problem.layout.numel
    return plain.uplink_bytes / ef21.uplink_bytes, bare / ef21.uplink_bytes


def test_ef21_top_8_takes_a_fraction_of_the_uplink_of_tuned_gradient_descent():
    as_sent, bare = gain(0)
    assert as_sent >= 3.5
    assert bare >= 2.8


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_ef21_gains_on_other_seeds(seed):
    as_sent, bare = gain(seed)
    assert as_sent >= 3.5
    assert bare >= 2.8


def test_ef14_forgets_a_part_of_its_residual_when_told_to():
    problem = the_ridge()
    keep, forget = (run(full(EF14(TOP_8, decay), 0.05 / problem.L), problem, 40) for decay in (1.0, 0.9))
    assert keep.errors[-1] != forget.errors[-1]
    assert forget.errors[-1] < forget.errors[0]


def test_an_unbiased_compressor_stops_in_a_neighbourhood_alone_and_converges_once_scaled_under_ef21():
    problem = the_ridge()
    alone = run(full(FedAvg(Natural()), 1 / problem.L), problem, 300)
    scaled = run(full(EF21(Natural()), 1 / problem.L), problem, 300, until=1e-14)
    assert 1e-8 < min(alone.errors[-50:]) < 1e-1
    assert scaled.errors[-1] <= 1e-14
