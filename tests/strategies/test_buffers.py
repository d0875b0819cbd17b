import pytest
import torch
from torch import nn

from compressors import NonFinite
from strategies.base import Federation, Round
from strategies.buffers import Buffers
from thinwire.errors import WireError
from thinwire.layout import Layout

MODEL = Layout.flat(3)
FEDERATION = Federation(MODEL, 3, 0, torch.float32, (0.5, 0.3, 0.2))
BUFFERS = Buffers(Layout.flat(4, "running"))


def answers(values):
    return [(i, BUFFERS.collect(torch.zeros(4), value, Round(1, FEDERATION, i))) for i, value in values.items()]


def test_buffers_of_a_model_are_its_running_statistics_and_no_counter():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    buffers = Buffers.of(model)
    assert [entry.name for entry in buffers.layout.entries] == ["1.running_mean", "1.running_var"]
    assert Buffers.of(nn.Linear(3, 4)) is None


def test_the_replica_becomes_the_weighted_mean_over_those_who_answered():
    values = {0: torch.tensor([1.0, 2.0, 3.0, 4.0]), 2: torch.tensor([8.0, 2.0, -3.0, 0.0])}
    packet = BUFFERS.combine(torch.zeros(4), iter(answers(values)), Round(1, FEDERATION))
    after = BUFFERS.apply(torch.zeros(4), packet, Round(1, FEDERATION))
    assert torch.allclose(after, (0.5 * values[0] + 0.2 * values[2]) / 0.7)
    assert after.dtype == torch.float32


def test_nobody_answered_leaves_the_replica():
    replica = BUFFERS.begin(torch.arange(4.0))
    packet = BUFFERS.combine(replica, (), Round(1, FEDERATION))
    assert packet == {}
    assert torch.equal(BUFFERS.apply(replica, packet, Round(1, FEDERATION)), replica)


def test_hostile_buffers_are_wire_errors():
    here = Round(1, FEDERATION, 0)
    good = answers({0: torch.ones(4)})[0][1]
    BUFFERS.validate(good, here)
    short = Buffers(Layout.flat(3)).collect(torch.zeros(3), torch.ones(3), here)
    for bad in ({}, {**good, "more": good["mean"]}, {"other": good["mean"]}, short):
        with pytest.raises(WireError):
            BUFFERS.validate(bad, here)
    with pytest.raises(WireError, match="missing"):
        BUFFERS.apply(torch.zeros(4), {"other": good["mean"]}, here)


def test_diverged_statistics_never_leave_the_client():
    with pytest.raises(NonFinite):
        BUFFERS.collect(torch.zeros(4), torch.tensor([1.0, float("nan"), 0.0, 0.0]), Round(1, FEDERATION, 0))
