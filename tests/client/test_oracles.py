from dataclasses import dataclass

import pytest
import torch
from torch import nn

from client.local import LocalOptions
from client.lora import AdaptedLinear, add_adapters
from client.oracles import FULL_BATCH, TorchOracle
from strategies.base import Oracle
from thinwire.errors import ConfigError
from thinwire.random import Key, choose, permutation
from thinwire.tasks.digits import Digits
from thinwire.tasks.examples import TensorExamples
from thinwire.tasks.idx import IdxImages
from thinwire.tasks.registry import initial_model, load_task, trainable_layout

CPU = torch.device("cpu")
KEY = Key(7, "batch", round=3, client=2)
F64 = torch.float64
TASK = Digits(hidden=(16,), partition="iid")


def oracle_of(task=TASK, examples=None, trainable=(), dtype=F64, layout=None, **options):
    examples = task.train_examples(0, 10, 0) if examples is None else examples
    layout = layout or trainable_layout(task.model(), trainable)
    return TorchOracle.of(task, examples, layout, dtype, CPU, LocalOptions(**options))


def point(oracle, seed=0):
    model = initial_model(oracle.model.task, seed)
    return oracle.model.layout.flatten(dict(model.named_parameters()), oracle.model.dtype)


def plain_gradient(oracle, x, indices):
    """The gradient as anyone would write it: a fresh model, one loss, torch.autograd."""
    model = oracle.model.task.model().to(oracle.model.dtype)
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in oracle.model.layout.unflatten(x).items():
            named[name].copy_(value)
    inputs, labels = oracle.examples.batch(torch.as_tensor(indices), CPU)
    loss = oracle.model.task.loss(
        model, (inputs.to(oracle.model.dtype) if inputs.is_floating_point() else inputs, labels)
    )
    grads = torch.autograd.grad(loss, [named[e.name] for e in oracle.model.layout.entries])
    return torch.cat([g.reshape(-1) for g in grads])


def assert_close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


# -- gradients ---------------------------------------------------------------------------------------------------


def test_the_oracle_is_what_a_method_asks_for():
    oracle: Oracle = oracle_of()
    assert oracle.full(point(oracle)).shape == (oracle.model.layout.numel,)


def test_full_is_the_gradient_of_the_mean_loss():
    oracle = oracle_of()
    x = point(oracle)
    assert_close(oracle.full(x), plain_gradient(oracle, x, range(len(oracle.examples))))


def test_full_weights_the_last_and_smaller_pass_exactly():
    oracle = oracle_of(examples=TASK.train_examples(0, 1, 0))
    assert len(oracle.examples) % FULL_BATCH
    assert len(oracle.examples) > FULL_BATCH
    x = point(oracle)
    torch.testing.assert_close(oracle.full(x), plain_gradient(oracle, x, range(1438)), rtol=1e-10, atol=1e-15)
    assert oracle.metrics["examples"] == 1438


def test_sample_is_the_gradient_on_the_minibatch_that_the_key_draws():
    oracle = oracle_of(batch=20)
    x = point(oracle)
    drawn = choose(KEY.at("batch"), len(oracle.examples), 20)
    assert_close(oracle.sample(x, KEY), plain_gradient(oracle, x, drawn))


def test_the_same_key_gives_the_same_minibatch_at_two_points():
    seen = []

    class Watched(TensorExamples):
        def batch(self, indices, device):
            seen.append(indices.tolist())
            return super().batch(indices, device)

    oracle = oracle_of(examples=Watched(*TASK.train_examples(0, 10, 0).tensors))
    oracle.sample(point(oracle, 0), KEY)
    oracle.sample(point(oracle, 1), KEY)
    oracle.sample(point(oracle, 1), KEY.at(round=4))
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]
    assert len(set(seen[0])) == 32


def test_answers_are_new_tensors_and_the_point_is_untouched():
    oracle = oracle_of()
    x = point(oracle)
    before = x.clone()
    first = oracle.full(x)
    kept = first.clone()
    oracle.sample(x, KEY)
    oracle.local(x, KEY)
    assert torch.equal(first, kept)
    assert torch.equal(x, before)


def test_float32_agrees_with_float64_to_its_precision():
    wide, narrow = oracle_of(), oracle_of(dtype=torch.float32)
    x = point(narrow)
    assert narrow.full(x).dtype == torch.float32
    torch.testing.assert_close(narrow.full(x).double(), wide.full(x.double()), rtol=1e-4, atol=1e-6)


