"""Section S2 of the acceptance list: around an anchor compressed extragradient solves what it stalls on without."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from compressors import Payload
from compressors.identity import Identity
from compressors.natural import Natural
from compressors.rand_k import RandK
from compressors.top_k import TopK
from strategies.anchored import ANCHOR, OPERATOR, REFRESH, AnchoredClient
from strategies.base import Asks, Federation, Round
from strategies.builder import build_method
from strategies.ceg import CEG
from strategies.cgda import CGDA
from strategies.descent import Descent
from strategies.ef_eg import EFEG
from strategies.estimator import UPDATE
from strategies.extragradient import Extragradient
from strategies.loop import Faults, World, run
from strategies.masha1 import MASHA1
from strategies.masha2 import MASHA2
from strategies.optimisers import SGD
from strategies.prox import L1, Ball, Box, Joint, Prox, Simplex
from strategies.saddle_problems import SaddleProblem, bilinear
from strategies.theory import Promise
from strategies.tuning import tune
from thinwire import state
from thinwire.errors import ConfigError, WireError
from thinwire.wire.packet import pack

RAND = RandK(0.25, "fp32", "global")
TOP = TopK(0.25, "fp32", "global")
SHARED = RandK(0.25, "natural", "global", shared=True)
GAMES = Joint((Simplex(tensors=("x",)), Simplex(tensors=("y",))))
SMALL = {"devices": 4, "half": 8, "lam": 0.5}
PROBLEM = bilinear(**SMALL)
L = PROBLEM.constants.L
FEDERATION = Federation.uniform(PROBLEM.layout, 4, 0, torch.float64)
WEIGHTS = (0.4, 0.3, 0.2, 0.1)


def reaches(method, problem: SaddleProblem = PROBLEM, rounds: int = 600, target: float = 1e-12, **options) -> bool:
    return run(method, problem, rounds, until=target, **options).errors[-1] <= target


# -- the problems ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prox", [None, Box(), L1(0.5), Ball(2.0), GAMES])
def test_problems_know_their_solutions_and_constants(prox):
    problem = bilinear(prox=prox, **SMALL)
    z, constants = problem.solution, problem.constants
    moved = z - 0.5 * problem.operator(z)
    again = moved if prox is None else prox(moved, 0.5, problem.layout)
    assert float((again - z).abs().max()) < 1e-14  # z* is the fixed point of a proximal step
    step = problem.x0 - z
    change = problem.operator(problem.x0) - problem.operator(z)
    assert math.isclose(float(change @ step), constants.mu * float(step @ step), rel_tol=1e-12)
    assert float(change.norm()) <= constants.L * float(step.norm())
    assert constants.L <= constants.L_mean <= constants.L_max * (1 + 1e-12)
    assert all(math.isclose(oracle.lipschitz(), math.hypot(1, 0.5)) for oracle in problem.oracles)
    if prox is not None:
        assert float((problem.operator(z)).abs().max()) > 0.1  # the constraint or regulariser is at work


def test_minibatches_of_components_are_drawn_by_the_key_and_average_to_the_operator():
    oracle = bilinear(components=4, **SMALL).in_batches(1).oracles[0]
    here = Round(1, FEDERATION, 0)
    keys = [here.key("batch").at(round=number) for number in range(200)]
    draws = torch.stack([oracle.sample(PROBLEM.x0, key) for key in keys])
    assert torch.equal(draws[0], oracle.sample(PROBLEM.x0, keys[0]))
    assert len({tuple(draw.tolist()) for draw in draws}) == 4
    assert float((draws.mean(0) - oracle.full(PROBLEM.x0)).norm() / oracle.full(PROBLEM.x0).norm()) < 0.2


# -- B1 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [MASHA1(p=1.0, lipschitz=L), MASHA2(p=1.0, lipschitz=L)])
def test_uncompressed_it_is_extragradient(method):
    wanted = run(Extragradient(lipschitz=L), PROBLEM, 40, weights=WEIGHTS)
    found = run(method, PROBLEM, 40, weights=WEIGHTS)
    assert float((found.model - wanted.model).abs().max()) < 1e-12
    assert found.uplink_bytes == wanted.uplink_bytes


def extragradient(problem: SaddleProblem, gamma: float, iterations: int) -> Tensor:
    """The reference, written out."""
    z = problem.x0
    for _ in range(iterations):
        z = z - gamma * problem.operator(z - gamma * problem.operator(z))
    return z


def test_extragradient_is_what_its_name_says():
    found = run(Extragradient(rate=0.4), PROBLEM, 40).model
    assert float((found - extragradient(PROBLEM, 0.4, 20)).abs().max()) < 1e-13


@pytest.mark.parametrize(
    "method",
    [
        MASHA1(RAND, lipschitz=L),
        MASHA1(RAND, RAND, lipschitz=L),
        MASHA1(SHARED, Natural(), p=0.3, lipschitz=L),
        MASHA1(RAND, lipschitz=L, reference="old"),
        MASHA2(TOP, lipschitz=L),
        MASHA2(TOP, TOP, lipschitz=L),
        MASHA2(SHARED, Natural(), p=0.4, lipschitz=L),
    ],
    ids=["1", "1 both ways", "1 shared mask", "1 old reference", "2", "2 both ways", "2 shared mask"],
)
def test_masha_converges_linearly_at_its_practical_step(method):
    assert reaches(method, rounds=1500)


@pytest.mark.parametrize("method", [MASHA1(RAND), MASHA1(RAND, Natural()), MASHA2(TOP), MASHA2(TOP, TOP)])
def test_masha_contracts_as_its_theory_says(method):
    theory = method.theory(PROBLEM.constants, FEDERATION)
    assert theory.promise is Promise.LINEAR
    trace = run(method.at(theory.rate), PROBLEM, 150, audit=False)
    rounds = len(trace.uplink_bytes)
    assert trace.errors[-1] < 2 * (1 - theory.contraction) ** rounds  # of a potential that starts at twice the error


@pytest.mark.parametrize(
    "method",
    [CEG(compressor=RAND, lipschitz=L), EFEG(compressor=TOP, lipschitz=L), Descent(CGDA(RAND), SGD(0.3), work="full")],
    ids=["ceg", "ef-eg", "cgda"],
)
def test_without_an_anchor_compression_stalls(method):
    trace = run(method, PROBLEM, 300, audit=False)  # twice what MASHA1 takes to 1e-12
    assert min(trace.errors) > 1e-3
    assert trace.errors[-1] < 1


def test_weighted_devices_solve_the_weighted_problem():
    half = PROBLEM.x0.numel() // 2
    parts = [share * o.full(torch.zeros(2 * half).double()) for share, o in zip(WEIGHTS, PROBLEM.oracles, strict=True)]
    columns = [
        sum(share * o.full(unit) for share, o in zip(WEIGHTS, PROBLEM.oracles, strict=True)) - sum(parts)
        for unit in torch.eye(2 * half).double()
    ]
    wanted = torch.linalg.solve(torch.stack(columns, 1), -sum(parts))
    for method in (MASHA1(RAND, lipschitz=1.0), MASHA2(TOP, lipschitz=1.0)):
        found = run(method, PROBLEM, 200, weights=WEIGHTS, participation=0.75, audit=False).model
        assert float((found - wanted).abs().max()) < 1e-4
    assert float((PROBLEM.solution - wanted).abs().max()) > 0.1  # the weights matter


# -- B3 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prox", [Box(), L1(0.5), Ball(2.0), GAMES], ids=["box", "l1", "ball", "simplices"])
def test_masha1_respects_constraints_and_regularisers(prox: Prox):
    problem = bilinear(prox=prox, **SMALL)
    trace = run(MASHA1(RAND, prox=prox, lipschitz=L), problem, 400, until=1e-12, audit=False)
    assert trace.errors[-1] <= 1e-12
    exact = prox(trace.model, 1e-9, problem.layout)
    assert float((exact - trace.model).abs().max()) < 1e-8  # every iterate is a proximal point


def test_baselines_and_descent_take_a_prox_too():
    problem = bilinear(prox=GAMES, **SMALL)
    assert reaches(Extragradient(prox=GAMES, lipschitz=L), problem)
    descent = Descent(CGDA(), SGD(0.3, GAMES), work="full")
    assert reaches(descent, problem, target=1e-6)


def test_masha1_in_finite_sum_form_needs_one_component_a_round():
    problem = bilinear(components=5, **SMALL).in_batches(1)
    method = MASHA1(RAND, work="minibatch", lipschitz=1.5 * problem.constants.L)
    assert reaches(method, problem, rounds=500)
    stalls = run(Extragradient(work="minibatch", lipschitz=problem.constants.L), problem, 300, audit=False)
    assert min(stalls.errors) > 1e-4  # sampling noise alone keeps it away


@pytest.mark.parametrize("method", [MASHA1(RAND, lipschitz=L), MASHA2(TOP, TOP, lipschitz=L)], ids=["1", "2"])
def test_partial_cohorts_reach_the_solution_exactly(method):
    assert reaches(method, participation=0.5)


@pytest.mark.parametrize("method", [MASHA1(RAND, lipschitz=L), MASHA2(TOP, TOP, lipschitz=L)], ids=["1", "2"])
def test_lost_uplinks_leave_it_exact(method):
    assert reaches(method, faults=Faults(loss=0.05))


def test_errors_that_are_not_taken_back_with_a_lost_uplink_do_harm_for_a_while_only():
    method = MASHA2(TOP, TOP, lipschitz=1.5 * L)
    assert reaches(method, rounds=800, faults=Faults(loss=0.05, commit_on_ack=False))


# -- the refresh -------------------------------------------------------------------------------------------------


def test_the_refresh_waits_for_every_device_and_asks_the_missing_again():
    world = World.start(MASHA1(RAND, p=0.5, lipschitz=L), PROBLEM)
    lost = Faults(loss=0.5)
    cohorts = []
    while world.replica.phase == REFRESH:
        before, missing = world.replica, world.server.missing
        assert world.method.asks(world.replica, world.server, 1) == missing
        world.play(len(cohorts) + 1, faults=lost)
        cohorts.append(missing)
        if world.replica.phase == REFRESH:
            assert state.same(before, world.replica)  # an empty downlink changes nothing
    assert len(cohorts) > 2
    assert all(set(later) < set(earlier) or later == earlier for earlier, later in pairwise(cohorts))
    assert float((world.replica.F - PROBLEM.operator(world.replica.w)).abs().max()) < 1e-14
    assert world.method.asks(world.replica, world.server, 9) is Asks.SAMPLE
    assert world.server.missing == (0, 1, 2, 3)  # for the next refresh


def test_an_incomplete_refresh_costs_an_empty_packet():
    world = World.start(MASHA1(RAND, lipschitz=L), PROBLEM)
    _, heard = world.play(1, faults=Faults(loss=0.5))
    assert world.replica.phase == REFRESH
    assert heard == 4 * len(pack({}))


def test_a_device_that_lost_its_operator_at_the_anchor_computes_the_same_again():
    whole, broken = (World.start(MASHA1(RAND, p=0.2, lipschitz=L), PROBLEM) for _ in range(2))
    for number in range(1, 12):
        whole.play(number)
        broken.play(number)
        broken.privates[number % 4] = broken.method.join(broken.replica)
    assert state.same(whole.replica, broken.replica)


def test_a_device_computes_its_operator_at_an_anchor_once():
    calls = []

    @dataclass(frozen=True)
    class Counted:
        inner: object

        def full(self, z):
            calls.append(z)
            return self.inner.full(z)

    problem = replace(PROBLEM, oracles=tuple(Counted(oracle) for oracle in PROBLEM.oracles))
    world = World.start(MASHA1(RAND, p=1e-9, lipschitz=L), problem)
    for number in range(1, 8):
        world.play(number)
    assert len(calls) == 4 * 7  # one refresh, six messages at zh alone


def test_refreshes_come_with_probability_p_and_the_same_ones_on_every_node():
    method = MASHA1(p=0.3, lipschitz=L)
    trace = run(method, PROBLEM, 400, audit=False)
    dense = max(trace.uplink_bytes)
    replica = World.start(method, PROBLEM).replica
    moved = [
        method.apply(replace(replica, phase=OPERATOR), message_of(method), Round(number, FEDERATION)).phase == REFRESH
        for number in range(1, 401)
    ]
    assert trace.uplink_bytes[0] == dense  # F(z0)
    assert 0.24 < sum(moved) / 400 < 0.36  # 0.3 plus or minus 2.6 standard deviations


def message_of(method) -> dict[str, Payload]:
    return {
        UPDATE: Identity().encode(torch.zeros_like(PROBLEM.x0), PROBLEM.layout, Round(1, FEDERATION).key("x")).payload
    }


def test_the_default_p_makes_refreshes_cost_as_much_uplink_as_messages():
    problem = bilinear(devices=2, half=300, lam=0.3).to(torch.float32)
    method = MASHA1(RandK(0.25, "bf16", "global"))
    world = World.start(method, problem)
    world.play(1)
    here = Round(2, Federation(problem.layout, 2, 0, torch.float32), 0)
    _, uplink = method.respond(world.replica, world.privates[0], problem.oracles[0], here)
    assert 0.09 < world.replica.p < 0.13  # an eighth of the bits, a few less by the coding of exponents
    assert math.isclose(uplink[UPDATE].size, world.replica.p * 4 * 600, rel_tol=0.1)
    assert MASHA1().probability(world.federation) == 1.0


def test_a_shared_mask_makes_the_downlink_as_short_as_an_uplink():
    problem = bilinear(devices=4, half=500, lam=0.3)
    sizes = {}
    for name, method in {
        "own": MASHA1(replace(SHARED, shared=False), p=1e-9),
        "shared": MASHA1(SHARED, p=1e-9),
        "natural": MASHA1(SHARED, Natural(), p=1e-9),
    }.items():
        world = World.start(method, problem)
        world.play(1)
        sizes[name] = [size / 4 for size in world.play(2)]
    k, frame = 250, 60
    assert sizes["own"][1] > 8 * 4 * k
    assert sizes["shared"][1] < 8 * k + frame  # k values of a float64 run
    assert sizes["natural"][1] < k  # below a byte each
    assert sizes["natural"][1] < sizes["natural"][0] + frame


def test_what_travels_on_a_shared_mask_is_the_exact_sum():
    method = MASHA1(replace(SHARED, values="fp32"), p=1e-9, rate=0.3)
    world = World.start(method, PROBLEM)
    world.play(1)
    before = world.replica
    world.play(2)
    zh = before.z - 0.3 * before.F
    places = method.operator.support(PROBLEM.layout, Round(2, FEDERATION).key(UPDATE, "up", 0))
    difference = PROBLEM.operator(zh) - before.F
    wanted = torch.zeros_like(zh)
    wanted[places] = difference[places] * 4
    assert float((world.replica.z - (zh - 0.3 * wanted)).abs().max()) < 1e-12


# -- the other forms ---------------------------------------------------------------------------------------------


def test_without_variance_reduction_nothing_travels_uncompressed_and_anybody_may_be_missing():
    method = MASHA2(TOP, TOP, variance_reduction=False, lipschitz=4 * L)
    trace = run(method, PROBLEM, 200, participation=0.5, faults=Faults(loss=0.05))
    assert max(trace.uplink_bytes) < 2 * 8 * 16
    assert trace.errors[-1] < 0.5
    assert method.uplink.keys() == {UPDATE}
    exact = run(MASHA1(variance_reduction=False, lipschitz=L), PROBLEM, 40).model
    assert float((exact - run(Extragradient(lipschitz=L), PROBLEM, 40).model).abs().max()) < 1e-12


def test_both_half_steps_without_variance_reduction_see_one_minibatch():
    problem = bilinear(components=5, **SMALL).in_batches(1)
    method = MASHA1(variance_reduction=False, work="minibatch", rate=0.5)
    world = World.start(method, problem)
    world.play(1)
    before = world.replica
    world.play(2)
    here = [Round(2, FEDERATION, client).key("anchor batch").at(round=0) for client in range(4)]
    operators = [o.sample(before.z - 0.5 * before.F, key) for o, key in zip(problem.oracles, here, strict=True)]
    assert float((world.replica.z - (before.z - 0.5 * torch.stack(operators).mean(0))).abs().max()) < 1e-13


def test_one_local_step_is_the_operator_itself():
    steps, full = (run(MASHA1(RAND, work=work, lipschitz=L), PROBLEM, 60, audit=False) for work in ("steps", "full"))
    assert float((steps.model - full.model).abs().max()) < 1e-9


def test_several_local_steps_stop_near_the_solution():
    problem = replace(PROBLEM, oracles=tuple(replace(o, steps=5, rate=0.02) for o in PROBLEM.oracles))
    errors = run(MASHA1(RAND, work="steps", lipschitz=L), problem, 300, audit=False).errors
    assert 1e-8 < errors[-1] < 1e-1


def test_a_payload_of_the_wrong_phase_counts_as_no_answer():
    method = MASHA1(RAND, p=1e-9, lipschitz=L)
    world = World.start(method, PROBLEM)
    dense = {ANCHOR: Identity().encode(PROBLEM.x0, PROBLEM.layout, Round(1, FEDERATION, 0).key(ANCHOR, "up")).payload}
    here = Round(1, FEDERATION, asked=(0, 1))
    _, message = method.message(world.replica, AnchoredClient(), PROBLEM.x0, Round(1, FEDERATION, 1))
    server, downlink = method.step(world.replica, world.server, [(0, dense), (1, {UPDATE: message})], here)
    assert (server.missing, downlink.broadcast) == ((1, 2, 3), {})
    moving = replace(world.replica, phase=OPERATOR)
    assert method.step(moving, world.server, [(0, dense)], here)[1].broadcast == {}
    with pytest.raises(WireError, match="expected one of"):
        method.validate({**dense, UPDATE: message}, Round(1, FEDERATION, 0))
    with pytest.raises(WireError, match="a replica with p"):
        method.apply(replace(moving, p=math.nan), {UPDATE: message}, here)


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"name": "masha1"}, {"name": "top-k"}), "masha1 needs an unbiased compressor.*rand-k"),
        (({"name": "masha1"}, {"name": "natural"}, {"name": "top-k"}), "the downlink of masha1 needs an unbiased"),
        (({"name": "masha2", "prox": "box"},), "unknown key 'method.prox'"),
        (({"name": "masha1", "prox": "bax"},), "unknown method.prox 'bax'; did you mean 'box'"),
        (({"name": "masha1", "prox": {"name": "box", "lo": 1}},), "unknown key 'method.prox.lo'; did you mean 'low'"),
        (({"name": "masha1", "p": 1.5},), "p = 1.5 must lie in"),
        (({"name": "masha1", "rate": -1.0},), "rate = -1.0 must be at least 0"),
        (({"name": "masha1", "p": 0.5, "variance_reduction": False},), "leave p and reference alone"),
        (({"name": "masha1"}, {}, {}, {"name": "sgd", "rate": 0.5}), "has no optimiser of its own choosing"),
        (({"name": "ceg"}, {"name": "top-k"}), "ceg needs an unbiased compressor"),
        (({"name": "extragradient"}, {"name": "natural"}), "has no uplink of its own choosing"),
    ],
)
def test_what_theory_or_form_forbids_is_refused_by_name(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_method(*arguments)


def test_a_configuration_sets_the_prox_of_each_tensor():
    parts = [{"name": "simplex", "tensors": "x"}, {"name": "simplex", "tensors": ["y"]}]
    method = build_method({"name": "masha1", "prox": parts}, optimiser={"name": "sgd", "rate": 1.0}, work="full")
    assert isinstance(method, MASHA1)
    assert method.prox == GAMES
    descent = build_method({"name": "cgda"}, optimiser={"rate": 0.1, "prox": {"name": "box", "low": 0.0}}, work="full")
    assert isinstance(descent, Descent)
    assert descent.optimiser == SGD(0.1, Box(0.0))
    with pytest.raises(ConfigError, match=r"no trained tensor matches 'w'"):
        World.start(MASHA1(prox=Box(tensors=("w",))), PROBLEM)


# -- the acceptance list in its own size -------------------------------------------------------------------------

LARGE = {"devices": 10, "half": 50, "lam": 0.05}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("compressor", "downlink", "target"),
    [(RAND, Identity(), 1e-12), (RAND, RAND, 1e-12), (SHARED, Natural(), 1e-12)],
    ids=["one way", "both ways", "shared mask"],
)
def test_b1_masha1(compressor, downlink, target):
    problem = bilinear(**LARGE)
    assert reaches(MASHA1(compressor, downlink, lipschitz=problem.constants.L), problem, 8000, target, audit=False)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("downlink", [Identity(), TOP], ids=["one way", "both ways"])
def test_b1_masha2(downlink):
    problem = bilinear(**LARGE)
    assert reaches(MASHA2(TOP, downlink, lipschitz=problem.constants.L), problem, 8000, audit=False)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["ceg", "ef-eg", "cgda"])
def test_b1_baselines_stall(name):
    problem = bilinear(**LARGE)
    lipschitz = problem.constants.L
    method = {
        "ceg": CEG(compressor=RAND, rate=0.2 / lipschitz),
        "ef-eg": EFEG(compressor=TOP, lipschitz=lipschitz),
        "cgda": Descent(CGDA(RAND), SGD(0.05), work="full"),
    }[name]
    assert min(run(method, problem, 2000, audit=False).errors) > 1e-3


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_b3_three_of_ten_and_one_component_of_ten():
    problem = bilinear(**LARGE)
    lipschitz = problem.constants.L
    assert reaches(MASHA1(RAND, lipschitz=1.2 * lipschitz), problem, 8000, participation=0.3, audit=False)
    sums = bilinear(components=10, **LARGE).in_batches(1)
    method = MASHA1(RAND, work="minibatch", lipschitz=2 * sums.constants.L)
    assert reaches(method, sums, 12000, audit=False)
    for prox in (Box(), L1(0.5)):
        constrained = bilinear(prox=prox, **LARGE)
        assert reaches(MASHA1(RAND, prox=prox, lipschitz=lipschitz), constrained, 8000, audit=False)


def bytes_to(target: float, method, problem: SaddleProblem) -> tuple[float, float]:
    """Per device up and down, as sent in a float32 run."""
    trace = run(method, problem, 6000, until=target, audit=False)
    return trace.uplink_to(target), trace.downlink_to(target)


def test_b2_in_small_masha1_takes_a_fraction_of_the_bytes_of_tuned_extragradient():
    problem = bilinear(devices=8, half=150, lam=0.2).to(torch.float32)
    lipschitz = problem.constants.L
    up, down = bytes_to(1e-8, Extragradient(rate=0.99 / lipschitz), problem)  # its best step, by the search below
    sparse = MASHA1(RandK(0.1, "natural", "global"), p=0.1, rate=1.2 * math.sqrt(0.1) / lipschitz)
    assert bytes_to(1e-8, sparse, problem)[0] < up / 1.8
    coarse = MASHA1(Natural(), Natural(), p=0.12, rate=1.2 * math.sqrt(0.12) / lipschitz)
    assert sum(bytes_to(1e-8, coarse, problem)) < (up + down) / 1.25


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("compressor", "p", "gain"),
    [
        (RandK(0.25, "fp32", "global"), 0.0, 1.3),
        (RandK(0.1, "fp32", "global"), 0.0, 1.8),
        (RandK(0.1, "natural", "global"), 0.03, 3.5),
    ],
    ids=["rand-25%", "rand-10%", "rand-10% natural"],
)
def test_b2(seed, compressor, p, gain):
    """MASHA1 at 1.2 sqrt(p)/L, tuned extragradient beside it; d = 500, so that framing does not count for much."""
    problem = bilinear(seed, half=250).to(torch.float32)
    lipschitz = problem.constants.L
    plain = tune(lambda rate: Extragradient(rate=rate), problem, 0.9 / lipschitz, 1e-8, 6000, factor=1.1, audit=False)
    method = MASHA1(compressor, p=p)
    share = method.probability(Federation.uniform(problem.layout, 10, 0, torch.float32))
    up, _ = bytes_to(1e-8, method.at(1.2 * math.sqrt(share) / lipschitz), problem)
    assert up < plain.uplink_bytes / gain
