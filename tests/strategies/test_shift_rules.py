"""The rules of the shifts one by one: what is sent, in which order, what theory makes of it, and what is refused."""

import pytest
import torch
from strategies_kit import TOP_8, full, the_ridge
from test_gradient_descent import WEIGHTS, descend

from compressors import Compressor, Place
from compressors.identity import Identity
from compressors.induced import Induced
from compressors.natural import Natural
from compressors.perm_k import PermK
from compressors.rand_k import RandK
from compressors.top_k import TopK
from strategies.base import Federation, Round
from strategies.builder import build_method
from strategies.dcgd import DCGD
from strategies.descent import Descent
from strategies.diana import DIANA
from strategies.estimator import UPDATE, Estimator
from strategies.fedavg import FedAvg
from strategies.gdci import GDCI, best_eta
from strategies.loop import run
from strategies.problems import gaussian, quadratic
from strategies.rand_diana import REFRESH, RandDIANA
from strategies.theory import Constants, Promise
from strategies.unbiased import joint_omega
from strategies.vr_gdci import VRGDCI
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.random import Key, choose

CONSTANTS = Constants(L=10.0, L_max=30.0, L_mean=20.0, mu=0.5, heterogeneity=7.0)
RAND_QUARTER = RandK(0.25, "fp32", "global")  # omega = 3
SHARED_QUARTER = RandK(0.25, "fp32", "global", shared=True)


def federation(clients: int = 4, numel: int = 16, weights: tuple[float, ...] = ()) -> Federation:
    layout = Layout.flat(numel)
    return Federation(layout, clients, 0, torch.float64, weights or (1 / clients,) * clients)


# -- uncompressed ----------------------------------------------------------------------------------------------------

UNCOMPRESSED = {
    "dcgd": lambda rate: full(DCGD(), rate),
    "diana": lambda rate: full(DIANA(), rate),
    "diana-slow-shifts": lambda rate: full(DIANA(shift_rate=0.3), rate),
    "rand-diana": lambda rate: full(RandDIANA(probability=0.5), rate),
    "gdci": lambda rate: GDCI(rate=rate, work="full"),
    "vr-gdci": lambda rate: VRGDCI(rate=rate, shift_rate=0.3, work="full"),
}


@pytest.mark.parametrize("weights", [(0.1,) * 10, WEIGHTS])
@pytest.mark.parametrize("name", UNCOMPRESSED)
def test_uncompressed_it_is_gradient_descent(name, weights):
    problem = the_ridge()
    x = run(UNCOMPRESSED[name](1 / problem.L), problem, 30, weights=weights).model
    wanted = descend(problem, 1 / problem.L, 30, weights)
    tolerance = 0.0 if name == "dcgd" else 1e-12  # the others subtract a shift, or x, and add it again
    assert torch.max(torch.abs(x - wanted)) <= tolerance * torch.max(torch.abs(wanted))


@pytest.mark.parametrize("name", ["diana", "rand-diana", "vr-gdci"])
def test_sampled_and_weighted_it_reaches_the_minimiser_of_the_weighted_sum(name):
    problem = quadratic(kappa=3.0)
    centre = sum(p * o.targets / torch.diag(o.features) for p, o in zip(WEIGHTS, problem.oracles, strict=True))
    x = run(UNCOMPRESSED[name](0.3), problem, 400, weights=WEIGHTS, participation=0.5, audit=False).model
    assert torch.max(torch.abs(x - centre)) < 1e-9


# -- order -----------------------------------------------------------------------------------------------------------


def directions(estimator: Estimator, rounds: int) -> list[float]:
    """G of some rounds in which the first of two clients answers, whose direction is always 1."""
    server, private = estimator.begin(torch.zeros(1), federation(2, 1)), estimator.join(torch.zeros(1).double())
    found = []
    for number in range(1, rounds + 1):
        here = Round(number, federation(2, 1), 0, Place(0, 1))
        private, uplink = estimator.respond(torch.ones(1).double(), private, here)
        server, direction = estimator.aggregate(server, [(0, uplink)], here)
        found.append(float(direction))
    return found


def test_diana_steps_with_the_old_shifts():
    assert directions(DIANA(shift_rate=0.5), 3) == [1.0, 0.25 + 0.5, 0.375 + 0.25]  # h + m_1, h = h_1 / 2


def test_rand_diana_sends_its_message_before_it_refreshes_the_shift():
    assert directions(RandDIANA(probability=1.0), 3) == [1.0, 0.5, 0.5]


def test_the_coins_of_rand_diana_are_fair_and_each_client_has_its_own():
    method, where = RandDIANA(RAND_QUARTER), federation()
    tossed = [
        [REFRESH in method.respond(torch.ones(16).double(), method.join(torch.zeros(16).double()), here)[1]
         for here in (Round(number, where, client) for client in range(4))]
        for number in range(1, 301)
    ]  # fmt: skip
    heads = sum(map(sum, tossed))
    assert abs(heads - 300) < 4 * (1200 * 0.25 * 0.75) ** 0.5  # p = 1/(1+omega) = 1/4 of 1,200, four sigma
    assert len({tuple(round_) for round_ in tossed}) > 8  # of 16