# -- local training ----------------------------------------------------------------------------------------------


def test_one_step_over_all_examples_is_rate_times_the_gradient():
    oracle = oracle_of(steps=1, rate=0.05, batch=10_000)
    x = point(oracle)
    local = oracle.local(x, KEY)
    torch.testing.assert_close(local.update, 0.05 * oracle.full(x), rtol=1e-9, atol=1e-15)
    assert (local.steps, local.rate) == (1, 0.05)


def reference_local(oracle, x, make, steps, correction=0.0):
    """Steps of a torch optimiser on successive batches of the keyed order."""
    options, total = oracle.model.options, len(oracle.examples)
    batches = []
    for number in range(steps):  # more passes than needed
        batches += torch.from_numpy(permutation(KEY.at(f"pass {number}"), total)).split(options.batch)
    moving = x.clone().requires_grad_()
    optimiser = make([moving])
    for batch in batches[:steps]:
        moving.grad = plain_gradient(oracle, moving.detach(), batch) + correction
        optimiser.step()
    return x - moving.detach()


@pytest.mark.parametrize(
    ("options", "make"),
    [
        ({}, lambda p: torch.optim.SGD(p, 0.1)),
        ({"momentum": 0.9}, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        ({"momentum": 0.5, "weight_decay": 0.1}, lambda p: torch.optim.SGD(p, 0.1, momentum=0.5, weight_decay=0.1)),
        ({"optimiser": "Adam", "rate": 0.01}, lambda p: torch.optim.Adam(p, 0.01)),
        (
            {"optimiser": "adamw", "rate": 0.01, "weight_decay": 0.1},
            lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
        ),
    ],
)
def test_local_training_is_that_of_torch_and_starts_anew_each_round(options, make):
    oracle = oracle_of(steps=7, batch=50, **options)
    x = point(oracle)
    expected = reference_local(oracle, x, make, 7)
    for _ in range(2):
        torch.testing.assert_close(oracle.local(x, KEY).update, expected, rtol=1e-8, atol=1e-12)


def test_the_correction_is_added_to_each_local_gradient():
    oracle = oracle_of(steps=3)
    x = point(oracle)
    correction = torch.linspace(-1, 1, len(x), dtype=F64)
    expected = reference_local(oracle, x, lambda p: torch.optim.SGD(p, 0.1), 3, correction)
    torch.testing.assert_close(oracle.local(x, KEY, correction).update, expected, rtol=1e-9, atol=1e-14)


def test_epochs_pass_over_every_example_that_often():
    oracle = oracle_of(epochs=2, batch=50)  # 144 examples: 50, 50, 44
    assert oracle.local(point(oracle), KEY).steps == 6
    assert oracle.metrics["examples"] == 288


def test_the_clients_of_one_process_share_a_model_and_answer_as_if_alone():
    model = oracle_of().model
    shared = [TorchOracle(model, TASK.train_examples(client, 10, 0)) for client in range(3)]
    x = point(shared[0])
    together = [oracle.local(x, KEY.at(client=client)).update for client, oracle in enumerate(shared)]
    for client, oracle in enumerate(shared):
        alone = oracle_of(examples=TASK.train_examples(client, 10, 0))
        assert torch.equal(together[client], alone.local(x, KEY.at(client=client)).update)
        assert oracle.metrics["train_loss"] == alone.metrics["train_loss"]


def test_local_training_lowers_the_loss():
    oracle = oracle_of(epochs=20, rate=0.5, dtype=torch.float32)
    x = point(oracle)
    oracle.full(x)
    before = oracle.metrics["train_loss"]
    update = oracle.local(x, KEY).update
    oracle.full(x - update)
    assert oracle.metrics["train_loss"] < before / 4


def test_the_metrics_of_the_last_call_are_mean_loss_examples_and_seconds():
    oracle = oracle_of(batch=30)
    x = point(oracle)
    oracle.full(x)
    inputs, labels = oracle.examples.tensors
    loss = oracle.model.task.loss(oracle.model.at(x), (inputs.double(), labels))
    assert oracle.metrics["train_loss"] == pytest.approx(loss.item(), rel=1e-12)
    oracle.sample(x, KEY)
    assert oracle.metrics["examples"] == 30
    assert 0 < oracle.metrics["seconds"] < 5


# -- determinism -------------------------------------------------------------------------------------------------


DROPPED = Digits(hidden=(16,), dropout=0.5, partition="iid")


@pytest.mark.parametrize("task", [TASK, DROPPED])
def test_the_same_key_gives_the_same_bits_on_another_oracle_after_other_work(task):
    first, second = oracle_of(task, dtype=torch.float32), oracle_of(task, dtype=torch.float32)
    x = point(first)
    second.local(point(second, 5), KEY.at(round=9))
    torch.rand(11)
    assert torch.equal(first.local(x, KEY).update, second.local(x, KEY).update)
    assert torch.equal(first.sample(x, KEY), second.sample(x, KEY))
    assert torch.equal(first.full(x), second.full(x))
    assert not torch.equal(first.local(x, KEY).update, first.local(x, KEY.at(client=3)).update)


@pytest.mark.parametrize("task", [TASK, DROPPED])
def test_the_users_own_random_state_is_left_alone(task):
    layout = trainable_layout(task.model())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    oracle = oracle_of(task, layout=layout)
    x = point(oracle)
    oracle.full(x)
    oracle.sample(x, KEY)
    oracle.local(x, KEY)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_points_see_the_same_dropout_under_one_key():
    class Watched(Digits):
        def loss(self, model, batch):
            masks.append(model[:3](batch[0]) == 0)
            return super().loss(model, batch)

    masks = []
    task = Watched(hidden=(16,), dropout=0.5, partition="iid")
    oracle = oracle_of(task)
    x = point(oracle)
    for near, key in ((x, KEY), (x + 1e-9, KEY), (x, KEY.at(round=4))):
        oracle.sample(near, key)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_full_does_not_drop_anything():
    dropped, plain = oracle_of(DROPPED), oracle_of(TASK)
    numel = plain.model.layout.numel
    x = torch.linspace(-0.1, 0.1, numel, dtype=F64)
    assert torch.equal(dropped.full(x), plain.full(x))
    assert not torch.equal(dropped.sample(x, KEY), plain.sample(x, KEY))


# -- buffers -----------------------------------------------------------------------------------------------------


IMAGES = IdxImages(".", size=(8, 8), channels=(3, 4), norm="batch")


def image_oracle(**options):
    tensors = (torch.arange(40 * 64).reshape(40, 8, 8) % 256).to(torch.uint8), torch.arange(40) % 10
    return oracle_of(IMAGES, TensorExamples(*tensors), **options)


def test_the_running_means_of_batch_norm_are_one_flat_tensor():
    oracle = image_oracle()
    names = [entry.name for entry in oracle.model.buffer_layout.entries]
    assert names == ["2.running_mean", "2.running_var", "6.running_mean", "6.running_var"]
    assert oracle.buffers.tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 4 + [1.0] * 4
    oracle.local(point(oracle), KEY)
    moved = oracle.buffers
    assert moved.dtype == F64
    assert (moved != torch.tensor([0.0] * 3 + [1.0] * 3 + [0.0] * 4 + [1.0] * 4)).all()


def test_buffers_that_are_set_are_those_that_work_starts_from():
    oracle, other = image_oracle(), image_oracle()
    x = point(oracle)
    start = torch.linspace(0.5, 1.5, 14, dtype=F64)
    oracle.local(x, KEY.at(round=8))
    oracle.buffers = start
    assert torch.equal(oracle.buffers, start)
    other.buffers = start
    assert torch.equal(oracle.local(x, KEY).update, other.local(x, KEY).update)
    assert torch.equal(oracle.buffers, other.buffers)
    evaluated = oracle.model.at(x, start)
    assert not evaluated.training
    assert torch.equal(oracle.buffers, start)


def test_a_model_without_buffers_has_no_layout_for_them_and_takes_none():
    oracle = oracle_of()
    assert oracle.model.buffer_layout is None
    assert oracle.buffers.shape == (0,)
    oracle.buffers = torch.empty(0)
    with pytest.raises(ConfigError, match="the model has 0 floats in its buffers"):
        oracle.buffers = torch.zeros(2)


def test_convolutions_and_batch_norm_give_the_plain_gradient():
    oracle = image_oracle()
    x = point(oracle)
    torch.testing.assert_close(oracle.full(x), plain_gradient(oracle, x, range(40)), rtol=1e-9, atol=1e-14)


# -- what is trained ---------------------------------------------------------------------------------------------


def test_only_the_chosen_parameters_move():
    oracle = oracle_of(trainable=["2.*"])
    assert oracle.model.layout.numel == 170
    frozen = {"0.weight": torch.full((16, 64), 0.01), "0.bias": torch.full((16,), 0.2)}
    before = oracle.model.frozen_digest()
    oracle.model.load_frozen(frozen)
    digest = oracle.model.frozen_digest()
    assert digest != before
    oracle.local(point(oracle), KEY)
    assert oracle.model.frozen_digest() == digest
    assert len(digest) == 16
    assert torch.equal(oracle.model.at(point(oracle))[0].weight, frozen["0.weight"].double())
    assert oracle_of().model.frozen_digest() == b""


@pytest.mark.parametrize(
    ("tensors", "wrong"),
    [
        ({"0.weight": torch.zeros(16, 64)}, "'0.bias' is missing"),
        ({"0.weight": torch.zeros(16, 64), "0.bias": torch.zeros(16), "9": torch.zeros(1)}, "'9' is unknown"),
        ({"0.weight": torch.zeros(64, 16), "0.bias": torch.zeros(16)}, r"shape \(64, 16\)"),
    ],
)
def test_frozen_parameters_that_do_not_fit_are_refused_and_nothing_changes(tensors, wrong):
    oracle = oracle_of(trainable=["2.*"])
    before = oracle.model.frozen_digest()
    with pytest.raises(ConfigError, match=wrong):
        oracle.model.load_frozen(tensors)
    assert oracle.model.frozen_digest() == before


@dataclass(frozen=True)
class AdaptedDigits(Digits):
    def model(self):
        return add_adapters(super().model(), ["0", "2"], rank=2)


def test_adapters_change_nothing_at_first_and_train_alone():
    task = AdaptedDigits(hidden=(16,), partition="iid")
    oracle = oracle_of(task, epochs=40, rate=0.03)
    names = [entry.name for entry in oracle.model.layout.entries]
    assert names == ["0.down", "0.up", "2.down", "2.up"]
    assert oracle.model.layout.numel == 2 * (64 + 16) + 2 * (16 + 10)
    x = point(oracle)
    model = oracle.model.at(x)
    inputs = oracle.examples.tensors[0].double()
    bare = nn.Sequential(model[0].base, model[1], model[2].base)
    assert torch.equal(model(inputs), bare(inputs))
    oracle.full(x)
    before, digest = oracle.metrics["train_loss"], oracle.model.frozen_digest()
    oracle.full(x - oracle.local(x, KEY).update)
    assert oracle.metrics["train_loss"] < 0.7 * before
    assert oracle.model.frozen_digest() == digest


def test_adapters_for_no_layer_and_of_no_rank_are_refused():
    with pytest.raises(ConfigError, match="no linear layer matches 'head'"):
        add_adapters(TASK.model(), ["head"])
    with pytest.raises(ConfigError, match="rank = 0"):
        add_adapters(TASK.model(), rank=0)
    assert isinstance(add_adapters(nn.Sequential(nn.Sequential(nn.Linear(2, 2))))[0][0], AdaptedLinear)


# -- any model ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Words(Digits):
    """A sparse embedding, a tied weight, and a parameter that no loss touches."""

    def model(self):
        model = nn.Module()
        model.embedding = nn.Embedding(12, 5, sparse=True)
        model.head = nn.Linear(5, 12)
        model.tied = nn.Linear(5, 12, bias=False)
        model.tied.weight = model.head.weight
        model.idle = nn.Parameter(torch.ones(3))
        return model

    def loss(self, model, batch):
        tokens, following = batch
        hidden = model.embedding(tokens)
        return nn.functional.cross_entropy(model.head(hidden) + model.tied(hidden), following)


@dataclass(frozen=True)
class Counting(Digits):
    """Running means over all batches so far, which the counter of batch norm says."""

    def model(self):
        return nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8, momentum=None), nn.Linear(8, 10))


