"""The relatives of EF14 and EF21: what each is by hand, what its paper promises, and what it refuses."""

import math
import statistics
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import pytest
import torch
from strategies_kit import TOP_1, TOP_8, full, the_ridge

from compressors import ALONE, Encoded, Place
from compressors.identity import Identity
from compressors.natural import Natural
from compressors.power import Power
from compressors.rand_k import RandK
from compressors.svd import SVD
from compressors.top_k import TopK
from strategies.base import Federation, Method, Round
from strategies.channels import EF21P
from strategies.contraction import feedback_constants, is_deterministic
from strategies.descent import Descent
from strategies.dgc import DGC
from strategies.diana import DIANA
from strategies.double_squeeze import DoubleSqueeze
from strategies.econtrol import EControl
from strategies.ef14 import EF14
from strategies.ef21 import EF21
from strategies.ef21_bc import EF21BC
from strategies.ef21_plus import FRESH, EF21Plus, EF21PlusClient
from strategies.ef21_sgdm import EF21SGDM
from strategies.estimator import UPDATE, Estimator
from strategies.fedavg import FedAvg
from strategies.loop import Faults, World, run
from strategies.matrix_problems import matrix_ridge
from strategies.optimisers import SGD
from strategies.problems import FiniteSum, gaussian, quadratic, ridge, top1_example
from strategies.tuning import tune
from thinwire.errors import ConfigError, WireError
from thinwire.layout import Entry, Layout
from thinwire.random import Key

WEIGHTS = (0.1, 0.15, 0.2, 0.25, 0.3)
TOP_4 = TopK(0.2, values="bf16", scope="global")  # of the 20 coordinates of the small ridge


@cache
def small(seed: int = 0) -> FiniteSum:
    """A ridge of 5 clients in 20 dimensions: a round takes a millisecond."""
    return ridge(seed, clients=5, rows=50, numel=20)


def bidirectional(rate: float, compressor=TOP_4) -> EF21BC:
    return EF21BC(compressor, compressor, rate, "full")


def vectors(count: int, numel: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(numel, generator=generator, dtype=torch.float64) for _ in range(count)]


def on_client(number: int, numel: int = 6, clients: int = 4) -> Round:
    return Round(number, Federation(Layout.flat(numel), clients, 0, torch.float64), 1)


def respond_to(estimator: Estimator, directions: list[torch.Tensor]) -> list[tuple[Any, torch.Tensor]]:
    """Private states and decoded messages of one client that is given these directions."""
    private, found = estimator.join(torch.zeros_like(directions[0])), []
    for number, direction in enumerate(directions, 1):
        here = on_client(number, len(direction))
        private, uplink = estimator.respond(direction, private, here)
        (name,) = uplink
        decoded = here.decode(uplink, name, estimator.uplink[name], here.key(name, "up"))
        found.append((private, decoded))
    return found


def top(vector: torch.Tensor, count: int) -> torch.Tensor:
    """Top-k by hand."""
    kept = torch.zeros_like(vector)
    places = torch.argsort(vector.abs(), descending=True)[:count]
    kept[places] = vector[places]
    return kept


TOP_2_OF_6 = TopK(1 / 3, values="fp32", scope="global")

# -- uncompressed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(0.2,) * 5, WEIGHTS])
@pytest.mark.parametrize(
    "make",
    [
        lambda rate: full(EF21Plus(), rate),
        lambda rate: full(EF21SGDM(momentum=1.0), rate),
        lambda rate: full(EControl(control=0.0), rate),
        lambda rate: full(EControl(), rate),
        lambda rate: full(DGC(), rate),
        lambda rate: bidirectional(rate, Identity()),
        lambda rate: DoubleSqueeze(rate=rate, work="full"),
    ],
)
def test_uncompressed_they_are_gradient_descent(make, weights):
    problem = small()
    rate = 1 / problem.L
    x = run(make(rate), problem, 30, weights=weights).model
    wanted = run(full(FedAvg(), rate), problem, 30, weights=weights).model
    assert torch.max(torch.abs(x - wanted)) <= 1e-12 * torch.max(torch.abs(wanted))  # sums of other orders


def test_ef21_sgdm_without_averaging_is_ef21_bit_for_bit_and_so_is_econtrol_without_control():
    problem = small()
    rate = 1 / problem.L
    wanted = run(full(EF21(TOP_4), rate), problem, 30).model
    for estimator in (EF21SGDM(TOP_4, 1.0), EControl(TOP_4, 0.0)):
        assert torch.equal(run(full(estimator, rate), problem, 30).model, wanted)