def test_dcgd_compresses_the_difference_to_its_shifts():
    where = federation(2, 16)
    shifts = tuple(gaussian(Key(i, "shift"), 16) for i in range(2))
    method = DCGD(RAND_QUARTER, shifts)
    here = Round(1, where, 1)
    _, uplink = method.respond(shifts[1], None, here)
    assert not here.decode(uplink, UPDATE, RAND_QUARTER, here.key(UPDATE, "up")).any()
    assert torch.allclose(method.aggregate(None, [(1, uplink)], here)[1], (shifts[0] + shifts[1]) / 2)


# -- theory ----------------------------------------------------------------------------------------------------------


def measured_joint(compressor: Compressor, vectors: torch.Tensor, cohort: int, draws: int) -> float:
    """``E|sum_{i in S} (p_i/pi) Q(a_i) - mean a_i|^2`` over the mean of |a_i|^2."""
    clients, numel = vectors.shape
    layout, total = Layout.flat(numel), 0.0
    for draw in range(draws):
        chosen = choose(Key(0, "cohort", draw), clients, cohort)
        places = ((int(client), Place(place, cohort)) for place, client in enumerate(chosen))
        sent = [compressor.encode(vectors[i], layout, Key(0, "up", draw, i), place).decoded for i, place in places]
        total += float(torch.sum((torch.stack(sent).mean(0) - vectors.mean(0)) ** 2))
    return total / draws / float((vectors**2).sum(1).mean())


OPPOSED = torch.stack([s * gaussian(Key(0, "a"), 16) for s in (1.0, -1.0, 1.0, -1.0)])
AGREED = gaussian(Key(0, "a"), 16).repeat(4, 1)


@pytest.mark.parametrize(
    ("compressor", "vectors", "cohort", "exact"),
    [
        (RAND_QUARTER, AGREED, 4, True),
        (RAND_QUARTER, OPPOSED, 4, True),
        (RAND_QUARTER, OPPOSED, 2, True),
        (RAND_QUARTER, AGREED, 2, False),
        (SHARED_QUARTER, AGREED, 4, True),
        (SHARED_QUARTER, AGREED, 2, False),
        (SHARED_QUARTER, OPPOSED, 2, False),
        (PermK(4, "fp32"), OPPOSED, 4, True),
        (PermK(4, "fp32"), AGREED, 4, False),
        (PermK(4, "fp32"), OPPOSED, 2, True),
        (Identity(), OPPOSED, 2, True),
    ],
)
def test_the_error_of_a_round_is_what_theory_takes_it_for(compressor, vectors, cohort, exact):
    joint = joint_omega(compressor, federation(), cohort / 4)
    found = measured_joint(compressor, vectors, cohort, 300)
    assert found <= 1.2 * joint  # 300 draws of a ratio whose deviation is about 1: four sigma
    if exact:
        assert found >= 0.8 * joint


def test_one_mask_for_all_clients_takes_the_clients_number_out_of_the_step():
    omega, n = 3.0, 4
    steps = {c: full(DIANA(c), 1.0).theory(CONSTANTS, federation()).rate for c in (RAND_QUARTER, SHARED_QUARTER)}
    assert steps[RAND_QUARTER] == pytest.approx(1 / ((1 + 6 * omega / n) * 30))
    assert steps[SHARED_QUARTER] == pytest.approx(1 / ((1 + 6 * omega) * 30))


def test_a_compressor_around_a_shared_mask_shares_it_too():
    assert Induced(TOP_8, RAND_QUARTER).independent
    assert not Induced(TOP_8, SHARED_QUARTER).independent


def test_the_step_of_a_sample_takes_the_omega_of_the_sample():
    omega, n, s = 3.0, 10, 2
    sampled = (1 + omega) * n / s - 1
    found = full(DIANA(RAND_QUARTER), 1.0).theory(CONSTANTS, federation(n), s / n).rate
    assert found == pytest.approx(1 / ((1 + 6 * sampled / n) * 30), rel=0.03)  # n/(n-1) where clients are drawn once


def test_unequal_weights_count_as_few_clients():
    equal, unequal = (joint_omega(RAND_QUARTER, federation(weights=w)) for w in ((0.25,) * 4, (0.7, 0.1, 0.1, 0.1)))
    assert equal == 0.75
    assert unequal == pytest.approx(3 * 0.7)


def test_the_paper_s_steps_of_compressed_iterates_are_theory_s_at_the_paper_s_eta():
    for method, factor in ((GDCI, 2), (VRGDCI, 6)):
        eta = best_eta(factor * 0.75, CONSTANTS)
        assert 1 / eta == pytest.approx(10 / 0.5 + factor * 0.75 * (30 / 0.5 - 1))
        theory = method(RAND_QUARTER, eta, work="full").theory(CONSTANTS, federation())
        assert theory.rate / eta == pytest.approx(1 / 0.5)  # gamma = 1/mu
        assert theory.contraction == pytest.approx(eta)