def test_the_counter_of_batch_norm_starts_anew_in_every_answer_whoever_computed_before():
    task = Counting(partition="iid")
    warm, fresh = oracle_of(task, steps=2), oracle_of(task, steps=2)
    start, x = warm.buffers, point(warm)
    warm.local(x, KEY)
    for oracle in (warm, fresh):
        oracle.buffers = start
        oracle.local(x, KEY)
    assert torch.equal(warm.buffers, fresh.buffers)


def test_sparse_tied_and_idle_parameters_have_their_gradient():
    task, examples = Words(), TensorExamples(torch.arange(40) % 12, (torch.arange(40) * 5 + 1) % 12)
    oracle = oracle_of(task, examples, batch=16, steps=3)
    x = point(oracle)
    dense = task.model().double()
    dense.embedding.sparse = False
    named = dict(dense.named_parameters())
    with torch.no_grad():
        for name, value in oracle.model.layout.unflatten(x).items():
            named[name].copy_(value)
    task.loss(dense, examples.batch(torch.arange(40), CPU)).backward()
    named["idle"].grad = torch.zeros(3, dtype=F64)
    expected = oracle.model.layout.flatten({name: parameter.grad for name, parameter in named.items()})
    for _ in range(2):
        assert_close(oracle.full(x), expected)
    assert oracle.local(x, KEY).update.count_nonzero() > 100


