"""Tasks with parameters that ascend: an oracle answers with the operator of the saddle point."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from client.local import LocalOptions
from client.oracles import TorchOracle
from compressors.natural import Natural
from compressors.top_k import TopK
from strategies.extragradient import Extragradient
from strategies.loop import World
from strategies.masha1 import MASHA1
from strategies.masha2 import MASHA2
from thinwire.errors import ConfigError
from thinwire.lab.network import NetworkProblem
from thinwire.random import Key
from thinwire.tasks.adversarial_digits import AdversarialDigits
from thinwire.tasks.base import Task
from thinwire.tasks.examples import TensorExamples
from thinwire.tasks.registry import initial_model, load_task, registry, trainable_layout

CPU = torch.device("cpu")
F64 = torch.float64


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TwoPlayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([1.0, -2.0]))
        self.y = nn.Parameter(torch.tensor([0.5, 3.0, 1.0]))


@dataclass(frozen=True)
class Game(Task):
    """``loss(x, y) = mean_j (x^T A_j y) + |x|^2/2 - |y|^2/2``, with the A_j as examples."""

    name: ClassVar[str] = "game"

    def model(self):
        return TwoPlayers()

    def ascends(self, parameter):
        return parameter == "y"

    def train_examples(self, partition, partitions, seed):
        return TensorExamples(torch.arange(12.0, dtype=F64).reshape(2, 2, 3) / 6)

    def test_examples(self):
        return self.train_examples(0, 1, 0)

    def loss(self, model, batch):
        (matrices,) = batch
        x, y = model.x, model.y
        return x @ matrices.mean(0) @ y + x.square().sum() / 2 - y.square().sum() / 2

    def evaluate(self, model, examples, device):
        return {"loss": 0.0}


def oracle_of(task, trainable=(), **options):
    layout = trainable_layout(task.model(), trainable)
    return TorchOracle.of(task, task.train_examples(0, 1, 0), layout, F64, CPU, LocalOptions(**options))


def start_of(oracle, seed=0):
    model = initial_model(oracle.model.task, seed)
    return oracle.model.layout.flatten(dict(model.named_parameters()), F64)


def test_an_oracle_answers_with_the_gradient_of_x_and_minus_that_of_y():
    oracle = oracle_of(Game(), batch=2)
    x, y = torch.tensor([1.0, -2.0], dtype=F64), torch.tensor([0.5, 3.0, 1.0], dtype=F64)
    matrix = oracle.examples.tensors[0].mean(0)
    wanted = torch.cat([matrix @ y + x, -(matrix.T @ x - y)])
    assert torch.allclose(oracle.full(torch.cat([x, y])), wanted, rtol=1e-14)
    assert torch.allclose(oracle.sample(torch.cat([x, y]), Key(0)), wanted, rtol=1e-14)


def test_a_local_step_descends_on_x_and_ascends_on_y():
    oracle = oracle_of(Game(), batch=2, steps=1, rate=0.1)
    z = start_of(oracle)
    assert torch.allclose(oracle.local(z, Key(0)).update, 0.1 * oracle.full(z), rtol=1e-14)


def test_steps_of_the_operator_find_the_saddle_point_at_zero():
    oracle = oracle_of(Game(), batch=2, steps=400, rate=0.1)
    z = start_of(oracle)
    assert float((z - oracle.local(z, Key(0)).update).abs().max()) < 1e-6


def test_a_sum_over_several_passes_changes_no_sign_on_the_way():
    task = AdversarialDigits(hidden=(8,), partition="all")
    oracle = oracle_of(task)
    assert len(oracle.examples) > 1024  # more than one pass of ``full``
    z = start_of(oracle) + 0.01
    model = task.model().double()
    with torch.no_grad():
        for name, value in oracle.model.layout.unflatten(z).items():
            model.get_parameter(name).copy_(value)
    images, labels = oracle.examples.tensors
    gradients = dict(
        zip(
            oracle.model.layout.unflatten(z),
            torch.autograd.grad(
                task.loss(model, (images.double(), labels)),
                [model.get_parameter(e.name) for e in oracle.model.layout.entries],
            ),
            strict=True,
        )
    )
    found = oracle.model.layout.unflatten(oracle.full(z))
    for name, gradient in gradients.items():
        sign = -1.0 if name == "perturbation" else 1.0
        assert torch.allclose(found[name], sign * gradient, rtol=1e-10, atol=1e-14)


def test_gradients_of_single_examples_have_the_signs_of_the_operator_too():
    oracle = oracle_of(AdversarialDigits(hidden=(8,), partition="all"), batch=16)
    z, seen = start_of(oracle), []
    with oracle.following("example", list(range(16)), lambda rows: seen.append(rows.clone())):
        operator = oracle.sample(z, Key(0))
    assert torch.allclose(torch.cat(seen).mean(0), operator, rtol=1e-9, atol=1e-12)
    assert float(oracle.model.layout.unflatten(operator)["perturbation"].abs().max()) > 0


def test_frozen_adversaries_stay_where_they_are():
    oracle = oracle_of(AdversarialDigits(hidden=(8,), partition="all"), trainable=("network.*",), steps=2)
    assert [entry.name for entry in oracle.model.layout.frozen] == ["perturbation"]
    assert oracle.local(start_of(oracle), Key(0)).update.numel() == oracle.model.layout.numel


# -- adversarial digits ------------------------------------------------------------------------------------------


def test_the_adversary_gains_by_the_operator_and_stays_within_its_strength():
    task = AdversarialDigits(hidden=(8,), partition="all")
    oracle = oracle_of(task)
    z = start_of(oracle)
    layout = oracle.model.layout
    operator = oracle.full(z)
    mask = layout.flatten({e.name: torch.full(e.shape, float(e.name == "perturbation")) for e in layout.entries}, F64)
    images, labels = oracle.examples.tensors
    batch = (images.double(), labels)
    models = (oracle.model.at(z - rate * mask * operator) for rate in (0.0, 1.0, 1e6))
    losses = [task.loss(model, batch).item() for model in models]
    assert losses[0] < losses[1] < losses[2]
    change = task.strength * torch.tanh(task.speed * oracle.model.flat.module.perturbation)
    assert change.abs().max().item() == task.strength  # as far as a tanh gets


def test_evaluation_attacks_the_network_anew_and_leaves_its_gradients_alone():
    task = AdversarialDigits(hidden=(32,), partition="all", client_test_fraction=0.2)
    oracle = oracle_of(task, steps=60, rate=0.5, batch=256)
    z = start_of(oracle)
    z = z - oracle.local(z, Key(0)).update
    before = oracle.model.flat.gradient.clone()
    metrics = oracle.evaluate(z, None, task.client_test_examples(0, 1, 0))
    assert torch.equal(oracle.model.flat.gradient, before)
    assert metrics["accuracy"] > 0.8
    assert metrics["robust_accuracy"] < metrics["accuracy"] - 0.1
    assert metrics["robust_loss"] > 1.5 * metrics["loss"]
    assert metrics == oracle.evaluate(z, None, task.client_test_examples(0, 1, 0))


def test_local_adversaries_are_no_parameters_and_attack_each_batch():
    task = AdversarialDigits(hidden=(8,), partition="all", adversary="local")
    names = [entry.name for entry in trainable_layout(task.model()).entries]
    assert all(name.startswith("network.") for name in names)
    model = initial_model(task)
    images, labels = task.train_examples(0, 1, 0).batch(torch.arange(64), CPU)
    attacked = task.loss(model, (images, labels))
    assert attacked.item() > nn.functional.cross_entropy(model(images), labels).item()
    attacked.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_options_out_of_range_are_refused():
    assert "adversarial-digits" in registry()
    for options in ({"strength": -1}, {"speed": 0}, {"attack_steps": 0}, {"hidden": [0]}, {"adversary": "remote"}):
        with pytest.raises(ConfigError):
            load_task({"name": "adversarial-digits", **options})


def game(clients=3, **options):
    return NetworkProblem(AdversarialDigits(hidden=(32,), **options), clients, LocalOptions(batch=64))


def played(problem, method, rounds):
    """Bytes up and down, and the evaluation at the end."""
    world = World.start(method, problem, weights=problem.weights, audit=False)
    sizes = [world.play(number) for number in range(1, rounds + 1)]
    metrics = problem.oracles[0].evaluate(world.model, None, problem.task.test_examples())
    return sum(up for up, _ in sizes), sum(down for _, down in sizes), metrics


def test_masha_follows_extragradient_on_the_game_for_a_fraction_of_its_bytes():
    problem = game()
    up, down, plain = played(problem, Extragradient(rate=0.15, work="minibatch"), 60)
    masha = MASHA1(Natural(), Natural(), rate=0.15, variance_reduction=False, work="minibatch")
    masha_up, masha_down, ours = played(problem, masha, 60)
    assert plain["accuracy"] > 0.5
    assert abs(ours["robust_loss"] - plain["robust_loss"]) < 0.02 * plain["robust_loss"]
    assert masha_up < up / 5
    assert masha_down < down / 5


@pytest.mark.slow
def test_the_game_makes_a_network_robust_with_top_k_both_ways():
    top = TopK(0.1)
    plain = Extragradient(rate=0.15, work="minibatch")
    masha = MASHA2(top, top, rate=0.15, variance_reduction=False, work="minibatch")
    up, down, dense = played(game(10), plain, 1200)
    masha_up, masha_down, sparse = played(game(10), masha, 1200)
    fearless = NetworkProblem(AdversarialDigits(hidden=(32,)), 10, LocalOptions(batch=64), trainable=("network.*",))
    _, _, undefended = played(fearless, plain, 1200)
    assert dense["robust_accuracy"] > undefended["robust_accuracy"] + 0.08
    assert sparse["robust_accuracy"] > dense["robust_accuracy"] - 0.03
    assert masha_up < up / 12
    assert masha_down < down / 12
