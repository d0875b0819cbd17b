import pytest
import torch
from strategies_kit import TOP_8, full, the_ridge

from compressors.natural import Natural
from strategies.channels import EF21P, Dense, Direct
from strategies.ef21 import EF21
from strategies.fedavg import FedAvg
from strategies.loop import World, run


@pytest.mark.parametrize("uplink", [FedAvg(), EF21(TOP_8)])
def test_ef21_p_downlink_converges_to_the_minimiser(uplink):
    problem = the_ridge()
    trace = run(full(uplink, 0.4 / problem.L, channel=EF21P(TOP_8)), problem, 1000, until=1e-14)
    assert trace.errors[-1] <= 1e-14
    assert trace.downlink_bytes[0] < 10 * 8 * 80 / 3  # at least three times below dense float64


def test_ef21_p_makes_an_unbiased_compressor_contractive():
    problem = the_ridge()
    trace = run(full(FedAvg(), 1 / problem.L, channel=EF21P(Natural())), problem, 400, until=1e-20)
    assert trace.errors[-1] <= 1e-20


def test_ef21_p_without_compression_is_the_dense_channel():
    problem = the_ridge()
    dense = run(full(FedAvg(), 1 / problem.L, channel=Dense()), problem, 20).model
    difference = run(full(FedAvg(), 1 / problem.L, channel=EF21P()), problem, 20).model
    assert torch.allclose(dense, difference, rtol=1e-12, atol=1e-12)


def test_the_direct_channel_stops_at_the_compressors_own_error():
    problem = the_ridge()
    method = full(FedAvg(), 0.5 / problem.L, channel=Direct(Natural()))
    assert method.memoryless_downlink
    trace = run(method, problem, 300)
    assert 1e-8 < trace.errors[-1] < 1e-1
    exact = run(full(FedAvg(), 0.5 / problem.L, channel=Direct()), problem, 300)
    assert exact.errors[-1] < 1e-10


@pytest.mark.parametrize(("channel", "listeners"), [(Dense(), 3), (EF21P(TOP_8), 10)])
def test_who_must_hear_the_downlink_is_counted(channel, listeners):
    world = World.start(full(FedAvg(), 0.01, channel=channel), the_ridge())
    _, down = world.play(1, participation=0.3)
    assert down % listeners == 0
    one = down // listeners
    assert 8 * 80 <= one < 8 * 80 + 100 if listeners == 3 else one < 200


def test_the_servers_model_is_x_and_a_clients_its_replica():
    world = World.start(full(FedAvg(), 0.01, channel=EF21P(TOP_8)), the_ridge())
    world.play(1)
    assert torch.equal(world.method.model(world.replica, world.server), world.server.x)
    assert torch.equal(world.method.model(world.replica), world.replica)
    assert not torch.equal(world.replica, world.server.x)