def test_a_loss_that_is_no_scalar_and_a_point_of_another_size_are_refused():
    class Loose(Digits):
        def loss(self, model, batch):
            return super().loss(model, batch).expand(2)

    oracle = oracle_of(Loose(hidden=(), partition="iid"))
    with pytest.raises(ConfigError, match=r"loss has shape \(2,\)"):
        oracle.full(point(oracle))
    with pytest.raises(ConfigError, match="the model has 650 parameters"):
        oracle.full(torch.zeros(3))


def test_a_client_without_examples_and_a_layout_of_another_model_are_refused():
    with pytest.raises(ConfigError, match="no examples"):
        oracle_of(examples=TASK.train_examples(0, 10, 0).subset([]))
    with pytest.raises(ConfigError, match="shape"):
        oracle_of(layout=trainable_layout(Digits(hidden=(17,)).model()))


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"steps": 0}, "steps = 0"),
        ({"batch": 0}, "batch = 0"),
        ({"epochs": -1}, "epochs = -1"),
        ({"rate": 0.0}, "rate = 0.0"),
        ({"rate": float("nan")}, "rate = nan"),
        ({"momentum": 1.0}, "momentum = 1.0"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1"),
        ({"optimiser": "adan"}, "'adan' is unknown; did you mean 'adam'"),
        ({"optimiser": "lbfgs"}, "'lbfgs' is unknown"),
    ],
)
def test_local_options_out_of_range_are_refused(options, wrong):
    with pytest.raises(ValueError, match=wrong):
        LocalOptions(**options)


