"""Uncompressed, every estimator is gradient descent; sampled and weighted, it is what its paper says."""

from dataclasses import replace

import pytest
import torch
from strategies_kit import full, the_ridge

from strategies.base import Federation, Round
from strategies.descent import Descent
from strategies.ef14 import EF14
from strategies.ef21 import EF21
from strategies.estimator import gather
from strategies.fedavg import FedAvg
from strategies.loop import World, run
from strategies.optimisers import SGD
from strategies.problems import FiniteSum, logistic, quadratic
from thinwire.random import Key, choose

WEIGHTS = tuple((i + 1) / 55 for i in range(10))


def descend(problem: FiniteSum, rate: float, rounds: int, weights: tuple[float, ...]) -> torch.Tensor:
    """The reference: gradient descent on sum p_i f_i, written out."""
    x = problem.x0
    for _ in range(rounds):
        direction = torch.zeros_like(x)
        for share, oracle in zip(weights, problem.oracles, strict=True):
            direction = direction + share * oracle.full(x)
        x = x - rate * direction
    return x


@pytest.mark.parametrize("weights", [(0.1,) * 10, WEIGHTS])
@pytest.mark.parametrize(("estimator", "tolerance"), [(FedAvg(), 0.0), (EF14(), 0.0), (EF21(), 1e-12)])
def test_uncompressed_estimators_are_gradient_descent(estimator, tolerance, weights):
    problem = the_ridge()
    x = run(full(estimator, 1 / problem.L), problem, 30, weights=weights).model
    wanted = descend(problem, 1 / problem.L, 30, weights)
    assert torch.max(torch.abs(x - wanted)) <= tolerance * torch.max(torch.abs(wanted))  # EF21 subtracts and adds g_i


def test_weighted_clients_reach_the_minimiser_of_the_weighted_sum():
    problem = quadratic()
    centre = sum(p * o.targets / torch.diag(o.features) for p, o in zip(WEIGHTS, problem.oracles, strict=True))
    for estimator in (FedAvg(), EF21()):
        x = run(full(estimator, 1.0), problem, 600, weights=WEIGHTS).model
        assert torch.max(torch.abs(x - centre)) < 1e-10


def test_fedavg_renormalises_over_the_cohort_and_roster_sampling_divides_by_the_share_that_answered():
    federation = Federation(the_ridge().layout, 10, 0, torch.float64, WEIGHTS)
    vectors = {i: o.full(the_ridge().x0) for i, o in enumerate(the_ridge().oracles)}
    method = FedAvg()
    uplinks = [(i, method.respond(vectors[i], None, Round(1, federation, i))[1]) for i in (2, 7)]
    gathered = gather(uplinks, method.compressor, Round(1, federation, asked=(2, 7)))
    weighted = WEIGHTS[2] * vectors[2] + WEIGHTS[7] * vectors[7]
    assert torch.equal(gathered.average(), weighted / (WEIGHTS[2] + WEIGHTS[7]))
    assert torch.equal(gathered.sampled(), weighted * 5.0)
    assert method.aggregate(None, uplinks, Round(1, federation))[1].equal(gathered.average())


def test_a_round_that_nobody_answers_moves_no_memoryless_method():
    federation = Federation(the_ridge().layout, 10, 0, torch.float64, WEIGHTS)
    for method in (FedAvg(), EF14()):
        assert not method.aggregate(None, (), Round(1, federation))[1].any()


def test_fedavg_of_local_steps_is_the_mean_of_the_clients_models():
    problem = the_ridge()
    oracles = tuple(replace(oracle, steps=5, rate=0.1 / problem.L_max) for oracle in problem.oracles)
    problem = replace(problem, oracles=oracles)
    x = run(Descent(FedAvg()), problem, 1).model
    after = [problem.x0 - oracle.local(problem.x0, Key(0)).update for oracle in oracles]
    assert torch.allclose(x, torch.stack(after).mean(0), rtol=1e-13, atol=1e-13)


def test_local_steps_add_the_correction_to_each_gradient():
    oracle = replace(the_ridge().oracles[0], steps=3, rate=1e-3, lam=0.0)
    still = replace(oracle, features=torch.zeros_like(oracle.features))
    moved = still.local(torch.zeros(80, dtype=torch.float64), Key(0), correction=torch.ones(80, dtype=torch.float64))
    assert torch.allclose(moved.update, torch.full((80,), 3e-3, dtype=torch.float64))


def test_minibatches_are_drawn_by_the_round_and_the_client():
    problem = the_ridge()
    problem = replace(problem, oracles=tuple(replace(oracle, batch=4) for oracle in problem.oracles))
    method = Descent(FedAvg(), SGD(1e-3), work="minibatch")
    federation = Federation(problem.layout, 10, 0, torch.float64)
    seen = set()
    for number in (1, 2):
        for client in (0, 1):
            here = Round(number, federation, client)
            _, uplink = method.respond(problem.x0, None, problem.oracles[0], here)
            seen.add(uplink["update"].streams[0])
    assert len(seen) == 4
    full_gradient = problem.oracles[0].full(problem.x0)
    draws = [problem.oracles[0].sample(problem.x0, Key(i, "batch")) for i in range(400)]
    error = torch.linalg.norm(torch.stack(draws).mean(0) - full_gradient) / torch.linalg.norm(full_gradient)
    assert error < 0.15  # 4 of 10 rows, 400 draws: sqrt(1.5/400) times a factor below 2


def test_prox_is_applied_after_the_step():
    problem = the_ridge()
    method = Descent(FedAvg(), SGD(1 / problem.L, prox=lambda x, rate: x.clamp(min=0.0)), work="full")
    x = run(method, problem, 300).model
    gradient = problem.gradient(x)
    assert bool((x >= 0).all())
    assert bool((x == 0).any())
    assert torch.max(torch.abs(gradient[x > 0])) < 1e-6  # stationary where free
    assert bool((gradient[x == 0] > -1e-6).all())


def test_the_cohort_is_drawn_by_the_round_and_of_the_configured_size():
    world = World.start(full(FedAvg(), 0.01), the_ridge(), seed=3)
    cohorts = [world.cohort(number, 0.3) for number in range(1, 20)]
    assert all(len(cohort) == 3 and list(cohort) == sorted(cohort) for cohort in cohorts)
    assert len(set(cohorts)) > 10
    assert cohorts[0] == tuple(int(i) for i in choose(Key(3, "cohort", 1), 10, 3))
    assert world.cohort(1, 1.0) == tuple(range(10))


def test_problems_know_their_minimisers_and_constants():
    for problem in (the_ridge(), quadratic(), logistic()):
        assert torch.max(torch.abs(problem.gradient(problem.minimiser))) < 1e-12 * max(1.0, problem.L)
        assert problem.mu < problem.L <= problem.L_mean * (1 + 1e-12) <= problem.L_max * (1 + 1e-12)
        trace = run(full(FedAvg(), 1 / problem.L), problem, 20)
        assert trace.errors[-1] < (1 - problem.mu / problem.L) ** 20 * trace.errors[0]
    rough = logistic(rough=0.1)
    assert run(full(FedAvg(), 1 / rough.L), rough, 200).errors[-1] < rough.error(rough.x0) / 100