def test_double_squeeze_with_a_dense_downlink_is_ef14():
    problem = small()
    rate = 0.1 / problem.L
    both = run(DoubleSqueeze(TOP_4, Identity(), rate, "full"), problem, 30).model
    wanted = run(full(EF14(TOP_4), rate), problem, 30).model
    assert torch.allclose(both, wanted, rtol=1e-13, atol=1e-13)


# -- convergence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda rate: full(EF21Plus(TOP_1), rate),
        lambda rate: full(EF21SGDM(TOP_1, 0.5), rate),
        lambda rate: full(EControl(TOP_1), rate),
        lambda rate: full(DGC(TOP_1, 0.0), rate),
        lambda rate: bidirectional(rate, TOP_1),
        lambda rate: DoubleSqueeze(TOP_1, TOP_1, rate / 2, "full"),
    ],
)
def test_all_converge_on_the_three_clients_where_top_1_alone_diverges(make):
    problem = top1_example()
    assert run(make(0.5 / problem.L), problem, 1500, until=1e-10, audit=False).errors[-1] <= 1e-10


METHODS = {
    "ef21-plus": lambda rate: full(EF21Plus(TOP_4), rate),
    "ef21-sgdm": lambda rate: full(EF21SGDM(TOP_4, 0.5), rate),
    "econtrol": lambda rate: full(EControl(TOP_4), rate),
    "ef21-bc": lambda rate: bidirectional(0.6 * rate),
}


@pytest.mark.parametrize("participation", [1.0, 0.4])
@pytest.mark.parametrize("name", METHODS)
def test_those_with_estimates_reach_the_minimiser_whoever_takes_part(name, participation):
    problem = small()
    trace = run(METHODS[name](0.9 / problem.L), problem, 1000, participation=participation, until=1e-18, audit=False)
    assert trace.errors[-1] <= 1e-18


@pytest.mark.parametrize("name", METHODS)
def test_lost_uplinks_and_a_lost_client_do_them_no_harm(name):
    problem = small()
    for faults in (Faults(loss=0.05), Faults(restart_round=40, restart_client=2, recovery="restore")):
        trace = run(METHODS[name](0.9 / problem.L), problem, 600, faults=faults, until=1e-20)
        assert trace.errors[-1] <= 1e-20


@pytest.mark.parametrize("method", [*(make(1e-2) for make in METHODS.values()), full(EF14(TOP_4), 1e-2)])
def test_a_round_that_nobody_answers_leaves_every_estimate_where_it_was(method: Method):
    world = World.start(method, small())
    for number in (1, 2):
        world.play(number)
    before = [None if mirror is None else mirror.clone() for mirror in world.mirrors]
    x = world.model.clone()
    world.play(3, faults=Faults(loss=1.0))
    for mirror, held in zip(world.mirrors, before, strict=True):
        assert mirror is held is None or torch.equal(mirror, held)
    assert torch.isfinite(world.model).all()
    assert torch.equal(world.model, x) != method.mirrored  # those with an estimate go on along it
    world.play(4)
    for mirror, held in zip(world.mirrors, before, strict=True):
        assert mirror is None or not torch.equal(mirror, held)


@pytest.mark.parametrize("kind", ["ef14", "double-squeeze"])
def test_memory_leads_to_a_neighbourhood_that_shrinks_with_the_square_of_the_step(kind):
    problem, half = quadratic(clients=3, numel=8, kappa=3), TopK(0.25, values="fp32", scope="global")

    def floor(rate: float) -> float:
        method = full(EF14(half), rate) if kind == "ef14" else DoubleSqueeze(half, half, rate, "full")
        return statistics.mean(run(method, problem, 350, audit=False).errors[-150:])

    assert 3 < floor(0.2) / floor(0.1) < 6  # 4 in theory, of residuals that do not depend on the step


def floor_of(estimator: Estimator, seed: int) -> float:
    """Where it settles on minibatches of 2 of 10 rows, relative, all at the same step."""
    problem = small(seed)
    problem = replace(problem, oracles=tuple(replace(oracle, batch=2) for oracle in problem.oracles))
    method = Descent(estimator, SGD(0.1 / problem.L), work="minibatch")
    return statistics.median(run(method, problem, 300, seed=seed, audit=False).errors[-100:])


def test_momentum_and_control_lower_the_floor_that_noise_leaves_under_ef21():
    compressor = TopK(0.1, values="bf16", scope="global")
    ef21 = floor_of(EF21(compressor), 0)
    assert floor_of(EF21SGDM(compressor), 0) < ef21 / 5  # 23 times lower here
    assert floor_of(EControl(compressor), 0) < ef21 / 3  # 10 times


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_they_do_so_on_other_seeds(seed):
    compressor = TopK(0.1, values="bf16", scope="global")
    ef21 = floor_of(EF21(compressor), seed)
    assert floor_of(EF21SGDM(compressor), seed) < ef21 / 5
    assert floor_of(EControl(compressor), seed) < ef21 / 3