def test_an_eta_that_theory_has_nothing_for_is_refused_with_the_best_one():
    with pytest.raises(ConfigError, match=r"no theory for eta = 0\.9 .* 0\.009"):
        GDCI(RAND_QUARTER, 0.9).theory(CONSTANTS, federation())
    flat = Constants(L=10.0, L_max=30.0, L_mean=20.0)
    with pytest.raises(ConfigError, match="mu = 0"):
        VRGDCI(RAND_QUARTER).theory(flat, federation())


def test_averaging_is_gradient_descent_or_dcgd_or_nothing():
    where = federation()
    plain = full(FedAvg(), 1.0).theory(CONSTANTS, where)
    assert (plain.promise, plain.rate, plain.contraction) == (Promise.LINEAR, 0.1, 0.05)
    noisy = full(FedAvg(RAND_QUARTER), 1.0).theory(CONSTANTS, where)
    assert noisy == full(DCGD(RAND_QUARTER), 1.0).theory(CONSTANTS, where)
    assert noisy.rate == pytest.approx(1 / (10 + 2 * 30 * 0.75))
    assert noisy.floor == pytest.approx(2 * noisy.rate / 0.5 * 0.75 * 7)
    assert full(FedAvg(), 1.0).theory(CONSTANTS, where, 0.5).promise is Promise.NEIGHBOURHOOD
    assert full(FedAvg(TOP_8), 1.0).theory(CONSTANTS, where).promise is Promise.NOTHING
    lopsided = federation(weights=(0.7, 0.1, 0.1, 0.1))
    assert full(FedAvg(), 1.0).theory(CONSTANTS, lopsided, 0.5).floor is None  # a ratio of sums is not unbiased


def test_a_shift_rate_above_theory_s_has_none():
    with pytest.raises(ConfigError, match=r"shift_rate = 0\.5; it allows up to 0\.25"):
        full(DIANA(RAND_QUARTER, 0.5), 1.0).theory(CONSTANTS, federation())
    slow, usual = (full(DIANA(RAND_QUARTER, a), 1.0).theory(CONSTANTS, federation()) for a in (1e-3, 0.0))
    assert slow.contraction == pytest.approx(5e-4)  # a/2: the shifts are the slowest
    assert usual.contraction == pytest.approx(usual.rate * 0.5)


# -- building --------------------------------------------------------------------------------------------------------

RAND = {"name": "rand-k", "fraction": 0.25, "values": "fp32", "scope": "global"}


def test_an_inner_compressor_is_an_option_by_name():
    method = build_method({"name": "diana", "inner": {"name": "top-k", "fraction": 0.5, "scope": "global"}}, RAND)
    assert isinstance(method, Descent)
    assert isinstance(method.estimator, DIANA)
    assert method.estimator.inner == TopK(0.5, scope="global")
    theory, half = method.theory(CONSTANTS, federation()), 1.5 / 4  # omega (1 - alpha) / n
    assert theory.contraction == pytest.approx(0.5 / ((1 + 6 * half) * 30), rel=1e-2)  # bf16 loses a little
    plain = build_method({"name": "diana", "inner": "natural"}, RAND).estimator
    assert plain.inner == Natural()  # unbiased: scaled to contract
    assert plain.operator.omega(Layout.flat(16)) == pytest.approx(3 * (1 - 8 / 9))


@pytest.mark.parametrize(
    ("options", "uplink", "message"),
    [
        ({"name": "diana"}, {"name": "top-k"}, "diana needs an unbiased compressor, and 'top-k' is biased.*natural"),
        ({"name": "rand-diana"}, {"name": "top-k"}, "rand-diana needs an unbiased"),
        ({"name": "gdci"}, {"name": "top-k"}, "gdci needs an unbiased"),
        ({"name": "vr-gdci"}, {"name": "top-k"}, "vr-gdci needs an unbiased"),
        ({"name": "dcgd"}, {"name": "top-k"}, "dcgd needs an unbiased"),
        ({"name": "dcgd-star"}, {"name": "top-k"}, "dcgd-star needs an unbiased"),
        ({"name": "diana", "inner": "topk"}, RAND, "unknown compressor 'topk'; did you mean 'top-k'"),
        ({"name": "diana", "inner": 3}, RAND, "method.inner"),
        ({"name": "diana", "shift-rate": 2.0}, RAND, r"shift_rate = 2\.0"),
        ({"name": "vr-gdci", "shift-rate": -1.0}, RAND, r"shift_rate = -1\.0"),
        ({"name": "rand-diana", "probability": 1.5}, RAND, r"probability = 1\.5"),
        ({"name": "gdci", "eta": 0.0}, RAND, r"eta = 0\.0"),
        ({"name": "gdci", "rate": 0.0}, RAND, r"rate = 0\.0"),
        ({"name": "dcgd", "shifts": [[0.0]]}, RAND, "method.shifts is set in code only"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_built(options, uplink, message):
    with pytest.raises(ConfigError, match=message):
        build_method(options, uplink)


def test_shifts_of_another_federation_are_refused():
    shifts = (torch.zeros(16),) * 3
    with pytest.raises(ConfigError, match=r"3 shifts of \[16\] entries; this run needs one for each of its 4 clients"):
        DCGD(RAND_QUARTER, shifts).check(federation(), 1.0)
