"""A client's local optimiser under the protocol: its state moves exactly when the server has applied the uplink."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from world import Faults, World

from strategies.base import Local, Method, Oracle
from strategies.builder import build_method
from strategies.problems import ridge
from strategies.remembering import Remembering
from thinwire.errors import RoundError
from thinwire.random import Key

PROBLEM = ridge(clients=5, rows=60, numel=30)


@dataclass(frozen=True)
class HeavyBall:
    """Three local steps with a momentum that is kept from round to round."""

    inner: Oracle

    def full(self, x: Tensor) -> Tensor:
        return self.inner.full(x)

    def sample(self, x: Tensor, key: Key) -> Tensor:
        return self.inner.sample(x, key)

    def local(self, x: Tensor, key: Key, correction: Tensor | None = None, memory: Tensor | None = None) -> Local:
        z, rate, velocity = x, 0.05 / PROBLEM.L, torch.zeros_like(x) if memory is None else memory
        for _ in range(3):
            velocity = 0.9 * velocity + self.inner.full(z)
            z = z - rate * velocity
        return Local(x - z, 3, rate, velocity)


def method(name: str) -> Method:
    uplink = {} if name == "fedavg" else {"name": "top-k", "fraction": 0.3, "values": "fp32", "scope": "global"}
    return build_method({"name": name}, uplink)


def world_of(name: str, **options) -> World:
    return World(method(name), PROBLEM, oracles=[HeavyBall(oracle) for oracle in PROBLEM.oracles], **options)


def memories(world: World) -> list[Tensor]:
    """The committed or pending memory of each client, as the server's chain has it."""
    found = []
    for record in world.ledger.roster.clients:
        participant = world.network.desks[100 + record.index]._seated[world.ledger.run]
        held = [s for s in (participant._committed, participant._pending) if s is not None and s.chain == record.chain]
        assert isinstance(held[0].private, Remembering)
        found.append(held[0].private.memory)
    return found


@pytest.mark.parametrize("name", ["fedavg", "ef21", "ef14"])
def test_an_answer_that_was_never_decided_leaves_no_trace_in_the_memory(name: str, tmp_path: Path) -> None:
    undisturbed = world_of(name).play(14)
    world = world_of(name, client_folder=tmp_path, round={"deadline_seconds": 30.0, "retries": 2}).play(7)
    world.network.faults = Faults(lost_answers=1.0)
    with pytest.raises(RoundError, match="fewer than 1 of 5 clients answered"):
        world.coordinator.round()  # three attempts: each computed from the committed memory
    world.network.faults = Faults()
    for index in range(5):
        world.start_client(index)
    assert world.play(7).digest() == undisturbed.digest()
    for own, other in zip(memories(world), memories(undisturbed), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("name", ["fedavg", "ef21"])
def test_a_client_that_is_started_again_goes_on_with_its_memory(name: str, tmp_path: Path) -> None:
    undisturbed = world_of(name).play(10)
    world = world_of(name, client_folder=tmp_path).play(4)
    for index in range(5):
        world.start_client(index)
        world.play(1)
    assert world.play(1).digest() == undisturbed.digest()


@pytest.mark.parametrize("name", ["fedavg", "ef21"])
def test_a_client_that_lost_its_disk_begins_its_memory_anew_and_nothing_else(name: str) -> None:
    undisturbed, world = world_of(name).play(4), world_of(name).play(4)
    world.start_client(3, keep_disk=False)
    for each in (undisturbed, world):
        each.play(1)
    same = [torch.equal(a, b) for a, b in zip(memories(world), memories(undisturbed), strict=True)]
    assert same == [True, True, True, False, True]
    assert "reset" not in world.events()
