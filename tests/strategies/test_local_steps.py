"""Local steps without drift (SCAFFOLD), and what the presets for long local work stand for."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from strategies_kit import full

from compressors.natural import Natural
from compressors.rand_k import RandK
from compressors.top_k import TopK
from strategies.base import Federation, Local, Oracle, Round
from strategies.builder import build_method
from strategies.channels import EF21P
from strategies.descent import Descent
from strategies.fedavg import FedAvg
from strategies.loop import Faults, run
from strategies.optimisers import SGD
from strategies.problems import FiniteSum, ridge
from strategies.scaffold import Scaffold, ScaffoldReplica
from thinwire.errors import ConfigError
from thinwire.random import Key
from thinwire.run_config import RunConfig

STEPS = 5
TOP_4 = TopK(0.2, values="bf16", scope="global")
WEIGHTS = (0.1, 0.15, 0.2, 0.25, 0.3)


@cache
def problem(steps: int = STEPS) -> FiniteSum:
    """A ridge of 5 clients in 20 dimensions, each taking local steps."""
    plain = ridge(0, clients=5, rows=50, numel=20)
    return replace(plain, oracles=tuple(replace(o, steps=steps, rate=path() / steps) for o in plain.oracles))


def path() -> float:
    """Rate times number of the local steps."""
    return 1 / ridge(0, clients=5, rows=50, numel=20).L_max


def settled(method, participation: float = 1.0, rounds: int = 600, until: float = 1e-20) -> float:
    return run(method, problem(), rounds, participation=participation, until=until, audit=False).errors[-1]


@pytest.mark.parametrize("participation", [1.0, 0.4])
def test_scaffold_reaches_the_minimiser_by_local_steps_that_leave_fedavg_on_a_floor(participation):
    assert settled(Descent(FedAvg()), participation, 300) > 1e-6
    assert settled(Scaffold(optimiser=SGD(path())), participation) <= 1e-20


@pytest.mark.parametrize(
    ("compressor", "share"),
    [(RandK(0.5, "fp32", "global"), 0.6), (Natural(), 1.0), (TOP_4, 0.8)],
    ids=["unbiased, sparse", "unbiased, rounded", "contractive"],
)
def test_it_does_so_through_compressed_differences(compressor, share):
    assert settled(Scaffold(compressor, optimiser=SGD(share * path())), rounds=900) <= 1e-20


def test_and_with_a_compressed_downlink_of_both_its_vectors():
    method = Scaffold(TOP_4, EF21P(TopK(0.5, values="fp32", scope="global")), SGD(0.5 * path()))
    assert settled(method, rounds=900) <= 1e-20


def test_lost_uplinks_and_a_lost_client_do_scaffold_no_harm():
    method = Scaffold(TOP_4, optimiser=SGD(0.8 * path()))
    for faults in (Faults(loss=0.05), Faults(restart_round=40, restart_client=2, recovery="restore")):
        assert run(method, problem(), 700, faults=faults, until=1e-18).errors[-1] <= 1e-18


@pytest.mark.parametrize("weights", [(0.2,) * 5, WEIGHTS])
def test_with_one_local_step_scaffold_is_gradient_descent(weights):
    one = problem(1)
    x = run(Scaffold(optimiser=SGD(1 / one.L)), one, 30, weights=weights).model
    wanted = run(full(FedAvg(), 1 / one.L), one, 30, weights=weights).model
    assert torch.max(torch.abs(x - wanted)) <= 1e-12 * torch.max(torch.abs(wanted))  # shifts are subtracted and added


def test_the_direction_is_the_mean_gradient_on_the_corrected_path():
    seen = []

    class Watched:
        def __init__(self, inner: Oracle) -> None:
            self.inner = inner

        def local(self, x: torch.Tensor, key: Key, correction: torch.Tensor | None = None) -> Local:
            seen.append(correction)
            return self.inner.local(x, key, correction)

    method, here = Scaffold(), Round(1, Federation(problem().layout, 5, 0, torch.float64), 1)
    x, h = problem().x0, torch.linspace(-1, 1, 20).double()
    oracle = problem().oracles[1]
    private, uplink = method.respond(ScaffoldReplica(x, h), method.join(ScaffoldReplica(x, h)), Watched(oracle), here)
    assert torch.equal(seen[0], h)  # h_i = 0
    z, gradients = x, []
    for _ in range(STEPS):
        gradients.append(oracle.full(z))
        z = z - oracle.rate * (gradients[-1] + h)
    wanted = torch.stack(gradients).mean(0)
    assert torch.allclose(method.mirror(private), wanted, rtol=1e-9)  # a = 1: h_i becomes D_i
    assert set(uplink) == {"update"}


def test_a_run_refuses_scaffold_with_another_local_optimiser_than_plain_sgd():
    local = {"rate": 0.05, "steps": 4, "optimiser": "adamw"}
    assert build_method({"name": "scaffold"}).optimiser == SGD(1.0)
    with pytest.raises(ConfigError, match="scaffold corrects plain SGD steps"):
        build_method({"name": "scaffold"}, local=local)


# -- presets -------------------------------------------------------------------------------------------------------


def built(name: str, **options):
    config = RunConfig.of({"method": name, **options})
    parts = config.method, config.uplink, config.downlink, config.optimiser
    return build_method(*parts, local=config.local), config


def test_diloco_is_nesterov_momentum_on_the_mean_of_long_local_updates():
    method, _ = built("diloco")
    x, velocity, world = problem().x0, torch.zeros(20).double(), problem()
    for number in range(1, 6):
        updates = [oracle.local(x, Key(0)).update for oracle in world.oracles]
        outer = torch.stack(updates).mean(0)
        velocity = 0.9 * velocity + outer
        x = x - 0.7 * (outer + 0.9 * velocity)
        assert torch.allclose(run(method, world, number).model, x, rtol=1e-10, atol=1e-12)


def test_sparse_loco_is_its_algorithm_in_two_bits_a_value():
    method, _ = built("sparse-loco")
    estimator, layout = method.estimator, RunConfig.of({"method": "sparse-loco"}).uplink
    assert (estimator.decay, layout["scope"], layout["values"]) == (0.95, "chunk", "2-bit")
    numel = 10_000
    here = Round(1, Federation(problem().layout.flat(numel), 4, 0, torch.float32), 1)
    update = torch.sin(torch.arange(numel) * 1.7)
    private, uplink = estimator.respond(update, estimator.join(update), here)
    (payload,) = uplink.values()
    sent = update - private.e
    assert int((sent != 0).sum()) == pytest.approx(0.02 * numel, abs=3)  # of each chunk
    assert 8 * payload.size < 0.02 * numel * 12  # bits: an index below 8, a value of 2, and the header
    again, _ = estimator.respond(torch.zeros_like(update), private, replace(here, number=2))
    message = 0.95 * private.e - again.e
    assert torch.allclose(again.e[message == 0], 0.95 * private.e[message == 0])


def test_fed_cams_steps_by_fedams_on_error_feedback():
    method, config = built("fed-cams")
    assert (method.estimator.name, method.optimiser.rule) == ("ef14", "fedams")
    assert config.uplink["name"] == "top-k"