# -- bytes ---------------------------------------------------------------------------------------------------------


def content_to(trace, target: float) -> float:
    """Bytes up and down per client, without the framing of packets, which outweighs 8 values."""
    rounds = trace.rounds_to(target)
    assert rounds is not None
    return sum(trace.contents[rounds - 1]) / trace.clients


def test_ef21_bc_takes_less_than_24_kb_up_and_down_on_the_ridge():
    problem = the_ridge()
    trace = run(EF21BC(TOP_8, TOP_8, 0.7 / problem.L, "full"), problem, 400, until=1e-10, audit=False)
    assert content_to(trace, 1e-10) < 24_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ef21_bc_takes_fewer_bytes_than_diana_with_ef21_p(seed):
    problem = the_ridge(seed)
    search = {"problem": problem, "target": 1e-10, "rounds": 900, "factor": 1.15, "audit": False}
    both = tune(lambda rate: EF21BC(TOP_8, TOP_8, rate, "full"), start=0.8 / problem.L, **search)
    rand = RandK(0.1, "bf16", "global")
    diana = tune(lambda rate: full(DIANA(rand), rate, channel=EF21P(TOP_8)), start=0.25 / problem.L, **search)
    assert content_to(both.trace, 1e-10) < 24_000
    assert content_to(both.trace, 1e-10) < content_to(diana.trace, 1e-10)


def low_rank_gain(compressor) -> float:
    """How many times fewer bytes EF21 takes than gradient descent at 4 bytes a value, both at their tuned steps."""
    problem = matrix_ridge()
    plain = run(full(FedAvg(), 1.8 / problem.constants.L), problem, 200, until=1e-10, audit=False)
    ef21 = run(full(EF21(compressor), 1.0 / problem.constants.L), problem, 400, until=1e-10, audit=False)
    rounds = ef21.rounds_to(1e-10)
    assert rounds is not None
    return 4 * problem.layout.numel * plain.rounds_to(1e-10) / (ef21.contents[rounds - 1][0] / ef21.clients)


def test_ef21_reaches_the_minimiser_of_a_matrix_problem_by_two_directions_a_round():
    assert low_rank_gain(SVD(2)) >= 5  # 9 here


@pytest.mark.slow
@pytest.mark.parametrize("compressor", [Power(2), Power(2, warm=True)])
def test_it_does_so_by_power_iteration_cold_or_warm(compressor):
    assert low_rank_gain(compressor) >= 5


def test_one_direction_a_round_without_feedback_stops_far_from_the_minimiser():
    problem = matrix_ridge()
    method = full(FedAvg(SVD(1)), 0.5 / problem.constants.L)
    assert run(method, problem, 100, check=False, audit=False).errors[-1] > 1e-2


def test_a_warm_start_under_ef14_comes_nearer_to_the_best_directions_and_a_lost_one_is_cold():
    layout = Layout((Entry("matrix", (48, 40)),))
    left, right = (torch.linalg.qr(gaussian(Key(i, "side"), rows, 40))[0] for i, rows in ((0, 48), (1, 40)))
    direction = (left * torch.logspace(0, -3, 40).double()) @ right.T

    def residuals(compressor, lose: int = 0) -> list[float]:
        estimator, found = EF14(compressor), []
        private = estimator.join(torch.zeros(48 * 40, dtype=torch.float64))
        for number in range(1, 13):
            here = Round(number, Federation(layout, 4, 0, torch.float64), 1)
            private = estimator.respond(direction.reshape(-1), private, here)[0]
            private = replace(private, warm=None) if number == lose else private
            found.append(float(torch.linalg.vector_norm(private.e)))
        return found

    best, cold, warm = (residuals(c) for c in (SVD(2, values="fp32"), Power(2, "fp32"), Power(2, "fp32", warm=True)))
    assert warm[0] == cold[0] > best[0]
    assert sum(best[8:]) < sum(warm[8:]) < sum(cold[8:])
    lost = residuals(Power(2, "fp32", warm=True), lose=4)
    assert lost[:4] == warm[:4]
    assert lost[4] != warm[4]


# -- EF21+ ---------------------------------------------------------------------------------------------------------


