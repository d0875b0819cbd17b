"""The state of a client's local optimiser: kept from round to round on request, as a value that is never consumed."""

import json

import pytest
import torch

from client.local import LocalOptions
from client.oracles import TorchOracle
from client.workshop import Workshop
from strategies.base import Federation, Round
from strategies.bundle import Bundle
from strategies.descent import Descent
from strategies.ef21 import EF21
from strategies.remembering import Remembering, private_of
from strategies.torch_optimiser import torch_optimisers
from thinwire import state
from thinwire.config import to_options
from thinwire.errors import ConfigError
from thinwire.random import Key
from thinwire.run_config import RunConfig
from thinwire.tasks.digits import Digits
from thinwire.tasks.registry import initial_model, trainable_layout

TASK = Digits(hidden=(8,), partition="iid")
LAYOUT = trainable_layout(TASK.model())
EXAMPLES = TASK.train_examples(0, 10, 0)
KEY = Key(7, "batch", round=3, client=2)
MATRICES_ONLY = {"muon"}


def oracle_of(dtype=torch.float64, **options) -> TorchOracle:
    return TorchOracle.of(TASK, EXAMPLES, LAYOUT, dtype, "cpu", LocalOptions(**options))


def start(dtype=torch.float64) -> torch.Tensor:
    return LAYOUT.flatten(dict(initial_model(TASK, 0).named_parameters()), dtype)


@pytest.mark.parametrize("name", sorted(set(torch_optimisers()) - MATRICES_ONLY))
def test_two_trainings_with_the_memory_between_are_one_twice_as_long(name):
    options = {"optimiser": name, "rate": 0.01, "batch": 50_000, "keep": True}  # all examples: the same in any order
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    short, long = oracle_of(steps=3, **options, **momentum), oracle_of(steps=6, **options, **momentum)
    x = start()
    first = short.local(x, KEY)
    second = short.local(x - first.update, KEY.at(round=4), None, state.load(state.dump(first.memory)))
    wanted = long.local(x, KEY)
    torch.testing.assert_close(first.update + second.update, wanted.update, rtol=1e-7, atol=1e-12)
    forgetful = first.update + short.local(x - first.update, KEY.at(round=4)).update
    if name not in ("adadelta", "asgd", "rprop"):  # of these the first steps hardly depend on what was before
        assert (forgetful - wanted.update).abs().max() > 1e-6


@pytest.mark.parametrize(
    "options", [{"optimiser": "adamw", "rate": 0.01}, {"momentum": 0.9}, {"options": {"momentum": 0.9}}]
)
def test_a_memory_is_left_as_it_is_so_that_a_round_can_be_rolled_back(options):
    oracle = oracle_of(steps=4, keep=True, **options)
    x = start()
    memory = oracle.local(x, KEY).memory
    before = state.digest(memory)
    once = oracle.local(x, KEY.at(round=4), None, memory)
    again = oracle.local(x, KEY.at(round=4), None, memory)
    assert state.digest(memory) == before
    assert torch.equal(once.update, again.update)
    assert state.same(once.memory, again.memory)
    assert state.digest(once.memory) != before


def test_without_keep_there_is_no_memory_and_plain_sgd_has_none_to_keep():
    assert oracle_of(optimiser="adamw").local(start(), KEY).memory is None
    assert oracle_of(momentum=0.9).local(start(), KEY).memory is None
    assert oracle_of(keep=True).local(start(), KEY).memory is None
    assert oracle_of(keep=True, momentum=0.9).local(start(), KEY).memory is not None


def test_further_options_go_to_the_optimiser_as_they_are():
    x = start()
    ours = oracle_of(optimiser="adamw", rate=0.01, steps=2, options={"betas": [0.5, 0.9], "amsgrad": True})
    plain = oracle_of(optimiser="adamw", rate=0.01, steps=2)
    assert not torch.equal(ours.local(x, KEY).update, plain.local(x, KEY).update)
    nesterov = oracle_of(momentum=0.9, steps=3, options={"nesterov": True})
    heavy = oracle_of(momentum=0.9, steps=3)
    assert not torch.equal(nesterov.local(x, KEY).update, heavy.local(x, KEY).update)
    wrong = oracle_of(optimiser="adamw", options={"beta": 0.5})
    with pytest.raises(ConfigError, match=r"local.optimiser = 'adamw' does not take these options.*beta"):
        wrong.local(x, KEY)


def test_the_memory_lies_beside_the_methods_own_private_state_and_a_newcomer_has_none():
    bundle = Bundle(Descent(EF21()))
    federation = Federation.uniform(LAYOUT, 2, 0, torch.float64)
    replica, _ = bundle.begin(start(), None, federation)
    oracle = oracle_of(optimiser="adamw", rate=0.01, steps=2, keep=True)
    private, digests = bundle.join(replica), []
    for number in (1, 2):
        before = state.digest(private) if number > 1 else b""
        after, uplink = bundle.respond(replica, private, oracle, Round(number, federation, 1))
        if number > 1:
            assert state.digest(private) == before
        assert isinstance(after, Remembering)
        digests.append(uplink)
        private = state.load(state.dump(after))
    method = bundle.method
    mirror = method.mirror(private_of(private))
    assert torch.equal(mirror, method.mirror(private.private))
    assert not isinstance(bundle.join(replica, mirror), Remembering)
    forgetful, uplink = bundle.respond(replica, bundle.join(replica, mirror), oracle, Round(3, federation, 1))
    remembering, other = bundle.respond(replica, private, oracle, Round(3, federation, 1))
    assert uplink["method.update"] != other["method.update"]
    assert private_of(forgetful).g.shape == private_of(remembering).g.shape


def test_a_method_that_asks_no_local_training_gets_no_memory():
    bundle = Bundle(Descent(EF21(), work="full"))
    federation = Federation.uniform(LAYOUT, 2, 0, torch.float64)
    replica, _ = bundle.begin(start(), None, federation)
    oracle = oracle_of(optimiser="adamw", keep=True)
    after, _ = bundle.respond(replica, bundle.join(replica), oracle, Round(1, federation, 1))
    assert not isinstance(after, Remembering)


def test_a_client_of_a_diloco_run_keeps_its_moments():
    config = RunConfig.of({"method": "diloco", "clients": 3, "local": {"steps": 2}, "task": {"hidden": [8]}})
    place = Workshop(json.dumps(to_options(config)), 3, {}, "cpu").workplace(1)
    here = Round(1, place.federation, 1)
    after, _ = place.bundle.respond(place.template, place.bundle.join(place.template), place.oracle, here)
    assert isinstance(after, Remembering)
    names = {name for name, _ in after.memory.tensors[0]}
    assert names == {"step", "exp_avg", "exp_avg_sq"}