def test_an_option_that_the_optimiser_lacks_is_refused():
    oracle = oracle_of(optimiser="adam", momentum=0.9)
    with pytest.raises(ConfigError, match=r"local.optimiser = 'adam' does not take these options.*momentum"):
        oracle.local(point(oracle), KEY)


# -- the example -------------------------------------------------------------------------------------------------


def test_the_smallest_task_of_ones_own_learns_its_line():
    task = load_task({"name": "examples.own_task:Line", "noise": 0.0})
    oracle = oracle_of(task, task.train_examples(0, 2, 0), steps=500, rate=0.3)
    start = point(oracle)
    end = start - oracle.local(start, KEY).update
    torch.testing.assert_close(end, torch.tensor([3.0, -1.0], dtype=F64), rtol=1e-3, atol=1e-3)
    assert oracle.evaluate(end, None, task.test_examples())["loss"] < 1e-4


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_answers_agree_with_the_cpu_and_repeat():
    cpu = oracle_of(DROPPED)
    cuda = TorchOracle.of(DROPPED, DROPPED.train_examples(0, 10, 0), cpu.model.layout, F64, "cuda:0", cpu.model.options)
    x = point(cpu)
    before = torch.cuda.get_rng_state()
    torch.testing.assert_close(cuda.full(x.cuda()).cpu(), cpu.full(x), rtol=1e-9, atol=1e-12)
    assert torch.equal(cuda.local(x.cuda(), KEY).update, cuda.local(x.cuda(), KEY).update)
    assert torch.equal(torch.cuda.get_rng_state(), before)