def test_ef21_plus_sends_the_direction_itself_where_that_comes_nearer():
    directions = [*vectors(1), 100 * vectors(2)[1], *[vectors(2)[1]] * 3]
    estimator = EF21Plus(TOP_2_OF_6)
    g, fresh = torch.zeros(6, dtype=torch.float64), []
    for direction, (private, _) in zip(directions, respond_to(estimator, directions), strict=True):
        b, c = top(direction, 2), g + top(direction - g, 2)
        nearer = torch.linalg.vector_norm(b - direction) <= torch.linalg.vector_norm(c - direction)
        g = b if nearer else c
        assert torch.equal(private.g, g)
        fresh.append(bool(nearer))
    assert set(fresh) == {True, False}


def test_an_uplink_of_ef21_plus_carries_exactly_one_of_its_payloads():
    method = full(EF21Plus(TOP_2_OF_6), 0.1)
    here, direction = on_client(1), vectors(1)[0]
    _, uplink = method.estimator.respond(direction, EF21PlusClient(torch.zeros(6, dtype=torch.float64)), here)
    (payload,) = uplink.values()
    method.validate(uplink, here)
    for hostile in ({}, {FRESH: payload, UPDATE: payload}):
        with pytest.raises(WireError, match="exactly one of fresh, update"):
            method.validate(hostile, here)


def test_ef21_plus_refuses_what_draws_at_random_and_names_what_does_not():
    federation = Federation.uniform(Layout.flat(20), 2)
    EF21Plus(TOP_4).check(federation, 1.0)
    for random in (Natural(), RandK(0.1)):
        with pytest.raises(ConfigError, match=r"draws at random; choose a deterministic one \(.*identity.*top-k"):
            EF21Plus(random).check(federation, 1.0)
        assert not is_deterministic(random, federation.layout)


def test_the_constants_of_feedback_hold_for_the_smallest_alpha():
    theta, beta = feedback_constants(1e-17)
    assert theta == pytest.approx(5e-18, rel=1e-6)
    assert beta == pytest.approx(2e17, rel=1e-6)
    assert feedback_constants(1.0) == (1.0, 0.0)


# -- EF21-SGDM, EControl -------------------------------------------------------------------------------------------


def test_the_momentum_estimate_begins_with_the_first_direction_and_then_averages():
    directions = vectors(3)
    (first, _), (second, _), (third, _) = respond_to(EF21SGDM(TOP_2_OF_6, 0.25), directions)
    assert torch.equal(first.v, directions[0])
    wanted = 0.75 * (0.75 * directions[0] + 0.25 * directions[1]) + 0.25 * directions[2]
    assert torch.allclose(third.v, wanted, rtol=1e-15)
    assert torch.equal(second.g, top(directions[0], 2) + top(second.v - top(directions[0], 2), 2))


def test_a_restored_client_of_ef21_sgdm_keeps_its_estimate_and_begins_its_momentum_anew():
    estimator = EF21SGDM(TOP_2_OF_6)
    (private, _), *_ = respond_to(estimator, vectors(1))
    restored = estimator.join(torch.zeros(6, dtype=torch.float64), private.g)
    assert torch.equal(restored.g, private.g)
    assert restored.v is None


def test_econtrol_is_its_algorithm_by_hand():
    directions = vectors(5)
    h = e = torch.zeros(6, dtype=torch.float64)
    for direction, (private, decoded) in zip(
        directions, respond_to(EControl(TOP_2_OF_6, 0.3), directions), strict=True
    ):
        c = top(0.3 * e + direction - h, 2)
        h, e = h + c, e + direction - h - c
        assert torch.allclose(decoded, c, rtol=1e-14, atol=1e-15)
        assert torch.allclose(private.h, h, rtol=1e-14, atol=1e-15)
        assert torch.allclose(private.e, e, rtol=1e-13, atol=1e-14)


# -- EF14, DGC -----------------------------------------------------------------------------------------------------


def test_a_residual_fades_by_the_rounds_that_the_client_was_absent_and_only_by_those():
    estimator = EF14(TOP_2_OF_6, absence_decay=0.5)
    first, second = vectors(2)
    private = estimator.respond(first, estimator.join(first), on_client(4))[0]
    residual = first - top(first, 2)
    assert torch.equal(private.e, residual)
    for number, factor in ((5, 1.0), (6, 0.5), (9, 0.0625)):
        after = estimator.respond(second, private, on_client(number))[0]
        u = factor * residual + second
        assert torch.allclose(after.e, u - top(u, 2), rtol=1e-15)


def test_a_newcomer_has_missed_nothing():
    estimator = EF14(TOP_2_OF_6, absence_decay=0.5)
    direction = vectors(1)[0]
    late = estimator.respond(direction, estimator.join(direction), on_client(40))[0]
    assert torch.equal(late.e, direction - top(direction, 2))


