"""Orders beside a method: in the pure loop with packed bytes, through losses, restarts and windows of any length."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from compressors import Payload
from strategies.balancing import herding_bound
from strategies.base import Federation, Round
from strategies.builder import build_method
from strategies.loop import Faults, World
from strategies.ordered import ORDER, Ordered, OrderOptions, Pass, in_order
from strategies.ordering_problems import OrderedLogistic
from strategies.problems import FiniteSum, LinearModel, gaussian, square
from strategies.row_units import RowUnits
from strategies.sketch import Sketch, effective_rank, pack_rows, unpack_rows
from thinwire import state
from thinwire.errors import ConfigError, WireError
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.wire.packet import pack, unpack


@dataclass(frozen=True)
class Problem:
    """Oracles with rows to order, around a FiniteSum."""

    oracles: tuple[RowUnits, ...]
    problem: FiniteSum

    @property
    def layout(self):
        return self.problem.layout

    @property
    def x0(self):
        return self.problem.x0

    def error(self, x):
        return self.problem.error(x)


def rows_problem(clients=4, rows=32, numel=20, seed=0, size=1, passes=1, rate=0.02) -> Problem:
    """Least squares with noise: at the minimiser single rows disagree, so the order matters."""
    key = Key(seed, "rows")
    features = gaussian(key.at("a"), clients * rows, numel)
    targets = features @ gaussian(key.at("x"), numel) + gaussian(key.at("e"), clients * rows)
    models = [
        LinearModel(a, y, square, 1.0 / rows, rate=rate)
        for a, y in zip(features.chunk(clients), targets.chunk(clients), strict=True)
    ]
    minimiser = torch.linalg.lstsq(features, targets).solution
    finite = FiniteSum(tuple(models), torch.zeros(numel).double(), (1.0,) * clients, 1.0, 0.1, minimiser)
    return Problem(tuple(RowUnits(model, size, passes) for model in models), finite)


def method_in_order(name, work="minibatch", method="fedavg", uplink=None, rate=0.05, participation=1.0, **options):
    optimiser = {"rate": rate if work == "minibatch" else 1.0}
    built = build_method({"name": method}, uplink or {}, None, optimiser, work)
    return in_order(built, {"name": name, "sketch": 64, **options}, work, participation)


def play(method, problem, rounds, participation=1.0, seed=0, faults=None):
    world = World.start(method, problem, seed)
    errors = []
    for number in range(1, rounds + 1):
        world.play(number, participation, faults)
        errors.append(problem.error(world.model))
    return world, errors


def floor(name, source="auto", seed=0):
    """The error at the ends of the last passes when a round is one unit; "random" is an order that gets no sign."""
    problem = rows_problem(rows=64, numel=4, seed=seed)
    method = method_in_order("cd-grab" if name == "random" else name, rate=0.02, source=source)
    if name == "random":
        method = Ordered(method.method, dataclasses.replace(method.options, name=name), "minibatch")
    _, errors = play(method, problem, 64 * 12)
    return float(np.exp(np.mean(np.log(errors[63::64][-5:]))))


def test_when_a_round_is_one_unit_coordination_lowers_the_floor_below_every_other_order():
    floors = {name: floor(name) for name in ("random", "id-grab", "grab", "cd-grab")}
    assert floors["cd-grab"] * 3 < floors["random"]
    assert floors["cd-grab"] * 1.5 < min(floors["id-grab"], floors["grab"])
    assert max(floors["id-grab"], floors["grab"]) < floors["random"]
    assert floor("cd-grab", "sketches") == pytest.approx(floors["cd-grab"], rel=0.5)  # eight bits of the same sums


def test_the_shared_sum_lasts_for_a_pass_and_begins_anew_with_the_next():
    problem = rows_problem(rows=6)
    for source in ("gradients", "sketches"):
        world = World.start(method_in_order("cd-grab", source=source), problem)
        sums, begun = [], []
        for number in range(1, 15):
            world.play(number)
            sums.append(world.server.total.clone())
            begun.append(world.server.begun.tolist())
        assert begun[1] == begun[5] == [0] * 4
        assert begun[7] == begun[11] == [1] * 4
        differences = [sums[i + 2] - sums[i] for i in (1, 3)]
        assert all(bool(step.any()) for step in differences), "the walk stands still"


def test_gradients_received_anyway_cost_no_uplink_but_a_word_per_pass():
    problem = rows_problem()
    plain = build_method({"name": "fedavg"}, {}, None, {"rate": 0.05}, "minibatch")
    received, sent = (method_in_order("cd-grab", source=source) for source in ("gradients", "sketches"))
    bytes_up = {}
    for name, method in (("received", received), ("sent", sent)):
        world = World.start(method, problem)
        bytes_up[name] = sum(world.play(number)[0] for number in range(1, 65))
    world = World.start(Ordered(plain, OrderOptions(name="random"), "minibatch"), problem)
    dense = sum(world.play(number)[0] for number in range(1, 65))
    assert dense < bytes_up["received"] < 1.02 * dense
    assert bytes_up["sent"] > 1.1 * dense


@pytest.mark.parametrize("method", ["ef21", "ef14", "diana"])
def test_local_training_in_a_coordinated_order_composes_with_compression(method):
    problem = rows_problem(rate=0.01)
    uplink = {"name": "rand-k", "fraction": 0.5} if method == "diana" else {"name": "top-k", "fraction": 0.5}
    ordered = method_in_order("cd-grab", "steps", method, {**uplink, "scope": "global", "values": "fp32"})
    _, errors = play(ordered, problem, 40)
    assert errors[-1] < 0.05


def test_passes_of_local_training_are_balanced():
    bounds = {}
    for name in ("cd-grab", "id-grab"):
        problem = rows_problem(rows=64, rate=1e-6)  # nearly fixed gradients: what is balanced stays so
        world, _ = play(method_in_order(name, "steps", sketch=512), problem, 15)
        bounds[name] = bound_of(world, problem)
    problem = rows_problem(rows=64, rate=1e-6)
    world, _ = play(method_in_order("cd-grab", "steps", sketch=512), problem, 1)
    first = bound_of(world, problem)
    assert bounds["cd-grab"] < 0.7 * first
    assert bounds["cd-grab"] < bounds["id-grab"] * 1.05


def bound_of(world, problem):
    gradients = [
        np.stack([oracle._of(problem.x0, unit).numpy() for unit in range(oracle.units("batch"))])
        for oracle in problem.oracles
    ]
    return herding_bound(gradients, [private.pass_.order.numpy() for private in world.privates])


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 8, 13, 16, 17, 40])
@pytest.mark.parametrize("units", [1, 2, 7, 8])
@pytest.mark.parametrize("name", ["cd-grab", "id-grab", "grab", "hybrid"])
def test_windows_of_any_length_visit_every_unit_equally_often(name, units, steps):
    seen = []

    class Recording(RowUnits):
        def window(self, unit, work):
            return steps

        def following(self, unit, window, observe):
            seen.extend(window)
            return super().following(unit, window, observe)

    problem = rows_problem(clients=1, rows=units, numel=3, rate=1e-3)
    recording = Problem((Recording(problem.problem.oracles[0]),), problem.problem)
    rounds = 3 * units
    play(method_in_order(name, "steps", sketch=8), recording, rounds)
    counts = np.bincount(seen, minlength=units)
    assert counts.sum() == steps * rounds
    for start in range(0, len(seen) - units + 1, units):
        assert sorted(seen[start : start + units]) == list(range(units)), "a pass left a unit out"


def test_lost_uplinks_and_signs_cost_gain_and_never_correctness():
    problem = rows_problem()
    ordered = method_in_order("cd-grab", "steps", rate=1.0)
    faulty, errors = play(ordered, problem, 30, faults=Faults(loss=0.3))
    assert all(sorted(p.pass_.order.tolist()) == list(range(32)) for p in faulty.privates if p.pass_ is not None)
    assert errors[-1] < 0.1


@pytest.mark.parametrize("recovery", ["reset", "restore"])
def test_a_client_that_lost_its_state_begins_a_new_order(recovery):
    problem = rows_problem()
    ordered = method_in_order("cd-grab", "minibatch", source="gradients")
    _, errors = play(ordered, problem, 96, faults=Faults(restart_round=50, restart_client=1, recovery=recovery))
    assert errors[-1] < errors[0]


def test_a_run_goes_on_from_saved_states_as_if_never_stopped():
    problem = rows_problem()
    ordered = method_in_order("hybrid", "minibatch", source="gradients")
    world, _ = play(ordered, problem, 21)
    saved = state.load(state.dump((world.server, tuple(world.privates), world.replica)))
    again, _ = play(ordered, problem, 21)
    again.server, again.replica = saved[0], saved[2]
    again.privates = list(saved[1])
    for number in range(22, 40):
        assert world.play(number) == again.play(number)
    assert state.same(world.server, again.server)


def test_respond_leaves_the_private_state_alone():
    problem = rows_problem()
    ordered = method_in_order("cd-grab", "steps")
    world, _ = play(ordered, problem, 3)
    here = Round(4, dataclasses.replace(world.federation, weights=()), 0)
    before = state.digest(world.privates[0])
    first = ordered.respond(world.replica, world.privates[0], problem.oracles[0], here)
    second = ordered.respond(world.replica, world.privates[0], problem.oracles[0], here)
    assert state.digest(world.privates[0]) == before
    assert pack(first[1]) == pack(second[1])
    assert state.same(first[0], second[0])


def test_hostile_sketches_are_refused():
    ordered = method_in_order("cd-grab", "steps")
    federation = Federation.uniform(Layout.flat(20), 4, dtype=torch.float64)
    here = Round(1, federation, 0)
    good = ordered._content(np.ones((3, 64)), 0, 8, here)
    inner = build_method({"name": "fedavg"}, {}, None, {}).respond(
        torch.zeros(20).double(), None, rows_problem().oracles[0].model, here
    )[1]
    ordered.validate({**inner, ORDER: good}, here)
    head = good.parameters
    for bad in (
        dataclasses.replace(good, codec="identity"),
        dataclasses.replace(good, parameters=head[:-1]),
        dataclasses.replace(good, parameters=b"\xff" * 4 + head[4:]),
        dataclasses.replace(good, parameters=head[:4] + b"\x41\0\0\0" + head[8:]),
        dataclasses.replace(good, parameters=head[:8] + b"\xff" * 8 + head[16:]),
        dataclasses.replace(good, parameters=head[:16] + b"\0" * 4),
        dataclasses.replace(good, streams=good.streams[:1]),
        dataclasses.replace(good, streams=(good.streams[0], np.full(3, np.nan, "<f4").tobytes())),
        dataclasses.replace(good, streams=(good.streams[0], np.full(3, -1, "<f4").tobytes())),
        dataclasses.replace(good, streams=(b"\x00" + b"\x80" * 192, good.streams[1])),
        dataclasses.replace(good, streams=(good.streams[0][:-1], good.streams[1])),
    ):
        with pytest.raises(WireError):
            ordered.validate({**inner, ORDER: bad}, here)
    with pytest.raises(WireError):
        method_in_order("id-grab", "steps").validate({**inner, ORDER: good}, here)


def test_signs_of_another_window_are_ignored():
    ordered = method_in_order("cd-grab", "steps")
    problem = rows_problem()
    world, _ = play(ordered, problem, 2)
    here = Round(3, dataclasses.replace(world.federation, weights=()), 0)
    mine: Pass = world.privates[0].pass_
    assert mine.awaited == 2
    late = Payload(ORDER, "float64", b"\1" + b"\0" * 7 + b"\x10\0\0\0", (b"\xff\xff",))
    after = ordered.respond(
        world.replica, world.privates[0], problem.oracles[0], dataclasses.replace(here, personal={ORDER: late})
    )
    without = ordered.respond(world.replica, world.privates[0], problem.oracles[0], here)
    assert state.same(after[0].pass_.order, without[0].pass_.order)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="cd-grab"):
        method_in_order("cdgrab")
    with pytest.raises(ConfigError, match="work = steps or minibatch"):
        method_in_order("cd-grab", "full")
    with pytest.raises(ConfigError, match="source = sketches"):
        method_in_order("cd-grab", "steps", source="gradients")
    with pytest.raises(ConfigError, match="sketch"):
        method_in_order("cd-grab", sketch=0)
    plain = build_method({"name": "fedavg"}, {}, None, {})
    assert in_order(plain, {"name": "random"}, "full") is plain
    assert in_order(plain, {"name": "auto"}, "steps", 1.0).scheme == "cd-grab"
    assert in_order(plain, {"name": "auto"}, "steps", 0.5).scheme == "hybrid"


# -- sketches ------------------------------------------------------------------------------------------------------


def test_sketches_keep_inner_products_in_the_mean_and_are_linear():
    s, v = (torch.from_numpy(np.random.Generator(np.random.Philox(i)).standard_normal(1003)) for i in range(2))
    v = v + 0.5 * s
    found = [float(Sketch(64, Key(seed, "r"))(s) @ Sketch(64, Key(seed, "r"))(v)) for seed in range(400)]
    spread = float(s.norm() * v.norm()) / 64**0.5
    assert abs(np.mean(found) - float(s @ v)) < 5 * spread / 20
    assert np.std(found) < 1.5 * spread
    sketch = Sketch(64, Key(1, "r"))
    torch.testing.assert_close(sketch(s + v), sketch(s) + sketch(v), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sketch(torch.stack([s, v])), torch.stack([sketch(s), sketch(v)]))


def test_rows_of_eight_bits_come_back_within_half_a_level():
    rows = np.random.Generator(np.random.Philox(2)).standard_normal((5, 64))
    rows[3] = 0
    payload = unpack(pack({"x": pack_rows(rows, ORDER, "float32")}), Payload, 1 << 20)["x"]
    found = unpack_rows(payload, 5, 64)
    assert np.abs(found - rows).max() <= np.abs(rows).max() / 254 * 1.001
    assert not found[3].any()
    assert payload.size < 5 * 64 + 60


def test_the_effective_rank_counts_directions():
    random = np.random.Generator(np.random.Philox(3))
    low = random.standard_normal((400, 3)) @ random.standard_normal((3, 100))
    assert 1.5 < effective_rank(low) < 3.1
    assert effective_rank(random.standard_normal((400, 20))) > 15
    assert effective_rank(low[:1]) == 0


def sketched(buckets, eight_bits):
    """What the server gets of differences: our sketch of them, and our eight bits."""

    def compress(rows):
        sketch = Sketch(buckets, Key(4, "order"))(torch.from_numpy(rows)).double().numpy()
        return unpack_rows(pack_rows(sketch, ORDER, "float64"), len(rows), buckets) if eight_bits else sketch

    return compress


@pytest.mark.parametrize(
    "seed", [0, 1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_coordination_on_the_logistic_problem_divides_the_gap_to_the_optimum(seed):
    problem = OrderedLogistic(seed=seed)
    random = problem.gaps("random")[-1]
    assert random >= 15 * problem.gaps("cd-grab")[-1]
    assert random >= 4 * problem.gaps("id-grab")[-1]
    assert random >= 8 * problem.gaps("cd-grab", compress=sketched(128, False))[-1]
    assert random >= 3 * problem.gaps("cd-grab", compress=sketched(64, True))[-1]