def test_dgc_accumulates_momentum_and_forgets_it_where_it_was_sent():
    directions = vectors(6)
    u = v = torch.zeros(6, dtype=torch.float64)
    for direction, (private, decoded) in zip(directions, respond_to(DGC(TOP_2_OF_6, 0.9), directions), strict=True):
        u = 0.9 * u + direction
        v = v + u
        c = top(v, 2)
        u, v = torch.where(c != 0, 0.0, u), v - c
        assert torch.allclose(decoded, c, rtol=1e-14, atol=1e-15)
        assert torch.allclose(private.u, u, rtol=1e-14, atol=1e-15)
        assert torch.allclose(private.v, v, rtol=1e-13, atol=1e-14)


def test_dgc_sends_in_the_long_run_what_momentum_would():
    direction = vectors(1)[0]
    (states) = respond_to(DGC(TOP_2_OF_6, 0.5), [direction] * 60)
    sent = torch.stack([decoded for _, decoded in states]).sum(0)
    plain = 60 * direction
    assert bool((sent / plain > 1).all())  # more than without momentum, less than with all of it: masking forgets
    assert bool((sent / plain < 2).all())


def test_dgc_clips_each_client_to_its_share_before_it_accumulates():
    direction = 100 * vectors(1)[0]
    ((private, decoded),) = respond_to(DGC(TOP_2_OF_6, clip=3.0), [direction])
    total = private.v + decoded
    assert torch.linalg.vector_norm(total) == pytest.approx(3.0 / math.sqrt(4), rel=1e-12)
    assert torch.allclose(total / torch.linalg.vector_norm(total), direction / torch.linalg.vector_norm(direction))
    ((unclipped, sent),) = respond_to(DGC(TOP_2_OF_6, clip=1e6), [direction])
    assert torch.allclose(unclipped.v + sent, direction)


def test_dgc_begins_with_a_quarter_of_the_entries_and_warms_up_to_its_own_share():
    estimator = DGC(TopK(0.01, values="fp32", scope="global"), warm_up=4)
    directions = vectors(6, numel=1000)
    counts = [int((decoded != 0).sum()) for _, decoded in respond_to(estimator, directions)]
    assert counts == [250, 112, 50, 22, 10, 10]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DGC(Natural(), warm_up=3), "warm_up = 3 needs a compressor with a fraction"),
        (lambda: DGC(TOP_4, momentum=1.0), r"momentum = 1.0 must lie in \[0, 1\)"),
        (lambda: DGC(TOP_4, clip=-1.0), "clip = -1.0 and warm_up = 0 must be at least 0"),
        (lambda: EF21SGDM(TOP_4, 0.0), r"momentum = 0.0 must lie in \(0, 1\]"),
        (lambda: EControl(TOP_4, 1.5), r"control = 1.5 must lie in \[0, 1\]"),
        (lambda: EF14(TOP_4, absence_decay=0.0), "absence_decay = 0.0 must lie in"),
        (lambda: EF21BC(TOP_4, TOP_4, 0.0), "rate = 0.0 must be positive"),
        (lambda: DoubleSqueeze(TOP_4, TOP_4, math.inf), "rate = inf must be positive"),
    ],
)
def test_options_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# -- warm starts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Warming(Identity):
    """An uncompressed compressor that counts, in its warm state, how often it was started warm."""

    name: ClassVar[str] = "identity"

    def encode(self, x, layout: Layout, key: Key, place: Place = ALONE, warm: Any = None) -> Encoded:
        return replace(super().encode(x, layout, key, place), warm=1 if warm is None else warm + 1)


@pytest.mark.parametrize("estimator", [kind(Warming()) for kind in (EF14, EF21, EF21SGDM, EControl, DGC)])
def test_a_warm_start_goes_from_one_answer_to_the_next_and_a_newcomer_starts_cold(estimator):
    states = respond_to(estimator, vectors(3))
    assert [private.warm for private, _ in states] == [1, 2, 3]
    assert estimator.join(vectors(1)[0]).warm is None


@pytest.mark.parametrize("kind", [EF21BC, DoubleSqueeze])
def test_a_warm_start_goes_both_ways(kind):
    world = World.start(kind(Warming(), Warming(), 1e-3, "full"), small())
    for number in (1, 2, 3):
        world.play(number)
    assert [private.warm for private in world.privates] == [3] * 5
    assert world.server.warm == 3
    world.restart(0, "restore" if kind is EF21BC else "zero")
    assert world.privates[0].warm is None
    world.play(4)
    assert [private.warm for private in world.privates] == [1, 4, 4, 4, 4]
